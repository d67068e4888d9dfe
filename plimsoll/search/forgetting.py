"""What models tuned from one base have forgotten of it, seen on the rows of another task, and which forgot more."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench import likeness
from plimsoll.bench.many import LEVEL
from plimsoll.bench.stats import Floats, mean, paired_difference, proportion
from plimsoll.core.errors import DataError
from plimsoll.core.evaluation import Forgetting, Forgotten, LayerLikeness
from plimsoll.core.record import Measurement
from plimsoll.data.read import read
from plimsoll.data.rows import Rows
from plimsoll.data.rows import targets as rows_targets
from plimsoll.data.split import stratified
from plimsoll.train import forgetting

ROWS = 4000
"""Rows of the other task that are used at most: MiniLM embeds as many in some ten seconds on two cores."""
_HELD, _CHOOSE = 0.8, 0.25
"""Share of these that the probe is judged on, and share of the rest that chooses its penalty. A probe that learns from
few rows shows what the representation has sorted already; one that learns from many makes up for what is lost."""
_COMPARED = 1000
_FEWEST_HELD = 40

Embed = Callable[[Path, Path, int, Path], object]
"""(model folder, file with a JSON list of texts, how many of them layer by layer, .npz file to write)."""


class Tuned(NamedTuple):
    """A model that was tuned from the base."""

    name: str
    says: str
    model: Path


@dataclass(frozen=True)
class Parts:
    """The rows of the other task, and what each is for."""

    learn: Rows
    choose: Rows
    held: Rows

    @property
    def labels(self) -> list[str]:
        """Every label, sorted."""
        return sorted({*self.learn.names(), *self.choose.names(), *self.held.names()})


@dataclass(frozen=True)
class _Seen:
    """What one model makes of the rows."""

    right: NDArray[np.bool_]
    """Held rows that its probe has right."""
    pairs: Floats
    """Of each compared row; see `likeness.pairs`."""
    layers: NDArray[np.float32]
    """float32 [layers + 1, compared, hidden]."""


def parts_of(other: Path, seed: int = 0) -> Parts:
    """Return the parts of a file of rows with a `text` and a `label`; raises DataError for rows that cannot be used."""
    return cut(read(str(other.resolve()), split="train", text="text", label="label"), seed)


def measured(base: Path, tuned: Sequence[Tuned], parts: Parts, embed: Embed, seed: int = 0) -> Forgotten:
    """Return what each tuned model has forgotten of the base, and whether they can be put in order.

    parts: rows of a task that none of the models was tuned for. All models see the same rows in the same parts, so
    every difference is paired. Raises what `embed` raises.
    """
    held = len(parts.held)
    compared = min(_COMPARED, held)
    # rows of a file often come sorted by label: those compared are to be of all of them
    order = np.random.default_rng(seed).permutation(held)
    texts = [*(parts.held.texts[i] for i in order), *parts.learn.texts, *parts.choose.texts]
    named = [*(parts.held.labels[i] for i in order), *parts.learn.labels, *parts.choose.labels]
    targets = rows_targets(named, parts.labels)

    def seen(model: Path, scratch: Path) -> _Seen:
        embed(model, scratch / "texts.json", compared, scratch / "states.npz")
        found = forgetting.read(scratch / "states.npz")
        # the probe wants the held rows last
        turned = np.r_[held : len(targets), :held]
        right = forgetting.probe(
            found.last[turned], targets[turned], len(parts.labels), len(parts.learn), len(parts.choose))
        return _Seen(right, likeness.pairs(found.last[:compared], targets[:compared]), found.layers)

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "texts.json").write_text(json.dumps(texts))
        before = seen(base, Path(folder))
        after = [seen(one.model, Path(folder)) for one in tuned]
    pairs = sorted(zip(tuned, after, strict=True), key=lambda pair: -int(pair[1].right.sum()))
    models = tuple(_compared(one, before, now, LEVEL / len(tuned)) for one, now in pairs)
    says, ordered = _order(models, [now for _, now in pairs])
    return Forgotten(
        other="/".join(Path(parts.held.source).parts[-2:]), classes=len(parts.labels), learn=len(parts.learn),
        choose=len(parts.choose), held=held, compared=compared, base_probe=_share(before.right),
        base_pairs=_of_pairs(before.pairs), models=models,
        verdict=" ".join([*(_loss(m, held) for m in models), *says]), ordered=ordered)


def cut(rows: Rows, seed: int) -> Parts:
    """Return at most 4,000 of the rows in three parts, each class with its share of every part.

    Raises DataError when there is one class only, or when fewer than 40 rows are left to judge on.
    """
    taken = rows if len(rows) <= ROWS else stratified(rows, ROWS / len(rows), seed)[1]
    learning, held = stratified(taken, _HELD, seed)
    learn, choose = stratified(learning, _CHOOSE, seed)
    if len(set(learn.labels)) < 2:
        raise DataError(f"{rows.source} has fewer than two classes to tell apart",
                        "give the rows of a task with at least two labels")
    if len(held) < _FEWEST_HELD or not len(choose):
        raise DataError(f"{rows.source} has {len(rows):,} rows, too few to see forgetting on",
                        f"give {round(_FEWEST_HELD / _HELD * 1.5)} rows or more; some thousands see losses of a point")
    return Parts(learn, choose, held)


def _compared(one: Tuned, before: _Seen, now: _Seen, level: float) -> Forgetting:
    alike = likeness.neighbours(before.layers[-1], now.layers[-1])
    return Forgetting(
        name=one.name, says=one.says, probe=_share(now.right),
        change=paired_difference(before.right, now.right), pairs=_of_pairs(now.pairs),
        pairs_change=_of_pairs(now.pairs - before.pairs), neighbours=mean(alike, unit="share"),
        layers=_layers(before.layers, now.layers),
        forgets=paired_difference(before.right, now.right, 1 - level).high < 0)


def _layers(before: NDArray[np.float32], now: NDArray[np.float32]) -> tuple[LayerLikeness, ...]:
    """Return each layer of the tuned model beside that of the base at the same share of its depth."""
    deepest, depth = len(before) - 1, len(now) - 1
    beside = [round(i * deepest / depth) for i in range(depth + 1)]
    return tuple(
        LayerLikeness(layer=i, base_layer=j, cka=likeness.cka(before[j], now[i])) for i, j in enumerate(beside))


def _order(models: Sequence[Forgetting], found: Sequence[_Seen]) -> tuple[list[str], bool]:
    """Return for each two neighbours in the order whether the rows tell them apart, in words; and whether all are."""
    count = len(models) - 1
    sentences: list[str] = []
    told = 0
    for i in range(count):
        less, more = models[i], models[i + 1]
        change = paired_difference(found[i].right, found[i + 1].right, 1 - LEVEL / count)
        if change.high < 0:
            told += 1
            sentences.append(f"{more.name} forgets measurably more than {less.name}: {_points(change)}.")
        else:
            sentences.append(f"The {change.n:,} rows do not tell {more.name} and {less.name} apart: {_points(change)}.")
    return sentences, count > 0 and told == count


def _loss(model: Forgetting, held: int) -> str:
    if model.forgets:
        return (f"{model.name} has forgotten some of what the base model could do: a linear probe changes by "
                f"{_points(model.change)} on {held:,} rows.")
    return (f"{model.name} has forgotten nothing that {held:,} rows would show: the probe changes by "
            f"{_points(model.change)}.")


def _share(right: NDArray[np.bool_]) -> Measurement:
    return proportion(int(right.sum()), len(right))


def _of_pairs(values: Floats) -> Measurement:
    return mean(values[~np.isnan(values)], unit="auc")


def _points(m: Measurement) -> str:
    return f"{m.value * 100:+.2f} points ({m.low * 100:+.2f} to {m.high * 100:+.2f})"

"""Whether two runs can be compared row by row: the rows each was judged on, and the answers it kept to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench import apart
from plimsoll.bench.stats import quality_difference
from plimsoll.core.contrast import Compared, Finding
from plimsoll.core.dossier import Dossier
from plimsoll.core.record import Measurement
from plimsoll.core.spec import Spec
from plimsoll.core.store import ENTRY, Store
from plimsoll.data.dataset import Dataset, Split
from plimsoll.search.run import SPEC_RECORD, asked

_NEAR = 1e-9
"""How far a quality may be from the recorded one and still be it: both are sums of the same rows."""


@dataclass(frozen=True)
class Opened:
    """A finished run, with what it takes to look at its rows."""

    folder: Path
    dossier: Dossier
    spec: Spec | None
    """None where the folder holds a decision and no run."""
    inputs: Mapping[str, str]
    """Digests of the data and the model."""
    data: Dataset | None
    """The prepared rows, where a store still has them."""

    def evidence(self, trial: str, split: Split) -> NDArray[Any] | None:
        """Return what each row of a split says of a trial's quality, or None where rows or answers were not kept."""
        file = self.folder / "scores" / f"{trial}-{split}.npy"
        if self.spec is None or self.data is None or not file.exists():
            return None
        logits, targets = np.load(file), self.data.targets(split)
        return self.spec.task.evidence(logits, targets) if len(logits) == len(targets) else None


@dataclass(frozen=True)
class Pairing:
    """Whether two runs can be compared row by row on a split, and why not."""

    on: Split
    rows: int
    against: str
    """Why not; empty where they can."""
    apart: str = ""
    """Why their qualities are no answers to one question, and are not compared at all; empty where they may be."""


def opened(folder: Path, dossier: Dossier, other: Path) -> Opened:
    """Open a finished run; `other` is the run it is compared with, whose store may hold its rows too."""
    path = folder / SPEC_RECORD
    if not path.exists():
        return Opened(folder, dossier, None, {}, None)
    spec, inputs = asked(folder), json.loads(path.read_text())["inputs"]
    return Opened(folder, dossier, spec, inputs, _prepared(inputs, spec, (folder, other)))


def _prepared(inputs: Mapping[str, str], spec: Spec, folders: Iterable[Path]) -> Dataset | None:
    """Return a run's rows as they were prepared, from the store beside it, or beside the run it is compared with.

    Which version of Plimsoll prepared them does not matter: whoever uses them checks that they give what was recorded.
    """
    for folder in folders:
        store = Store(folder.resolve().parent / ".store")
        for entry in sorted((store.root / "data").glob(f"*/{ENTRY}")):
            key = json.loads(entry.read_text())["key"]
            if (key.get("data"), key.get("seed")) == (inputs.get("data"), spec.search.seed):
                there = store.there("data", key)
                if there is not None:
                    return Dataset.load(there)
    return None


def pairing(a: Opened, b: Opened, split: Split) -> Pairing:
    """Return whether a split of both has the same texts and labels in the same order, whatever files they came from."""
    classes = [x.dossier.decision.data.get("classes") for x in (a, b)]
    apart = f"{classes[0]} and {classes[1]} classes are two questions" if classes[0] != classes[1] else ""
    if a.data is None or b.data is None:
        which = " and ".join(x.folder.name for x in (a, b) if x.data is None)
        return Pairing(split, 0, f"no store here holds the rows of {which}", apart)
    theirs, others = getattr(a.data, split), getattr(b.data, split)
    if (theirs.texts, theirs.labels) != (others.texts, others.labels):
        return Pairing(split, 0, f"the {split} rows are not the same", apart)
    return Pairing(split, len(theirs), "")


def quality(name: str, a: Opened, b: Opened, of: tuple[str, str], measured: tuple[Measurement, Measurement],
            rows: Pairing, confidence: float) -> Compared:
    """Return the quality of a trial of each run, `of`, beside each other: paired by row where that can be done.

    measured: what each run recorded. Kept answers that give another number are not used. Bounds are EACH one-sided at
    `confidence`.
    """
    x, y = measured
    other = f"{x.unit} and {y.unit} are different metrics" if x.unit != y.unit else rows.apart
    if other:
        return Compared(name=name, first=x, second=y, how="independent", finding="shown only", why=other)
    own, theirs = (None, None) if rows.against else (a.evidence(of[0], rows.on), b.evidence(of[1], rows.on))
    against = rows.against
    if not against and (a.spec is None or own is None or theirs is None):
        against = "one of them did not keep its answers"
    elif a.spec is not None and own is not None and theirs is not None:
        task = a.spec.task
        if own.shape == theirs.shape and max(abs(task.value(own) - x.value), abs(task.value(theirs) - y.value)) < _NEAR:
            change = quality_difference(own, theirs, task.value, x.unit, confidence)
            return Compared(name=name, first=x, second=y, change=change, how="paired", finding=finding_of(change),
                            why=f"row by row on the same {rows.rows:,} {rows.on} rows")
        against = "the answers that were kept do not give the quality that was recorded"
    change = apart.difference(x, y, confidence)
    return Compared(name=name, first=x, second=y, change=change, how="independent", finding=finding_of(change),
                    why=f"from the two intervals alone: {against}")


def finding_of(change: Measurement) -> Finding:
    """Return what a difference or a ratio says of the second against the first, by its bounds."""
    nothing = 1.0 if change.unit == "x" else 0.0
    return "more" if change.low > nothing else "less" if change.high < nothing else "cannot be told"

"""From answers to an evaluation's records: arithmetic on logits and targets, and the paragraph to read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench import calibration, groups, many
from plimsoll.bench.machine import fingerprint
from plimsoll.bench.stats import Floats, mean, paired_difference, proportion
from plimsoll.core.artifact import Artifact
from plimsoll.core.evaluation import Calibration, Evaluation, Flip, Flips, Forgotten, Group, Judged, Robustness
from plimsoll.core.record import Measurement
from plimsoll.data import noise, slices
from plimsoll.data.dataset import measure_lengths

_FLIPS = 200
"""Rows that are listed at most."""
_SHOWN_TEXT = 300
_NAMED = 5

Logits = NDArray[np.float32]
Targets = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What one model says of the test rows."""

    says: str
    clean: Logits
    """float32 [rows, labels]."""
    noisy: Mapping[str, Logits] = field(default_factory=dict[str, Logits])
    """The same for the texts with each kind of noise in them."""


@dataclass(frozen=True)
class Asked:
    """The rows that are put to every model."""

    texts: tuple[str, ...]
    targets: Targets
    source: str
    noisy: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The same texts with each kind of noise in them; nothing where they are not asked so."""


def evaluation(
    artifact: Answers, weights: Answers | None, baseline: Answers | None, asked: Asked, record: Artifact, folder: Path,
    forgotten: Forgotten | None, notes: list[str], began: float,
) -> Evaluation:
    """Put the answers together; the last thing written is the paragraph to read.

    weights, baseline: None where there are none to compare with. `folder`: of the artifact. `began`: of
    `time.monotonic`.
    """
    own = right(artifact.clean, asked.targets)
    theirs = None if baseline is None else right(baseline.clean, asked.targets)
    lengths = measure_lengths(asked.texts, folder / "tokenizer.json")
    by_class = groups.by_class(artifact.clean.argmax(axis=1), asked.targets, record.labels, theirs)
    changed = {kind: sum(a != b for a, b in zip(asked.texts, texts, strict=True))
               for kind, texts in asked.noisy.items()}
    if theirs is not None:
        fewest = many.fewest_lost(len(by_class))
        notes = [*notes, f"Among {len(by_class)} classes the first to be flagged as below the baseline must lose at "
                         f"least {fewest} more rows than it gains: noise alone takes fewer from some."]
    machine = fingerprint()
    found = Evaluation(
        artifact=artifact.says, source=asked.source, metric=record.task.metric, rows=len(own), verdict="",
        models=models(artifact, weights, baseline, asked.targets),
        flips=None if baseline is None else flips(
            artifact.clean, baseline.clean, asked.targets, asked.texts, record.labels),
        classes=by_class, slices=groups.by_slice(own, slices.slices(asked.texts, lengths), theirs),
        robustness=robustness(artifact, baseline, asked.targets, changed), forgotten=forgotten,
        notes=tuple(notes), machine={"fingerprint": machine.model_dump(mode="json"), "digest": machine.digest},
        seconds=round(time.monotonic() - began, 1))
    return found.model_copy(update={"verdict": verdict(found)})


def right(logits: Logits, targets: Targets) -> NDArray[np.bool_]:
    """Return which rows are right, bool [rows]."""
    return logits.argmax(axis=1) == targets


def models(artifact: Answers, weights: Answers | None, baseline: Answers | None, targets: Targets
           ) -> tuple[Judged, ...]:
    """Return the artifact and what stands beside it, each with the paired difference of the artifact to it."""
    own = right(artifact.clean, targets)
    found = [_judged("artifact", artifact, targets)]
    for name, other in (("weights", weights), ("baseline", baseline)):
        if other is not None:
            change = paired_difference(right(other.clean, targets), own)
            found.append(_judged(name, other, targets).model_copy(update={"change": change}))
    return tuple(found)


def flips(artifact: Logits, baseline: Logits, targets: Targets, texts: Sequence[str], labels: Sequence[str]) -> Flips:
    """Return the rows on which exactly one of the two is right, and whether the split is more than chance."""
    before, after = right(baseline, targets), right(artifact, targets)
    lost, gained = np.flatnonzero(before & ~after), np.flatnonzero(after & ~before)
    listed = [*lost.tolist(), *gained.tolist()][:_FLIPS]
    rows = tuple(
        Flip(row=row, text=texts[row][:_SHOWN_TEXT], label=labels[int(targets[row])],
             baseline=labels[int(baseline[row].argmax())], artifact=labels[int(artifact[row].argmax())])
        for row in listed)
    return Flips(lost=len(lost), gained=len(gained), p=many.mcnemar(len(lost), len(gained)), rows=rows)


def robustness(artifact: Answers, baseline: Answers | None, targets: Targets, changed: Mapping[str, int]
               ) -> tuple[Robustness, ...]:
    """Return what each kind of noise costs the artifact, and whether it costs it more than it costs the baseline.

    changed: how many rows each kind changes.
    """
    clean = right(artifact.clean, targets)
    found: list[Robustness] = []
    for kind, logits in artifact.noisy.items():
        one = right(logits, targets)
        beyond, fragile = None, False
        if baseline is not None:
            theirs = _change(right(baseline.clean, targets), right(baseline.noisy[kind], targets))
            apart = _change(clean, one) - theirs
            # rows that all agree have no spread, and still are only so many rows
            beyond = mean(apart) if apart.any() else paired_difference(clean, clean)
            # as many questions as kinds of noise: each is held to its share of the error
            fragile = mean(apart, 1 - many.LEVEL / len(artifact.noisy)).high < 0
        found.append(Robustness(
            noise=kind, says=noise.SAYS[kind], changed=changed[kind], quality=proportion(int(one.sum()), len(one)),
            change=paired_difference(clean, one), beyond_baseline=beyond, fragile=fragile))
    return tuple(found)


def verdict(found: Evaluation) -> str:
    """Return the paragraph to read: how good, what was lost and where, whether to believe it, and what is forgotten."""
    own = found.models[0]
    beside = {m.name: m for m in found.models}
    sentences = [f"{found.metric} {own.quality.value:.2%} ({own.quality.low:.2%} to {own.quality.high:.2%}) on "
                 f"{found.rows:,} rows."]
    if found.flips is not None:
        change = beside["baseline"].change
        assert change is not None
        sure = "more than chance explains" if found.flips.p <= many.LEVEL else "which chance explains"
        sentences.append(f"Against the baseline {points(change)}: {found.flips.lost} rows lost and "
                         f"{found.flips.gained} gained (p = {found.flips.p:.2g}), {sure}.")
    for what, of in (("class", found.classes), ("slice", found.slices)):
        sentences += _flagged(what, of)
    sentences.append(_believed(own.calibration))
    if found.robustness:
        sentences.append(_noise(found.robustness))
    if found.forgotten is not None:
        sentences.append(found.forgotten.verdict)
    return " ".join(sentences)


def points(m: Measurement) -> str:
    """Return a difference of shares in percentage points, with its bounds."""
    return f"{m.value * 100:+.2f} points ({m.low * 100:+.2f} to {m.high * 100:+.2f})"


def _judged(name: str, answers: Answers, targets: Targets) -> Judged:
    one = right(answers.clean, targets)
    return Judged(name=name, says=answers.says, quality=proportion(int(one.sum()), len(one)),  # type: ignore[arg-type]
                  macro_f1=_macro_f1(answers.clean.argmax(axis=1), targets),
                  calibration=calibration.judged(answers.clean, targets))


def _macro_f1(answers: Targets, targets: Targets) -> float:
    """Return the unweighted mean over the classes that occur in the rows."""
    each = [2 * np.sum((answers == c) & (targets == c)) / (np.sum(answers == c) + np.sum(targets == c))
            for c in np.unique(targets)]
    return float(np.mean(each))


def _change(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Floats:
    return after.astype(np.float64) - before


def _flagged(what: str, of: Sequence[Group]) -> list[str]:
    """Return a sentence for each question that is asked of all groups; none where there are no groups."""
    plural = f"{what}es" if what == "class" else f"{what}s"
    sentences: list[str] = []
    for flag, asked in (("below the baseline", any(g.change is not None for g in of)),
                        ("below the rest", bool(of))):
        if not asked:
            continue
        flagged = [g.name for g in of if flag in g.flags]
        if flagged:
            more = f" and {len(flagged) - _NAMED} more" if len(flagged) > _NAMED else ""
            names = ", ".join(flagged[:_NAMED]) + more
            verb = "is" if len(flagged) == 1 else "are"
            sentences.append(f"{len(flagged)} of {len(of)} {plural} {verb} {flag} beyond noise: {names}.")
        else:
            sentences.append(f"No {what} of {len(of)} is {flag} beyond noise.")
    return sentences


def _believed(found: Calibration) -> str:
    error = f"{found.ece.value:.3f} ({found.ece.low:.3f} to {found.ece.high:.3f})"
    if not found.miscalibrated:
        return f"Its probabilities can be believed: calibration error {error}, no more than chance explains."
    over = found.overconfidence
    side = ("it is right less often than it says" if over.low > 0 else
            "it is right more often than it says" if over.high < 0 else "too sure on some rows, too unsure on others")
    return (f"Its probabilities are off: calibration error {error} where chance explains {found.ece_by_chance:.3f}; "
            f"{side}.")


def _noise(kinds: Sequence[Robustness]) -> str:
    costs = ", ".join(f"{r.noise} {points(r.change)}" for r in kinds)
    fragile = [r.noise for r in kinds if r.fragile]
    more = f" It minds {' and '.join(fragile)} more than the baseline does." if fragile else ""
    return f"Noise in the texts: {costs}.{more}"

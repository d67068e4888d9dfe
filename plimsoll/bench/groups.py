"""The test rows by class and by slice: each group's numbers with their bounds, and what noise does not explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench import many
from plimsoll.bench.stats import paired_difference, proportion
from plimsoll.core.evaluation import Flag, Group
from plimsoll.core.record import Measurement

Rows = NDArray[np.bool_]


def by_class(answers: NDArray[np.int64], targets: NDArray[np.int64], labels: Sequence[str], baseline: Rows | None = None
             ) -> tuple[Group, ...]:
    """Return the classes that occur in the rows, the worst recall first.

    answers, targets: int64 [rows], indices into `labels`. baseline: bool [rows], which rows the baseline has right.
    """
    inside = {label: targets == i for i, label in enumerate(labels) if np.any(targets == i)}
    groups = _judged(inside, answers == targets, baseline)
    index = {label: i for i, label in enumerate(labels)}

    def with_answers(group: Group) -> Group:
        claimed, own = answers == index[group.name], inside[group.name]
        both, either = int(np.sum(claimed & own)), int(np.sum(claimed | own))
        precision = proportion(both, int(claimed.sum()), unit="precision") if claimed.any() else None
        return group.model_copy(update={"precision": precision, "f1": _f1(proportion(both, either, unit="f1"))})

    return tuple(sorted(map(with_answers, groups), key=lambda g: (g.quality.value, -g.n, g.name)))


def by_slice(right: Rows, slices: Mapping[str, Rows], baseline: Rows | None = None) -> tuple[Group, ...]:
    """Return the slices in the order given. right, baseline: bool [rows]; slices: bool [rows] by name, none empty."""
    return tuple(_judged(slices, right, baseline))


def _judged(inside: Mapping[str, Rows], right: Rows, baseline: Rows | None) -> list[Group]:
    """Return each group's share of right rows, and which are certainly below the rest or below the baseline.

    Each of the two questions is asked of all groups at once, so each is corrected for their number.
    """
    if not inside:
        return []
    n, good = len(right), int(right.sum())
    counts = {name: (int(rows.sum()), int(right[rows].sum())) for name, rows in inside.items()}
    below_rest = many.holm([many.fewer_right(k, size, good - k, n - size) for size, k in counts.values()])
    below_baseline = None
    if baseline is not None:
        lost, gained = baseline & ~right, right & ~baseline
        below_baseline = many.holm(
            [many.more_lost(int(lost[rows].sum()), int(gained[rows].sum())) for rows in inside.values()])
    found: list[Group] = []
    for i, (name, rows) in enumerate(inside.items()):
        size, k = counts[name]
        flags: list[Flag] = []
        if below_rest[i] <= many.LEVEL:
            flags.append("below the rest")
        if below_baseline is not None and below_baseline[i] <= many.LEVEL:
            flags.append("below the baseline")
        found.append(Group(
            name=name, n=size, quality=proportion(k, size),
            change=None if baseline is None else paired_difference(baseline[rows], right[rows]),
            p_below_rest=float(below_rest[i]),
            p_below_baseline=None if below_baseline is None else float(below_baseline[i]), flags=tuple(flags)))
    return found


def _f1(overlap: Measurement) -> Measurement:
    """Return a class's F1 from the overlap of its rows and the rows answered with it, bounds and all.

    F1 = 2 J / (1 + J) rises with J, the share of those in both among those in either, so exact bounds of J are, given
    how many are in either, exact bounds of F1.
    """
    value, low, high = (2 * j / (1 + j) for j in (overlap.value, overlap.low, overlap.high))
    return overlap.model_copy(update={"value": value, "low": low, "high": high})

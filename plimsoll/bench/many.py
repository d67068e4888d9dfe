"""Exact tests for counts, and their correction where many are made at once: noise is not to be taken for a finding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plimsoll.bench.stats import Floats

LEVEL = 0.05
"""Chance of even one false flag in a table, whatever its size."""


def holm(chances: Sequence[float]) -> Floats:
    """Return p-values corrected for how many there are, float64 [tests], in the order given.

    Those of 0.05 or less stand, and the chance that even one of them is false stays below 5 % however the tests hang
    together, as those of overlapping slices do. Source: Holm, Scandinavian Journal of Statistics 6:65-70, 1979.
    """
    raw = np.asarray(chances, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    steps = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    out = np.empty_like(raw)
    out[order] = np.minimum(1.0, steps)
    return out


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact two-sided p of a split of disagreements if both sides were equally likely to be the one right.

    Source: the exact form of McNemar, Psychometrika 12:153-157, 1947: the sign test on the rows that differ.
    """
    return min(1.0, 2 * min(more_lost(lost, gained), more_lost(gained, lost)))


def more_lost(lost: int, gained: int) -> float:
    """Return the one-sided p of `lost` or more of the disagreements going one way; 1 without any.

    Raises ValueError for negative counts.
    """
    from scipy.special import bdtr

    if lost < 0 or gained < 0:
        raise ValueError(f"need counts >= 0, got {lost=}, {gained=}")
    # at least `lost` of the two kinds together is at most `gained` of the other kind
    return float(bdtr(gained, lost + gained, 0.5))


def fewer_right(right: int, n: int, right_elsewhere: int, n_elsewhere: int) -> float:
    """Return the one-sided p of so few right among `n` rows if they were no harder than the rows elsewhere.

    Raises ValueError for counts that do not fit. Source: Fisher's exact test, given both totals.
    """
    from scipy.stats import hypergeom

    if not (0 <= right <= n and 0 <= right_elsewhere <= n_elsewhere):
        raise ValueError(f"need 0 <= right <= n on both sides, got {right=}, {n=}, {right_elsewhere=}, {n_elsewhere=}")
    return min(1.0, float(hypergeom.cdf(right, n + n_elsewhere, right + right_elsewhere, n)))


def fewest_lost(tests: int) -> int:
    """Return how many rows a group must lose, gaining none, to be flagged among so many groups."""
    lost = 1
    while more_lost(lost, 0) * tests > LEVEL:
        lost += 1
    return lost

"""The best widths for a time limit: one level for each module, the least loss of quality in all, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BINS = 1000
"""The limit is cut into so many steps; each module's time is rounded up to the next, so no choice overruns."""


def least_loss(times: Sequence[NDArray[np.float64]], losses: Sequence[NDArray[np.float64]], limit: float
               ) -> list[int] | None:
    """Return the level to use of each module: the least sum of losses whose times sum to at most `limit`.

    times, losses: one array a module, of as many levels each; times in the unit of `limit`, at least 0. Returns None
    when even the quickest levels take longer. Among equal losses the quicker one is taken.
    Source: Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11 (multiple choice), solved by dynamic
    programming over time as in Kurtic et al., ZipLM, NeurIPS 2023. Raises ValueError when the arrays do not pair up.
    """
    if len(times) != len(losses) or any(len(t) != len(c) or not len(t) for t, c in zip(times, losses, strict=True)):
        raise ValueError("need as many losses as times for each module, and at least one")
    if sum(float(t.min()) for t in times) > limit:
        return None
    step = max(limit, 1e-12) / _BINS
    # exact multiples of a step stay what they are
    spent = [np.ceil(np.asarray(t) / step - 1e-9).astype(int) for t in times]
    best = np.zeros(_BINS + 1)
    chosen: list[NDArray[np.int64]] = []
    for t, c in zip(spent, losses, strict=True):
        total = np.full((len(t), _BINS + 1), np.inf)
        for level, (bins, loss) in enumerate(zip(t, c, strict=True)):
            if bins <= _BINS:
                total[level, bins:] = best[: _BINS + 1 - bins] + loss
        order = np.argsort(t, kind="stable")  # argmin takes the first: the quickest among equals
        pick = order[total[order].argmin(axis=0)]
        chosen.append(pick)
        best = total[pick, np.arange(_BINS + 1)]
    if not np.isfinite(best[_BINS]):  # fits, but not once every time is rounded up
        return [int(np.argmin(t)) for t in times]
    levels: list[int] = []
    left = _BINS
    for t, pick in zip(reversed(spent), reversed(chosen), strict=True):
        levels.append(int(pick[left]))
        left -= int(t[levels[-1]])
    return levels[::-1]

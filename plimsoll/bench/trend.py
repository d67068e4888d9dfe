"""Whether a series rises or falls with time: a rank test that allows for neighbours being alike."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plimsoll.core.record import Record

_FEWEST = 8
"""Points below which the normal approximation of the rank sum is too rough to say anything."""
_TELLS_APART = 1.96
"""Standard errors beyond which an autocorrelation counts."""


class Trend(Record):
    """What a series does over its length."""

    n: int
    """Points."""
    p: float
    """Two-sided chance of so steady a rise or fall in a series without one; 1 with too few points to say."""
    slope: float
    """Median of the slopes between all pairs of points, in units of the series a point (Theil and Sen)."""
    change: float
    """That slope over the whole length, as a share of the series' median; nan where the median is 0."""


def trend(series: ArrayLike) -> Trend:
    """Return the trend of a series of equally spaced points, float [n], n >= 2.

    Mann and Kendall's rank test with the variance that Hamed and Rao (Journal of Hydrology 204:182-196, 1998) correct
    for autocorrelation: neighbours that are alike are worth fewer points. Only corrections that widen are made, so the
    test errs towards no trend. Slope: Sen, Journal of the American Statistical Association 63:1379-1389, 1968.

    Raises ValueError for fewer than two points or ones that are not finite.
    """
    values = np.asarray(series, dtype=np.float64)
    n = values.size
    if values.ndim != 1 or n < 2 or not np.isfinite(values).all():
        raise ValueError(f"need at least 2 finite points in a row, got shape {values.shape}")
    first, second = np.triu_indices(n, 1)
    steps = values[second] - values[first]
    slope = float(np.median(steps / (second - first)))
    middle = float(np.median(values))
    change = slope * (n - 1) / middle if middle else math.nan
    if n < _FEWEST:
        return Trend(n=n, p=1.0, slope=slope, change=change)
    rises = float(np.sign(steps).sum())
    _, ties = np.unique(values, return_counts=True)
    spread = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    spread *= _inflation(values - slope * np.arange(n))
    if spread <= 0 or rises == 0:
        return Trend(n=n, p=1.0, slope=slope, change=change)
    z = (rises - math.copysign(1, rises)) / math.sqrt(spread)
    return Trend(n=n, p=min(1.0, 2 * (1 - NormalDist().cdf(abs(z)))), slope=slope, change=change)


def _inflation(flat: NDArray[np.float64]) -> float:
    """Return by how much the autocorrelation of a series without its trend widens the rank sum's variance, >= 1."""
    n = flat.size
    ranks = np.argsort(np.argsort(flat, kind="stable"), kind="stable") - (n - 1) / 2
    total = float((ranks**2).sum())
    if total == 0:
        return 1.0
    added = 0.0
    for lag in range(1, n - 2):
        alike = float((ranks[:-lag] * ranks[lag:]).sum()) / total
        if abs(alike) > _TELLS_APART / math.sqrt(n):
            added += (n - lag) * (n - lag - 1) * (n - lag - 2) * alike
    return max(1.0, 1 + 2 * added / (n * (n - 1) * (n - 2)))

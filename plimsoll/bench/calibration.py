"""How far a model's probabilities can be believed, with bounds, and against what chance alone would show."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plimsoll.bench.stats import Floats, mean
from plimsoll.core.evaluation import Calibration
from plimsoll.core.record import Measurement

_BINS = 15
_ROWS_IN_A_BIN = 20
"""At least: with fewer, a bin says more about chance than about the model."""


def probabilities(logits: ArrayLike) -> Floats:
    """Return the softmax of each row, float64 [rows, labels]."""
    shifted = np.asarray(logits, dtype=np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def judged(logits: ArrayLike, targets: NDArray[np.int64], confidence: float = 0.95, resamples: int = 1000,
           seed: int = 0) -> Calibration:
    """Return the calibration of a classifier on rows it did not learn from.

    logits: float [rows, labels]; targets: int64 [rows]; at least two rows.

    The expected calibration error is of the probability of the answer, in up to 15 bins of equally many rows (equal
    probabilities share one). It cannot be negative, so it is above zero for a perfect model too: `ece_by_chance` is the
    95 % quantile of what such a model would show on these very probabilities, and only beyond it is a model called
    miscalibrated. The bounds are those of the basic bootstrap, which turns the same bias round.

    Raises ValueError for fewer than two rows.
    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015 (the error);
    Nguyen and O'Connor, EMNLP 2015 (equal-mass bins); Broecker and Smith, Weather and Forecasting 22:651-661, 2007
    (what chance shows); Davison and Hinkley, Bootstrap Methods, 1997, section 5.2; Brier, Monthly Weather Review 78,
    1950.
    """
    chances = probabilities(logits)
    rows = len(targets)
    if rows < 2 or len(chances) != rows:
        raise ValueError(f"need at least two rows, as many targets as logits, got {rows} and {len(chances)}")
    stated = chances.max(axis=1)
    right = chances.argmax(axis=1) == targets
    which, bins = binned(stated)
    rng = np.random.default_rng(seed)
    truth = np.zeros_like(chances)
    truth[np.arange(rows), targets] = 1
    by_chance = [gap(stated, rng.random(rows) < stated, which, bins) for _ in range(resamples)]
    limit = float(np.quantile(by_chance, 0.95))
    error = _error(stated, right, which, bins, confidence, resamples, rng)
    return Calibration(
        ece=error, bins=bins, ece_by_chance=limit, miscalibrated=error.value > limit,
        overconfidence=mean(stated - right, confidence, unit="probability"),
        brier=mean(np.square(chances - truth).sum(axis=1), confidence, unit="brier"))


def binned(stated: Floats) -> tuple[NDArray[np.int64], int]:
    """Return the bin of each row, int64 [rows], and how many bins there are; equal probabilities share one."""
    wanted = min(_BINS, max(1, len(stated) // _ROWS_IN_A_BIN))
    edges = np.unique(np.quantile(stated, np.arange(1, wanted) / wanted, method="inverted_cdf"))
    which = np.searchsorted(edges, stated)
    kept = np.unique(which)
    return np.searchsorted(kept, which), len(kept)


def gap(stated: Floats, right: NDArray[np.bool_], which: NDArray[np.int64], bins: int) -> float:
    """Return the mean distance, over rows, between what their bin states and the share of it that is right."""
    return float(np.abs(np.bincount(which, weights=stated - right, minlength=bins)).sum() / len(stated))


def _error(stated: Floats, right: NDArray[np.bool_], which: NDArray[np.int64], bins: int, confidence: float,
           resamples: int, rng: np.random.Generator) -> Measurement:
    rows = len(stated)
    value = gap(stated, right, which, bins)
    drawn = np.empty(resamples)
    for i in range(resamples):
        some = rng.integers(0, rows, rows)
        drawn[i] = gap(stated[some], right[some], which[some], bins)
    below, above = np.quantile(drawn, [1 - confidence, confidence])
    low, high = max(0.0, 2 * value - float(above)), max(value, 2 * value - float(below))
    return Measurement(value=value, low=min(low, value), high=high, confidence=confidence, n=rows, unit="ece")

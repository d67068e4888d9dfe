"""Trainings that differ in their seed, judged on the same rows: what another seed and other rows would have given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench.stats import Floats
from plimsoll.core.record import Measurement

Evidence = NDArray[Any]
"""What each row says of the quality: bool [rows], or float64 [rows, numbers]; `core.parts.Task.evidence`."""


def quality(trainings: Sequence[Evidence], value: Callable[[Evidence], float], unit: str, confidence: float = 0.95
            ) -> Measurement:
    """Return the mean quality of trainings that differ in their seed, with bounds EACH one-sided at `confidence`.

    trainings: one evidence a seed, all of the same rows; one alone has no spread between seeds. `value`: the metric of
    an evidence. See `difference` for the bounds.
    """
    values = np.array([value(e) for e in trainings])
    return _measured(values, np.mean([_left_out(e, value) for e in trainings], axis=0), len(trainings[0]), unit,
                     confidence)


def difference(candidate: Sequence[Evidence], reference: Sequence[Evidence], value: Callable[[Evidence], float],
               unit: str, confidence: float = 0.95) -> Measurement:
    """Return mean quality of the candidate's trainings minus that of the reference's, paired by seed and by row.

    Where one of them has a single training, as a method without chance in it, that stands for every seed. The variance
    is that of the mean over seeds plus that over rows, by the jackknife of the mean difference; the bounds are
    Student's t at Satterthwaite's degrees of freedom, so that few seeds that differ give wide ones.
    Source: Satterthwaite, Biometrics Bulletin 2, 1946; both sources of chance as in Bouthillier et al., Accounting for
    Variance in Machine Learning Benchmarks, MLSys 2021; Efron and Stein, The Jackknife Estimate of Variance, 1981.
    """
    count = max(len(candidate), len(reference))
    pairs = [(candidate[i % len(candidate)], reference[i % len(reference)]) for i in range(count)]
    values = np.array([value(a) - value(b) for a, b in pairs])
    left_out = np.mean([_left_out(a, value) - _left_out(b, value) for a, b in pairs], axis=0)
    return _measured(values, left_out, len(candidate[0]), unit, confidence)


def _measured(values: Floats, left_out: Floats, rows: int, unit: str, confidence: float) -> Measurement:
    from scipy.special import stdtrit

    over_rows = (rows - 1) / rows * float(np.square(left_out - left_out.mean()).sum())
    over_seeds = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    whole = over_rows + over_seeds
    mean = float(values.mean())
    if whole == 0:
        return Measurement(value=mean, low=mean, high=mean, confidence=confidence, n=rows, unit=unit)
    freedom = whole**2 / (over_rows**2 / (rows - 1) + over_seeds**2 / max(1, len(values) - 1))
    reach = float(stdtrit(freedom, confidence)) * math.sqrt(whole)
    return Measurement(value=mean, low=mean - reach, high=mean + reach, confidence=confidence, n=rows, unit=unit)


def _left_out(evidence: Evidence, value: Callable[[Evidence], float]) -> Floats:
    """Return the metric without each row in turn, float64 [rows]."""
    if evidence.ndim == 1:
        return (evidence.sum() - evidence) / (len(evidence) - 1)
    return np.array([value(np.delete(evidence, row, axis=0)) for row in range(len(evidence))])

"""Two measurements that were made apart: bounds of their difference and of their ratio, from their own bounds alone."""

from __future__ import annotations

import math
from statistics import NormalDist

from plimsoll.core.record import Measurement


def difference(first: Measurement, second: Measurement, confidence: float = 0.95) -> Measurement:
    """Return second - first of independent measurements, with bounds EACH one-sided at `confidence`.

    The distances from each value to its bounds are added as squares: the lower bound of the difference takes the
    second's lower and the first's upper distance, the upper bound the others. Bounds that were taken at another
    confidence are moved by the ratio of normal quantiles, which is exact for a normal error and close for others.
    What was counted exactly adds nothing. `n` is the smaller of the two.

    Raises ValueError for measurements in different units.
    Source: Newcombe, Statistics in Medicine 17:873-890, 1998 (method 10); Zou & Donner, Statistics in Medicine
    27:1693-1702, 2008, for bounds of any kind.
    """
    _same_unit(first, second)
    value, (below, above) = second.value - first.value, _reaches(first, second, confidence)
    return Measurement(value=value, low=value - below, high=value + above, confidence=confidence,
                       n=min(first.n, second.n), unit=first.unit)


def ratio(first: Measurement, second: Measurement, confidence: float = 0.95) -> Measurement:
    """Return second / first of independent positive measurements, with bounds EACH one-sided at `confidence`.

    `difference` of their logarithms, taken back. A bound at or below zero makes the ratio unbounded on that side.

    Raises ValueError for measurements in different units, and for a value that is not positive.
    Source: Zou & Donner, Statistics in Medicine 27:1693-1702, 2008, section 3.
    """
    _same_unit(first, second)
    if min(first.value, second.value) <= 0:
        raise ValueError(f"need positive values to form a ratio, got {first.value=}, {second.value=}")
    value, (below, above) = second.value / first.value, _reaches(_log(first), _log(second), confidence)
    return Measurement(value=value, low=value * math.exp(-below), high=value * _exp(above), confidence=confidence,
                       n=min(first.n, second.n), unit="x")


def _same_unit(first: Measurement, second: Measurement) -> None:
    if first.unit != second.unit:
        raise ValueError(f"need the same unit, got {first.unit=}, {second.unit=}")


def _reaches(first: Measurement, second: Measurement, confidence: float) -> tuple[float, float]:
    """Return how far the bounds of second - first lie below and above it."""
    return (math.hypot(_below(second, confidence), _above(first, confidence)),
            math.hypot(_above(second, confidence), _below(first, confidence)))


def _below(m: Measurement, confidence: float) -> float:
    return _moved(m.value - m.low, m, confidence)


def _above(m: Measurement, confidence: float) -> float:
    return _moved(m.high - m.value, m, confidence)


def _moved(reach: float, m: Measurement, confidence: float) -> float:
    if reach == 0:  # counted exactly, or a bound on the value itself
        return 0.0
    normal = NormalDist()
    return reach * normal.inv_cdf(confidence) / normal.inv_cdf(m.confidence)


def _log(m: Measurement) -> Measurement:
    low, high = (math.log(x) if x > 0 else -math.inf for x in (m.low, m.high))
    return m.model_copy(update={"value": math.log(m.value), "low": low, "high": high, "unit": "log"})


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)

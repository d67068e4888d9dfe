"""Bounds of what was measured apart hold as often as they say, and agree with a published example."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.bench import apart, stats
from plimsoll.core.record import Measurement, exact

positive = st.floats(0.01, 100)


def m(value: float, low: float, high: float, confidence: float = 0.95, unit: str = "x") -> Measurement:
    return Measurement(value=value, low=low, high=high, confidence=confidence, n=20, unit=unit)


def wilson(successes: int, n: int, confidence: float) -> Measurement:
    z, p = NormalDist().inv_cdf(confidence), successes / n
    middle, reach = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(
        p * (1 - p) / n + z * z / 4 / n / n)
    return m(p, middle - reach, middle + reach, confidence, "accuracy")


def test_the_published_example() -> None:
    # Newcombe 1998, table II, (a): 56/70 against 48/80 by method 10
    found = apart.difference(wilson(48, 80, 0.975), wilson(56, 70, 0.975), 0.975)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_bounds_of_a_difference_hold_each_one_sided() -> None:
    rng, trials, (p, q, n) = np.random.default_rng(3), 2000, (0.92, 0.9, 400)
    found = [apart.difference(stats.proportion(int(a), n), stats.proportion(int(b), n))
             for a, b in rng.binomial(n, (p, q), (trials, 2))]
    assert np.mean([f.low <= q - p for f in found]) >= 0.935
    assert np.mean([f.high >= q - p for f in found]) >= 0.935


def test_bounds_of_a_ratio_moved_to_another_confidence_hold_there() -> None:
    rng, trials, spread = np.random.default_rng(4), 2000, 0.1
    reach = 1.645 * spread
    logs = rng.normal((1.0, 1.5), spread, (trials, 2))
    found = [apart.ratio(*(m(math.exp(x), math.exp(x - reach), math.exp(x + reach)) for x in pair), confidence=0.99)
             for pair in logs]
    missed = np.mean([not f.low <= math.exp(0.5) <= f.high for f in found])
    assert 0.01 <= missed <= 0.03  # 1 % on each side


@given(positive, positive, positive, positive)
def test_swapping_turns_a_difference_and_a_ratio_around(x: float, y: float, a: float, b: float) -> None:
    one, two = m(x, x / (1 + a), x * (1 + b)), m(y, y / (1 + b), y * (1 + a))
    there, back = apart.difference(one, two), apart.difference(two, one)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    up, down = apart.ratio(one, two), apart.ratio(two, one)
    assert (up.value, up.low, up.high) == pytest.approx((1 / down.value, 1 / down.high, 1 / down.low), rel=1e-6)


def test_what_was_counted_has_no_error() -> None:
    found = apart.ratio(exact(20.0, "MB"), exact(30.0, "MB"))
    assert (found.low, found.value, found.high, found.unit) == (1.5, 1.5, 1.5, "x")


def test_an_unbounded_side_stays_unbounded() -> None:
    found = apart.ratio(m(2.0, 0.0, 3.0), m(4.0, 3.0, math.inf))
    assert (found.low, found.high) == (pytest.approx(4 / 2 * math.exp(-math.hypot(math.log(4 / 3), math.log(1.5)))),
                                       math.inf)
    assert apart.difference(m(0.5, 0.4, math.inf), m(0.6, 0.5, 0.7)).low == -math.inf


def test_other_units_and_ratios_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="same unit"):
        apart.difference(exact(1.0, "accuracy"), exact(1.0, "spearman"))
    with pytest.raises(ValueError, match="positive"):
        apart.ratio(exact(0.0, "ms"), exact(1.0, "ms"))

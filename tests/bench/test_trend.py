"""A trend is found where there is one, seldom where there is none, and neighbours that are alike do not make one."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.bench.trend import trend


def test_a_rise_is_found_with_its_size() -> None:
    found = trend([10 + 0.5 * i for i in range(21)])
    assert found.p < 1e-6
    assert found.slope == pytest.approx(0.5)
    assert found.change == pytest.approx(10 / 15)


def test_a_fall_is_a_rise_turned_round() -> None:
    rise = np.random.default_rng(1).normal(size=30) + np.arange(30) / 10
    up, down = trend(10 + rise), trend(10 - rise)
    assert up.p == pytest.approx(down.p)
    assert up.slope == pytest.approx(-down.slope)


def test_noise_is_seldom_taken_for_a_trend() -> None:
    rng = np.random.default_rng(7)
    assert sum(trend(rng.normal(10, 1, 30)).p <= 0.05 for _ in range(600)) / 600 <= 0.08


def test_neighbours_that_are_alike_are_worth_fewer_points() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(300):
        noise = rng.normal(size=40)
        series = np.empty(40)
        series[0] = noise[0]
        for i in range(1, 40):
            series[i] = 0.7 * series[i - 1] + noise[i]
        found += trend(series + 50).p <= 0.01
    # without the correction a fifth of such series seem to have a trend
    assert found / 300 <= 0.08


def test_too_few_points_say_nothing() -> None:
    assert trend([1, 2, 3, 4, 5]).p == 1.0
    assert trend([1, 2, 3, 4, 5]).slope == 1.0


def test_a_constant_has_no_trend() -> None:
    found = trend([3.0] * 20)
    assert (found.p, found.slope, found.change) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("series", [[], [1.0], [1.0, float("nan")]])
def test_what_is_no_series_is_refused(series: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        trend(series)

"""Decisions err as seldom as they say, however often one looks, and come soon where the answer is clear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from plimsoll.bench import sequential


@pytest.mark.parametrize(("p", "needed"), [(0.99, 459), (0.9, 44)])
def test_the_published_numbers_of_loadgen(p: float, needed: int) -> None:
    assert sequential.fewest_on_time(0, p) == needed


@given(late=st.integers(0, 40), p=st.sampled_from([0.9, 0.95, 0.99]))
@settings(deadline=None, max_examples=40)
def test_so_few_late_ones_would_be_rare_and_one_fewer_on_time_would_not_do(late: int, p: float) -> None:
    h = sequential.fewest_on_time(late, p)
    assert binom.cdf(late, h + late, 1 - p) <= 0.01 + 1e-12
    assert binom.cdf(late, h - 1 + late, 1 - p) > 0.01
    assert sequential.on_time(h, late, p)
    assert not sequential.on_time(h - 1, late, p)


def looks(share: float, runs: int, requests: int, seed: int) -> list[str | None]:
    """Return what is decided of runs with this share of late requests, looked at every 25."""
    rng = np.random.default_rng(seed)
    found: list[str | None] = []
    for _ in range(runs):
        late = np.cumsum(rng.random(requests) < share)
        seen = (sequential.decide(n - late[n - 1], late[n - 1], 0.99) for n in range(25, requests + 1, 25))
        found.append(next((decided for decided in seen if decided is not None), None))
    return found


def test_at_the_limit_itself_neither_is_decided_for_long() -> None:
    found = looks(0.01, runs=300, requests=4000, seed=2)
    # each has a chance of at most one in a hundred, over all looks; nine of 300 would be one in ten thousand
    assert found.count("held") < 9
    assert found.count("broken") < 9


def test_what_is_clear_is_decided_and_rightly() -> None:
    assert set(looks(0.001, runs=40, requests=4000, seed=3)) == {"held"}
    assert set(looks(0.05, runs=40, requests=2000, seed=4)) == {"broken"}


def test_none_late_needs_a_few_hundred_and_all_late_a_few() -> None:
    held = next(n for n in range(1, 2000) if sequential.decide(n, 0, 0.99) == "held")
    broken = next(n for n in range(1, 2000) if sequential.decide(0, n, 0.99) == "broken")
    assert 459 < held < 1200
    assert broken < 15


def test_lateness_in_clusters_counts_for_less() -> None:
    rng = np.random.default_rng(9)
    spread = rng.binomial(100, 0.05, size=50)
    assert sequential.design_effect(spread, [100] * 50) < 2
    clustered = np.where(rng.random(50) < 0.05, 100, 0)
    assert sequential.design_effect(clustered, [100] * 50) == pytest.approx(100, rel=0.1)


def test_what_was_nearly_late_says_how_the_late_would_come() -> None:
    total, none, rng = [100] * 16, [0] * 16, np.random.default_rng(4)
    spread = rng.binomial(100, 0.2, size=16)
    together = [100 if i in (3, 9) else 0 for i in range(16)]
    side_by_side = [100 if i in (3, 4, 5) else 0 for i in range(16)]
    assert sequential.clustering([none, spread], total) < 4
    assert sequential.clustering([none, together], total) == pytest.approx(107, rel=0.05)
    assert sequential.clustering([none, side_by_side], total) > 150
    # a level that most exceed is no tail
    assert sequential.clustering([none, [100] * 12 + [0] * 4], total) == 1.0


@given(d=st.floats(1, 200), late=st.integers(0, 300), punctual=st.integers(0, 20_000))
@settings(deadline=None, max_examples=300)
def test_counts_that_are_worth_less_decide_nothing_that_whole_ones_do_not(d: float, late: int, punctual: int) -> None:
    assert sequential.decide(punctual / d, late / d, 0.99) in (None, sequential.decide(punctual, late, 0.99))


@pytest.mark.parametrize("late", [[0, 0, 0], [10, 10, 10], [3]])
def test_without_anything_to_tell_apart_a_count_is_worth_itself(late: list[int]) -> None:
    assert sequential.design_effect(late, [10] * len(late)) == 1.0


@pytest.mark.parametrize(("late", "p"), [(-1, 0.9), (0, 0.0), (0, 1.0)])
def test_impossible_counts_are_refused(late: int, p: float) -> None:
    with pytest.raises(ValueError, match="need 0 < p < 1"):
        sequential.fewest_on_time(late, p)

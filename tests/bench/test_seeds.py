"""Trainings of several seeds: bounds that hold for other seeds and other rows, and are antisymmetric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.bench import seeds


def accuracy(evidence: np.ndarray) -> float:
    return float(np.mean(evidence))


def f1(evidence: np.ndarray) -> float:
    true, claimed, gold = evidence.sum(axis=0)
    return 2 * true / max(claimed + gold, 1)


def drawn(rng: np.random.Generator, chances: np.ndarray, count: int) -> list[np.ndarray]:
    return [rng.random(len(chances)) < chances for _ in range(count)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_value_is_the_difference_of_the_means_and_swapping_turns_the_bounds(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (drawn(rng, np.full(40, p), count) for p in (0.8, 0.6))
    there, back = seeds.difference(a, b, accuracy, "accuracy"), seeds.difference(b, a, accuracy, "accuracy")
    assert there.value == pytest.approx(np.mean(a) - np.mean(b))
    assert there.low <= there.value <= there.high
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


def test_the_bounds_cover_what_they_promise() -> None:
    """Rows and seeds are both drawn anew: the true difference of 5 points lies above `low` in about 95 of 100."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        hard = rng.random(300) * 0.3
        seed_a, seed_b = (rng.normal(0, 0.01, 3) for _ in range(2))
        a = [rng.random(300) < 0.95 - hard + s for s in seed_a]
        b = [rng.random(300) < 0.90 - hard + s for s in seed_b]
        held += seeds.difference(a, b, accuracy, "accuracy").low <= 0.05
    assert 0.92 <= held / 400 <= 0.99


def test_seeds_that_differ_widen_the_bounds() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(500) < 0.8
    same = [base, base, base]
    apart = [rng.random(500) < p for p in (0.7, 0.8, 0.9)]
    narrow, wide = (seeds.quality(x, accuracy, "accuracy") for x in (same, apart))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_method_without_chance_is_compared_with_every_seed() -> None:
    rng = np.random.default_rng(2)
    one, three = drawn(rng, np.full(200, 0.7), 1), drawn(rng, np.full(200, 0.8), 3)
    assert seeds.difference(one, three, accuracy, "accuracy").value == pytest.approx(np.mean(one) - np.mean(three))


def test_sums_by_row_are_judged_by_the_metric_of_their_total() -> None:
    rng = np.random.default_rng(3)
    gold = rng.integers(0, 3, 200)
    rows = [np.stack([np.minimum(gold, c := rng.integers(0, 3, 200)), c, gold], axis=1).astype(float) for _ in range(3)]
    found = seeds.quality(rows, f1, "f1")
    assert found.value == pytest.approx(np.mean([f1(x) for x in rows]))
    assert found.low < found.value < found.high

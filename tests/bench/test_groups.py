"""Classes and slices: the counts are right, the bounds hold, and only what noise does not explain is flagged."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.bench import groups

LABELS = ("a", "b", "c", "never asked")


def asked(seed: int = 0, each: int = 60) -> tuple[np.ndarray, np.random.Generator]:
    return np.repeat(np.arange(3), each), np.random.default_rng(seed)


def test_recall_precision_and_f1_are_those_of_the_counts() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2])
    answers = np.array([0, 0, 1, 1, 1, 0])
    found = {g.name: g for g in groups.by_class(answers, targets, LABELS)}
    assert set(found) == {"a", "b", "c"}
    assert (found["a"].n, found["a"].quality.value) == (3, pytest.approx(2 / 3))
    a, b, c = found["a"], found["b"], found["c"]
    assert a.precision is not None
    assert a.f1 is not None
    assert (a.precision.value, a.f1.value) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert b.f1 is not None
    assert b.f1.value == pytest.approx(2 * 2 / (3 + 2))
    assert c.precision is None
    assert c.f1 is not None
    assert c.f1.value == 0
    for m in (a.quality, a.precision, a.f1):
        assert m.low < m.value < m.high


def test_the_worst_class_comes_first() -> None:
    targets, _ = asked()
    answers = targets.copy()
    answers[130:150] = 0
    assert groups.by_class(answers, targets, LABELS)[0].name == "c"


def test_a_class_that_is_worse_is_flagged_and_noise_is_not() -> None:
    targets, rng = asked(each=200)
    answers = targets.copy()
    wrong = rng.random(600) < np.where(targets == 2, 0.4, 0.1)
    answers[wrong] = (targets[wrong] + 1) % 3
    flags = {g.name: g.flags for g in groups.by_class(answers, targets, LABELS)}
    assert flags == {"a": (), "b": (), "c": ("below the rest",)}


def test_only_the_class_that_lost_is_below_the_baseline() -> None:
    targets, _ = asked()
    baseline = np.ones(180, dtype=bool)
    baseline[[0, 70, 140]] = False
    answers = targets.copy()
    answers[[0, 71, 141]] = (targets[[0, 71, 141]] + 1) % 3  # one row each, as chance does
    answers[150:165] = 0
    found = {g.name: g for g in groups.by_class(answers, targets, LABELS, baseline)}
    assert "below the baseline" in found["c"].flags
    assert not found["a"].flags
    assert not found["b"].flags
    change = found["c"].change
    assert change is not None
    assert change.value == pytest.approx((1 - 16) / 60)
    assert change.high < 0


def test_bounds_of_f1_cover_what_they_promise() -> None:
    """Rows drawn anew from a class with a known F1: the upper bound lies above it in at least 95 of 100."""
    rng = np.random.default_rng(0)
    held = 0
    true_f1 = 2 * 0.8 * 0.3 / (0.3 + 0.8 * 0.3 + 0.1 * 0.7)
    for _ in range(400):
        targets = (rng.random(200) >= 0.3).astype(int)
        answers = np.where(targets == 0, rng.random(200) >= 0.8, rng.random(200) >= 0.1).astype(int)
        one = next(g for g in groups.by_class(answers, targets, LABELS) if g.name == "a")
        assert one.f1 is not None
        held += one.f1.high >= true_f1
    assert held / 400 >= 0.94


def test_slices_keep_their_order_and_are_compared_with_the_rows_outside() -> None:
    rng = np.random.default_rng(1)
    hard = np.arange(1000) < 200
    right = rng.random(1000) < np.where(hard, 0.6, 0.95)
    found = groups.by_slice(right, {"any": np.arange(1000) % 2 == 0, "hard": hard})
    assert [g.name for g in found] == ["any", "hard"]
    assert [g.flags for g in found] == [(), ("below the rest",)]
    assert found[0].p_below_baseline is None
    assert groups.by_slice(right, {}) == ()

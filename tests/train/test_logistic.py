"""Logistic regression: the least penalised cross-entropy, whatever the scale of the features."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.train import logistic


def clusters(seed: int, rows: int = 300, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, rows)
    centres = np.array([[apart, 0, 0, 0], [0, apart, 0, 0], [0, 0, apart, 0]])
    return (centres[targets] + rng.normal(size=(rows, 4))).astype(np.float32), targets


def test_the_gradient_is_nothing_at_what_is_found() -> None:
    features, targets = clusters(0)
    found = logistic.fit(features, targets, np.zeros((3, 5)), 1e-2)
    with_one = np.hstack([features, np.ones((len(features), 1))])
    chances = np.exp(with_one @ found.T)
    chances /= chances.sum(axis=1, keepdims=True)
    gradient = (chances - np.eye(3)[targets]).T @ with_one / len(targets)
    gradient[:, :-1] += 1e-2 * found[:, :-1]
    assert np.abs(gradient).max() < 1e-3


def test_scale_and_offset_of_a_feature_do_not_matter() -> None:
    features, targets = clusters(1)
    moved = features * np.array([1e3, 1, 1e-3, 1], dtype=np.float32) + np.array([5e3, -2, 0, 1], dtype=np.float32)
    plain, scaled = (logistic.best(x, targets, 3, lambda one: 0.0)[0] for x in (features, moved))
    np.testing.assert_allclose(plain.logits(features), scaled.logits(moved), atol=0.05)


def test_the_penalty_with_the_best_score_is_kept_and_the_larger_among_equals() -> None:
    features, targets = clusters(2)
    held, truth = clusters(3)

    def accuracy(one: logistic.Linear) -> float:
        return float(np.mean(one.logits(held).argmax(axis=1) == truth))

    one, score, penalty = logistic.best(features, targets, 3, accuracy)
    assert score == pytest.approx(accuracy(one))
    assert score > 0.8
    assert penalty in logistic.PENALTIES
    assert logistic.best(features, targets, 3, lambda one: 1.0)[2] == max(logistic.PENALTIES)

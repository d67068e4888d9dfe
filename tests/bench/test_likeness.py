"""Likeness of representations: one for the same, none for the unrelated, and what stands between."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.bench import likeness


def states(seed: int, rows: int = 200, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def test_pairs_are_the_area_under_the_curve_row_by_row() -> None:
    from itertools import product

    found = states(0, rows=30, width=3)
    targets = np.arange(30) % 3
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    alike = unit @ unit.T
    got = likeness.pairs(found, targets)
    for i in (0, 7, 29):
        same = [j for j in range(30) if targets[j] == targets[i] and j != i]
        others = [j for j in range(30) if targets[j] != targets[i]]
        expected = np.mean([alike[i, a] > alike[i, b] for a, b in product(same, others)])
        assert got[i] == pytest.approx(expected, abs=1e-6)


def test_pairs_tell_clusters_from_noise() -> None:
    targets = np.arange(200) % 4
    centres = states(5, rows=4) * 3
    assert likeness.pairs(centres[targets] + states(6), targets).mean() > 0.95
    assert likeness.pairs(states(6), targets).mean() == pytest.approx(0.5, abs=0.05)


def test_a_row_alone_in_its_label_says_nothing() -> None:
    found = likeness.pairs(states(0, rows=5), np.array([0, 0, 1, 1, 2]))
    assert np.isnan(found[4])
    assert not np.isnan(found[:4]).any()
    assert np.isnan(likeness.pairs(states(0, rows=5), np.zeros(5, dtype=int))).all()


def test_rotation_and_scale_change_neither_neighbours_nor_alignment() -> None:
    before = states(1)
    turned, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(24, 24)))
    after = (3 * before @ turned).astype(np.float32)
    assert likeness.neighbours(before, after).mean() == 1.0
    assert likeness.cka(before, after).value == pytest.approx(1.0, abs=1e-4)


def test_unrelated_representations_are_not_alike() -> None:
    before, after = states(3), states(4)
    assert likeness.neighbours(before, after).mean() == pytest.approx(10 / 199, abs=0.03)
    found = likeness.cka(before, after)
    assert found.low <= 0 <= found.high
    assert abs(found.value) < 0.05


def test_more_change_is_less_alike() -> None:
    before = states(5)
    little, much = (before + share * states(6) for share in (0.2, 1.0))
    assert likeness.neighbours(before, little).mean() > likeness.neighbours(before, much).mean() + 0.1
    near, far = likeness.cka(before, little), likeness.cka(before, much)
    assert near.low > far.high


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 10"):
        likeness.neighbours(states(0, rows=10), states(1, rows=10))
    with pytest.raises(ValueError, match="at least 40"):
        likeness.cka(states(0, rows=39), states(1, rows=39))

"""Calibration: zero for nobody, flagged only where chance does not explain it, with bounds that hold."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.bench import calibration


def drawn(rows: int, seed: int, sharper: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and targets: the targets are drawn from the softmax of logits / `sharper`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, 4))
    chances = calibration.probabilities(logits)
    targets = (rng.random((rows, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=3)
    return logits * sharper, targets


def test_probabilities_sum_to_one_and_do_not_overflow() -> None:
    found = calibration.probabilities([[1000.0, 0.0], [0.0, 0.0]])
    assert found == pytest.approx(np.array([[1.0, 0.0], [0.5, 0.5]]))


def test_a_calibrated_model_is_not_flagged_and_an_overconfident_one_is() -> None:
    honest = calibration.judged(*drawn(2000, 0))
    assert not honest.miscalibrated
    assert honest.ece.value > 0
    assert honest.overconfidence.low < 0 < honest.overconfidence.high
    sure = calibration.judged(*drawn(2000, 0, sharper=3))
    assert sure.miscalibrated
    assert sure.ece.low > honest.ece.high
    assert sure.overconfidence.low > 0
    assert sure.brier.value > honest.brier.value
    unsure = calibration.judged(*drawn(2000, 0, sharper=0.3))
    assert unsure.miscalibrated
    assert unsure.overconfidence.high < 0


def test_calibrated_models_are_flagged_in_one_of_twenty() -> None:
    flagged = sum(calibration.judged(*drawn(400, seed), resamples=200).miscalibrated for seed in range(150))
    assert flagged / 150 <= 0.1


def test_the_bounds_cover_the_error_of_a_model_that_is_off() -> None:
    logits, targets = drawn(200_000, 7, sharper=3)
    stated = calibration.probabilities(logits).max(axis=1)
    right = logits.argmax(axis=1) == targets
    true = calibration.gap(stated, right, *calibration.binned(stated))
    rng = np.random.default_rng(1)
    below = above = 0
    for _ in range(150):
        some = rng.integers(0, len(targets), 800)
        found = calibration.judged(logits[some], targets[some], resamples=200).ece
        below += found.low <= true
        above += found.high >= true
    assert below / 150 >= 0.9
    assert above / 150 >= 0.9


def test_equal_probabilities_share_a_bin() -> None:
    stated = np.full(300, 0.6)
    which, bins = calibration.binned(stated)
    assert bins == 1
    right = np.arange(300) < 180
    assert calibration.gap(stated, right, which, bins) == pytest.approx(0.0)
    assert calibration.binned(np.linspace(0.2, 1, 300))[1] == 15
    assert calibration.binned(np.linspace(0.2, 1, 30))[1] == 1


def test_the_brier_score_is_the_squared_distance_from_the_truth() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]))
    found = calibration.judged(logits, np.array([0, 2]))
    assert found.brier.value == pytest.approx(((0.3**2 + 0.2**2 + 0.1**2) + (0.1**2 + 0.8**2 + 0.9**2)) / 2)


def test_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two rows"):
        calibration.judged([[1.0, 0.0]], np.array([0]))

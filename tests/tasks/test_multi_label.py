"""Multi-label: what counts as right, by hand, and the arithmetic that training and distilling rest on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plimsoll.tasks.multi_label import MultiLabel

TASK = MultiLabel(train="train.jsonl")
TARGETS = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]])
OUTPUTS = np.array([[2.0, -1.0, 0.5], [-1.0, -1.0, -0.1], [-3.0, 0.1, -2.0]], dtype=np.float32)


def test_labels_are_read_from_lists_and_from_strings(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "hi", "labels": ["a", "b"]}))
    (tmp_path / "test.csv").write_text("text,topics\nhi,b|a\nbye,\n")
    train = MultiLabel(train=str(tmp_path / "train.jsonl")).read("train")
    test = MultiLabel(train="x", test=str(tmp_path / "test.csv"), labels="topics", separator="|").read("test")
    assert train is not None
    assert test is not None
    assert train.labels == (frozenset("ab"),)
    assert test.labels == (frozenset("ab"), frozenset())


def test_scores_by_hand() -> None:
    # claimed: 0 and 2 of the first, none of the second, 1 of the third; right are two of three, and there are three
    evidence = TASK.evidence(OUTPUTS, TARGETS)
    assert evidence.tolist() == [[1, 2, 2], [0, 0, 0], [1, 1, 1]]
    assert TASK.value(evidence) == pytest.approx(2 * 2 / 6)
    score = TASK.score(OUTPUTS, TARGETS, ("a", "b", "c"))
    assert score["micro_precision"] == score["micro_recall"] == pytest.approx(2 / 3)
    assert score["recall"] == {"a": 1.0, "b": 0.5}
    assert score["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert TASK.value(np.zeros((2, 3))) == 0.0


def test_a_text_s_labels_come_surest_first_and_may_be_none() -> None:
    first, second = (TASK.prediction(row, "text", ("a", "b", "c")) for row in OUTPUTS[:2])
    assert [label.label for label in first.labels] == ["a", "c"]
    assert first.labels[0].score == pytest.approx(1 / (1 + np.exp(-2)))
    assert second.labels == ()


def test_the_loss_is_the_mean_of_every_label_s_own_and_smoothing_moves_its_minimum() -> None:
    import torch

    outputs, targets = torch.from_numpy(OUTPUTS), torch.from_numpy(TARGETS)
    chance = outputs.sigmoid()
    expected = -(targets * chance.log() + (1 - targets) * (1 - chance).log()).mean()
    torch.testing.assert_close(TASK.loss(outputs, targets, 0.0), expected)
    at = torch.tensor([[float(np.log(0.95 / 0.05))]], requires_grad=True)
    TASK.loss(at, torch.tensor([[1]]), 0.1).backward()
    assert at.grad is not None
    assert at.grad.item() == pytest.approx(0, abs=1e-6)


def test_the_divergence_of_two_answers_is_that_of_each_label_added_up() -> None:
    import torch

    one, other = torch.from_numpy(OUTPUTS), torch.from_numpy(OUTPUTS[::-1].copy())
    a, b = TASK.log_probabilities(one), TASK.log_probabilities(other)
    p, q = one.sigmoid(), other.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(dim=1)
    torch.testing.assert_close((a.exp() * (a - b)).sum(dim=1), expected)

"""Text classification: reading through the spec's names, the head over real tokens only, and scores checked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.errors import SpecError
from plimsoll.tasks.text_classification import TextClassification

TASK = TextClassification(train="train.jsonl")


def logits_for(predicted: list[int], labels: int) -> NDArray[np.float32]:
    return np.eye(labels, dtype=np.float32)[predicted]


# Reading


def test_the_named_splits_and_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"utterance": "hi", "intent": "greet"}))
    (tmp_path / "test.csv").write_text("intent,utterance\nleave,bye\n")
    task = TextClassification(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.csv"),
                              text="utterance", label="intent")
    train, test = task.read("train"), task.read("test")
    assert train is not None
    assert test is not None
    assert (train.texts, train.labels, test.texts, test.labels) == (("hi",), ("greet",), ("bye",), ("leave",))


def test_a_split_that_is_not_named_is_none() -> None:
    assert TASK.read("validation") is None
    assert TASK.read("test") is None


def test_a_folder_gives_each_split_its_own_file(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": split, "label": "x"}))
    task = TextClassification(train=str(tmp_path), test=str(tmp_path))
    assert [rows.texts for rows in (task.read("train"), task.read("test")) if rows] == [("train",), ("test",)]


def test_the_task_is_found_by_its_name_in_the_spec() -> None:
    task = find.read("tasks", {"kind": "text-classification", "train": "a.csv", "label": "intent"})
    assert task == TextClassification(train="a.csv", label="intent")
    assert find.read("tasks", find.write(task)) == task
    with pytest.raises(SpecError, match='did you mean "train"'):
        find.read("tasks", {"kind": "text-classification", "train": "a.csv", "trian": "b.csv"})


# The head


def test_the_head_is_a_linear_layer_over_the_mean_of_the_real_tokens() -> None:
    import torch

    head = TASK.head(hidden_size=2, labels=3).eval()
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, -100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    with torch.no_grad():
        logits = head(hidden, mask)
        by_hand = torch.tensor([[2.0, 4.0]]) @ head.classifier.weight.T + head.classifier.bias
    assert logits.shape == (1, 3)
    torch.testing.assert_close(logits, by_hand)


def test_padding_does_not_change_the_head(tmp_path: Path) -> None:
    import torch

    head = TASK.head(hidden_size=4, labels=2).eval()
    hidden = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([hidden, torch.full((2, 3, 4), 1e4)], dim=1)
    mask = torch.cat([torch.ones(2, 5, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(head(padded, mask), head(hidden, mask[:, :5]))


def test_a_row_without_tokens_gives_finite_logits() -> None:
    import torch

    logits = TASK.head(hidden_size=2, labels=2).eval()(torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.long))
    assert torch.isfinite(logits).all()


# Scores


def test_scores_by_hand() -> None:
    # a: 3 rows, 2 found, claimed 3 times; b: 2 rows, 1 found, claimed 2 times; c: 1 row, found, claimed once
    targets = np.array([0, 0, 0, 1, 1, 2])
    logits = logits_for([0, 0, 1, 1, 0, 2], 3)
    assert TASK.evidence(logits, targets).tolist() == [True, True, False, True, False, True]
    score = TASK.score(logits, targets, ("a", "b", "c"))
    assert score["accuracy"] == pytest.approx(4 / 6)
    assert score["recall"] == pytest.approx({"a": 2 / 3, "b": 1 / 2, "c": 1.0})
    # F1 = 2 TP / (rows + claims): a 4/6, b 2/4, c 2/2
    assert score["macro_f1"] == pytest.approx((4 / 6 + 1 / 2 + 1) / 3)


def test_the_headline_metric_is_one_of_the_scores() -> None:
    assert TASK.metric in TASK.score(logits_for([0], 2), np.array([0]), ("a", "b"))


def test_classes_without_rows_have_no_recall_and_no_part_in_the_mean() -> None:
    score = TASK.score(logits_for([0, 2], 3), np.array([0, 0]), ("a", "b", "c"))
    assert score["recall"] == {"a": 0.5}
    assert score["macro_f1"] == pytest.approx(2 / 3)  # 2 * 1 / (2 + 1), though c was claimed once


def test_all_wrong_and_all_right() -> None:
    targets = np.array([0, 1])
    assert TASK.score(logits_for([1, 0], 2), targets, ("a", "b")) == {
        "accuracy": 0.0, "macro_f1": 0.0, "recall": {"a": 0.0, "b": 0.0}}
    assert TASK.score(logits_for([0, 1], 2), targets, ("a", "b")) == {
        "accuracy": 1.0, "macro_f1": 1.0, "recall": {"a": 1.0, "b": 1.0}}


def test_only_the_order_of_the_logits_counts() -> None:
    logits = np.array([[-3.0, -2.0], [1e4, 1e3]], dtype=np.float32)
    assert TASK.evidence(logits, np.array([1, 0])).tolist() == [True, True]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_scores_agree_with_each_other(pairs: list[tuple[int, int]]) -> None:
    predicted, targets = [p for p, _ in pairs], np.array([t for _, t in pairs])
    logits = logits_for(predicted, 4)
    score = TASK.score(logits, targets, "abcd")
    assert score["accuracy"] == pytest.approx(TASK.evidence(logits, targets).mean())
    support = {label: int((targets == i).sum()) for i, label in enumerate("abcd")}
    weighted = sum(recall * support[label] for label, recall in score["recall"].items()) / len(pairs)
    assert weighted == pytest.approx(score["accuracy"]), "accuracy is the recall weighted by rows"
    assert 0 <= score["macro_f1"] <= 1


def test_the_expected_change_counts_a_close_call_for_little() -> None:
    task = TextClassification(train="rows.jsonl")
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 300)
    reference = rng.standard_normal((300, 3)).astype(np.float32)
    reference[np.arange(300), targets] += 2
    order = np.argsort(reference, axis=1)
    second = np.zeros_like(reference)
    second[np.arange(300), order[:, 1]] = 1  # always the reference's second choice
    change = task.expected_change(reference, second, targets)
    margin = np.sort(reference, axis=1)[:, 2] - np.sort(reference, axis=1)[:, 1]
    assert np.all(change <= 0)
    assert change[margin < 0.2].mean() > 3 * change[margin > 2].mean()
    assert not task.expected_change(reference, reference, targets).any()


def test_the_expected_change_is_near_the_counted_one_when_the_reference_is_calibrated() -> None:
    task = TextClassification(train="rows.jsonl")
    rng = np.random.default_rng(1)
    logits = 2 * rng.standard_normal((4000, 4)).astype(np.float32)
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (rng.random((4000, 1)) > chance.cumsum(axis=1)).sum(axis=1).clip(max=3)
    other = logits + 0.7 * rng.standard_normal(logits.shape).astype(np.float32)
    counted = task.evidence(other, targets).mean() - task.evidence(logits, targets).mean()
    assert task.expected_change(3 * logits, other, targets).mean() == pytest.approx(counted, abs=0.012)

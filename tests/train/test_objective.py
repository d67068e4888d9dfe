"""A task's loss and score on rows: of a tagger, the words' first tokens and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plimsoll.data.rows import targets
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.tasks.token_classification import TokenClassification
from plimsoll.testing.tiny import TINY_TAGGED, write_tiny_bert
from plimsoll.train import encoder, loop, losses, objective, teacher
from plimsoll.train.batches import Tokens, joined, tokenize

TASK = TokenClassification(train="rows")
ROWS = [TINY_TAGGED[i] for i in (4, 9, 33)]
CLASSES = TASK.classes({tag for _, tags in TINY_TAGGED for tag in tags})
TARGETS = targets([tags for _, tags in ROWS], CLASSES)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return encoder.start(write_tiny_bert(tmp_path / "tiny"), TASK, len(CLASSES)).eval()


@pytest.fixture
def rows(model: Any, tmp_path: Path) -> Tokens:
    return tokenize(tmp_path / "tiny", [" ".join(words) for words, _ in ROWS], words=True)


def test_a_tagger_learns_each_word_at_its_first_token(model: Any, rows: Tokens) -> None:
    loss = objective.learned(TASK, TARGETS, rows, 0.0, "cpu")
    expected, words = 0.0, 0
    for row, (texts, _) in enumerate(ROWS):
        batch = rows.batch(np.array([row]))
        answers = rows.subset(np.array([row])).answers(model(batch.input_ids, batch.attention_mask).detach().numpy())
        for word in range(len(texts)):
            logits = torch.from_numpy(answers[0, word])
            expected -= logits.log_softmax(dim=0)[TARGETS[row, word]].item()
            words += 1
    assert loss(model, rows.batch(np.array([2, 0, 1]))).item() == pytest.approx(expected / words, rel=1e-4)


def test_a_tagger_is_judged_by_the_words_of_its_rows(model: Any, rows: Tokens) -> None:
    score = objective.judged(TASK, TARGETS, rows)
    right = np.zeros((3, int(rows.lengths.max()), len(CLASSES)), dtype=np.float32)
    of_tokens = rows.of_tokens(TARGETS)
    for row in range(3):
        for place, target in enumerate(of_tokens[rows.starts[row]:rows.starts[row + 1]]):
            right[row, place, target if target >= 0 else 1] = 1  # what is said of other tokens does not count
    assert score(right) == 1.0
    assert score(-right) < 1.0
    assert 0 <= score(loop.predict(model, rows)) <= 1


def test_a_student_is_taught_every_token_of_labelled_and_other_rows(model: Any, rows: Tokens) -> None:
    extra = Tokens(rows.ids[: rows.starts[2]], rows.starts[:3], rows.pad_id)
    all_rows = joined(rows, extra)
    order = np.array([4, 1, 0, 3, 2])
    batch = all_rows.batch(order)
    given = teacher.outputs(model, batch)
    flat = torch.empty(len(all_rows.ids), len(CLASSES))
    pooled = torch.empty(5, 32)
    for i, row in enumerate(order):
        length = int(all_rows.lengths[row])
        flat[all_rows.starts[row]:all_rows.starts[row] + length] = given.logits[i, :length].detach()
        pooled[row] = given.pooled[i].detach()

    def value(logits: torch.Tensor, label_weight: float = 0.0) -> float:
        lesson = teacher.Lesson(all_rows, teacher.Outputs(logits, pooled), torch.empty(0))
        return objective.taught(TASK, TARGETS, rows, lesson, 2.0, label_weight, 1.0, 0.0, "cpu")(model, batch).item()

    assert value(flat) == pytest.approx(0, abs=1e-5)
    moved = flat.clone()
    moved[-1] += torch.arange(len(CLASSES))  # the last token of a row without a label
    assert value(moved) > 1e-3
    hard = losses.hard(rows.of_tokens(TARGETS), 0.0, of=TASK.loss, starts=rows.starts)(model, rows.batch(np.arange(3)))
    share = rows.starts[-1] / all_rows.starts[-1]
    assert value(flat, label_weight=1.0) == pytest.approx(share * hard.item(), rel=1e-3)


def test_a_classifier_learns_and_is_judged_by_rows(tmp_path: Path) -> None:
    task = TextClassification(train="rows")
    model = encoder.start(write_tiny_bert(tmp_path / "tiny"), task, 3).eval()
    tokens = tokenize(tmp_path / "tiny", ["play", "stop the song", "light"])
    labels = np.array([2, 0, 1])
    batch = tokens.batch(np.array([1, 2]))
    assert (objective.learned(task, labels, tokens, 0.1, "cpu")(model, batch)
            == losses.hard(labels, 0.1)(model, batch))
    assert objective.judged(task, labels, tokens)(np.eye(3, dtype=np.float32)[[2, 1, 1]]) == pytest.approx(2 / 3)

"""Losses: what they are at their minimum, and that each part counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import write_tiny_bert
from plimsoll.train import encoder, losses, teacher
from plimsoll.train.batches import Batch, tokenize

TARGETS = np.array([2, 0, 1])


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return encoder.start(write_tiny_bert(tmp_path / "tiny"), TextClassification(train="rows"), 3).eval()


@pytest.fixture
def batch(tmp_path: Path, model: Any) -> Batch:
    return tokenize(tmp_path / "tiny", ["play the song", "light on", "will it rain"]).batch(np.array([2, 0, 1]))


def test_hard_is_the_cross_entropy_of_the_rows_own_labels(model: Any, batch: Batch) -> None:
    logits = model(batch.input_ids, batch.attention_mask)
    labels = torch.from_numpy(TARGETS)[batch.rows]
    expected = -logits.log_softmax(dim=1)[torch.arange(3), labels].mean()
    assert losses.hard(TARGETS, 0.0)(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_soft_is_zero_for_a_student_that_answers_as_its_teacher(model: Any, batch: Batch) -> None:
    answers = teacher.outputs(model, batch)
    back = batch.rows.argsort()
    kept = teacher.Outputs(answers.logits[back].detach(), answers.pooled[back].detach())
    assert losses.soft(kept, TARGETS, 2.0, 0.0, 1.0)(model, batch).item() == pytest.approx(0, abs=1e-5)


def test_soft_counts_each_part_by_its_weight(model: Any, batch: Batch) -> None:
    generator = torch.Generator().manual_seed(0)
    other = teacher.Outputs(torch.randn(3, 3, generator=generator), torch.randn(3, 32, generator=generator).half())

    def value(label_weight: float, hidden_weight: float) -> float:
        return losses.soft(other, TARGETS, 2.0, label_weight, hidden_weight)(model, batch).item()

    answers, labels, hidden = value(0, 0), value(1, 0) - value(0, 0), value(0, 1) - value(0, 0)
    assert min(answers, labels, hidden) > 0
    assert labels == pytest.approx(losses.hard(TARGETS, 0.0)(model, batch).item(), rel=1e-3)
    assert value(2, 3) == pytest.approx(answers + 2 * labels + 3 * hidden, rel=1e-3)


def test_nearness_is_zero_for_the_same_answers_and_falls_as_they_part(model: Any, batch: Batch) -> None:
    answers = model(batch.input_ids, batch.attention_mask).detach()
    away = torch.randn(answers.shape, generator=torch.Generator().manual_seed(0))
    near = [losses.nearness((answers + by * away).numpy(), answers) for by in (0.0, 0.1, 1.0)]
    assert near[0] == pytest.approx(0, abs=1e-6)
    assert near[0] > near[1] > near[2]
    shifted = (answers + 3).numpy()  # the same probabilities
    assert losses.nearness(shifted, answers) == pytest.approx(0, abs=1e-6)


def test_temperature_leaves_the_size_of_the_gradient_alone(model: Any, batch: Batch) -> None:
    generator = torch.Generator().manual_seed(0)
    other = teacher.Outputs(torch.randn(3, 3, generator=generator), torch.zeros(3, 32))
    at_4, at_8 = (losses.soft(other, TARGETS, t, 0, 0)(model, batch).item() for t in (4.0, 8.0))
    assert at_4 == pytest.approx(at_8, rel=0.1)


def _own_tokens(model: Any, batch: Batch, rows: int = 3) -> teacher.TokenStates:
    """Return the model's states of the tokens of the first rows, as a teacher would keep them."""
    hidden = teacher.last_hidden(model, batch).detach()
    real = batch.attention_mask.bool()
    back = batch.rows.argsort()
    lengths = real.sum(dim=1)[back]
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    return teacher.TokenStates(torch.cat([hidden[i][real[i]] for i in back[:rows]]).half(), starts)


def test_soft_compares_each_token_with_the_teacher_s_of_the_same_place(model: Any, batch: Batch) -> None:
    answers = teacher.outputs(model, batch)
    back = batch.rows.argsort()
    kept = teacher.Outputs(answers.logits[back].detach(), answers.pooled[back].detach())
    own = _own_tokens(model, batch)

    def value(tokens: teacher.TokenStates, weight: float) -> float:
        return losses.soft(kept, TARGETS, 2.0, 0.0, 0.0, token_weight=weight, tokens=tokens)(model, batch).item()

    assert value(own, 5.0) == pytest.approx(0, abs=1e-5)
    moved = teacher.TokenStates(own.states.clone(), own.starts)
    moved.states[int(own.starts[1])] += 2.0  # the first token of the second row
    expected = 32 * 2.0**2 / (batch.attention_mask.sum().item() * 32 * moved.states.float().var(dim=0).mean().item())
    assert value(moved, 1.0) == pytest.approx(expected, rel=0.01)
    assert value(moved, 3.0) == pytest.approx(3 * expected, rel=0.01)


def test_tokens_of_rows_the_teacher_has_no_states_for_add_nothing(model: Any, batch: Batch) -> None:
    answers = teacher.outputs(model, batch)
    back = batch.rows.argsort()
    kept = teacher.Outputs(answers.logits[back].detach(), answers.pooled[back].detach())
    tokens = _own_tokens(model, batch, rows=2)
    assert len(tokens.states) == tokens.starts[2]
    soft = losses.soft(kept, TARGETS[:2], 2.0, 0.0, 0.0, token_weight=1.0, tokens=tokens)
    assert soft(model, batch).item() == pytest.approx(0, abs=1e-5)
    last = Batch(batch.rows[:1], batch.input_ids[:1], batch.attention_mask[:1])  # only the row without states
    assert last.rows.tolist() == [2]
    assert soft(model, last).item() == pytest.approx(0, abs=1e-5)

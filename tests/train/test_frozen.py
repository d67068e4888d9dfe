"""Frozen lower layers: the answers of the whole model, from a table of what the frozen layers give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plimsoll.core.errors import Unsupported
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder, frozen
from plimsoll.train.batches import tokenize
from plimsoll.train.loop import predict

TASK = TextClassification(train="rows")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("tiny"), layers=4)


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_the_answers_are_those_of_the_whole_model(tiny: Path, layers: int) -> None:
    model: Any = encoder.start(tiny, TASK, 3)
    a, b = (tokenize(tiny, [text for text, _ in rows]) for rows in (TINY_ROWS[:50], TINY_ROWS[50:60]))
    whole = [predict(model, tokens) for tokens in (a, b)]
    with frozen.below(model, layers, (a, b), "cpu") as numbered:
        for tokens, expected in zip(numbered, whole, strict=True):
            np.testing.assert_allclose(predict(model, tokens), expected, atol=1e-5)
        assert len(model.encoder.encoder.layer) == 4 - layers
        learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("embeddings" in name for name in learned)
    assert len(model.encoder.encoder.layer) == 4
    np.testing.assert_allclose(predict(model, a), whole[0], atol=1e-6)
    assert all(p.requires_grad for p in model.parameters())


def test_what_is_frozen_gets_no_gradient_and_stays(tiny: Path) -> None:
    model: Any = encoder.start(tiny, TASK, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens = tokenize(tiny, [text for text, _ in TINY_ROWS[:32]])
    with frozen.below(model, 2, (tokens,), "cpu") as (numbered,):
        batch = numbered.batch(np.arange(32))
        torch.nn.functional.cross_entropy(model(batch.input_ids, batch.attention_mask), batch.rows % 3).backward()
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all(name.startswith(("head.", "encoder.encoder.layer.2", "encoder.encoder.layer.3")) for name in changed)


def test_more_layers_than_there_are_and_more_than_memory_holds_are_refused(
        tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokenize(tiny, ["play the song"])
    with pytest.raises(Unsupported, match="has 4 layers"), frozen.below(
            encoder.start(tiny, TASK, 3), 5, (tokens,), "cpu"):
        pass
    monkeypatch.setattr(frozen, "_LARGEST_MB", 0)
    with pytest.raises(Unsupported, match="would take"), frozen.below(
            encoder.start(tiny, TASK, 3), 1, (tokens,), "cpu"):
        pass

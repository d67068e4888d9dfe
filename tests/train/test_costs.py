"""What a step costs is measured on the real thing, and leaves no trace in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import adapters, costs, encoder, loop, losses
from plimsoll.train.batches import tokenize

TASK = TextClassification(train="rows")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_FEWEST", 2)
    monkeypatch.setattr(costs, "_MOST", 2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("tiny"))


def measured(model: Any, tiny: Path) -> costs.StepCosts:
    batch = tokenize(tiny, [text for text, _ in TINY_ROWS]).batch(np.arange(16))
    loss = losses.hard(np.arange(len(TINY_ROWS)) % 3, 0.0)
    return costs.measure(model, lambda: loss(model, batch), lambda: loss(model, batch), "fp32", "cpu")


def test_weights_gradients_and_chance_are_as_before(tiny: Path) -> None:
    model = encoder.start(tiny, TASK, 3, dropout=0.1)
    before, state = {n: p.detach().clone() for n, p in model.named_parameters()}, torch.random.get_rng_state()
    found = measured(model, tiny)
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in model.named_parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found.trainable == found.parameters == sum(p.numel() for p in model.parameters())
    assert {k: len(v) for k, v in found.step_s.items()} == {"none": 2, "selective": 2, "full": 2}
    assert all(0 < share < 1 for share in found.recompute_direct)


def test_a_model_whose_layers_cannot_be_checkpointed_still_has_its_step(tiny: Path) -> None:
    model = encoder.start(tiny, TASK, 3)
    adapters.Prefix(model, 4)
    found = measured(model, tiny)
    assert found.trainable < found.parameters
    assert list(found.step_s) == ["none"]
    assert found.reason
    assert found.device_mb is None
    assert not found.recompute_direct


def test_a_move_that_trains_writes_them_when_asked_and_learns_the_same(tiny: Path, tmp_path: Path) -> None:
    tokens = tokenize(tiny, [text for text, _ in TINY_ROWS])
    targets = np.arange(len(TINY_ROWS)) % 3
    how = loop.Training(epochs=1, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01,
                        warmup=0.1, patience=1, precision="fp32")

    def trained(file: Path | None) -> dict[str, torch.Tensor]:
        work = Work(task=TASK, data=tmp_path, threads=1, costs=file)
        with loop.settings(work):
            model = encoder.start(tiny, TASK, 3, dropout=0.1)
            loop.fit(model, tokens, tokens, losses.hard(targets, 0.1), lambda logits: 0.0, how, work, "test", began=0.0)
        return model.state_dict()

    plain, asked = trained(None), trained(tmp_path / "costs.json")
    assert all(torch.equal(plain[name], asked[name]) for name in plain)
    found = costs.StepCosts.from_file(tmp_path / "costs.json")
    assert (found.precision, found.rows) == ("fp32", 16)
    assert found.rows * found.mean_tokens < found.tokens <= 16 * tokens.lengths.max()

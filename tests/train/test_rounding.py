"""Rounding while training: what integer arithmetic computes, gradients as without it, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder, loop, losses, rounding, shape
from plimsoll.train.batches import Batch, tokenize

TASK = TextClassification(train="rows")
IDS = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture
def model(tmp_path: Path) -> Any:
    torch.manual_seed(0)
    return encoder.start(write_tiny_bert(tmp_path / "tiny"), TASK, 3).eval()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(-6, 6), st.integers(1, 40))
def test_each_row_lies_on_its_own_grid_and_moves_by_half_a_step_at_most(seed: int, size: float, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 2, width, generator=generator) * 10**size
    values[0, 0] = 0
    got = rounding.rounded(values)
    step = values.abs().amax(dim=-1, keepdim=True) / 127
    assert ((got - values).abs() <= 0.5001 * step).all()
    steps = (got / step.clamp(min=1e-30))
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    assert steps.abs().max() <= 127.001
    assert torch.allclose(rounding.rounded(-values), -got)
    assert torch.allclose(rounding.rounded(got), got, rtol=1e-5)


def test_a_linear_layer_computes_what_integers_would() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(48, 20)
    given = torch.randn(3, 5, 48, generator=generator) * torch.logspace(-2, 2, 15).view(3, 5, 1)
    with torch.no_grad():
        x_scale, w_scale = given.abs().amax(-1, keepdim=True) / 127, layer.weight.abs().amax(-1, keepdim=True) / 127
        integers = (given / x_scale).round().long() @ (layer.weight / w_scale).round().long().T
        wanted = integers * x_scale * w_scale.T + layer.bias
        with rounding.int8(layer):
            got = layer(given)
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(got, layer(given), rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_rounded_layer_as_if_rounding_had_none() -> None:
    layer, given = torch.nn.Linear(6, 4), torch.randn(5, 6, requires_grad=True)
    direction = torch.randn(5, 4)
    with rounding.int8(layer):
        (layer(given) * direction).sum().backward()
    assert layer.weight.grad is not None
    assert given.grad is not None
    assert torch.allclose(layer.weight.grad, direction.T @ rounding.rounded(given.detach()), atol=1e-6)
    assert torch.allclose(given.grad, direction @ rounding.rounded(layer.weight.detach()), atol=1e-6)


@pytest.mark.parametrize("change", ["whole", "narrow", "pooled"])
def test_every_linear_layer_is_rounded_learns_and_is_itself_again_afterwards(model: Any, change: str) -> None:
    if change == "narrow":
        shape.keep(model.encoder.encoder.layer[0], [1], range(9))
        shape.keep(model.encoder.encoder.layer[1], [], range(5))
    if change == "pooled":
        shape.pool(model.encoder)
    names, before = list(model.state_dict()), model(IDS, MASK)
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    with rounding.int8(model):
        assert all("forward" in vars(m) for m in linear)
        assert list(model.state_dict()) == names
        inside = model(IDS, MASK)
        inside.square().sum().backward()
    assert 1e-5 < (inside - before).abs().max() < 0.1
    assert all(m.weight.grad is not None and m.weight.grad.abs().sum() > 0 for m in linear)
    assert torch.equal(model(IDS, MASK), before)
    assert not any("forward" in vars(m) for m in linear)


def test_the_layers_are_themselves_again_after_an_error(model: Any) -> None:
    before = model(IDS, MASK)
    with pytest.raises(RuntimeError, match="stop"), rounding.int8(model):
        raise RuntimeError("stop")
    assert torch.equal(model(IDS, MASK), before)


def test_a_killed_run_with_rounding_goes_on_and_ends_with_the_same_weights(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "_CHECKPOINT_SHARE", 1e9)
    folder = write_tiny_bert(tmp_path / "tiny")
    tokens = tokenize(folder, [text for text, _ in TINY_ROWS])
    names = sorted({label for _, label in TINY_ROWS})
    targets = np.array([names.index(label) for _, label in TINY_ROWS])
    how = loop.Training(epochs=2, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01,
                        warmup=0.1, patience=3, precision="fp32")

    def train(kept: Path | None, steps: int | None = None) -> dict[str, torch.Tensor]:
        hard = losses.hard(targets, 0.1)
        done = 0

        def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            nonlocal done
            if done == steps:
                raise KeyboardInterrupt
            done += 1
            return hard(model, batch)

        with loop.settings(work := Work(task=TASK, data=folder, threads=1, checkpoint=kept)):
            model = encoder.start(folder, TASK, 3)
            with rounding.int8(model):
                loop.fit(model, tokens, tokens, loss, lambda logits: float(np.mean(logits.argmax(axis=1) == targets)),
                         how, work, "test", began=0.0)
        return model.state_dict()

    whole = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "kept", steps=11)
    again = train(tmp_path / "kept")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())

"""Activation checkpointing: the same gradients whatever is kept, less memory, and two ways to find its price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder, recompute
from plimsoll.train.batches import Batch, tokenize

TASK = TextClassification(train="rows")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("tiny"), hidden_size=64, layers=4)


def model_and_batch(tiny: Path) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    return encoder.start(tiny, TASK, 3), tokenize(tiny, [text for text, _ in TINY_ROWS]).batch(np.arange(32))


def gradients(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(1)  # the head drops some of what it reads
    torch.nn.functional.cross_entropy(model(batch.input_ids, batch.attention_mask), batch.rows % 3).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model: Any, batch: Batch) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    storages: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(batch.input_ids, batch.attention_mask).sum()
    loss.backward()
    return sum(storages.values())


@pytest.mark.parametrize("policy", ["selective", "full"])
def test_gradients_are_the_same_whatever_is_computed_again(policy: recompute.Policy, tiny: Path) -> None:
    model, batch = model_and_batch(tiny)
    plain = gradients(model, batch)
    with recompute.checkpointed(model.encoder, policy):
        again = gradients(model, batch)
    assert plain.keys() == again.keys()
    assert all(torch.allclose(plain[name], again[name], atol=1e-6) for name in plain)
    assert all(torch.equal(plain[name], found) for name, found in gradients(model, batch).items())


def test_full_keeps_less_than_selective_and_that_less_than_none(tiny: Path) -> None:
    kept: dict[str, int] = {}
    for policy in ("none", "selective", "full"):
        model, batch = model_and_batch(tiny)
        with recompute.checkpointed(model.encoder, policy):  # type: ignore[arg-type]
            kept[policy] = kept_bytes(model, batch)
    assert kept["full"] < kept["none"] / 2


def test_the_stopwatch_sees_what_is_computed_again_and_nothing_else(tiny: Path) -> None:
    model, batch = model_and_batch(tiny)
    calls: list[bool] = []
    watch = recompute.Stopwatch("cpu")
    layer = model.encoder.encoder.layer[0]
    layer.intermediate.register_forward_hook(lambda *_: calls.append(watch.seconds > 0 or bool(inside)))
    inside: list[int] = []
    with recompute.checkpointed(model.encoder, "full", stopwatch=watch):
        with torch.no_grad():
            model(batch.input_ids, batch.attention_mask)
        assert watch.seconds == 0
        loss = model(batch.input_ids, batch.attention_mask).sum()
        assert watch.seconds == 0
        loss.backward()
    assert len(calls) == 3  # without gradients, forward, and once more
    assert watch.seconds > 0


def test_the_layers_own_forward_is_back_afterwards(tiny: Path) -> None:
    model, _ = model_and_batch(tiny)
    own = type(model.encoder.encoder.layer[0]).forward
    with pytest.raises(RuntimeError, match="on the way"), recompute.checkpointed(model.encoder, "full"):
        raise RuntimeError("on the way")
    assert model.encoder.encoder.layer[0].forward.__func__ is own


@given(st.integers(2, 48), st.floats(0.5, 5.0), st.floats(0.01, 0.5))
def test_both_ways_agree_on_a_step_that_grows_with_its_layers(layers: int, plain_s: float, each_s: float) -> None:
    counts = np.array([0, layers // 2, layers])
    none_s, half_s, full_s = (np.full(5, plain_s + each_s * n) for n in counts)
    found = recompute.Timed(none_s, half_s, full_s, np.full(5, each_s * layers), full_s, layers)
    np.testing.assert_allclose(found.direct, each_s * layers / (plain_s + each_s * layers))
    np.testing.assert_allclose(found.fitted, found.direct, rtol=1e-6)


def test_every_policy_is_timed_as_often_as_asked(tiny: Path) -> None:
    model, batch = model_and_batch(tiny)
    found = recompute.timed(lambda: gradients(model, batch), model.encoder, "cpu", 3)
    assert all(len(x) == 3 and (x > 0).all() for x in found[:5])
    assert (found.again_s < found.full_s).all()

"""The shape of an encoder: what is kept computes what it did, and a saved shape comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plimsoll.core.errors import Unsupported
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import write_tiny_bert
from plimsoll.train import encoder, shape
from plimsoll.train.shape import LayerShape

IDS = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
TASK = TextClassification(train="rows.jsonl")


@pytest.fixture
def model(tmp_path: Path) -> Any:
    torch.manual_seed(0)
    return encoder.start(write_tiny_bert(tmp_path / "tiny"), TASK, 3).eval()


def test_heads_and_neurons_that_contribute_nothing_are_removed_without_a_trace(model: Any) -> None:
    layer = model.encoder.encoder.layer[0]
    with torch.inference_mode():
        layer.attention.output.dense.weight[:, :16] = 0  # head 0 of two, 16 wide
        layer.output.dense.weight[:, 10:] = 0
        before = model(IDS, MASK)
        shape.keep(layer, [1], range(10))
        assert torch.allclose(model(IDS, MASK), before, atol=1e-6)
    assert shape.shapes(model.encoder) == (LayerShape(heads=1, neurons=10), LayerShape(heads=2, neurons=64))


def test_a_layer_without_heads_and_neurons_is_its_biases_and_norms(model: Any) -> None:
    layer = model.encoder.encoder.layer[0]
    with torch.inference_mode():
        layer.attention.output.dense.weight[:] = 0
        layer.output.dense.weight[:] = 0
        before = model(IDS, MASK)
        shape.keep(layer, [], [])
        assert torch.allclose(model(IDS, MASK), before, atol=1e-6)
    assert shape.shapes(model.encoder)[0] == LayerShape(heads=0, neurons=0)


@pytest.mark.parametrize("wanted", [(LayerShape(heads=1, neurons=24), LayerShape(heads=2, neurons=0)),
                                    (LayerShape(heads=0, neurons=64), LayerShape(heads=2, neurons=64))])
def test_a_narrowed_model_comes_back_from_its_folder(model: Any, tmp_path: Path,
                                                     wanted: tuple[LayerShape, ...]) -> None:
    for layer, w in zip(model.encoder.encoder.layer, wanted, strict=True):
        shape.keep(layer, range(w.heads), range(w.neurons))
    record = encoder.ModelRecord(task={"kind": "text-classification", "train": "rows.jsonl"}, labels=("a", "b", "c"),
                                 max_length=8)
    encoder.save(model, record, tmp_path / "tiny", tmp_path / "out")
    back: Any = encoder.load(tmp_path / "out")
    assert shape.shapes(back.encoder) == wanted
    with torch.inference_mode():
        assert torch.equal(back(IDS, MASK), model(IDS, MASK))


def test_an_untouched_model_records_no_shapes(model: Any) -> None:
    assert shape.changed(model.encoder) == ()


def test_another_layout_is_refused_by_name() -> None:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=30, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    with pytest.raises(Unsupported, match="TransformerBlock keeps"):
        shape.shapes(DistilBertModel(config))

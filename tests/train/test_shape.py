"""The shape of an encoder: what is kept computes what it did, and a saved shape comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plimsoll.core.errors import Unsupported
from plimsoll.runtimes import litert
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


def test_attention_with_projections_of_other_names_is_refused(model: Any) -> None:
    attention = model.encoder.encoder.layer[0].attention.self
    attention.query_proj = attention.query
    del attention.query
    with pytest.raises(Unsupported, match="does not know them"):
        shape.shapes(model.encoder)


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
                                    (LayerShape(heads=0, neurons=64), LayerShape(heads=2, neurons=64)),
                                    (LayerShape(heads=1, neurons=8), LayerShape(heads=0, neurons=7, pooled=True))])
def test_a_narrowed_model_comes_back_from_its_folder(model: Any, tmp_path: Path,
                                                     wanted: tuple[LayerShape, ...]) -> None:
    for layer, w in zip(model.encoder.encoder.layer, wanted, strict=True):
        shape.keep(layer, range(w.heads), range(w.neurons))
    if wanted[-1].pooled:
        shape.pool(model.encoder)
    record = encoder.ModelRecord(task={"kind": "text-classification", "train": "rows.jsonl"}, labels=("a", "b", "c"),
                                 max_length=8)
    encoder.save(model, record, tmp_path / "tiny", tmp_path / "out")
    back: Any = encoder.load(tmp_path / "out")
    assert shape.shapes(back.encoder) == wanted
    with torch.inference_mode():
        assert torch.equal(back(IDS, MASK), model(IDS, MASK))


def _lively(model: Any) -> None:
    """Make the answers depend on every part: random weights of the usual size hardly move them."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("last", [(2, 64), (1, 9), (0, 9), (1, 0), (0, 0)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_pooled_row_has_the_same_answer_alone_padded_and_with_the_mask_of_litert(
        model: Any, attention: str, last: tuple[int, int]) -> None:
    _lively(model)
    shape.keep(model.encoder.encoder.layer[-1], range(last[0]), range(last[1]))
    shape.pool(model.encoder)
    model.encoder.set_attn_implementation(attention)
    rows = [[2, 7, 9, 30, 31, 3], [2, 8, 3], [5]]
    ids, mask = torch.zeros(3, 11, dtype=torch.long), torch.zeros(3, 11, dtype=torch.long)
    marked = torch.full((3, 11), -1, dtype=torch.int32)
    for i, row in enumerate(rows):
        ids[i, :len(row)], mask[i, :len(row)], marked[i, :len(row)] = torch.tensor(row), 1, torch.tensor(row).int()
    with torch.inference_mode():
        together = model(ids, mask)
        one_row = litert._with_padding_marked(model)
        for i, row in enumerate(rows):
            alone = model(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long))[0]
            assert torch.allclose(together[i], alone, atol=1e-5)
            assert torch.allclose(one_row(marked[i]), alone, atol=1e-5)
            assert torch.allclose(one_row(torch.tensor(row, dtype=torch.int32)), alone, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1  # rows that differ are told apart


def test_a_pooled_layer_gives_what_attention_of_the_mean_gives(model: Any) -> None:
    _lively(model)
    layer = model.encoder.encoder.layer[-1]
    seen: list[torch.Tensor] = []
    with torch.inference_mode():
        layer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        model(IDS[:1], MASK[:1])
        mean = seen[0].mean(dim=1, keepdim=True)
        # one more token that is the mean, and that nobody may look at: what the whole layer makes of it
        bias = torch.tensor([0.0, 0, 0, 0, -1e9])[None, None, None]
        model.encoder.set_attn_implementation("eager")
        wanted = layer(torch.cat([seen[0], mean], dim=1), bias)
        wanted = (wanted[0] if isinstance(wanted, tuple) else wanted)[:, -1:]
        shape.pool(model.encoder)
        pooled = model.encoder(input_ids=IDS[:1], attention_mask=MASK[:1]).last_hidden_state
    assert torch.allclose(pooled, wanted, atol=1e-5)


def test_pooling_twice_is_pooling_once(model: Any) -> None:
    shape.pool(model.encoder)
    layer = model.encoder.encoder.layer[-1]
    shape.pool(model.encoder)
    assert model.encoder.encoder.layer[-1] is layer
    assert [s.pooled for s in shape.shapes(model.encoder)] == [False, True]


def test_gradients_reach_every_weight_of_a_pooled_model(model: Any) -> None:
    shape.pool(model.encoder)
    model(IDS, MASK).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in model.named_parameters()
               if "key.bias" not in name)  # it moves all scores alike, so it never has one


def test_an_untouched_model_records_no_shapes(model: Any) -> None:
    assert shape.changed(model.encoder) == ()


def test_another_layout_is_refused_by_name() -> None:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=30, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    with pytest.raises(Unsupported, match="TransformerBlock keeps"):
        shape.shapes(DistilBertModel(config))
    with pytest.raises(Unsupported, match="TransformerBlock keeps"):
        shape.pool(DistilBertModel(config))

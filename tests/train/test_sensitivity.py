"""Sensitivity: the layer that int8 ruins comes first, scores are of one layer rounded alone, nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plimsoll.core.errors import RunError
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import batches, encoder, sensitivity, shape
from plimsoll.train.batches import Tokens
from plimsoll.train.sensitivity import Quantization


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_bert(tmp_path / "tiny", layers=3)


@pytest.fixture
def model(tiny: Path) -> Any:
    torch.manual_seed(0)
    found = encoder.start(tiny, TextClassification(train="rows.jsonl"), 3).eval()
    with torch.no_grad():  # weights as a fresh model has them leave almost all to the residual path
        for module in found.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= 8
    return found


@pytest.fixture
def rows(tiny: Path) -> Tokens:
    return batches.tokenize(tiny, [text for text, _ in TINY_ROWS])


def answers(model: Any, rows: Tokens) -> torch.Tensor:
    batch = rows.batch(np.arange(len(rows)))
    with torch.no_grad():
        return model(batch.input_ids, batch.attention_mask).double().log_softmax(dim=-1)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_with_outliers_comes_first(model: Any, rows: Tokens, layer: int) -> None:
    before = answers(model, rows)
    attention = model.encoder.encoder.layer[layer].attention
    with torch.no_grad():  # the same function in fp32: one value is 1000 times smaller, and weighs so much more
        attention.self.value.weight[0] /= 1000
        attention.self.value.bias[0] /= 1000
        attention.output.dense.weight[:, 0] *= 1000
    torch.testing.assert_close(answers(model, rows), before, atol=1e-5, rtol=0)
    scores = sensitivity.rank(model, rows)
    first, second, *_ = scores
    assert first == f"encoder.encoder.layer.{layer}.attention.output.dense"
    assert scores[first] > 10 * scores[second]


def test_each_score_is_the_divergence_when_that_layer_alone_is_rounded(model: Any, rows: Tokens) -> None:
    scores = sensitivity.rank(model, rows)
    whole = answers(model, rows)
    linears = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert scores.keys() == linears.keys()
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for name, linear in linears.items():
        with sensitivity._rounded(linear):
            rounded = answers(model, rows)
        kl = float((whole.exp() * (whole - rounded)).sum(dim=1).mean())
        assert scores[name] == pytest.approx(kl, rel=0.02, abs=1e-9)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_model_is_as_it_was_and_the_scores_are_the_same_again(model: Any, rows: Tokens, pooled: bool) -> None:
    if pooled:
        shape.pool(model.encoder)
    before, state = answers(model, rows), {k: v.clone() for k, v in model.state_dict().items()}
    first = sensitivity.rank(model, rows)
    assert torch.equal(answers(model, rows), before)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert sensitivity.rank(model, rows) == first
    assert min(first.values()) >= 0


def test_an_encoder_of_unknown_layout_is_ranked_all_the_same(
    model: Any, rows: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = sensitivity.rank(model, rows)

    def unknown(found: object) -> None:
        raise shape.Unsupported("not laid out like BERT's")

    monkeypatch.setattr(shape, "stack", unknown)
    assert sensitivity.rank(model, rows) == pytest.approx(known, rel=0.02, abs=1e-9)


def test_rounding_has_255_steps_and_a_scale_for_each_row() -> None:
    x = torch.tensor([[127.0, 0.4, -126.6], [0.0, 0.0, 0.0], [-1.27, 0.014, 0.016]])
    expected = torch.tensor([[127.0, 0.0, -127.0], [0.0, 0.0, 0.0], [-1.27, 0.01, 0.02]])
    torch.testing.assert_close(sensitivity._nearest(x), expected)


def test_the_weights_to_keep_are_read_by_the_record(model: Any, tiny: Path, tmp_path: Path) -> None:
    record = encoder.ModelRecord(task={"kind": "text-classification", "train": "rows.jsonl"}, labels=("a", "b", "c"),
                                 max_length=8)
    encoder.save(model, record, tiny, tmp_path)
    assert sensitivity.kept(tmp_path) == {}
    said = Quantization(keep=("head.classifier",), kl={"head.classifier": 0.5, "other": 0.1})
    (tmp_path / sensitivity.RECORD).write_text(said.to_json())
    (weight,) = sensitivity.kept(tmp_path).values()
    np.testing.assert_array_equal(weight, model.head.classifier.weight.detach().numpy())
    assert list(Quantization.from_file(tmp_path / sensitivity.RECORD).kl) == ["head.classifier", "other"]
    (tmp_path / sensitivity.RECORD).write_text("{}")
    with pytest.raises(RunError, match="not a valid Quantization"):
        sensitivity.kept(tmp_path)

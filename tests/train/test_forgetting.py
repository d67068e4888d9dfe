"""States of texts from a base and a tuned folder: those the model itself computes, in the order of the texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plimsoll.core.errors import Unsupported
from plimsoll.core.record import digest
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder, forgetting, shape
from plimsoll.train.batches import tokenize
from plimsoll.train.encoder import ModelRecord

TASK = TextClassification(train="rows")
TEXTS = [text for text, _ in TINY_ROWS[::7]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("tiny"), layers=3)


def with_head(source: Path, out: Path, model: Any) -> Path:
    encoder.save(model, ModelRecord(task={"kind": "text-classification", "train": "rows"}, labels=("a", "b", "c"),
                                    max_length=32), source, out)
    return out


def test_the_states_are_the_means_of_what_each_layer_gives(tiny: Path) -> None:
    found = forgetting.states(tiny, TEXTS, layered=5)
    assert found.last.shape == (len(TEXTS), 32)
    assert found.layers.shape == (4, 5, 32)
    np.testing.assert_array_equal(found.layers[-1], found.last[:5])
    model = encoder.bare(tiny)
    for i in (0, 4):
        batch = tokenize(tiny, [TEXTS[i]]).batch(np.array([0]))
        with torch.inference_mode():
            out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
        for layer, hidden in enumerate(out.hidden_states):
            np.testing.assert_allclose(found.layers[layer, i], hidden[0].mean(dim=0).numpy(), atol=1e-5)


def test_a_head_and_a_round_trip_through_a_file_change_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = with_head(tiny, tmp_path / "headed", encoder.start(tiny, TASK, 3))
    forgetting.write(folder, TEXTS, 5, tmp_path / "states")
    found, base = forgetting.read(tmp_path / "states"), forgetting.states(tiny, TEXTS, 5)
    np.testing.assert_allclose(found.last, base.last, atol=1e-6)
    np.testing.assert_allclose(found.layers, base.layers, atol=1e-6)


def test_a_last_layer_that_asks_once_for_the_row_gives_its_one_vector(tiny: Path, tmp_path: Path) -> None:
    model = encoder.start(tiny, TASK, 3)
    shape.pool(model.encoder)
    found = forgetting.states(with_head(tiny, tmp_path / "pooled", model), TEXTS, 5)
    assert found.layers.shape == (4, 5, 32)
    base = forgetting.states(tiny, TEXTS, 5)
    np.testing.assert_allclose(found.layers[:-1], base.layers[:-1], atol=1e-6)
    assert np.abs(found.last - base.last).max() > 1e-3


def test_no_hook_stays_behind(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder.bare(tiny)
    monkeypatch.setattr(encoder, "bare", lambda folder: model)
    forgetting.states(tiny, TEXTS, 1)
    assert not any(m._forward_hooks for m in model.modules())


def test_layers_in_an_unknown_place_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = torch.nn.Identity()

    monkeypatch.setattr(encoder, "bare", lambda folder: Other())
    with pytest.raises(Unsupported, match="keeps its layers where"):
        forgetting.states(tiny, TEXTS, 1)


def test_the_probe_reads_off_what_is_there_and_no_more() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 400)
    told = (np.eye(3)[targets] * 4 + rng.normal(size=(400, 3))).astype(np.float32)
    assert forgetting.probe(told, targets, 3, 80, 20).shape == (300,)
    assert forgetting.probe(told, targets, 3, 80, 20).mean() > 0.9
    silent = rng.normal(size=(400, 3)).astype(np.float32)
    assert forgetting.probe(silent, targets, 3, 80, 20).mean() == pytest.approx(1 / 3, abs=0.1)
    assert digest(forgetting.probe(told, targets, 3, 80, 20).tolist()) == digest(
        forgetting.probe(told, targets, 3, 80, 20).tolist())

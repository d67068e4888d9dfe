"""Dropping layers: a smaller file that runs, the right layers gone, and the teacher's answers kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from plimsoll.core.errors import ModelError, Unsupported
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.train import encoder, teacher
from plimsoll.train.batches import tokenize
from plimsoll.train.loop import predict

WorkWith = Callable[..., Work]


def _layers(folder: Path) -> set[str]:
    names = load_file(folder / "model.safetensors")
    return {name.split("layer.")[1].split(".")[0] for name in names if "layer." in name}


@pytest.fixture
def idle_first_layer(tuned: Path, tmp_path: Path) -> Path:
    """The tuned model with a first layer that passes on what it gets: nobody would miss it."""
    folder = tmp_path / "idle"
    folder.mkdir()
    for file in tuned.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    for name in ("attention.output.dense", "output.dense"):
        for kind in ("weight", "bias"):
            weights[f"encoder.encoder.layer.0.{name}.{kind}"].zero_()
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("keep", [1, 3])
def test_the_new_model_has_only_the_layers_kept_and_answers(
        tuned: Path, work_with: WorkWith, tmp_path: Path, keep: int) -> None:
    DropLayers(keep=keep).apply(tuned, work_with(), tmp_path)
    assert _layers(tmp_path) == {str(i) for i in range(keep)}
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == keep
    assert (tmp_path / "model.safetensors").stat().st_size < (tuned / "model.safetensors").stat().st_size
    texts = Dataset.load(work_with().data).test.texts
    logits = predict(encoder.load(tmp_path), tokenize(tmp_path, texts))
    assert logits.shape == (len(texts), 3)
    assert np.isfinite(logits).all()


def test_a_layer_nobody_misses_goes_first(idle_first_layer: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    DropLayers(keep=3).apply(idle_first_layer, work_with(report=events.append), tmp_path / "out")
    assert [e["note"] for e in events if "note" in e] == ["kept layers 1, 2, 3 of 0 to 3"]
    before, after = (load_file(f / "model.safetensors") for f in (idle_first_layer, tmp_path / "out"))
    name = "encoder.encoder.layer.{}.output.dense.weight"
    assert all(torch.equal(after[name.format(i)], before[name.format(i + 1)]) for i in range(3))


def test_the_teacher_s_answers_are_those_of_the_whole_model_and_are_passed_on(
        tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    work = work_with()
    DropLayers(keep=3).apply(tuned, work, tmp_path / "three")
    DropLayers(keep=2).apply(tmp_path / "three", work, tmp_path / "two")
    train = tokenize(tuned, Dataset.load(work.data).train.texts)
    expected = predict(encoder.load(tuned), train)
    for folder in (tmp_path / "three", tmp_path / "two"):
        kept = teacher.load(folder, work.data, train).outputs
        np.testing.assert_allclose(kept.logits.numpy(), expected, atol=1e-5)
        assert kept.pooled.shape == (len(train), 32)


def test_keeping_all_layers_is_refused(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="keeping 4 drops none"):
        DropLayers(keep=4).apply(tuned, work_with(), tmp_path)


def test_a_model_without_a_head_is_refused(tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="finetune"):
        DropLayers(keep=2).apply(tiny, work_with(), tmp_path)


def test_layers_in_an_unknown_place_are_refused_by_the_model_s_name(
        tuned: Path, work_with: WorkWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder.load(tuned)
    del model.encoder.encoder  # type: ignore[union-attr]
    monkeypatch.setattr(encoder, "load", lambda folder: model)
    with pytest.raises(Unsupported, match="BertModel"):
        DropLayers(keep=2).apply(tuned, work_with(), tmp_path)

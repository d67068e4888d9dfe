"""The shape of a model folder, read without loading it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plimsoll.core.shape import LayerShape, ModelShape, of_folder

BERT = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3,
        "intermediate_size": 64}
DISTILBERT = {"model_type": "distilbert", "dim": 32, "n_heads": 2, "n_layers": 3, "hidden_dim": 64}


def folder(tmp_path: Path, config: object, record: object) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if record is not None:
        (tmp_path / "plimsoll_model.json").write_text(json.dumps(record))
    return tmp_path


@pytest.mark.parametrize("config", [BERT, DISTILBERT])
def test_whole_layers_are_as_the_config_says(tmp_path: Path, config: object) -> None:
    whole = LayerShape(heads=2, neurons=64)
    found = of_folder(folder(tmp_path, config, {"labels": ["a", "b"], "layers": []}))
    assert found == ModelShape(hidden=32, head_size=16, outputs=2, layers=(whole,) * 3)


def test_narrowed_layers_are_as_the_record_says(tmp_path: Path) -> None:
    kept = [{"heads": 1, "neurons": 7, "pooled": False}, {"heads": 0, "neurons": 64, "pooled": True}]
    found = of_folder(folder(tmp_path, BERT, {"labels": ["a"], "layers": kept}))
    assert found is not None
    assert found.layers == (LayerShape(heads=1, neurons=7), LayerShape(heads=0, neurons=64, pooled=True))
    assert found.head_size == 16


@pytest.mark.parametrize(("config", "record"), [
    ({}, {"labels": ["a"]}), (BERT, None), (BERT | {"model_type": "albert"}, {"labels": ["a"]})])
def test_what_does_not_say_its_shape_has_none(tmp_path: Path, config: object, record: object) -> None:
    assert of_folder(folder(tmp_path, config, record)) is None

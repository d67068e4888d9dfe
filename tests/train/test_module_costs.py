"""What widths cost: nothing at full width, more the narrower, and most where the model does its work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plimsoll.core.parts import Work
from plimsoll.data.dataset import prepare
from plimsoll.moves.finetune import FineTune
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import module_costs


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("rows")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TINY_ROWS))
    task = TextClassification(train=str(file))
    prepare(task, folder / "data", seed=0)
    return Work(task=task, data=folder / "data", threads=1)


@pytest.fixture(scope="module")
def tuned(work: Work, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_bert(folder / "tiny", layers=2)
    (folder / "tuned").mkdir()
    FineTune(epochs=12, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="fp32", patience=12).apply(
        folder / "tiny", work, folder / "tuned")
    return folder / "tuned"


def test_every_width_of_every_module_has_its_cost_and_the_whole_one_none(tuned: Path, work: Work) -> None:
    before = (tuned / "model.safetensors").read_bytes()
    costs = module_costs.measure(tuned, work)
    assert [sorted(layer.heads) for layer in costs] == [[0, 1, 2]] * 2
    assert [sorted(layer.neurons) for layer in costs] == [[0, 16, 32, 48, 64]] * 2
    for layer in costs:
        assert layer.heads[2] == layer.neurons[64] == 0
        assert layer.neurons[0] > layer.neurons[48] >= -1e-6
    assert (tuned / "model.safetensors").read_bytes() == before


def test_a_module_that_does_nothing_costs_nothing(tuned: Path, work: Work, tmp_path: Path) -> None:
    for file in tuned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["encoder.encoder.layer.0.output.dense.weight"] = torch.zeros(32, 64)
    save_file(weights, tmp_path / "model.safetensors")
    costs = module_costs.measure(tmp_path, work)
    assert max(costs[0].neurons.values()) == pytest.approx(0, abs=1e-5)
    assert max(costs[1].neurons.values()) > 1e-4

"""The methods beside full fine-tuning: each learns new rows, and leaves a plain model folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.finetune import FineTune
from plimsoll.train import costs, encoder
from plimsoll.train.batches import tokenize
from plimsoll.train.loop import predict

WorkWith = Callable[..., Work]

QUICK: dict[str, dict[str, Any]] = {
    "linear_probe": {},
    "lora": {"learning_rate": 5e-3},
    "dora": {"learning_rate": 5e-3},
    "qlora": {"learning_rate": 5e-3},
    "prompt_tuning": {"learning_rate": 3e-2, "tokens": 4},
    "prefix_tuning": {"learning_rate": 3e-2, "tokens": 4},
}


def made(name: str) -> Move:
    steps = {} if name == "linear_probe" else {
        "epochs": 12, "batch_size": 8, "head_learning_rate": 1e-2, "precision": "fp32", "patience": 12}
    return cast(Move, find.read("moves", {"move": name, **steps, **QUICK[name]}))


def accuracy(folder: Path, work: Work) -> float:
    data = Dataset.load(work.data)
    logits = predict(encoder.load(folder), tokenize(folder, data.test.texts))
    return float(np.mean(logits.argmax(axis=1) == data.targets("test")))


@pytest.mark.parametrize("name", QUICK)
def test_it_learns_rows_it_has_not_seen(name: str, tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    made(name).apply(tiny, work_with(report=events.append, costs=tmp_path / "costs.json"), tmp_path / "out")
    assert accuracy(tmp_path / "out", work_with()) >= 0.8
    found = costs.StepCosts.from_file(tmp_path / "costs.json")
    assert 0 < found.trainable < found.parameters / 2
    model: Any = encoder.start(tiny, work_with().task, 3)
    whole, head = (sum(p.numel() for p in part.parameters()) for part in (model, model.head))
    assert found.parameters == whole + found.trainable - head
    record = encoder.ModelRecord.from_file(tmp_path / "out" / encoder.MODEL_RECORD)
    data = Dataset.load(work_with().data)
    texts = [*data.train.texts, *data.validation.texts, *data.test.texts]
    assert record.max_length == tokenize(tmp_path / "out", texts).lengths.max()


def test_every_method_has_rates_to_sweep_or_no_rate() -> None:
    methods = [cast(type[Move], find.part("moves", name)) for name in find.names("moves")]
    for method in (m for m in methods if m.tunes):
        assert list(method.rates) == sorted(set(method.rates))
        assert bool(method.rates) == ("learning_rate" in method.model_fields)


def test_a_prompt_that_does_not_fit_before_the_rows_is_refused(tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    most = json.loads((tiny / "config.json").read_text())["max_position_embeddings"]
    move = cast(Move, find.read("moves", {"move": "prompt_tuning", "tokens": most - 2}))
    with pytest.raises(Unsupported, match=f"the model takes {most}"):
        move.apply(tiny, work_with(), tmp_path / "out")


def test_frozen_layers_stay_as_they_were(tiny: Path, work_with: WorkWith, quick: FineTune, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    quick.model_copy(update={"frozen_layers": 2}).apply(tiny, work_with(), tmp_path / "out")
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    same = {name for name in before if np.array_equal(before[name], after[f"encoder.{name}"])}
    assert {n for n in before if "embeddings" in n or ".layer.0." in n or ".layer.1." in n} == same
    assert accuracy(tmp_path / "out", work_with()) >= 0.8


@pytest.mark.parametrize("policy", ["selective", "full"])
def test_checkpointing_learns_the_same(policy: str, tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("none", policy):
        FineTune(epochs=1, precision="fp32", checkpointing=name).apply(  # type: ignore[arg-type]
            tiny, work_with(), tmp_path / name)
    plain, again = (load_file(tmp_path / name / "model.safetensors") for name in ("none", policy))
    assert all(np.allclose(plain[key], again[key], atol=1e-4) for key in plain)

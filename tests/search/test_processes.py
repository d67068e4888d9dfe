"""`plimsoll train SPEC --processes N`: the lines it prints are what it runs, and the model is one process's to use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plimsoll import cli
from plimsoll.core.trained import Trained
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import batches, encoder, loop


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in TINY_ROWS))
    file = tmp_path / "tiny.toml"
    file.write_text(f"""
[task]
kind = "text-classification"
train = "{rows}"
[model]
name = "{write_tiny_bert(tmp_path / "tiny")}"
[budget]
quality_drop = 0.5
[target]
threads = 1
[search]
moves = [{{move = "finetune", epochs = 3, learning_rate = 1e-3, batch_size = 16, precision = "fp32"}}]
""")
    return file


def test_two_processes_train_a_model_and_print_how(
        spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "x"
    command = ["train", str(spec), "--processes", "2", "--spread", "fsdp", "--out", str(out)]
    assert cli.run(command) == 0
    printed = capsys.readouterr().out
    line = f"OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 -m plimsoll.train.launch {out / 'job.json'}"
    assert line in printed.splitlines()  # whole, so that it can be copied
    assert "OMP_NUM_THREADS=1 accelerate launch" in printed
    assert "2 processes, fsdp: as asked for" in printed
    found = Trained.from_file(out / "trained.json")
    assert found.processes == 2
    model = encoder.load(out / found.model)
    rows = [json.loads(line) for line in Path(json.loads((out / "job.json").read_text())["data"], "validation.jsonl")
            .read_text().splitlines()]
    logits = loop.predict(model, batches.tokenize(out / found.model, [row["text"] for row in rows]))
    labels = encoder.ModelRecord.from_file(out / found.model / encoder.MODEL_RECORD).labels
    right = [labels[i] == row["label"] for i, row in zip(logits.argmax(axis=1), rows, strict=True)]
    assert found.quality.value == pytest.approx(np.mean(right))
    written = (out / found.model / "model.safetensors").stat().st_mtime_ns
    assert cli.run(command) == 0
    assert "accelerate" not in capsys.readouterr().out  # it is finished, and nothing is started
    assert (out / found.model / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(("arguments", "says"), [
    (["--processes", "1"], "is no several processes"),
    (["--processes", "2", "--methods", "linear_probe"], "cannot share linear_probe"),
    (["--processes", "2", "--methods", "finetune,lora"], "cannot share finetune, lora"),
])  # fmt: skip
def test_what_cannot_be_shared_is_refused_before_anything_is_read(
        spec: Path, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", str(spec), *arguments, "--out", str(tmp_path / "runs" / "x")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_processes_is_told_in_their_words(
        spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(spec.read_text().replace("epochs = 3", "epochs = 3, frozen_layers = 9"))
    assert cli.run(["train", str(spec), "--processes", "2", "--out", str(tmp_path / "runs" / "x")]) == 1
    said = capsys.readouterr().err
    assert "the model has 2 layers, so 9 cannot be frozen" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs" / "x" / "model").exists()

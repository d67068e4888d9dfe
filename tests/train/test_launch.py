"""The lines that start several processes, and what a process does with a job that it cannot share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plimsoll.core import find
from plimsoll.data import dataset
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder, launch


def job(tmp_path: Path, move: dict[str, object]) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in TINY_ROWS))
    task = TextClassification(train=str(rows))
    tiny = write_tiny_bert(tmp_path / "tiny")
    dataset.prepare(task, tmp_path / "data", 0, tiny / "tokenizer.json")
    file = tmp_path / "job.json"
    file.write_text(launch.Job.model_validate({
        "move": move, "task": find.write(task), "model": str(tiny), "data": str(tmp_path / "data"),
        "out": str(tmp_path / "out" / "model"), "threads": 1, "checkpoint": str(tmp_path / "kept")}).to_json())
    return file


def test_accelerates_line_trains(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    file = job(tmp_path, {"move": "finetune", "epochs": 2, "batch_size": 16, "precision": "fp32"})
    program, *rest = launch.launch_lines(file, 2)["accelerate"]
    assert program == "accelerate"
    done = subprocess.run([sys.executable, "-m", "accelerate.commands.accelerate_cli", *rest], capture_output=True,
                          text=True, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert any("2 processes, ddp" in e.get("note", "") for e in events)
    assert events[-1]["epoch"] == 2
    out = tmp_path / "out" / "model"
    assert encoder.ModelRecord.from_file(out / encoder.MODEL_RECORD).labels == ("light", "music", "weather")
    assert json.loads((out / launch.SECONDS).read_text()) > 0
    assert [p.name for p in out.parent.iterdir()] == ["model"]  # nothing half-written beside it
    assert not (tmp_path / "kept").exists()


def test_a_move_that_cannot_be_shared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = job(tmp_path, {"move": "quantize"})
    assert launch.main([str(file)]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "quantize cannot be shared by several processes"
    assert not (tmp_path / "out").exists()


def test_a_job_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main([str(tmp_path / "none.json")]) == 2
    assert "does not exist" in json.loads(capsys.readouterr().out)["error"]

"""A killed training run goes on from its last whole checkpoint, and ends with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from plimsoll.core.errors import ChildError
from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import checkpoint, encoder, loop, losses
from plimsoll.train.batches import Batch, tokenize

TASK = TextClassification(train="rows")
HOW = loop.Training(epochs=3, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01, warmup=0.1,
                    patience=3, precision="fp32")
STEPS_PER_EPOCH = -(-len(TINY_ROWS) // HOW.batch_size)


class Killed(Exception):
    """Stands in for a kill: nothing in the loop catches it."""


@pytest.fixture(autouse=True)
def after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "_CHECKPOINT_SHARE", 1e9)


def train(folder: Path, kept: Path | None, kill_at: int | None = None, poison_at: int | None = None
          ) -> tuple[dict[str, torch.Tensor], list[list[int]], list[str]]:
    """Return the weights, the rows of each step, and what was noted on the way."""
    names = sorted({label for _, label in TINY_ROWS})
    targets = np.array([names.index(label) for _, label in TINY_ROWS])
    tokens = tokenize(folder, [text for text, _ in TINY_ROWS])
    hard = losses.hard(targets, 0.1)
    seen: list[list[int]] = []
    notes: list[str] = []

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if len(seen) == kill_at:
            raise Killed
        seen.append(batch.rows.tolist())
        return hard(model, batch) * (float("nan") if len(seen) - 1 == poison_at else 1.0)

    work = Work(task=TASK, data=folder, threads=1, checkpoint=kept,
                report=lambda event: notes.append(event["note"]) if "note" in event else None)
    with loop.settings(work):
        model = encoder.start(folder, TASK, 3, dropout=0.1)
        loop.fit(model, tokens, tokens, loss, lambda logits: float(np.mean(logits.argmax(axis=1) == targets)),
                 replace(HOW, on_nonfinite="stop"), work, "test", began=0.0)
    return model.state_dict(), seen, notes


@pytest.mark.parametrize("kill_at", [1, 4, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 2 * STEPS_PER_EPOCH + 5])
def test_killed_at_any_step_it_ends_with_the_same_weights(tmp_path: Path, kill_at: int) -> None:
    folder, kept = write_tiny_bert(tmp_path / "tiny"), tmp_path / "kept"
    whole, rows, _ = train(folder, None)
    with pytest.raises(Killed):
        train(folder, kept, kill_at)
    weights, later, notes = train(folder, kept)
    assert notes == [f"goes on from step {kill_at} of an interrupted run"]
    assert later == rows[kill_at:]  # the same rows in the same order, none twice
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.items())


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"x": torch.full((2,), float(step))}, {"step": step})
    newest = tmp_path / "step-000000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[1] == {"step": 1}
    assert torch.equal(found[0]["x"], torch.ones(2))
    newest.unlink()
    assert checkpoint.load(tmp_path) is not None


@pytest.mark.parametrize("torn", [b"", b'{"sha256": "', b"[]", b"{}", b"\xff\xfe", b'{"sha256": 1, "state": {}}\n'])
def test_a_record_that_cannot_be_read_is_passed_over_for_the_one_before(tmp_path: Path, torn: bytes) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"x": torch.full((2,), float(step))}, {"step": step})
    (tmp_path / "step-000000002.json").write_bytes(torn)
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[1] == {"step": 1}


def test_a_record_whose_state_was_changed_does_not_count(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"x": torch.ones(1)}, {"step": 1, "best": 0.1 + 0.2, "waited": None})
    assert checkpoint.load(tmp_path) is not None
    record = tmp_path / "step-000000001.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "state": {"step": 3}}))
    assert checkpoint.load(tmp_path) is None


def test_what_processes_that_are_gone_left_unfinished_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        gone = process.pid
    for pid in (gone, os.getppid()):
        (tmp_path / f".step-000000004.safetensors.{pid}.tmp").write_bytes(b"half")
        (tmp_path / f".step-000000004.json.{pid}.tmp").write_bytes(b"half")
    (tmp_path / "step-000000003.safetensors").write_bytes(b"whole, but its record was never written")
    checkpoint.save(tmp_path, 5, {"x": torch.ones(1)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f".step-000000004.json.{os.getppid()}.tmp", f".step-000000004.safetensors.{os.getppid()}.tmp",
        "step-000000005.json", "step-000000005.safetensors"]


def test_tensors_without_their_record_do_not_count(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, 5, {"x": torch.ones(1)}, {})
    (tmp_path / "step-000000005.json").unlink()
    assert checkpoint.load(tmp_path) is None


def test_old_checkpoints_go(tmp_path: Path) -> None:
    for step in range(5):
        checkpoint.save(tmp_path, step, {"x": torch.ones(1)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"step-00000000{n}.{kind}" for n in (3, 4) for kind in ("json", "safetensors")]


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path: Path) -> None:
    folder, kept = write_tiny_bert(tmp_path / "tiny"), tmp_path / "kept"
    with pytest.raises(ChildError, match="loss became nan"):
        train(folder, kept, poison_at=3)
    found = checkpoint.load(kept)
    assert found is not None
    assert found[1]["step"] == 3
    assert all(torch.isfinite(t).all() for name, t in found[0].items() if name.startswith("model."))

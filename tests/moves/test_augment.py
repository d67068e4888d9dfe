"""Augmenting: the model stays, and a student then learns from more rows than there are labels for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.augment import Augment
from plimsoll.moves.distil import Distil
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.train import encoder, teacher
from plimsoll.train.batches import tokenize

WorkWith = Callable[..., Work]


def test_the_model_stays_and_answers_every_row(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    work = work_with()
    text = tmp_path / "log.txt"
    text.write_text("play the song now\nwhat is it\n")
    out = tmp_path / "out"
    Augment(copies=2, unlabelled=str(text)).apply(tuned, work, out)
    before, after = (load_file(f / "model.safetensors") for f in (tuned, out))
    assert all(torch.equal(after[name], before[name]) for name in before)
    train = tokenize(tuned, Dataset.load(work.data).train.texts)
    lesson = teacher.load(out, work.data, train)
    assert len(lesson.rows) == len(lesson.outputs.logits) == 3 * len(train) + 2
    model: Any = encoder.load(out)
    batch = lesson.rows.batch(np.array([len(train), len(lesson.rows) - 1]))
    with torch.inference_mode():
        answers = teacher.outputs(model, batch)
    assert torch.allclose(answers.logits, lesson.outputs.logits[[len(train), -1]], atol=1e-5)


def test_a_student_learns_from_all_of_them(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    work = work_with(report=events.append)
    Augment(copies=3).apply(tuned, work, tmp_path / "more")
    DropLayers(keep=1).apply(tmp_path / "more", work, tmp_path / "one")
    Distil(epochs=1, precision="fp32").apply(tmp_path / "one", work, tmp_path / "out")
    rows = len(Dataset.load(work.data).train.texts)
    assert {e["total"] for e in events if e["stage"] == "distil" and "total" in e} == {4 * rows}

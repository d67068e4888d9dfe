"""Distilling: the student comes nearer to its teacher, and needs nothing but what its folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plimsoll.core.errors import ModelError
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.distil import Distil
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.train import encoder, teacher
from plimsoll.train.batches import tokenize
from plimsoll.train.loop import predict

WorkWith = Callable[..., Work]
QUICK = Distil(epochs=6, batch_size=8, learning_rate=2e-3, precision="fp32", patience=6)


@pytest.fixture(scope="module")
def small(tuned: Path, work_with: WorkWith, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer of the tuned model's four, not yet taught."""
    out = tmp_path_factory.mktemp("small")
    DropLayers(keep=1).apply(tuned, work_with(), out)
    return out


def _answers(folder: Path, work: Work) -> np.ndarray:
    logits = predict(encoder.load(folder), tokenize(folder, Dataset.load(work.data).test.texts))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_the_student_comes_nearer_to_the_teacher_on_new_rows(
        tuned: Path, small: Path, work_with: WorkWith, tmp_path: Path) -> None:
    QUICK.apply(small, work_with(), tmp_path)
    expected, before, after = (_answers(folder, work_with()) for folder in (tuned, small, tmp_path))
    assert np.abs(after - expected).mean() < 0.5 * np.abs(before - expected).mean()


def test_the_first_teacher_s_answers_are_passed_on_for_a_second_round(
        small: Path, work_with: WorkWith, tmp_path: Path) -> None:
    QUICK.model_copy(update={"epochs": 1}).apply(small, work_with(), tmp_path)
    assert (tmp_path / teacher.TEACHER).read_bytes() == (small / teacher.TEACHER).read_bytes()
    assert (encoder.ModelRecord.from_file(tmp_path / encoder.MODEL_RECORD)
            == encoder.ModelRecord.from_file(small / encoder.MODEL_RECORD))


def test_a_deadline_that_has_passed_still_gives_one_epoch(small: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    QUICK.apply(small, work_with(deadline_s=1e-3, report=events.append), tmp_path)
    assert max(e["epoch"] for e in events if "epoch" in e) == 1


def test_a_folder_without_a_teacher_is_refused(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="teacher"):
        QUICK.apply(tuned, work_with(), tmp_path)


def test_a_teacher_of_other_rows_is_refused(small: Path, work_with: WorkWith, tmp_path: Path) -> None:
    work = work_with()
    other = tmp_path / "data"
    other.mkdir()
    for file in work.data.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    with (other / "train.jsonl").open("a") as f:
        f.write(json.dumps({"text": "one row more", "label": "music"}) + "\n")
    with pytest.raises(ModelError, match="other rows"):
        QUICK.apply(small, work_with(data=other), tmp_path / "out")

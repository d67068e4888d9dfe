"""Distilling: the student comes nearer to its teacher, and needs nothing but what its folder holds."""

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
from plimsoll.moves.augment import Augment
from plimsoll.moves.distil import Distil
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.moves.funnel import Funnel
from plimsoll.moves.narrow import Narrow
from plimsoll.train import encoder, loop, losses, rounding, teacher
from plimsoll.train.batches import Tokens, tokenize
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


def test_the_weights_kept_are_those_nearest_to_the_teacher_on_validation_rows(
        small: Path, work_with: WorkWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near: list[float] = []
    shown: list[dict[str, Any]] = []
    nearness = losses.nearness
    monkeypatch.setattr(losses, "nearness", lambda *given: near.append(nearness(*given)) or near[-1])
    work = work_with(report=shown.append)
    QUICK.model_copy(update={"learning_rate": 2e-2}).apply(small, work, tmp_path)  # a rate that overshoots
    rows = Dataset.load(work.data)
    lesson = teacher.load(tmp_path, work.data, tokenize(tmp_path, rows.train.texts))
    written = predict(encoder.load(tmp_path), tokenize(tmp_path, rows.validation.texts))
    assert len(near) > 1
    assert nearness(written, lesson.validation) == pytest.approx(max(near), rel=1e-4)
    assert all(0 <= e["validation"] <= 1 for e in shown if "validation" in e)  # right answers, for people


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


def _token_states(folder: Path, work: Work) -> torch.Tensor:
    """Return the last hidden states of all tokens of the test rows, [tokens, hidden]."""
    tokens = tokenize(folder, Dataset.load(work.data).test.texts)
    batch = tokens.batch(np.arange(len(tokens)))
    with torch.inference_mode():
        return teacher.last_hidden(encoder.load(folder), batch)[batch.attention_mask.bool()]


@pytest.mark.parametrize("smaller", [DropLayers(keep=1), Narrow(heads=(1, 0, 1, 1), neurons=(8, 8, 0, 8))],
                         ids=["drop_layers", "narrow"])
def test_token_weight_brings_every_token_nearer_to_the_teacher_s(
        tuned: Path, work_with: WorkWith, tmp_path: Path, smaller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # with all labels right it would stop before it has learned anything of the tokens
    monkeypatch.setattr(loop, "predict", lambda model, tokens, device: np.zeros((len(tokens), 3), dtype=np.float32))
    smaller.apply(tuned, work_with(), tmp_path / "small")
    for weight in (0.0, 1.0):
        QUICK.model_copy(update={"token_weight": weight}).apply(
            tmp_path / "small", work_with(), tmp_path / f"out {weight}")
    expected, without, taught = (_token_states(f, work_with()) for f in
                                 (tuned, tmp_path / "out 0.0", tmp_path / "out 1.0"))
    assert (taught - expected).square().mean() < 0.8 * (without - expected).square().mean()


def test_the_teacher_keeps_the_states_of_the_training_rows_tokens_only(
        tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    work = work_with()
    Augment(copies=2).apply(tuned, work, tmp_path / "more")
    train = tokenize(tuned, Dataset.load(work.data).train.texts)
    lesson = teacher.load(tmp_path / "more", work.data, train, tokens=True)
    assert teacher.load(tmp_path / "more", work.data, train).tokens is None
    assert lesson.tokens is not None
    assert lesson.tokens.states.shape == (len(train.ids), 32)
    assert lesson.tokens.states.dtype == torch.float16
    assert len(lesson.rows) == len(lesson.tokens.starts) - 1 == 3 * len(train)
    model = encoder.load(tuned)
    for row in (0, 7, len(train) - 1):
        with torch.inference_mode():
            alone = teacher.last_hidden(model, train.batch(np.array([row])))[0]
        kept = lesson.tokens.states[lesson.tokens.starts[row]:lesson.tokens.starts[row + 1]]
        assert torch.allclose(kept.float(), alone, atol=5e-3)
    DropLayers(keep=1).apply(tmp_path / "more", work, tmp_path / "small")
    QUICK.model_copy(update={"token_weight": 1.0, "epochs": 1}).apply(tmp_path / "small", work, tmp_path / "out")


def test_states_that_would_fill_the_disk_are_not_kept_and_asking_for_them_is_refused(
        tuned: Path, small: Path, work_with: WorkWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "_TOKENS_MB", 0)
    DropLayers(keep=1).apply(tuned, work_with(), tmp_path / "small")
    bytes_kept = (tmp_path / "small" / teacher.TEACHER).stat().st_size
    assert bytes_kept < 0.5 * (small / teacher.TEACHER).stat().st_size
    with pytest.raises(Unsupported, match="token_weight = 0"):
        QUICK.model_copy(update={"token_weight": 1.0}).apply(tmp_path / "small", work_with(), tmp_path / "out")
    QUICK.model_copy(update={"epochs": 1}).apply(tmp_path / "small", work_with(), tmp_path / "out")


def test_token_weight_is_refused_for_a_student_that_has_no_tokens_left(
        tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    Funnel().apply(tuned, work_with(), tmp_path / "pooled")
    with pytest.raises(Unsupported, match="one vector a row"):
        QUICK.model_copy(update={"token_weight": 1.0}).apply(tmp_path / "pooled", work_with(), tmp_path / "out")


@pytest.fixture
def hard_to_round(small: Path, tmp_path: Path) -> Path:
    """The student with three channels that are small before the head and weigh much in it: it answers as it did.

    Rounding takes most of it away: the step of the head's weights is as large as those of all other channels, and
    the step of its input as large as these channels.
    """
    folder = tmp_path / "hard"
    folder.mkdir()
    for file in small.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights["head.classifier.weight"][:, :3] *= 100
    for kind in ("weight", "bias"):
        weights[f"encoder.encoder.layer.0.output.LayerNorm.{kind}"][:3] /= 100
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _rounded_answers(folder: Path, work: Work) -> np.ndarray:
    model = encoder.load(folder)
    with rounding.int8(model):
        logits = predict(model, tokenize(folder, Dataset.load(work.data).test.texts))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_int8_ends_nearer_to_the_teacher_once_it_is_rounded(
        tuned: Path, hard_to_round: Path, work_with: WorkWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saw_rounded: list[bool] = []

    def never_perfect(model: Any, tokens: Tokens, device: str) -> np.ndarray:
        saw_rounded.append("forward" in vars(model.head.classifier))
        return np.zeros((len(tokens), 3), dtype=np.float32)  # it would stop after an epoch otherwise

    monkeypatch.setattr(loop, "predict", never_perfect)
    for int8 in (False, True):
        QUICK.model_copy(update={"int8": int8, "hidden_weight": 0.0}).apply(
            hard_to_round, work_with(), tmp_path / f"int8 {int8}")
    assert saw_rounded == [False] * QUICK.epochs + [True] * QUICK.epochs
    expected = _answers(tuned, work_with())
    unrounded = np.abs(_answers(tmp_path / "int8 False", work_with()) - expected).mean()
    plain, aware = (np.abs(_rounded_answers(tmp_path / f"int8 {i}", work_with()) - expected).mean()
                    for i in (False, True))
    assert plain > 2 * unrounded  # rounding afterwards does harm
    assert aware < 0.6 * plain


def test_int8_writes_weights_that_are_not_rounded_under_their_own_names(
        small: Path, work_with: WorkWith, tmp_path: Path) -> None:
    QUICK.model_copy(update={"int8": True, "epochs": 1}).apply(small, work_with(), tmp_path)
    before, after = (load_file(f / "model.safetensors") for f in (small, tmp_path))
    assert {name: t.shape for name, t in after.items()} == {name: t.shape for name, t in before.items()}
    name = "encoder.encoder.layer.0.output.dense.weight"
    assert not torch.equal(after[name], before[name])
    assert not torch.allclose(rounding.rounded(after[name]), after[name], rtol=1e-4)

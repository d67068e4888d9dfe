"""Fine-tuning: it learns, it repeats itself, it keeps to its time, and it never writes a broken model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from plimsoll.core.errors import ChildError
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.finetune import FineTune
from plimsoll.train import encoder
from plimsoll.train.batches import longest_input, tokenize
from plimsoll.train.loop import predict

WorkWith = Callable[..., Work]


def _accuracy(folder: Path, work: Work) -> float:
    data = Dataset.load(work.data)
    logits = predict(encoder.load(folder), tokenize(folder, data.test.texts))
    return float(np.mean(logits.argmax(axis=1) == data.targets("test")))


def test_it_learns_rows_it_has_not_seen(tuned: Path, work_with: WorkWith) -> None:
    assert _accuracy(tuned, work_with()) >= 0.9


def test_the_record_names_labels_and_the_longest_input(tuned: Path, work_with: WorkWith) -> None:
    data = Dataset.load(work_with().data)
    record = encoder.ModelRecord.from_file(tuned / encoder.MODEL_RECORD)
    assert record.labels == ("light", "music", "weather")
    texts = [*data.train.texts, *data.validation.texts, *data.test.texts]
    assert record.max_length == tokenize(tuned, texts).lengths.max()


def test_no_record_promises_longer_inputs_than_the_model_takes(
        tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    for asked, kept in ((20, 20), (10_000, longest_input(json.loads((tiny / "config.json").read_text())))):
        out = tmp_path / str(asked)
        FineTune(epochs=1, precision="fp32", max_length=asked).apply(tiny, work_with(), out)
        assert encoder.ModelRecord.from_file(out / encoder.MODEL_RECORD).max_length == kept


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
        tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    move = FineTune(epochs=1, precision="fp32")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        move.apply(tiny, work_with(seed=seed), tmp_path / name)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert not np.array_equal(a["head.classifier.weight"], c["head.classifier.weight"])


def test_probing_for_a_precision_does_not_change_what_is_learned(
        tiny: Path, work_with: WorkWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plimsoll.train import precision

    def slow_bf16(step: Callable[[Any], object], device: str, width: int, most: object) -> tuple[str, str]:
        step(precision.autocast("fp32", device))
        step(precision.autocast("bf16", device))
        return "fp32", "measured"

    FineTune(epochs=1, precision="fp32").apply(tiny, work_with(), tmp_path / "plain")
    monkeypatch.setattr(precision, "choose", slow_bf16)
    FineTune(epochs=1, precision="auto").apply(tiny, work_with(), tmp_path / "probed")
    plain, probed = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "probed"))
    assert all(np.array_equal(plain[key], probed[key]) for key in plain)


def test_bf16_learns_too(tiny: Path, work_with: WorkWith, quick: FineTune, tmp_path: Path) -> None:
    quick.model_copy(update={"precision": "bf16"}).apply(tiny, work_with(), tmp_path)
    assert _accuracy(tmp_path, work_with()) >= 0.9


def test_embeddings_of_tokens_that_do_not_occur_stay_as_they_were(tiny: Path, tuned: Path, work_with: WorkWith) -> None:
    name = "embeddings.word_embeddings.weight"
    before = load_file(tiny / "model.safetensors")[name]
    after = load_file(tuned / "model.safetensors")[f"encoder.{name}"]
    data = Dataset.load(work_with().data)
    seen = np.unique(tokenize(tiny, data.train.texts).ids)
    unseen = np.setdiff1d(np.arange(len(before)), seen)
    assert before.shape == after.shape
    np.testing.assert_array_equal(before[unseen], after[unseen])
    assert np.all(np.any(before[seen] != after[seen], axis=1))


def test_a_deadline_that_has_passed_still_gives_one_epoch(tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    FineTune(epochs=50, batch_size=8, precision="fp32").apply(
        tiny, work_with(deadline_s=1e-3, report=events.append), tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    assert max(e["epoch"] for e in events if "epoch" in e) == 1
    assert any("1 of 50 epochs" in e.get("note", "") for e in events)


def test_progress_counts_up_to_the_total_and_says_how_fast(tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    FineTune(epochs=2, precision="fp32").apply(tiny, work_with(report=events.append), tmp_path)
    done = [e["done"] for e in events]
    assert done == sorted(done)
    assert done[-1] == events[-1]["total"]
    assert events[-1]["seconds_left"] == 0
    assert events[-1]["rows_per_s"] > 0
    assert 0 <= events[-1]["validation"] <= 1


def test_training_stops_when_validation_no_longer_improves(tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    # a rate so low that nothing is learned: the first epoch stays the best
    FineTune(epochs=30, learning_rate=1e-12, head_learning_rate=1e-12, patience=2, precision="fp32").apply(
        tiny, work_with(report=events.append), tmp_path)
    assert max(e["epoch"] for e in events) == 3


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_no_model(
        tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="no model was written") as caught:
        FineTune(epochs=3, learning_rate=1e30, head_learning_rate=1e30, warmup=0, precision="fp32").apply(
            tiny, work_with(), tmp_path)
    assert "learning_rate" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fields", [{"epochs": 0}, {"warmup": 1.0}, {"learning_rate": -1e-4}, {"precision": "int8"}])
def test_a_field_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FineTune(**fields)

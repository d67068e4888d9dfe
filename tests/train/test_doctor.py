"""A training that meets values that are not finite finds where they come from, treats that, and ends finite."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.optim.optimizer import register_optimizer_step_post_hook

from plimsoll.core.errors import ChildError
from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import checkpoint, doctor, encoder, incidents, loop, losses, replay
from plimsoll.train.batches import Batch, tokenize
from plimsoll.train.doctor import Doctor, Step
from plimsoll.train.incidents import Incident
from plimsoll.train.teacher import Outputs

TASK = TextClassification(train="rows")
HOW = loop.Training(epochs=2, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01, warmup=0.1,
                    patience=9, precision="fp32")
LABELS = sorted({label for _, label in TINY_ROWS})
TARGETS = np.array([LABELS.index(label) for _, label in TINY_ROWS])
STEPS = -(-len(TINY_ROWS) // HOW.batch_size)
BAD = 17
LAYER = "encoder.encoder.layer.1.output.dense"

Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


@dataclass
class Ward:
    """The tiny model, rows on disk, and what a training of them leaves behind."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def work(self) -> Work:
        return Work(task=TASK, data=self.folder, threads=1, incidents=self.folder / "incidents.jsonl",
                    report=lambda event: self.notes.append(event["note"]) if "note" in event else None)

    @property
    def found(self) -> tuple[Incident, ...]:
        return incidents.load(self.folder / "incidents.jsonl")

    def model(self) -> torch.nn.Module:
        with loop.settings(self.work):
            return encoder.start(self.folder, TASK, 3, dropout=0.1)

    def train(self, model: torch.nn.Module, loss: Loss, how: loop.Training = HOW, **changed: Any) -> loop.Fitted:
        work, tokens = replace(self.work, **changed), tokenize(self.folder, [text for text, _ in TINY_ROWS])
        with loop.settings(work):
            return loop.fit(model, tokens, tokens, loss, lambda out: float(np.mean(out.argmax(axis=1) == TARGETS)), how,
                            work, "test", began=0.0)


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    rows = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TINY_ROWS)
    (tmp_path / "train.jsonl").write_text(rows)
    made = Ward(write_tiny_bert(tmp_path))
    passes = Doctor.passes
    monkeypatch.setattr(Doctor, "passes", lambda self, step: made.steps.append(step) or passes(self, step))
    return made


def _finite(model: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def _with_a_bad_answer() -> Loss:
    """The loss of a lesson in which the teacher's answer to one row is no number."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(TINY_ROWS), 3, generator=generator)
    logits[BAD] = float("nan")
    return losses.soft(Outputs(logits, torch.randn(len(TINY_ROWS), 32, generator=generator)), TARGETS, 2.0, 0.5, 1.0)


def _broken(model: torch.nn.Module, name: str, while_: Callable[[], bool]) -> None:
    """Let a module of the model give no numbers while a condition holds."""
    model.get_submodule(name).register_forward_hook(
        lambda module, given, gave: gave * float("nan") if while_() else gave)


# three ways to plant a NaN


def test_a_bad_row_is_named_and_left_out(ward: Ward) -> None:
    model = ward.model()
    ward.train(model, _with_a_bad_answer())
    assert _finite(model)
    (found,) = ward.found  # and none in the second epoch
    assert (found.cause, found.rows, found.action) == ("data", (BAD,), "drop")
    assert found.where == replay.THE_LOSS
    assert TINY_ROWS[BAD][0] in found.texts[0]
    assert BAD in found.batch
    assert len(found.batch) == HOW.batch_size
    assert any(f"row {BAD} (" in note for note in ward.notes)
    assert [BAD in step.rows for step in ward.steps].count(True) == 1
    assert len(ward.steps) == 2 * STEPS


def test_an_overflow_of_fp16_goes_on_in_fp32(ward: Ward) -> None:
    model = ward.model()
    name = "encoder.encoder.layer.0.intermediate.dense"
    with torch.no_grad():  # products up to some 1e5: beyond fp16, and nothing to fp32
        model.get_submodule(name).weight.mul_(5e5)  # type: ignore[union-attr, operator]
    fitted = ward.train(model, losses.hard(TARGETS, 0.1), replace(HOW, precision="fp16"))
    assert _finite(model)
    (found,) = ward.found
    assert (found.cause, found.where, found.precision, found.action) == ("precision", name, "fp16", "fp32")
    assert not found.backward
    assert fitted.precision == "fp32"
    assert [step.precision for step in ward.steps] == ["fp16"] + ["fp32"] * (2 * STEPS - 1)


def test_weights_that_break_while_training_are_rolled_back_at_half_the_rate(ward: Ward) -> None:
    model = ward.model()
    hard = losses.hard(TARGETS, 0.1)
    calls = 0

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == STEPS + 3:
            with torch.no_grad():
                model.get_submodule(LAYER).weight[0, 0] = float("nan")  # type: ignore[union-attr, index]
        return hard(model, batch)

    ward.train(model, loss)
    assert _finite(model)
    (found,) = ward.found
    assert (found.cause, found.where, found.action) == ("weights", f"{LAYER}.weight", "roll back")
    assert (found.epoch, found.step) == (2, STEPS + 3)
    before, after = ward.steps[STEPS + 1].rate, ward.steps[STEPS + 3].rate
    assert after < 0.51 * before


def test_a_layer_that_breaks_for_a_while_is_rolled_back(ward: Ward) -> None:
    model = ward.model()
    _broken(model, LAYER, lambda: len(ward.steps) >= 5 and not ward.found)
    ward.train(model, losses.hard(TARGETS, 0.1))
    assert _finite(model)
    (found,) = ward.found
    assert (found.cause, found.where, found.backward, found.action) == ("module", LAYER, False, "roll back")


def test_a_layer_that_stays_broken_ends_the_training_by_name(ward: Ward) -> None:
    model = ward.model()
    _broken(model, LAYER, lambda: len(ward.steps) >= 5)
    with pytest.raises(ChildError, match=f"{LAYER} makes it so of finite inputs; no model was written"):
        ward.train(model, losses.hard(TARGETS, 0.1))
    assert _finite(model)
    assert [found.action for found in ward.found] == ["roll back", "stop"]


# what is done, and when no more is


def test_by_policy_the_first_incident_is_the_last(ward: Ward) -> None:
    model = ward.model()
    with pytest.raises(ChildError, match=f"training row {BAD} .*no model was written") as caught:
        ward.train(model, _with_a_bad_answer(), replace(HOW, on_nonfinite="stop"))
    assert "rows" in caught.value.hint
    assert _finite(model)
    assert [found.action for found in ward.found] == ["stop"]


def test_a_model_that_is_not_finite_is_not_trained(ward: Ward) -> None:
    model = ward.model()
    with torch.no_grad():
        model.get_submodule(LAYER).bias[3] = float("inf")  # type: ignore[union-attr, index]
    with pytest.raises(ChildError, match=f"{LAYER}.bias"):
        ward.train(model, losses.hard(TARGETS, 0.1))
    assert not ward.steps


def test_weights_that_break_at_the_end_of_an_epoch_are_not_its_best(ward: Ward) -> None:
    model = ward.model()
    with _breaking(after=STEPS):
        ward.train(model, losses.hard(TARGETS, 0.1), replace(HOW, epochs=1))
    assert _finite(model)
    (found,) = ward.found
    assert (found.cause, found.loss, found.step, found.action) == ("weights", None, STEPS, "roll back")


def test_answers_that_are_not_finite_are_not_the_best(ward: Ward) -> None:
    model = ward.model()
    _broken(model, LAYER, lambda: not model.training and len(ward.steps) == STEPS)
    fitted = ward.train(model, losses.hard(TARGETS, 0.1))
    (found,) = ward.found
    assert (found.cause, found.epoch, found.action) == ("answers", 1, "roll back")
    assert np.isfinite(fitted.validation)
    assert fitted.epochs == 2


def test_a_training_that_never_answers_is_an_error(ward: Ward) -> None:
    model = ward.model()
    _broken(model, LAYER, lambda: not model.training)
    with pytest.raises(ChildError, match="no epoch had a finite score on the validation rows; no model was written"):
        ward.train(model, losses.hard(TARGETS, 0.1))


class _breaking:
    """Lets the optimizer's step number `after` leave a weight that is not finite."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __enter__(self) -> None:
        self.handle = register_optimizer_step_post_hook(self._after_step)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].flatten()[0] = float("nan")


# checkpoints


class Killed(Exception):
    """Stands in for a kill: nothing in the loop catches it."""


@pytest.fixture
def after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "_CHECKPOINT_SHARE", 1e9)


@pytest.mark.usefixtures("after_every_step")
def test_a_poisoned_checkpoint_never_replaces_a_good_one(ward: Ward) -> None:
    kept, hard = ward.folder / "kept", losses.hard(TARGETS, 0.1)

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if len(ward.steps) == 5:
            raise Killed
        return hard(model, batch)

    with _breaking(after=5), pytest.raises(Killed):
        ward.train(ward.model(), loss, checkpoint=kept)
    found = checkpoint.load(kept)
    assert found is not None
    assert found[1]["step"] == 4
    assert all(bool(torch.isfinite(t).all()) for t in found[0].values())
    model = ward.model()
    ward.train(model, hard, checkpoint=kept)
    assert _finite(model)
    assert not ward.found  # the fifth step was taken again from the fourth's weights


@pytest.mark.usefixtures("after_every_step")
@pytest.mark.parametrize("before_the_end", [6, 2])
def test_a_run_that_is_killed_after_incidents_ends_with_the_same_weights(ward: Ward, before_the_end: int) -> None:
    bad = _with_a_bad_answer()
    calls, kill_at = 0, -1

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        nonlocal calls
        if calls == kill_at:
            raise Killed
        calls += 1
        return bad(model, batch)

    def breaks_once() -> torch.nn.Module:
        """A model that gives no numbers from the first step of the second epoch until that is seen."""
        calls_for_help = len(ward.notes)
        model = ward.model()
        _broken(model, LAYER, lambda: len(ward.steps) >= STEPS and model.training and not any(
            LAYER in note for note in ward.notes[calls_for_help:]))
        return model

    ward.train(whole := breaks_once(), loss)
    assert [found.cause for found in ward.found] == ["data", "module"]
    calls, kill_at = 0, calls - before_the_end
    ward.steps.clear()
    killed = breaks_once()
    with pytest.raises(Killed):
        ward.train(killed, loss, checkpoint=ward.folder / "kept")
    kill_at = -1
    ward.train(later := ward.model(), loss, checkpoint=ward.folder / "kept")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), later.parameters(), strict=True))
    assert len(ward.found) == 2  # each once, though two trainings met them


# the parts of it


@dataclass
class Patient:
    """A training of two numbers."""

    model: torch.nn.Module = field(default_factory=lambda: torch.nn.Linear(2, 1))
    work: Work = field(default_factory=lambda: Work(task=TASK, data=Path("nowhere"), threads=1))
    stage: str = "test"
    rolled_back: int = 0
    fp32: bool = False

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return model(batch.input_ids.float()).square().mean()

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        ids = torch.from_numpy(np.stack([rows, rows + 1], axis=1))
        return Batch(torch.from_numpy(rows), ids, torch.ones_like(ids))

    def unsound(self) -> list[str]:
        return replay.unsound(self.model)

    def diagnosed(self, step: Step, sound: Sequence[int]) -> replay.Finding:
        return replay.Replay(self.model, self.loss, self.batch, step.rows, step.random, step.precision, step.scale,
                             "cpu").diagnose(sound)

    def copied(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def roll_back(self, weights: dict[str, torch.Tensor]) -> None:
        self.rolled_back += 1
        self.model.load_state_dict(weights)

    def use_fp32(self) -> None:
        self.fp32 = True


def _step(number: int, norm: float = 1.0, loss: float = 1.0, **changed: Any) -> Step:
    made = Step(number, 1, np.array([1, 2]), loss, norm, 1.0, "fp32", 1.0, replay.random_state("cpu"))
    return replace(made, **changed)


def _at_work(patient: Patient) -> Doctor:
    """A doctor who has seen 128 steps with norms between 1 and 2."""
    made = Doctor(patient, "recover", patient.copied())
    assert all(made.passes(_step(i + 1, 1 + i % 64 / 64)) for i in range(128))
    return made


def test_a_spike_is_what_lies_far_above_the_last_128_norms() -> None:
    usual = [1 + i % 64 / 64 for i in range(128)]
    assert not doctor.spikes(100.0, usual[:127])  # too few to know what is usual
    middle = float(np.median(usual))
    limit = middle + 6 * 1.4826 * float(np.median(np.abs(np.array(usual) - middle)))
    assert not doctor.spikes(limit - 1e-9, usual)
    assert doctor.spikes(limit + 1e-9, usual)
    assert not doctor.spikes(1e-9, usual)


def test_a_spike_is_left_out_and_three_in_a_row_roll_back_at_half_the_rate() -> None:
    patient = Patient()
    on_duty = _at_work(patient)
    assert not on_duty.passes(_step(129, 1000.0))
    assert not on_duty.passes(_step(130, 1000.0))
    assert on_duty.passes(_step(131))  # in between: a row begins anew
    assert [on_duty.passes(_step(n, 1000.0)) for n in (132, 133)] == [False, False]
    assert (patient.rolled_back, on_duty.rate) == (0, 1.0)
    assert not on_duty.passes(_step(134, 1000.0))
    assert (patient.rolled_back, on_duty.rate) == (1, 0.5)
    assert on_duty.passes(_step(135, 1000.0))  # what is usual is learned anew


def test_spikes_never_end_a_training() -> None:
    patient = Patient()
    on_duty = Doctor(patient, "recover", patient.copied())
    for _ in range(4):
        assert all(on_duty.passes(_step(1, 1 + i % 64 / 64)) for i in range(128))
        assert not any(on_duty.passes(_step(1, 1000.0)) for _ in range(3))
    assert on_duty.rate == 1 / 16
    assert all(on_duty.passes(_step(1, 1 + i % 64 / 64)) for i in range(128))
    assert on_duty.passes(_step(1, 1000.0))


def test_what_is_good_is_copied_every_128_steps_and_only_when_it_is_finite() -> None:
    patient = Patient()
    on_duty = Doctor(patient, "recover", first := patient.copied())
    for number in range(1, 128):
        on_duty.passes(_step(number))
    assert on_duty.good is first
    with torch.no_grad():
        patient.model.bias[0] = float("nan")  # type: ignore[index, operator]
    on_duty.passes(_step(128))
    assert on_duty.good is first
    with torch.no_grad():
        patient.model.bias[0] = 7.0  # type: ignore[index, operator]
    on_duty.passes(_step(129))
    assert on_duty.good["bias"].tolist() == [7.0]


def test_three_overflows_in_a_row_are_the_scalers_own_business() -> None:
    patient = Patient()
    on_duty = Doctor(patient, "recover", patient.copied())

    def overflow(number: int, scale: float = 8.0) -> bool:
        return on_duty.passes(_step(number, math.inf, precision="fp16", scale=scale))

    for first in (1, 5):
        assert not any(overflow(n) for n in range(first, first + 3))
        assert on_duty.passes(_step(first + 3))
    assert on_duty.state()["incidents"] == 0
    assert not any(overflow(n) for n in range(9, 13))  # four
    assert on_duty.state()["incidents"] == 1
    assert on_duty.passes(_step(13))
    assert not overflow(14, scale=0.5)  # nothing is left of its factor
    assert on_duty.state()["incidents"] == 2


def test_a_step_that_is_finite_when_taken_again_is_left_out_a_few_times() -> None:
    patient = Patient()
    on_duty = Doctor(patient, "recover", patient.copied())
    assert not any(on_duty.passes(_step(number, math.nan, math.nan)) for number in range(1, 17))
    with pytest.raises(ChildError, match="the same step again was finite; no model was written"):
        on_duty.passes(_step(17, math.nan, math.nan))


def _replayed(model: torch.nn.Module, loss: Loss, rows: list[int], number: Any = "fp32") -> replay.Replay:
    return replay.Replay(model, loss, Patient().batch, np.array(rows), replay.random_state("cpu"), number, 1.0, "cpu")


class RootOfNothing(torch.nn.Module):
    """Finite forwards; the slope of a root at zero is not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (x - x).abs().sqrt()


@pytest.mark.parametrize("after", [torch.nn.Identity(), torch.nn.Dropout(0.0), torch.nn.Linear(2, 2)])
def test_a_backward_pass_is_traced_to_the_module_that_breaks_it(after: torch.nn.Module) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), RootOfNothing(), after, torch.nn.Linear(2, 1))
    step = _replayed(model, lambda m, batch: m(batch.input_ids.float()).mean(), [1, 2])
    assert step.origin() == replay.Origin("1", backward=True)


@pytest.mark.parametrize("last", [torch.nn.Identity(), torch.nn.Dropout(0.0), torch.nn.Linear(2, 1)])
def test_a_backward_pass_that_the_loss_breaks_is_not_blamed_on_the_model(last: torch.nn.Module) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), last)

    def loss(m: torch.nn.Module, batch: Batch) -> torch.Tensor:
        out = m(batch.input_ids.float())
        return (out - out).abs().sqrt().mean()

    assert _replayed(model, loss, [1, 2]).origin() == replay.Origin(replay.THE_LOSS, backward=True)


def test_rows_are_told_from_a_broken_model_by_rows_that_were_sound() -> None:
    patient = Patient()

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        value = patient.loss(model, batch)
        return value * float("nan") if bool((batch.rows >= 7).any()) else value

    def diagnosed(rows: list[int], sound: list[int]) -> tuple[str, tuple[int, ...]]:
        found = _replayed(patient.model, loss, rows).diagnose(sound)
        return found.cause, found.rows

    assert diagnosed([1, 7, 2, 9], []) == ("data", (7, 9))
    assert diagnosed([8], [1, 2]) == ("data", (8,))  # a batch of one
    assert diagnosed([8], []) == ("module", ())
    assert diagnosed([8], [9]) == ("module", ())
    assert diagnosed([1, 2], []) == ("passing", ())


def test_looking_for_the_cause_changes_neither_weights_nor_random_numbers() -> None:
    patient = Patient(model=torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)))
    step = _replayed(patient.model, lambda m, b: patient.loss(m, b) * float("nan"), [1, 2, 3])
    before, random = patient.copied(), torch.random.get_rng_state()
    assert step.diagnose([]).cause == "module"
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(before[name], t) for name, t in patient.copied().items())
    assert not patient.model[0]._forward_hooks  # type: ignore[index, operator]


def test_text_of_a_row_is_shown_short_and_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    rows = ['{"text": "plain"}', '{"text": "\x1b[31mred\u202e"}', '{"text": "' + "x" * 500 + '"}']
    (tmp_path / "train.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    plain, red, long = incidents.texts(tmp_path, [0, 1, 2, 3])
    assert plain == rows[0]
    assert red == '{"text": "\\x1b[31mred\\u202e"}'
    assert len(long) < 130
    assert incidents.texts(tmp_path / "nowhere", [0]) == ()


def test_an_incident_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    one = Incident(stage="test", epoch=1, step=2, loss=math.inf, norm=-math.inf, cause="data", rows=(3,), action="drop")
    for _ in range(2):  # the second time by a run that was killed and goes on
        incidents.keep(tmp_path / "logs" / "incidents.jsonl", one)
    assert incidents.load(tmp_path / "logs" / "incidents.jsonl") == (one,)
    assert incidents.load(tmp_path / "none.jsonl") == ()

"""The training loop: one for every move that trains, planned to fit its deadline and stopped when it no longer pays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import ragged
from plimsoll.core.parts import Event, Work
from plimsoll.core.store import write_atomic
from plimsoll.train import costs, precision, recompute, replay
from plimsoll.train.attention import fastest_attention
from plimsoll.train.batches import Batch, Tokens, by_length, shuffled
from plimsoll.train.doctor import Doctor, Policy, Step
from plimsoll.train.spread import Spread, over
from plimsoll.train.vocabulary import compact_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_MEASURED_STEPS = 20
_MARGIN = 1.05  # a plan that only just fits would overrun when the machine slows
_FORWARD_SHARE = 1 / 3  # of a step's time, for rows that are only predicted
_REPORT_S = 0.25
_CHECKPOINT_S = 20.0
_CHECKPOINT_SHARE = 0.03  # of the time, at most: a slow disk gets fewer checkpoints
_LARGEST_NORM = 1.0
_TIMED_QUANTILE = 0.9
"""Of the lengths: where the rows of the batch end whose steps are timed. Shorter ones take so little time that what
surrounds the arithmetic shows; the longest are rare."""
_PREDICT_ROWS = 64


@dataclass(frozen=True)
class Training:
    """How to learn: what a move that trains hands to `fit` of its own fields."""

    epochs: int
    """At most so many; a deadline or `patience` can end earlier."""
    batch_size: int
    learning_rate: float
    """Peak rate of the encoder's weights."""
    head_learning_rate: float
    """Peak rate of the head's weights."""
    weight_decay: float
    """On matrices only: biases, norms and embeddings are left alone."""
    warmup: float
    """Share of all steps in which the rate rises from zero to its peak; then it falls linearly to zero."""
    patience: int
    """Epochs without a better validation score before training stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    checkpointing: recompute.Policy = "none"
    """Which activations are computed again in the backward pass instead of kept."""
    on_nonfinite: Policy = "recover"
    """What to do about a step whose loss or gradients are not finite."""


@dataclass(frozen=True)
class Fitted:
    """What training came to; the model holds the weights of the best epoch."""

    validation: float
    epochs: int
    seconds: float
    rows_per_s: float
    """Training rows over the time of the training steps."""
    precision: precision.Precision


@contextmanager
def settings(work: Work) -> Iterator[None]:
    """Use the work's threads and seed for what torch does inside the block, and restore both."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(work.threads)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if work.device == "cuda" else []):
            torch.manual_seed(work.seed)
            yield
    finally:
        torch.set_num_threads(threads)


def fit(model: torch.nn.Module, train: Tokens, validation: Tokens,
        loss: Callable[[torch.nn.Module, Batch], torch.Tensor], score: Callable[[NDArray[np.float32]], float],
        how: Training, work: Work, stage: str, began: float,
        shown: Callable[[NDArray[np.float32]], float] | None = None) -> Fitted:
    """Train `model` in place, and leave it with the weights that scored best on the validation rows.

    loss: the scalar to minimise on one batch of `train`. score: what `predict` gives for the validation rows to a
    number, higher is better. `shown`: what to report of those rows instead of their score. `began`:
    `time.perf_counter()` when the work's deadline began to run.

    With `work.deadline_s` the number of epochs is planned from the speed of the first steps and again after each
    epoch, never fewer than one; the learning rate then falls to zero at the end of the plan. The same seed gives
    the same weights when nothing had to be cut to a deadline, also when `work.checkpoint` holds the state of a run
    that was killed: the plan of that run is kept. The weights it ends with are finite: every step is looked at before
    the optimizer acts (see doctor.py). With `work.ranks` processes each takes its share of every batch, and all of them
    end with the same weights. Raises ChildError when a step is not finite and that cannot be, or by `how.on_nonfinite`
    is not to be, recovered from; the model then holds the last good weights.
    """
    with (compact_vocabulary(model, (train, validation)) as (train, validation),
          over(model, loss, work, stage) as spread,
          fastest_attention(spread.model.encoder, work.device) as ready_for,
          recompute.checkpointed(spread.model.encoder, how.checkpointing)):
        return _Fit(spread, train, validation, loss, score, shown or score, how, work, stage, began, ready_for).run()


def predict(model: torch.nn.Module, tokens: Tokens, device: str = "cpu") -> NDArray[np.float32]:
    """Return the model's logits, float32 [rows, labels], in eval mode; the mode it was in is restored.

    [rows, longest, labels] where it answers per token, NaN past the end of a row: `core.ragged`; and [rows, texts,
    labels] where a row has several texts.
    """
    import torch

    training = model.training
    model.eval()
    logits: list[ragged.Answers] = []
    order: list[NDArray[np.int64]] = []
    with torch.no_grad():  # not inference_mode: what a sharded model gathers in it could not be trained with any more
        for rows in by_length(tokens.lengths, _PREDICT_ROWS):
            batch = tokens.batch(rows, device)
            found = model(batch.input_ids, batch.attention_mask).float().cpu().numpy()
            logits.append(ragged.ended(found, tokens.lengths[rows]) if tokens.texts == 1 else
                          found.reshape(len(rows), tokens.texts, -1))
            order.append(rows)
    model.train(training)
    return ragged.joined(logits)[np.argsort(np.concatenate(order))]


def epochs_that_fit(wanted: int, done: int, left_s: float, epoch_s: float) -> int:
    """Return how many epochs to plan in all: those done and those that fit in `left_s`, from 1 to `wanted`."""
    return max(1, min(wanted, done + max(0, math.floor(left_s / (epoch_s * _MARGIN)))))


class _Fit:
    """The state of one training run."""

    def __init__(self, spread: Spread, train: Tokens, validation: Tokens,
                 loss: Callable[[torch.nn.Module, Batch], torch.Tensor], score: Callable[[NDArray[np.float32]], float],
                 shown: Callable[[NDArray[np.float32]], float], how: Training, work: Work, stage: str, began: float,
                 ready_for: Callable[[int], None]) -> None:
        import torch

        self.spread, self.model, self.train, self.validation = spread, spread.model, train, validation
        self.shown = shown
        self.loss, self.score, self.how, self.work, self.stage, self.began = loss, score, how, work, stage, began
        self.ready_for = ready_for
        self.generator = torch.Generator().manual_seed(work.seed)
        self.optimizer = torch.optim.AdamW(_groups(self.model, how), fused=True)
        self.epochs = how.epochs
        self.steps_per_epoch = math.ceil(len(train) / how.batch_size)
        self.deadline_s = work.deadline_s
        self.step, self.progress = 0, 0.0
        self.epoch, self.batches_done = 0, 0
        self.order = self.generator.get_state()
        """Of the generator, where this epoch's order of rows began."""
        self.best, self.weights, self.waited = -math.inf, self.copied(), 0
        self.doctor = Doctor(self, how.on_nonfinite, self.weights)
        self.tokens_seen, self.stepping_s = 0, 0.0
        self.losses: list[torch.Tensor] = []
        self.reported = -math.inf
        self.validation_shown = 0.0
        self.saved, self.saving_s = time.perf_counter(), 0.0
        found = spread.load(work.checkpoint) if work.checkpoint is not None else None
        self.precision: precision.Precision = found[1]["precision"] if found else self._precision()
        self.scaler = torch.amp.GradScaler(work.device, enabled=self.precision == "fp16")
        if found:
            self._go_on(*found)

    def run(self) -> Fitted:
        if self.work.costs is not None:
            self._measure_costs(self.work.costs)
        while self.epoch < self.epochs:
            self._epoch(self.epoch)
            score = self._judged()
            self.epoch, self.batches_done, self.order = self.epoch + 1, 0, self.generator.get_state()
            self.waited = 0 if score > self.best else self.waited + 1
            if score >= self.best:  # among equals the later weights: their learning rate was lower
                self.best, self.weights = score, self.copied()
                self.doctor.remember(self.weights, self.step)
            self._report(self.epoch - 1)
            if self.waited >= self.how.patience or self.best >= 1.0:
                break
            self._plan(self.epoch)
        self._put_back(self.weights)
        self.doctor.discharge(self.best)
        rows = self.step * len(self.train) / self.steps_per_epoch
        return Fitted(validation=self.best, epochs=self.epoch, seconds=time.perf_counter() - self.began,
                      rows_per_s=rows / self.stepping_s, precision=self.precision)

    def _judged(self) -> float:
        """Return the score on the validation rows; minus infinity for answers that are not finite."""
        self.doctor.examine_weights(self.step, self.epoch + 1)
        logits = predict(self.spread.answering, self.validation, self.work.device)
        if not self.doctor.accepts(ragged.flat(logits, self.validation.lengths), self.step, self.epoch + 1):
            return -math.inf
        self.validation_shown = self.shown(logits)
        return self.spread.first(self.score(logits))

    def _epoch(self, epoch: int) -> None:
        self.generator.set_state(self.order)
        for i, rows in enumerate(shuffled(self.train.lengths, self.how.batch_size, self.generator)):
            if i < self.batches_done:  # before this process was started anew
                continue
            self.batches_done += 1
            rows = self.doctor.left(rows)
            if not len(rows):
                continue
            started = time.perf_counter()
            batch = self.spread.batch(self.train, rows)
            self.ready_for(batch.input_ids.shape[1])
            self._step(batch, rows)
            self.stepping_s += time.perf_counter() - started
            self.tokens_seen += int(self.train.lengths[rows].sum())
            if self.step == _MEASURED_STEPS:
                self._plan(epoch)
            if time.perf_counter() - self.reported > _REPORT_S:
                self._report(epoch)
            self._keep(epoch)
        self._report(epoch)

    def _keep(self, epoch: int) -> None:
        """Write a checkpoint when it is time for one."""
        if self.work.checkpoint is None:
            return
        began = time.perf_counter()
        due = began - self.saved >= max(_CHECKPOINT_S, self.saving_s / _CHECKPOINT_SHARE)
        if not self.spread.most(due):
            return
        if self.unsound():  # such weights replace no good ones; the next step sees to them
            return
        state = {"step": self.step, "progress": self.progress, "epoch": self.epoch, "batches_done": self.batches_done,
                 "epochs": self.epochs, "best": self.best if self.epoch else None, "waited": self.waited,
                 "tokens_seen": self.tokens_seen, "stepping_s": self.stepping_s, "precision": self.precision,
                 "validation_shown": self.validation_shown, "scaler": self.scaler.state_dict(),
                 "deadline_s": self.deadline_s, "spent_s": began - self.began, "doctor": self.doctor.state()}
        self.spread.save(self.work.checkpoint, self.step, self._tensors(), state)
        self.saved = time.perf_counter()
        self.saving_s = self.saved - began

    def _tensors(self) -> dict[str, torch.Tensor]:
        import torch

        tensors = {"order": self.order, "random": torch.random.get_rng_state()}
        if self.work.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        tensors |= {f"model.{name}": t for name, t in self._learned().items()}
        if self.epoch:
            tensors |= {f"best.{name}": t for name, t in self.weights.items()}
        if self.doctor.good is not self.weights:
            tensors |= {f"good.{name}": t for name, t in self.doctor.good.items()}
        for i, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": t for name, t in values.items()}
        return tensors

    def _go_on(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Stand where the checkpoint was written: weights, optimizer, plan, random numbers and place in the data."""
        import torch

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self._put_back(part("model."))
        of: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in part("optimizer.").items():
            index, _, key = name.partition(".")
            of.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": of})
        self.scaler.load_state_dict(state["scaler"])
        self.order = tensors["order"]
        if "random" in tensors:
            torch.random.set_rng_state(tensors["random"])
        else:  # written by another number of processes: their random numbers are nobody's here
            self.spread.reseed(state["step"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
        for name in ("step", "progress", "epoch", "batches_done", "epochs", "waited", "tokens_seen", "stepping_s",
                     "validation_shown", "deadline_s"):
            setattr(self, name, state[name])
        if self.epoch:
            self.best = state["best"]
            self.weights = {name: t.to(self.work.device) for name, t in part("best.").items()}
        good = {name: t.to(self.work.device) for name, t in part("good.").items()}
        self.doctor.go_on(state["doctor"], good or self.weights)
        self.began = time.perf_counter() - state["spent_s"]
        self.work.report({"stage": self.stage, "note": f"goes on from step {self.step} of an interrupted run"})

    def _step(self, batch: Batch, rows: NDArray[np.int64]) -> None:
        import torch

        rate = self._rate() * self.doctor.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        random = replay.random_state(self.work.device)
        with precision.autocast(self.precision, self.work.device):
            loss = self.spread.loss(batch)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = self.spread.clip(_LARGEST_NORM)
        mean = self.spread.mean(loss.detach())
        # both at once: a device that computes on its own is waited for but once a step
        value, size = torch.stack([mean.float(), norm.float()]).tolist()
        if self.doctor.passes(Step(self.step, self.epoch + 1, rows, value, size, rate, self.precision,
                                   self.scaler.get_scale(), random)):
            self.scaler.step(self.optimizer)
            self.losses.append(mean)
        self.scaler.update()
        self.optimizer.zero_grad()

    def diagnosed(self, step: Step, sound: Sequence[int]) -> replay.Finding:
        """Return why a step was not finite; the same in all processes."""
        again = replay.Replay(self.model, self.loss, lambda rows: self.train.batch(rows, self.work.device), step.rows,
                              step.random, step.precision, step.scale, self.work.device)
        return self.spread.finding(lambda: again.diagnose(sound))

    def unsound(self) -> list[str]:
        """Return the names of weights that are not finite; in all processes some when there are some in one."""
        return self.spread.unsound()

    def roll_back(self, weights: dict[str, torch.Tensor]) -> None:
        """Put weights in place, and let the optimizer begin anew."""
        self._put_back(weights)
        self.optimizer.state.clear()

    def use_fp32(self) -> None:
        """Take all steps from here on in fp32."""
        import torch

        self.precision = "fp32"
        self.scaler = torch.amp.GradScaler(self.work.device, enabled=False)

    def _rate(self) -> float:
        """Return the learning rate as a share of its peak, and count the step.

        Progress moves by its share of what is left, so that a shorter plan bends the line instead of breaking it.
        """
        total = self.epochs * self.steps_per_epoch
        rate = min(1.0, (self.step + 1) / max(1.0, self.how.warmup * total)) * (1 - self.progress)
        self.progress += (1 - self.progress) / max(1, total - self.step)
        self.step += 1
        return rate

    def _plan(self, done: int) -> None:
        """Set the number of epochs to what fits in the time that is left; no longer once the last has ended."""
        if self.deadline_s is None or done >= self.epochs:
            return
        left_s = self.deadline_s - (time.perf_counter() - self.began)
        if self.step < self.steps_per_epoch:  # in the first epoch: what its steps took belongs to it
            left_s += self.stepping_s
        fit = int(self.spread.first(epochs_that_fit(self.how.epochs, done, left_s, self._epoch_s())))
        if fit != self.epochs:
            self.work.report({"stage": self.stage, "note": f"{fit} of {self.how.epochs} epochs fit in "
                                                           f"{self.deadline_s:.0f} s"})
            self.epochs = fit

    def _epoch_s(self) -> float:
        tokens = self.train.lengths.sum() + _FORWARD_SHARE * self.validation.lengths.sum()
        return float(tokens) * self.stepping_s / self.tokens_seen

    def _report(self, epoch: int) -> None:
        import torch

        loss = float(torch.stack(self.losses).mean()) if self.losses else None
        self.losses.clear()
        self.reported = time.perf_counter()
        done = min(1.0, self.step / (self.epochs * self.steps_per_epoch))
        total = self.epochs * len(self.train)
        event: Event = {
            "stage": self.stage, "done": round(done * total), "total": total,
            "rows_per_s": self.step * self.how.batch_size / self.stepping_s if self.stepping_s else None,
            "seconds_left": (1 - done) * self.epochs * self._epoch_s() if self.tokens_seen else None,
            "epoch": epoch + 1, "validation": self.validation_shown}
        self.work.report({**event, "loss": loss} if loss is not None else event)

    def _learned(self) -> dict[str, torch.Tensor]:
        """Return what a step can change: the parameters that are trained. What is frozen is where it came from."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    def copied(self) -> dict[str, torch.Tensor]:
        return {name: weight.clone() for name, weight in self._learned().items()}

    def _put_back(self, weights: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._learned().items():
                parameter.copy_(weights[name])

    def _first_batch(self) -> Batch:
        """Return the batch that this seed begins with."""
        import torch

        rows = next(shuffled(self.train.lengths, self.how.batch_size, torch.Generator().manual_seed(self.work.seed)))
        batch = self.spread.batch(self.train, rows)
        self.ready_for(batch.input_ids.shape[1])
        return batch

    def _measure_costs(self, file: Path) -> None:
        """Write what a step costs; the time it takes is not the lesson's."""
        began = time.perf_counter()
        by_length = np.argsort(self.train.lengths, kind="stable")
        count = min(len(by_length), self.how.batch_size)
        end = max(count, round(_TIMED_QUANTILE * len(by_length)))
        longest, timed = (self.train.batch(rows, self.work.device) for rows in (
            by_length[-count:], by_length[end - count:end]))

        def step_of(batch: Batch) -> Callable[[], torch.Tensor]:
            def loss() -> torch.Tensor:
                self.ready_for(batch.input_ids.shape[1])
                return self.loss(self.model, batch)

            return loss

        found = costs.measure(self.model, step_of(timed), step_of(longest), self.precision, self.work.device)
        write_atomic(file, found.model_copy(update={
            "rows": count, "tokens": timed.input_ids.numel(),
            "mean_tokens": float(self.train.lengths.mean())}).to_json())
        self.began += time.perf_counter() - began

    def _precision(self) -> precision.Precision:
        if self.how.precision != "auto":
            return self.how.precision
        import torch

        batch = self._first_batch()

        def step(context: object) -> None:
            with context:  # type: ignore[attr-defined]
                loss = self.spread.loss(batch)
            loss.backward()
            self.optimizer.zero_grad()

        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if self.work.device == "cuda" else []):
            chosen, why = precision.choose(
                step, self.work.device, self.model.encoder.config.hidden_size, self.spread.most)  # type: ignore[union-attr]
        self.work.report({"stage": self.stage, "note": why})
        return chosen


def _groups(model: torch.nn.Module, how: Training) -> list[dict[str, object]]:
    """Return parameter groups by part (encoder, head) and by whether they decay."""
    import torch

    embeddings = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and id(parameter) not in embeddings
        groups.setdefault((name.startswith("head."), decays), []).append(parameter)
    return [{"params": parameters, "peak": how.head_learning_rate if head else how.learning_rate,
             "weight_decay": how.weight_decay if decays else 0.0}
            for (head, decays), parameters in groups.items()]

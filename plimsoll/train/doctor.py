"""The doctor: looks at every step before the optimizer acts on it, and treats what is not finite, or far too large."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import ChildError
from plimsoll.core.parts import Work
from plimsoll.train import incidents
from plimsoll.train.incidents import Action, Incident
from plimsoll.train.precision import Precision
from plimsoll.train.replay import Finding

if TYPE_CHECKING:
    import torch

Policy = Literal["recover", "stop"]
"""What to do about a step that is not finite: treat the cause and go on, or end the training."""

_WINDOW = 128
"""Steps whose norms say what is usual; with fewer nothing is called a spike."""
_SIGMAS = 6 * 1.4826
"""1.4826 times the median distance from the median is the deviation of normal numbers."""
_SPIKES = 3
"""In a row: no longer an unlucky batch."""
_OVERFLOWS = 3
"""In a row are the fp16 scaler's own business: it halves its factor and tries again."""
_MOST_INCIDENTS = 16
"""Beyond them a training is not worth saving; spikes do not count."""
_LOWEST_RATE = 1 / 16
"""Of the planned one: after four times of rolling back the rate was not what was wrong."""
_SNAPSHOT_STEPS = 128
"""Between two copies of the weights: 25 ms for 22 million weights, against seconds of steps."""


@dataclass(frozen=True)
class Step:
    """A step up to where the optimizer would act."""

    number: int
    epoch: int
    """Both from 1."""
    rows: NDArray[np.int64]
    """int64 [batch]."""
    loss: float
    norm: float
    """Of all gradients, before clipping."""
    rate: float
    """Learning rate as a share of its peak."""
    precision: Precision
    scale: float
    random: tuple[torch.Tensor, ...]
    """From before the forward pass."""


def spikes(norm: float, usual: Sequence[float]) -> bool:
    """Return whether a gradient norm lies beyond median + 6 * 1.4826 * MAD of the norms of the 128 steps before.

    MAD is the median distance from the median. Nothing is, while fewer are known.
    Source: the Hampel identifier, Davies and Gather, JASA 1993.
    """
    if len(usual) < _WINDOW:
        return False
    known = np.asarray(usual)
    middle = np.median(known)
    return bool(norm > middle + _SIGMAS * np.median(np.abs(known - middle)))


class Patient(Protocol):
    """A training, as the doctor needs it. Of several processes each has a doctor, and all doctors see the same."""

    work: Work
    stage: str

    def unsound(self) -> list[str]:
        """Return the names of weights that are not finite."""
        ...

    def diagnosed(self, step: Step, sound: Sequence[int]) -> Finding:
        """Return why a step was not finite. sound: rows of an earlier step that was, none where there was none."""
        ...

    def copied(self) -> dict[str, torch.Tensor]:
        """Return a copy of the weights that are trained."""
        ...

    def roll_back(self, weights: dict[str, torch.Tensor]) -> None:
        """Put such a copy in place, and let the optimizer begin anew."""
        ...

    def use_fp32(self) -> None:
        """Take all steps from here on in fp32."""
        ...


class Doctor:
    """What is known of one training's health, and what is done to keep it.

    A healthy step costs one look at two numbers and a median of 128: no pass over weights or gradients, and no wait for
    the processor; for a CUDA device one wait a step, when the two numbers are fetched.

    The last good weights are a copy in memory of those that are trained, taken every 128 steps of weights that just
    gave a finite loss and gradients, and at the end of an epoch that was the best (that copy is there anyway). Rolling
    back puts them in place, and lets the optimizer begin anew: what it had gathered belongs to other weights.
    """

    def __init__(self, patient: Patient, policy: Policy, good: dict[str, torch.Tensor]) -> None:
        """`good`: a copy of the weights to begin with. Raises ChildError when not all weights are finite."""
        self._patient, self._policy = patient, policy
        if names := patient.unsound():
            raise ChildError(f"{names[0]} holds values that are not finite before any training; no model was written",
                             "get or make the model that training starts from again")
        self.good = good
        """The last good weights."""
        self.rate = 1.0
        """What rolling back left of the planned learning rate."""
        self._kept_at = 0
        self._norms: deque[float] = deque(maxlen=_WINDOW)
        self._spikes, self._overflows, self._incidents, self._rolled_back = 0, 0, 0, False
        self._dropped: set[int] = set()
        self._sound: list[int] = []
        """Rows of the last step that was."""

    def passes(self, step: Step) -> bool:
        """Return whether the optimizer may act on a step; what stands against it is treated before this returns.

        Raises ChildError when it cannot be, or is not to be; the model then holds the last good weights.
        """
        if not (math.isfinite(step.loss) and math.isfinite(step.norm)):
            self._not_finite(step)
            return False
        self._overflows = 0
        if spikes(step.norm, self._norms) and self.rate > _LOWEST_RATE:
            self._spike(step)
            return False
        self._norms.append(step.norm)
        self._spikes, self._rolled_back, self._sound = 0, False, step.rows.tolist()
        if step.number - self._kept_at >= _SNAPSHOT_STEPS and not self._patient.unsound():
            self.remember(self._patient.copied(), step.number)
        return True

    def remember(self, weights: dict[str, torch.Tensor], step: int) -> None:
        """Take weights that are known to be finite for the last good ones."""
        self.good, self._kept_at = weights, step

    def examine_weights(self, step: int, epoch: int) -> None:
        """Roll back if any weight is not finite. step, epoch: the last ones, from 1. Raises ChildError as `passes`."""
        if names := self._patient.unsound():
            self._treat(Finding("weights", names[0]), {"step": step, "epoch": epoch})

    def accepts(self, logits: NDArray[np.float32], step: int, epoch: int) -> bool:
        """Return whether the model's answers to the validation rows are finite; if not, roll back.

        step, epoch: the last ones, from 1. Raises ChildError as `passes`.
        """
        if np.isfinite(logits).all():
            return True
        self._treat(Finding("answers"), {"step": step, "epoch": epoch})
        return False

    def discharge(self, validation: float) -> None:
        """Raise ChildError unless the model's weights and its validation score are finite."""
        if names := self._patient.unsound():
            raise ChildError(f"{names[0]} holds values that are not finite after training; no model was written",
                             _way_out("weights"))
        if not math.isfinite(validation):
            raise ChildError("no epoch had a finite score on the validation rows; no model was written",
                             _way_out("answers"))

    def left(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of the rows that are still learned from, int64 [rows]."""
        return rows[[row not in self._dropped for row in rows.tolist()]] if self._dropped else rows

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the doctor beside the last good weights: JSON."""
        return {"rate": self.rate, "kept_at": self._kept_at, "norms": list(self._norms), "spikes": self._spikes,
                "overflows": self._overflows, "incidents": self._incidents, "rolled_back": self._rolled_back,
                "dropped": sorted(self._dropped), "sound": self._sound}

    def go_on(self, state: dict[str, Any], good: dict[str, torch.Tensor]) -> None:
        """Know what the doctor of a training that was killed knew."""
        self.good, self.rate, self._kept_at = good, state["rate"], state["kept_at"]
        self._norms.extend(state["norms"])
        self._spikes, self._overflows, self._incidents = state["spikes"], state["overflows"], state["incidents"]
        self._rolled_back, self._dropped, self._sound = state["rolled_back"], set(state["dropped"]), state["sound"]

    def _not_finite(self, step: Step) -> None:
        if step.precision == "fp16" and math.isfinite(step.loss):
            self._overflows += 1
            if self._overflows <= _OVERFLOWS and step.scale >= 1:
                return
        found = self._patient.diagnosed(step, self._sound)
        self._treat(found, _facts(step))

    def _spike(self, step: Step) -> None:
        """Leave the step out; after three in a row roll back, as in Chowdhery et al., PaLM, 2022, section 5.1."""
        self._spikes += 1
        action: Action = "roll back" if self._spikes == _SPIKES else "skip"
        if action == "roll back":
            self._roll_back()
        self._tell(Finding("spike"), _facts(step), action)

    def _treat(self, found: Finding, facts: dict[str, Any]) -> None:
        self._incidents += 1
        if self._policy == "stop" or self._incidents > _MOST_INCIDENTS:
            self._stop(found, facts)
        action: Action = "skip"
        if found.cause == "data":
            action = "drop"
            self._dropped.update(found.rows)
        elif found.cause == "precision":
            action = "fp32"
            self._overflows = 0
            self._patient.use_fp32()
        elif found.cause in ("weights", "module", "answers", "unknown"):
            if self._rolled_back or self.rate <= _LOWEST_RATE:  # it did not help, or not for long
                self._stop(found, facts)
            action = "roll back"
            self._roll_back()
        self._tell(found, facts, action)

    def _roll_back(self) -> None:
        self._patient.roll_back(self.good)
        self.rate /= 2
        self._norms.clear()  # what is usual is so at these weights and this rate
        self._spikes, self._rolled_back = 0, True

    def _stop(self, found: Finding, facts: dict[str, Any]) -> NoReturn:
        incident = self._tell(found, facts, "stop")
        self._patient.roll_back(self.good)
        raise ChildError(f"{incident.seen()}: {incident.why()}; no model was written", _way_out(found.cause))

    def _tell(self, found: Finding, facts: dict[str, Any], action: Action) -> Incident:
        work, stage = self._patient.work, self._patient.stage
        incident = Incident(stage=stage, **facts, **found._asdict(), texts=incidents.texts(work.data, found.rows),
                            action=action)
        if not incident.minor:
            work.report({"stage": stage, "note": incident.says()})
        if work.incidents is not None and work.rank == 0:
            incidents.keep(work.incidents, incident)
        return incident


def _facts(step: Step) -> dict[str, Any]:
    """Return what an incident says of its step."""
    return {"step": step.number, "epoch": step.epoch, "loss": step.loss, "norm": step.norm, "rate": step.rate,
            "precision": step.precision, "scale": step.scale, "batch": tuple(step.rows.tolist())}


def _way_out(cause: incidents.Cause) -> str:
    if cause == "data":
        return "look at these rows of the training data"
    return 'set a lower learning_rate, or precision = "fp32" if it was lower'

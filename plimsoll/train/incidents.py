"""Incidents of a training: what was wrong at a step, where it came from, and what was done about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from plimsoll.core.record import Record
from plimsoll.core.store import write_atomic

Cause = Literal["weights", "precision", "data", "module", "passing", "answers", "spike", "unknown"]
"""weights: some were not finite before the step; precision: in fp32 the same step is finite; data: some rows alone
make it so; module: one makes it so of any rows; passing: the same step again was finite; answers: those to the
validation rows were not finite, of weights that are; spike: a step that is finite, but far too large; unknown: no
process holds all weights, so that none can take the step again."""
Action = Literal["skip", "drop", "fp32", "roll back", "stop"]
"""skip: the step was not taken; drop: nor are the rows ever learned from again; fp32: training went on in it; roll
back: to the last good weights, at half the learning rate; stop: no model was written."""

_TEXT = 120
_ROWS = 8
"""Of which an incident shows the text."""


class Incident(Record):
    """One step that the optimizer was not let act on. Nothing in it depends on the clock: a run that is killed and
    goes on meets the same incident again, word for word."""

    stage: str
    """The move that trained."""
    epoch: int
    step: int
    """Both from 1."""
    loss: float | None = None
    """None where it was found between two steps."""
    norm: float | None = None
    """Of all gradients, before clipping."""
    cause: Cause
    where: str = ""
    """Name of the module or the parameter; "the loss" for what comes after the model."""
    backward: bool = False
    """The forward pass was finite."""
    rows: tuple[int, ...] = ()
    """The training rows at fault, from 0 as in train.jsonl; those beyond its end were invented for a teacher."""
    texts: tuple[str, ...] = ()
    """Lines of train.jsonl for the first of these rows, shortened, what cannot be printed escaped."""
    batch: tuple[int, ...] = ()
    """All rows of the step."""
    precision: str = ""
    scale: float = 1.0
    """What an fp16 loss was multiplied by."""
    rate: float = 0.0
    """Learning rate of the step as a share of its peak."""
    action: Action

    @property
    def minor(self) -> bool:
        """A single step left out for its size: it is kept, but nobody needs to be told."""
        return self.cause == "spike" and self.action == "skip"

    def why(self) -> str:
        """Return where it came from: the second half of a sentence."""
        where = f"{self.where or 'the model'}{' in the backward pass' if self.backward else ''}"
        match self.cause:
            case "weights":
                return f"{where} holds values that are not finite"
            case "precision":
                return f"{where} leaves the range of {self.precision}, and in fp32 the same step is finite"
            case "data":
                shown = f" ({self.texts[0]})" if self.texts else ""
                return f"training {_named(self.rows)}{shown} alone make it so, in {where}"
            case "module":
                return f"{where} makes it so of finite inputs"
            case "passing":
                return "the same step again was finite"
            case "answers":
                return "not all answers to the validation rows are finite"
            case "spike":
                return "far above those of the steps before"
            case "unknown":
                return "where is not known, for no process holds all weights"

    def says(self) -> str:
        """Return what happened and what was done, in one line."""
        done = {"skip": "the step was not taken", "drop": "left out from here on", "fp32": "going on in fp32",
                "roll back": "back to the last good weights, at half the learning rate", "stop": "stopped"}
        return f"{self.seen()}: {self.why()}; {done[self.action]}"

    def seen(self) -> str:
        """Return what was seen: the first half of a sentence."""
        at = f"at step {self.step} of epoch {self.epoch}"
        if self.loss is None:
            return f"after step {self.step} of epoch {self.epoch}"
        if not math.isfinite(self.loss) or self.norm is None:
            return f"the loss became {self.loss:g} {at}"
        return f"the norm of the gradients became {self.norm:.3g} {at}"


def keep(file: Path, incident: Incident) -> None:
    """Add an incident to a file of JSON lines, unless it is there from before this run was killed."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    line = incident.model_dump_json()
    if line not in lines:
        write_atomic(file, "\n".join([*lines, line]) + "\n")


def load(file: Path) -> tuple[Incident, ...]:
    """Return the incidents of a file, oldest first; none where there is no file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return tuple(Incident.model_validate_json(line) for line in lines)


def texts(data: Path, rows: Sequence[int]) -> tuple[str, ...]:
    """Return the lines of a prepared data folder's train.jsonl for some rows, fit to be shown; none where it is not.

    Each is shortened, and what cannot be printed (or would turn the text around) is escaped.
    """
    file = data / "train.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    return tuple(_shown(lines[row]) for row in rows[:_ROWS] if row < len(lines) - 1)


def _shown(text: str) -> str:
    plain = repr(text)[1:-1]
    return plain if len(plain) <= _TEXT else f"{plain[:_TEXT]}…"


def _named(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - _ROWS} more" if len(rows) > _ROWS else ""
    return ("row " if len(rows) == 1 else "rows ") + ", ".join(str(r) for r in rows[:_ROWS]) + more

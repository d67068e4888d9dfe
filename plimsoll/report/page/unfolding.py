"""The search as it unfolded: the log as spans of time, and each recipe at the minute it was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plimsoll.core.dossier import Dossier
from plimsoll.core.trial import Trial

BETWEEN = "timing and planning"
"""After a recipe is tried until the next line: races and tables move a bar on the screen and leave no line."""
_MOMENT_S = 0.1
_READ, _TRIED = "read", "tried"


@dataclass(frozen=True)
class Span:
    """What the search was at, from one line of the log to the next."""

    stage: str
    begin_s: float
    end_s: float
    note: str


@dataclass(frozen=True)
class Tried:
    """A trial at the moment it was built and judged on validation."""

    trial: Trial
    at_s: float


def spans(dossier: Dossier) -> list[Span]:
    """Return the stages in order; neighbouring lines of one stage and note are one span."""
    events = _events(dossier.log)
    ends = [float(e["elapsed_s"]) for e in events[1:]] + [dossier.decision.seconds.get("total", 0.0)]
    found: list[Span] = []
    for event, end in zip(events, ends, strict=False):  # no event: no end of one either
        stage = BETWEEN if event["stage"] == _TRIED else str(event["stage"])
        begin = float(event["elapsed_s"])
        note = "" if stage == BETWEEN else str(event.get("note", event.get("text", "")))
        if found and found[-1].stage == stage and stage == BETWEEN:
            found[-1] = Span(stage, found[-1].begin_s, max(end, begin), "")
        else:
            found.append(Span(stage, begin, max(end, begin), note))
    return [s for s in found if s.stage != BETWEEN or s.end_s - s.begin_s >= _MOMENT_S]


def tried(dossier: Dossier) -> list[Tried]:
    """Return the trials in the order in which they were tried, each at the last time the log says so."""
    # such a line is "RECIPE: what came of it"
    lines = [(str(e.get("note", "")), float(e["elapsed_s"])) for e in _known(dossier.log) if e["stage"] == _TRIED]
    found: list[Tried] = []
    for trial in dossier.trials:
        begins = trial.recipe.says() + ": "
        times = [at_s for note, at_s in lines if note.startswith(begins)]
        if times:
            found.append(Tried(trial, times[-1]))
    return sorted(found, key=lambda one: one.at_s)


def _events(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines that begin a stage; rows are read again by every later command, which is no stage of this."""
    return [e for i, e in enumerate(_known(log)) if e["stage"] != _READ or i == 0]


def _known(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [e for e in log if "elapsed_s" in e and "stage" in e]

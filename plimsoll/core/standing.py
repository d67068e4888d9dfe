"""How a finished run stands: each recipe with the places of its numbers, each limit with what is to spare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from plimsoll.core import ink
from plimsoll.core.decision import Decision, Limit
from plimsoll.core.dossier import Dossier
from plimsoll.core.ink import DECISION, Ink, Place
from plimsoll.core.spec import Recipe
from plimsoll.core.trial import State, Trial

_MEASURED_AT: dict[Limit, Place] = {
    "p95_ms": DECISION / "chosen" / "latency_ms" / "p95",
    "min_speedup": DECISION / "speedup_p95",
    "quality_drop": DECISION / "three_numbers" / "quality_delta",
    "size_mb": DECISION / "chosen" / "size_mb",
    "memory_mb": DECISION / "chosen" / "peak_memory_mb",
}
_UNITS: dict[Limit, str] = {"p95_ms": "ms", "min_speedup": "x", "size_mb": "MB", "memory_mb": "MB"}


@dataclass(frozen=True)
class Known:
    """A recipe of a run, whether its trial was kept or the decision alone speaks of it."""

    id: str
    recipe: Recipe
    state: State
    said_at: Place
    """Of the recipe."""
    evidence: str
    """File of the run folder."""
    chosen: bool = False
    baseline: bool = False
    trial: Trial | None = None
    p95_ms: float = math.inf
    """Infinite where the records have no time of it."""
    p95_at: Place | None = None
    delta_at: Place | None = None
    delta_on: str = ""
    """test or validation."""
    reason_at: Place | None = None

    @property
    def timed(self) -> bool:
        """Whether the records have a time of it."""
        return self.p95_at is not None

    @property
    def made(self) -> bool:
        """Whether it was built and judged, though perhaps no time of it is on record."""
        return self.state in ("measured", "scored")


@dataclass(frozen=True)
class Held:
    """One limit beside what was measured of the chosen one, in words."""

    limit: Limit
    allowed: str
    measured: str
    room: str
    """What is to spare at the bound by which it is judged; below nothing where it is broken."""
    holds: bool


def known(dossier: Dossier) -> tuple[Known, ...]:
    """Return what is known of every recipe: the chosen one first, then as the decision lists the others.

    Nothing for a run that was decided before anything was made.
    """
    decision = dossier.decision
    base, chosen = decision.baseline, decision.chosen
    if chosen is None or base is None:
        return ()
    trials = {t.id: t for t in dossier.trials}
    found = [Known(
        id=chosen.trial, recipe=chosen.recipe, state="measured", said_at=DECISION / "chosen" / "recipe",
        evidence=f"trials/{chosen.trial}.json" if chosen.trial in trials else "decision.json", chosen=True,
        baseline=chosen.trial == base.trial, trial=trials.get(chosen.trial), p95_ms=chosen.latency_ms.p95.value,
        p95_at=DECISION / "chosen" / "latency_ms" / "p95", delta_at=DECISION / "three_numbers" / "quality_delta",
        delta_on="test")]
    for i, r in enumerate(decision.rejected):
        at, trial = DECISION / "rejected" / i, trials.get(r.trial)
        p95_ms, p95_at = _p95(r.trial, trial, decision)
        delta_on, delta_at = _delta(r.trial, trial, decision)
        found.append(Known(
            id=r.trial, recipe=r.recipe, state=r.state, said_at=at / "recipe", baseline=r.trial == base.trial,
            evidence=r.evidence if trial is not None else "decision.json", trial=trial, p95_ms=p95_ms, p95_at=p95_at,
            delta_on=delta_on, delta_at=delta_at, reason_at=at / "reason"))
    return tuple(found)


def limits(pen: Ink) -> list[Held]:
    """Return every limit of the budget, written with this ink; none for a run that made nothing."""
    found: list[Held] = []
    for limit in get_args(Limit):
        allowed, measured = DECISION / "budget" / limit, _MEASURED_AT[limit]
        bound: dict[str, Any] | None = pen.at(measured)
        if pen.at(allowed) is None or bound is None:
            continue
        unit = _UNITS.get(limit, "points")
        if limit == "quality_drop":
            asked, said = pen.percent(allowed).rstrip("%") + " points", pen.points(measured)
            left, room = float(pen.at(allowed)) + bound["low"], pen.sum(allowed, measured / "low", unit, scale=100.0)
        else:
            asked, said = pen.whole(allowed, unit), pen.measured(measured)
            ends = (measured / "low", allowed) if limit == "min_speedup" else (allowed, measured / "high")
            left, room = float(pen.at(ends[0])) - float(pen.at(ends[1])), pen.difference(*ends, unit)
        found.append(Held(limit, asked, said, room, left >= 0))
    return found


def _p95(trial_id: str, trial: Trial | None, decision: Decision) -> tuple[float, Place | None]:
    if trial is not None and trial.latency_ms is not None:
        return trial.latency_ms.p95.value, ink.trial(trial_id) / "latency_ms" / "p95"
    if decision.baseline is not None and trial_id == decision.baseline.trial:
        return decision.baseline.latency_ms.p95.value, DECISION / "baseline" / "latency_ms" / "p95"
    for i, front in enumerate(decision.front):
        if front.trial == trial_id:
            return front.p95_ms, DECISION / "front" / i / "p95_ms"
    return math.inf, None


def _delta(trial_id: str, trial: Trial | None, decision: Decision) -> tuple[str, Place | None]:
    """Return which rows its quality was judged on, and where the change to the baseline stands."""
    if trial is not None and trial.quality_delta is not None:
        return "test", ink.trial(trial_id) / "quality_delta"
    if trial is not None and trial.validation_delta is not None:
        return "validation", ink.trial(trial_id) / "validation_delta"
    for i, front in enumerate(decision.front):
        if front.trial == trial_id:
            return front.on, DECISION / "front" / i / "quality_delta"
    return "", None

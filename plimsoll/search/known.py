"""What a finished run's records say of each recipe, whether its trial was kept or the decision alone speaks of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll.core import ink
from plimsoll.core.decision import Decision
from plimsoll.core.dossier import Dossier
from plimsoll.core.ink import DECISION, Place
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import State, Trial
from plimsoll.search import choose


@dataclass(frozen=True)
class Known:
    """A recipe of a run, and the places where its numbers stand."""

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
        return self.p95_at is not None

    @property
    def made(self) -> bool:
        """Whether it was built and judged, though perhaps no time of it is on record."""
        return self.state in ("measured", "scored")


@dataclass(frozen=True)
class Ran:
    """A finished run that chose something."""

    dossier: Dossier
    every: tuple[Known, ...]
    """The chosen one first, then as the decision lists the others."""

    @property
    def chosen(self) -> Known:
        return self.every[0]

    @property
    def budget(self) -> Budget:
        return self.dossier.decision.budget

    @property
    def test_rows(self) -> int:
        return int(self.dossier.decision.data.get("rows", {}).get("test", 0))

    def holds(self, one: Known) -> bool:
        """Return whether every limit that was checked holds, and quality looks certifiable; False where none is known.
        """
        if one.chosen:
            return self.dossier.decision.verdict == "met"
        if one.trial is None or one.trial.latency_ms is None:
            return False
        if not all(check.holds for check in choose.checks(one.trial, self.budget)):
            return False
        tested = one.trial.quality_delta is not None
        return tested or choose.promising(one.trial, self.budget, self.test_rows)

    def fastest(self, among: Sequence[Known]) -> Known | None:
        """Return the fastest of those that hold every limit, else of all.

        Where the records do not have the times of all: one of which they have a reason.
        """
        if not all(k.timed for k in among):
            return next((k for k in among if not k.baseline), None)
        return min([k for k in among if self.holds(k)] or among, key=lambda k: k.p95_ms, default=None)


def of_run(dossier: Dossier) -> Ran | None:
    """Return what is known of every recipe; None for a run that was decided before anything was made."""
    decision = dossier.decision
    if decision.chosen is None or decision.baseline is None:
        return None
    trials = {t.id: t for t in dossier.trials}
    base, chosen = decision.baseline, decision.chosen
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
    return Ran(dossier, tuple(found))


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

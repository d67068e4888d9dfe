"""What a finished run is asked about: its recipes, and which of them hold its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll.core import standing
from plimsoll.core.dossier import Dossier
from plimsoll.core.spec import Budget
from plimsoll.core.standing import Known
from plimsoll.search import choose


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
        """Return whether every limit that was checked holds, and quality looks certifiable.

        False where the records do not say.
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
    """Return a run with what is known of its recipes; None for one that was decided before anything was made."""
    every = standing.known(dossier)
    return Ran(dossier, every) if every else None

"""The phrases that answers are made of: each number of them goes through the ink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll.core import ink
from plimsoll.core.answer import Table
from plimsoll.core.ink import DECISION, Ink, Place
from plimsoll.core.standing import Known
from plimsoll.search.known import Ran
from plimsoll.search.rounds import Kept

_ROWS = 24
"""Rows of a table at most."""


@dataclass(frozen=True)
class Pen:
    """What an answer is written with: a run, what is left of its races, and the ink."""

    ran: Ran
    kept: Kept
    ink: Ink

    def recipe(self, k: Known) -> str:
        return self.ink.recipe(k.said_at)

    def times(self, k: Known) -> str:
        """Return `takes 3.10 ms (...) at p95, 2.34 times the chosen one's (...)`; of the chosen one only its own."""
        if k.p95_at is None:
            return "is on record with its reason alone"
        said = f"takes {self.ink.measured(k.p95_at)} at p95"
        against = "" if k.chosen else self.against(k)
        return f"{said}, {against} times the chosen one's" if against else said

    def against(self, k: Known) -> str:
        """Return its p95 over the chosen one's: from the last race both were in, else of the two numbers."""
        raced = self.kept.ratio(k.id, self.ran.chosen.id)
        if raced is not None:
            return self.ink.raced(raced.ratio, raced.of, "p95")
        chosen = self.ran.chosen.p95_at
        return "" if k.p95_at is None or chosen is None else self.ink.ratio(self._value(k.p95_at), self._value(chosen))

    def quality(self, k: Known) -> str:
        """Return how its quality changes against the baseline's, or nothing where that was not seen."""
        if k.delta_at is None or k.baseline:
            return ""
        return f"its quality changes by {self.ink.points(k.delta_at)} on the {k.delta_on} rows"

    def numbers(self, k: Known) -> str:
        return ", and ".join(filter(None, (self.times(k), self.quality(k))))

    def lost(self, k: Known) -> str:
        """Return the recorded reason why it was not chosen, as a sentence."""
        said = self.ink.sentence(k.reason_at) if k.reason_at is not None else ""
        return f" Why not: {said}" if said else ""

    def number_of(self, those: Sequence[Known]) -> str:
        return self.ink.count([k.said_at for k in those])

    def count(self, those: Sequence[Known]) -> str:
        """Return `3 recipes`."""
        return f"{self.number_of(those)} recipe{'s' if len(those) != 1 else ''}"

    def each(self, those: Sequence[Known], title: str) -> Table:
        """Return a table of these recipes, the fastest first, each with its numbers and the reason it lost."""
        order = sorted(those, key=lambda k: (k.p95_ms, not k.made))
        rows = tuple((k.id, self.recipe(k), k.state, "-" if k.p95_at is None else self.ink.measured(k.p95_at),
                      self.against(k) or "-", "-" if k.delta_at is None else self.ink.points(k.delta_at),
                      k.delta_on or "-", "-" if k.reason_at is None else self.ink.quoted(k.reason_at))
                     for k in order[:_ROWS])
        if len(order) > _ROWS:
            more = f"{self.count(order[_ROWS:])} more"
            rows = (*rows, (more, *("-",) * 6, "in decisions.md"))
        head = ("trial", "recipe", "state", "p95", "times the chosen one's", "quality change", "seen on", "why not")
        return Table(title=title, head=head, rows=rows)

    def _value(self, place: Place) -> Place:
        return place / "value" if isinstance(self.ink.at(place), dict) else place


def record_at(k: Known) -> Place | None:
    """Return where all measurements of a trial stand: its own record, or a side of the decision; None for neither."""
    if k.trial is not None:
        return ink.trial(k.id)
    return DECISION / "chosen" if k.chosen else DECISION / "baseline" if k.baseline else None

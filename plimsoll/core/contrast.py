"""A contrast: two finished runs side by side, what differs between them, and which of it is more than noise."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plimsoll.core.record import Measurement, Record
from plimsoll.core.trial import State

Where = Literal["spec", "data", "model", "machine", "versions"]
How = Literal["paired", "independent", "exact", "once", "drift"]
"""paired: row by row on the same rows. independent: from the two intervals alone. exact: counted, without sampling
error. once: seen once on each side, so that nothing is known of its noise. drift: timed apart, and machines drift."""
Finding = Literal["more", "less", "same", "cannot be told", "shown only"]
"""Of the second run against the first, beyond noise. `same`: counted on both sides, and equal. `shown only`: the two
numbers stand beside each other, and nothing is asked of them."""

QUALITY_DELTA = "quality delta, chosen less baseline"
"""Name of the number that is itself a difference within each run."""


class Differs(Record):
    """One key that is not the same in both runs."""

    where: Where
    key: str
    first: str
    second: str
    """As JSON has it; "-" where there is none."""


class Compared(Record):
    """One number of both runs."""

    name: str
    first: Measurement | None
    second: Measurement | None
    change: Measurement | None = None
    """Second less first, or second over first where `unit` is "x"; its bounds hold at its own confidence."""
    how: How
    finding: Finding
    why: str = ""
    """What the comparison rests on, in a sentence."""


class FrontPoint(Record):
    """A recipe that no other of its run beats in both speed and quality."""

    recipe: str
    p95_ms: float
    quality_delta: float
    on: Literal["test", "validation"]


class Party(Record):
    """One of the two runs, as far as it is not compared number by number."""

    name: str
    """How the page calls it: the run folder, with as much of its path as tells the two apart."""
    verdict: Literal["met", "not-met"]
    why: str
    baseline: str = ""
    """The recipe in words; empty when nothing was made."""
    chosen: str = ""
    spec_digest: str
    machine: str
    drift: float | None = None
    """The baseline's slowest round over its fastest in the last race, where the run kept its times."""
    front: tuple[FrontPoint, ...] = ()


class Both(Record):
    """A recipe that both runs tried."""

    trial: str
    recipe: str
    first: State
    second: State
    first_reason: str = ""
    second_reason: str = ""
    speed: Compared | None = None
    """Speed-up at p95 over each run's own baseline."""
    quality: Compared | None = None
    """On the validation rows."""

    @property
    def differs(self) -> bool:
        """Whether it came out differently: in another state, or with a number that is more than noise away."""
        told = {c.finding for c in (self.speed, self.quality) if c is not None}
        return self.first != self.second or bool(told & {"more", "less"})


class Contrast(Record):
    """Two runs side by side."""

    format: int = 1
    first: Party
    second: Party
    verdict: str
    """The paragraph to read."""
    differs: tuple[Differs, ...]
    rows: str
    """Whether both were judged on the same test rows, and how that is known."""
    numbers: tuple[Compared, ...]
    trials: tuple[Both, ...]
    """Recipes that both tried, those that came out differently first."""
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    """Recipes that one of them alone tried, in words."""
    notes: tuple[str, ...] = ()
    machines: dict[str, str] = Field(default_factory=dict[str, str])
    """Digest of each machine -> its processor."""

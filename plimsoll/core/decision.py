"""The decision: what to ship, the three numbers, and why every other trial lost."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from plimsoll.core.record import Measurement, Record
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import Latency, State

Limit = Literal["p95_ms", "min_speedup", "quality_drop", "size_mb", "memory_mb"]


class ThreeNumbers(Record):
    """What is promised to whoever signs the launch."""

    baseline_p95_ms: Measurement
    optimized_p95_ms: Measurement
    quality_delta: Measurement
    """Chosen minus baseline on the test rows; `low` is the one-sided bound of the paired difference."""


class Side(Record):
    """The baseline or the chosen artifact, measured."""

    trial: str
    recipe: Recipe
    latency_ms: Latency
    quality: Measurement
    size_mb: Measurement
    peak_memory_mb: Measurement
    cold_start_s: Measurement
    scores: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Every metric of the task on the test rows."""
    artifact: str = ""
    """Folder, relative to the run."""


class Binding(Record):
    """The limit that stood in the way."""

    limit: Limit
    floor: Measurement
    """The best that was measured for it."""
    floor_from: str = ""
    """Where the floor comes from, in words: what was measured, or which arithmetic."""
    nearest_miss: str
    """Trial id; empty when the limit was ruled out before anything was made."""
    relaxing: tuple[str, ...]
    """What each limit would have to be for something to pass, in words with numbers."""


class Rejected(Record):
    """A trial that was not chosen, and the one sentence why."""

    trial: str
    recipe: Recipe
    state: State
    reason: str
    evidence: str
    """Path of the trial's record, relative to the run."""


class Front(Record):
    """A trial that no other beats in both speed and quality, or one that is beaten."""

    trial: str
    p95_ms: float
    quality_delta: float
    """On the test rows where the trial was put to them, else on validation."""
    on: Literal["test", "validation"]
    beaten_by: str = ""
    """The trial that is at least as fast and as good, and better in one; empty on the front."""


class Decision(Record):
    """Everything a reviewer needs; `decision.json`.

    The numbers and both sides are absent when a limit was ruled out before anything was made.
    """

    format: int = 1
    verdict: Literal["met", "not-met"]
    why: str
    """Why the chosen one won, or why nothing could, in a sentence or two."""
    budget: Budget
    three_numbers: ThreeNumbers | None = None
    speedup_p95: Measurement | None = None
    speedup_p50: Measurement | None = None
    baseline: Side | None = None
    chosen: Side | None = None
    binding: Binding | None = None
    rejected: tuple[Rejected, ...] = ()
    front: tuple[Front, ...] = ()
    """Everything that was timed and judged, the fastest first."""
    notes: tuple[str, ...] = ()
    """What a reviewer should know: noise, what the test rows can certify, what was cut short."""
    data: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The report of what was read."""
    machine: dict[str, Any] = Field(default_factory=dict[str, Any])
    spec: dict[str, Any] = Field(default_factory=dict[str, Any])
    spec_digest: str
    seconds: dict[str, float] = Field(default_factory=dict[str, float])
    run: str = ""
    """The run folder; set by whoever loaded or wrote the decision, not part of what is compared."""

    @property
    def artifact(self) -> str:
        """The chosen artifact's folder, ready for `plimsoll.load`; empty when there is none."""
        if self.chosen is None:
            return ""
        return f"{self.run}/{self.chosen.artifact}" if self.run else self.chosen.artifact

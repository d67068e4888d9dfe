"""A trial: one recipe walked to its end, with what was measured or why it stopped."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plimsoll.core.artifact import Invariance, LengthCost
from plimsoll.core.record import Measurement, Record
from plimsoll.core.spec import Recipe

State = Literal["scored", "measured", "skipped", "failed", "pruned"]


class Latency(Record):
    """Quantiles of a request, end to end, in ms."""

    p50: Measurement
    p95: Measurement
    p99: Measurement


class Trial(Record):
    """A recipe and what became of it. `scored` is on the way: built and judged on validation, not yet timed."""

    id: str
    recipe: Recipe
    state: State
    reason: str = ""
    """For skipped, failed and pruned: one plain sentence."""
    traceback: str = ""
    baseline: bool = False
    validation: Measurement | None = None
    """The task's metric on the validation rows, on the artifact."""
    validation_delta: Measurement | None = None
    """Paired difference to the baseline on the validation rows."""
    expected_delta: Measurement | None = None
    """The same difference as the baseline's calibrated probabilities expect it: less noise, some bias."""
    disagreement: float | None = None
    """Share of validation rows on which artifact and baseline differ: exactly one is right, or one finds more."""
    variance: float | None = None
    """Of one row's part in the difference, for a metric that is no mean of right answers; None: the disagreement."""
    quality: Measurement | None = None
    """The task's metric on the test rows; only for the baseline and trials that were certified or tried to be."""
    quality_delta: Measurement | None = None
    """Paired difference to the baseline on the test rows."""
    latency_ms: Latency | None = None
    speedup_p50: Measurement | None = None
    speedup_p95: Measurement | None = None
    size_mb: Measurement | None = None
    peak_memory_mb: Measurement | None = None
    cold_start_s: Measurement | None = None
    """From starting the process to the first answer."""
    device_p50_ms: float | None = None
    """Median device time of a call by device events, where there are any."""
    invariance: Invariance | None = None
    cost_table: tuple[LengthCost, ...] = ()
    artifact: str = ""
    """Digest folder of the artifact in the store."""
    seconds: dict[str, float] = Field(default_factory=dict[str, float])
    """Wall-clock seconds by stage: one for each move, build, score."""

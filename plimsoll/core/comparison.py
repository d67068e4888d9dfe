"""A comparison of ways to tune one model: what each was given, what it came to, and why each other lost."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from plimsoll.core.find import AnyMove
from plimsoll.core.record import Measurement, Record

COMPARISON = "methods.json"

Stage = Literal["sweep", "equal_rows", "equal_time", "full"]
State = Literal["chosen", "tied", "lost", "stopped", "skipped", "failed"]


class Probe(Record):
    """One training of one method: on how much, and to what end."""

    move: AnyMove
    stage: Stage
    seed: int
    rows_seen: int
    """Training rows that went through it, each as often as it did."""
    seconds: float
    """Of the move, from reading its rows to writing its model."""
    quality: float
    """The task's metric on the validation rows."""
    model: str = ""
    """The model folder, where it is kept."""


class Recompute(Record):
    """What full activation checkpointing would spend on computing again, as a share of the step, in two ways."""

    direct: Measurement
    """A stopwatch around exactly what is computed again, over the step."""
    fitted: Measurement
    """From the times of steps with none, half and all of the layers checkpointed."""

    @property
    def apart(self) -> float:
        """How far the two ways are from each other, as a share of the step."""
        return abs(self.direct.value - self.fitted.value)


class Method(Record):
    """A way to tune, and what was found of it; a stage it did not come to is absent."""

    move: AnyMove
    """With the learning rate that its sweep found."""
    state: State
    reason: str = ""
    """One sentence with the numbers that decided."""
    trainable: int = 0
    parameters: int = 0
    precision: str = ""
    step_ms: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """A whole step by policy of activation checkpointing, median with bounds."""
    peak_memory_mb: dict[str, float] = Field(default_factory=dict[str, float])
    """Of the process that trains, by policy."""
    recompute: Recompute | None = None
    recompute_reason: str = ""
    """Why there is none."""
    rates: dict[str, float] = Field(default_factory=dict[str, float])
    """Validation metric by learning rate, of the sweep."""
    qualities: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """By stage: the mean over seeds, with bounds that allow for other seeds and other rows."""
    deltas: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """By stage: the paired difference to the chosen method's mean."""
    seconds: dict[str, float] = Field(default_factory=dict[str, float])
    """By stage: the mean seconds of one training."""


class Comparison(Record):
    """Every method that was compared, the best first; `methods.json`."""

    format: int = 1
    chosen: str
    """Name of the method whose model is handed over."""
    why: str
    metric: str
    seeds: int
    rows: dict[str, int]
    """Training rows that each training of a stage went through; of equal time: the seconds it was given."""
    methods: tuple[Method, ...]
    questions: tuple[str, ...] = ()
    """For each method that was not chosen: why not, in one sentence with its numbers."""
    checkpointing: str = ""
    """Which policy of activation checkpointing was chosen, and why."""
    quality: Measurement
    """The chosen model's metric on the test rows, which took no part in choosing."""
    model: str
    """Folder of the chosen model, relative to the run."""
    probes: tuple[Probe, ...] = ()
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = Field(default_factory=dict[str, Any])
    spec_digest: str = ""
    seconds: float = 0.0
    """Of the whole comparison."""
    run: str = ""
    """The run folder; set by whoever wrote or loaded it."""

"""Load tests: what was asked of a service, what it held, and whether the measurement itself can be trusted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plimsoll.core.record import Measurement, Record

TRAFFIC_RECORD = "load.json"

Scenario = Literal["single-stream", "server", "offline"]
"""Those of MLPerf. server: requests come by themselves, answered or not what came before. single-stream: one at a time,
the next when the last is answered. offline: always as many as fit."""
Outcome = Literal["held", "broken", "inconclusive"]
Asker = Literal["plimsoll", "loadgen"]


class Asked(Record):
    """The load that a service was put under."""

    url: str
    scenario: Scenario
    rate_per_s: float | None = None
    """Requests a second, on average; None where no rate was asked for, or where it is what is looked for."""
    trace: str = ""
    """File of the recorded arrivals that were replayed; empty for a Poisson stream."""
    seconds: float
    """That count; of a search, of each step at most."""
    warm_up_s: float
    """Before them, sent but not counted."""
    p99_ms: float | None = None
    """Limit that 99 of 100 requests are to be answered within, from when they are due; what is refused or fails, is
    not."""
    deadline_ms: float | None = None
    """What requests told the service they can wait; None: nothing."""
    rows: int = 1
    """Texts in a request."""
    texts: int
    """Different texts that were sent."""
    characters: dict[str, float] = Field(default_factory=dict[str, float])
    """Quantiles of their lengths: p5, p50, p95."""
    connections: int
    processes: int = 1
    timeout_s: float
    seed: int


class Check(Record):
    """One thing that must be so for the numbers to mean what they seem to."""

    name: str
    holds: bool
    says: str
    """What was found, in a sentence with its numbers."""


class Stretch(Record):
    """A part of a run, by when requests were due."""

    start_s: float
    requests: int
    p50_ms: float | None
    """Of accepted requests; None without any."""
    p99_ms: float | None
    accepted: int
    refused: int
    failed: int


class UnderLoad(Record):
    """What a service did under one load. All but the warm-up counts."""

    rate_per_s: float | None = None
    """Asked for."""
    seconds: float
    requests: int
    """That were due."""
    accepted: int
    """Answered with 200."""
    refused: int
    """Answered with 429."""
    errors: dict[str, int] = Field(default_factory=dict[str, int])
    """All else, by kind."""
    late: int | None = None
    """Not answered with 200 within the limit, for whatever reason; None without a limit."""
    clustering: float = 1.0
    """How many requests of this run are worth an independent one to the proof that they are on time: slow ones come
    together."""
    late_clustering: float = 1.0
    """The same to the proof that they are late: here only those that were late speak."""
    holds: bool | None = None
    """Whether 99 of 100 are shown to be within the limit; None without one."""
    latency_ms: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """p50, p95, p99 of accepted requests, from when each was due."""
    from_sent_ms: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """The same from when each was sent: without the client's lag and without waiting for a connection."""
    refusal_ms: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """p50 and p99 of refusals, from when each was sent."""
    stages_ms: dict[str, dict[str, float]] = Field(default_factory=dict[str, dict[str, float]])
    """p50, p95 and mean of each stage in the header Server-Timing of some accepted answers, and n of these."""
    achieved_per_s: float
    """Requests sent a second, while requests were due."""
    answered_per_s: float
    """Accepted requests a second; texts a second are `rows` times as many."""
    goodput_per_s: float | None = None
    """Of these, those within the limit."""
    lag_ms: dict[str, float] = Field(default_factory=dict[str, float])
    """p50, p99 and max of how late the client got to requests."""
    client_cores: float | None = None
    """Processor time that the client took, in cores; None where several processes sent."""
    waited_share: float = 0.0
    """Share of requests that were due while every connection was busy."""
    versions: tuple[str, ...] = ()
    """That answers named, in the order they first did."""
    stretches: tuple[Stretch, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether every check of the measurement itself holds."""
        return all(check.holds for check in self.checks)

    @property
    def failed(self) -> int:
        """Requests that were neither accepted nor refused."""
        return sum(self.errors.values())


class Step(Record):
    """One rate that was tried."""

    rate_per_s: float
    outcome: Outcome
    why: str
    load: UnderLoad


class Highest(Record):
    """The highest rate that holds a limit, between what held and what did not."""

    limit_ms: float
    held_per_s: float | None
    """The highest that held; None where none did."""
    broken_per_s: float | None
    """The lowest above it that did not; None where none was found."""
    inconclusive_per_s: tuple[float, ...] = ()
    """Rates between the two of which neither was shown."""
    confidence: float
    """Of each step by itself: exact of independent requests, and of a queue as near as its clustering is told."""
    together: float
    """Of all steps at once, by adding up their errors."""
    steps: tuple[Step, ...] = ()
    """In the order they were tried."""
    why: str
    """In a sentence."""


class LoadGen(Record):
    """What MLPerf's LoadGen says of a run that it drove itself."""

    version: str
    result: str
    """VALID or INVALID, by its own rules for the settings of this run."""
    summary: dict[str, str] = Field(default_factory=dict[str, str])
    """The lines of its summary, name and value, as it wrote them."""
    failed: int = 0
    """Queries whose answer was none: LoadGen cannot know, and counts them as answered."""


class TrafficReport(Record):
    """A load test from its question to its verdict."""

    format: int = 1
    asked: Asked
    asker: Asker = "plimsoll"
    load: UnderLoad | None = None
    """None for a search, whose loads are in its steps."""
    highest: Highest | None = None
    loadgen: LoadGen | None = None
    verdict: str
    """In a sentence."""
    stands: bool
    """Whether the measurement is valid, and the limit, where there was one, is shown to be held."""
    notes: tuple[str, ...] = ()
    machine: str
    """Digest of the machine that the client ran on; the service may have been elsewhere."""
    seconds: float = 0.0

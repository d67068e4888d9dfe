"""A profile: where the time of a request goes, from the bytes that come in to the answer that goes out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from plimsoll.core.record import Measurement, Record

StageName = Literal["decode", "tokenize", "pad", "model", "post"]
"""decode: JSON to text. tokenize: text to token ids. pad: ids to the arrays a runtime takes. model: the call that
computes. post: numbers to an answer."""
STAGES: tuple[StageName, ...] = ("decode", "tokenize", "pad", "model", "post")
PARTS: dict[str, tuple[StageName, ...]] = {
    **{name: (name,) for name in STAGES},
    "preprocess": ("decode", "tokenize", "pad"),
    "postprocess": ("post",),
}
"""What a latency budget may be split into: any stage, and several under one name."""

OperatorGroup = Literal["attention", "feed-forward", "norm", "embedding", "quantize", "head", "other"]
"""quantize: to int8 and back, where a runtime does so in an operator of its own."""

Number = Literal["fp32", "bf16", "int8"]
"""A number format that products are computed in; bf16 stands for any of 16 bits."""


class Stage(Record):
    """One stage of a request, over the real mix of lengths."""

    name: StageName
    p50_ms: Measurement
    p95_ms: Measurement
    mean_ms: float
    share: float
    """Of the mean of a whole request, 0 to 1."""


class Operators(Record):
    """All operators of one group, by the runtime's own profile."""

    group: OperatorGroup
    mean_ms: float
    """Of a request."""
    share: float
    """Of the time in all operators, 0 to 1."""
    flop: float | None = None
    """Floating-point or integer operations of a request of mean length; None where no product is computed."""
    traffic_bytes: float | None = None
    """Weights and activations read and written for such a request, each once: the least that can be moved."""
    number: Number | None = None
    """What the products are computed in; decides which ceiling holds."""
    roof_gops: float | None = None
    """The most this machine can do here, 10^9 operations a second: the ceiling of the number format, or what its main
    memory lets through at this intensity, whichever is less."""
    share_of_roof: float | None = None
    """The rate that was reached as a share of that: above 1 where weights stay in a cache, which is faster."""
    calls: float = 0.0
    """Operators of the group that run for a request."""
    heaviest: tuple[str, ...] = ()
    """Its heaviest operators as the runtime names them, the heaviest first: text from a model."""

    @property
    def gops(self) -> float | None:
        """Rate that was reached, 10^9 operations a second."""
        return None if self.flop is None or self.mean_ms <= 0 else self.flop / self.mean_ms / 1e6

    @property
    def intensity(self) -> float | None:
        """Operations per byte moved."""
        return self.flop / self.traffic_bytes if self.flop and self.traffic_bytes else None


class Allotted(Record):
    """A stage, or several under one name, beside its share of the latency budget."""

    name: str
    stages: tuple[StageName, ...]
    allowed: float
    """Share of p95 it may take, from the spec's [budget.split]."""
    allowed_ms: float
    """That share of the limit `p95_ms`, or of the measured p95 where the spec has no such limit."""
    p95_ms: Measurement
    holds: bool
    """Whether the upper bound of its p95 is within what it may take."""


class Profile(Record):
    """Where the time of one artifact goes."""

    format: int = 1
    artifact: str
    """The recipe, in words."""
    runtime: str
    threads: int
    requests: int
    tokens: dict[str, float] = Field(default_factory=dict[str, float])
    """Quantiles of tokens in a request: p5, p50, p95, and the mean."""
    end_to_end_ms: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """p50, p95, p99 of whole requests without a stopwatch inside, interleaved with those that have one."""
    stages: tuple[Stage, ...] = ()
    adds_up: Measurement
    """Median of the sum of a request's stages over the median of whole requests, as a ratio."""
    padding_waste: float
    """Share of the tokens the model computed that were padding."""
    operators: tuple[Operators, ...] = ()
    """By group, the heaviest first; empty where the runtime has no profile of its own, see `operators_reason`."""
    operators_reason: str = ""
    operators_factor: float | None = None
    """All operators by the runtime's own profile, over the model stage of the same requests without one: its cost makes
    them more, and what lies between them less. The groups above are scaled to add up to the model stage."""
    stopwatch_us: float = 0.0
    """What reading the clock between the stages takes of a request."""
    pads_apart: bool = True
    """Whether padding is a stage of its own; else the runtime does it inside the model stage."""
    ceilings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The measured ceilings of this machine at this thread count: `bench.ceilings.Ceilings`."""
    share_of_ceiling: float | None = None
    """Operations of the mean request over its time in the model, as a share of the ceiling of its number format."""
    budget: tuple[Allotted, ...] = ()
    attack: str = ""
    """Which stage to attack first and why, in a sentence with its numbers."""
    notes: tuple[str, ...] = ()
    machine: str = ""
    """Digest of the machine."""
    seconds: float = 0.0


def profile_record(who: str) -> str:
    """Return the name of the record of the baseline's or the chosen artifact's profile in a run folder."""
    return f"profile-{who}.json"


def trace_file(who: str) -> str:
    """Return the name of the trace beside that record, for Perfetto."""
    return f"profile-{who}.trace.json"

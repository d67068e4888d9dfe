"""An evaluation: what an artifact answers well, where it fails, how it takes noise, and what its model forgot."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from plimsoll.core.record import Measurement, Record

EVALUATION = "evaluation.json"

Flag = Literal["below the rest", "below the baseline"]


class Calibration(Record):
    """How far stated probabilities can be believed."""

    ece: Measurement
    """Expected calibration error of the answer's probability, in bins of equally many rows."""
    bins: int
    ece_by_chance: float
    """What a perfectly calibrated model of the same probabilities stays below on 95 of 100 sets of as many rows."""
    miscalibrated: bool
    """Whether the error is more than chance explains."""
    overconfidence: Measurement
    """Mean probability of the answer less the share that is right; negative: it is right more often than it says."""
    brier: Measurement
    """Mean squared distance of the probabilities from the truth, over all classes, 0 to 2."""


class Judged(Record):
    """One model on the test rows."""

    name: Literal["artifact", "weights", "baseline"]
    """artifact: what ships. weights: the model it was built from. baseline: what everything is compared with."""
    says: str
    """The recipe, in words."""
    quality: Measurement
    macro_f1: float
    calibration: Calibration
    change: Measurement | None = None
    """Paired difference of the artifact to this one, in the task's metric; absent for the artifact itself."""


class Group(Record):
    """The test rows of one class, or of one slice."""

    name: str
    n: int
    quality: Measurement
    """Share of its rows that are right: of a class, its recall."""
    precision: Measurement | None = None
    """Of a class: the share of the answers that name it which are right. Absent where none does."""
    f1: Measurement | None = None
    """Of a class."""
    change: Measurement | None = None
    """Paired difference to the baseline on these rows."""
    p_below_rest: float
    """Chance of so few right if the group were no harder than the other rows; corrected for the number of groups."""
    p_below_baseline: float | None = None
    """Chance of so many more lost than gained if the baseline were no better on it; corrected in the same way."""
    flags: tuple[Flag, ...] = ()
    """What noise does not explain, at 5 % for the whole table."""


class Robustness(Record):
    """The test rows again, with one kind of noise in the texts."""

    noise: str
    says: str
    """What is done to a text."""
    changed: int
    """Rows whose text it changes."""
    quality: Measurement
    change: Measurement
    """Paired difference to the clean texts, of the same artifact."""
    beyond_baseline: Measurement | None = None
    """That change less the baseline's own, row by row: negative where the artifact minds the noise more."""
    fragile: bool = False
    """Whether it minds the noise more than the baseline does, beyond chance, at 5 % for all kinds together."""


class Flip(Record):
    """A test row that artifact and baseline answer differently, and that only one of them has right."""

    row: int
    text: str
    label: str
    baseline: str
    artifact: str


class Flips(Record):
    """Rows on which exactly one of artifact and baseline is right."""

    lost: int
    """Right in the baseline, wrong in the artifact."""
    gained: int
    p: float
    """Exact two-sided McNemar p: the chance of so uneven a split if both were equally good."""
    rows: tuple[Flip, ...] = ()
    """Some of them, those lost first."""


class LayerLikeness(Record):
    """One layer of the tuned model beside the base model's layer at the same depth; 0 is what the embeddings give."""

    layer: int
    base_layer: int
    cka: Measurement


class Forgetting(Record):
    """What a tuned model's representation kept of the base model's, seen on the rows of another task."""

    name: str
    says: str
    probe: Measurement
    """Share of held-out rows that a linear probe on this model's pooled states gets right."""
    change: Measurement
    """Paired difference of that to the same probe on the base model."""
    pairs: Measurement
    """How often two rows of one label are more alike than two of different labels (cosine of pooled states)."""
    pairs_change: Measurement
    neighbours: Measurement
    """Share of a row's ten nearest rows in the base model that are still among its ten nearest."""
    layers: tuple[LayerLikeness, ...]
    forgets: bool
    """Whether the probe's loss is more than noise explains, at 5 % for all models together."""


class Forgotten(Record):
    """Forgetting of one or more models tuned from the same base, on the same rows of another task."""

    other: str
    """The file of the other task, with its folder."""
    classes: int
    learn: int
    """Rows the probe learns from."""
    choose: int
    """Rows that choose its penalty."""
    held: int
    """Rows it is judged on."""
    compared: int
    """Of these, the rows whose likeness is compared."""
    base_probe: Measurement
    base_pairs: Measurement
    models: tuple[Forgetting, ...]
    """Those that forget least come first."""
    verdict: str
    """Who forgets, and who forgets more than whom, in words with numbers."""
    ordered: bool
    """Whether every model forgets more than the one before it, beyond noise."""


class Evaluation(Record):
    """Everything that was found; `evaluation.json`."""

    format: int = 1
    artifact: str
    """The recipe of what was evaluated, in words."""
    source: str
    """Where the test rows came from."""
    metric: str
    rows: int
    verdict: str
    """The one paragraph to read."""
    models: tuple[Judged, ...]
    """The artifact first."""
    flips: Flips | None = None
    classes: tuple[Group, ...]
    """The worst recall first."""
    slices: tuple[Group, ...]
    robustness: tuple[Robustness, ...]
    forgotten: Forgotten | None = None
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = Field(default_factory=dict[str, Any])
    seconds: float = 0.0
    folder: str = ""
    """Where it was written; set by whoever wrote or loaded it."""

"""A forecast: what the latency table said of smaller models before any of them was trained."""

from __future__ import annotations

from typing import Literal

from plimsoll.core.record import Record
from plimsoll.core.spec import Recipe

FORECAST_RECORD = "forecast.json"

Outlook = Literal["ruled out", "beyond the limit", "passed over", "to be taught"]
"""ruled out: beyond what races differ by, even with the table's error in its favour. beyond the limit: predicted to be
too slow, by less than that. passed over: predicted to hold the limit, and others were to be taught first."""


class Foreseen(Record):
    """One smaller model, and what was predicted of it."""

    recipe: Recipe
    layers: int
    p95_ms: float
    least_p95_ms: float
    """With the table's error in its favour."""
    outlook: Outlook


class Forecast(Record):
    """Every smaller model that was weighed before the first lesson; what a sampler proposed later is a trial."""

    format: int = 1
    runtime: str
    """The runtime the table is of, in words."""
    layers: int
    """Of the whole model."""
    margin: float
    """The table's error, as a share."""
    limit_ms: float
    """The p95 that a student should be predicted to reach."""
    widest_ms: float
    """The p95 beyond which it is ruled out: what two races differ by is added to the limit."""
    lessons: int
    """Short lessons there was time for; with none, one student is taught in full."""
    lesson_s: float
    students: tuple[Foreseen, ...]

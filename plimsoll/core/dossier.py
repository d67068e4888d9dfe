"""A dossier: everything a run left behind that a page may show, read once."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from plimsoll.core.comparison import COMPARISON, Comparison
from plimsoll.core.decision import Decision
from plimsoll.core.evaluation import EVALUATION, Evaluation
from plimsoll.core.forecast import FORECAST_RECORD, Forecast
from plimsoll.core.profile import Profile, profile_record
from plimsoll.core.record import Record
from plimsoll.core.trial import Trial

Who = Literal["baseline", "chosen"]
PAGE = "report.html"
"""What a dossier is shown as, beside its records."""


class Dossier(Record):
    """The records of a finished search. Whatever is absent was not made by that run."""

    folder: str
    """The run folder as it was named; not for pages."""
    decision: Decision
    trials: tuple[Trial, ...]
    """The baseline first, then in the order of their ids."""
    latencies_ms: dict[str, tuple[float, ...]] = Field(default_factory=dict[str, tuple[float, ...]])
    """By trial: quantiles 0, 0.5, ... 100 % of its requests in the last race it took part in; 201 numbers."""
    log: tuple[dict[str, Any], ...] = ()
    """log.jsonl line by line: `elapsed_s`, `stage`, and `note` or `text`."""
    evaluation: Evaluation | None = None
    comparison: Comparison | None = None
    forecast: Forecast | None = None
    profiles: dict[Who, Profile] = Field(default_factory=dict[Who, Profile])

    def written(self) -> dict[str, Any]:
        """Return the JSON of every record by its file in the run folder, for `core.ink`."""
        records: dict[str, Record | None] = {
            "decision.json": self.decision,
            **{f"trials/{t.id}.json": t for t in self.trials},
            EVALUATION: self.evaluation,
            COMPARISON: self.comparison,
            FORECAST_RECORD: self.forecast,
            **{profile_record(who): profile for who, profile in self.profiles.items()},
        }
        return {name: json.loads(record.to_json()) for name, record in records.items() if record is not None}

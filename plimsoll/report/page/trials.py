"""The trials as the page's panel shows them: every number that was measured, and why it was not chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plimsoll.core import find
from plimsoll.core.decision import Rejected, Side
from plimsoll.core.dossier import Dossier
from plimsoll.core.parts import Part
from plimsoll.core.record import Measurement
from plimsoll.core.trial import Trial
from plimsoll.report.page.figures import roles
from plimsoll.report.words import delta, number, share

_TRACEBACK = 4000
"""Characters of a traceback's end: the line that broke is the last."""


def panels(dossier: Dossier, *, rows: bool) -> dict[str, dict[str, Any]]:
    """Return by trial what the panel shows, as plain JSON of strings.

    Without `rows`, tracebacks are left out too: an error may quote the text it met.
    """
    rejected = {r.trial: r for r in dossier.decision.rejected}
    names = roles(dossier)
    # a decision that came without its folder still knows what it says of its trials
    known = {r.trial: Trial(id=r.trial, recipe=r.recipe, state=r.state) for r in rejected.values()}
    known |= {s.trial: _of(s) for s in (dossier.decision.baseline, dossier.decision.chosen) if s is not None}
    known |= {t.id: t for t in dossier.trials}
    return {one.id: _panel(one, rejected.get(one.id), names.get(one.id, ""), rows=rows) for one in known.values()}


def _of(side: Side) -> Trial:
    return Trial(id=side.trial, recipe=side.recipe, state="measured", quality=side.quality, latency_ms=side.latency_ms,
                 size_mb=side.size_mb, peak_memory_mb=side.peak_memory_mb, cold_start_s=side.cold_start_s)


def _panel(trial: Trial, rejected: Rejected | None, role: str, *, rows: bool) -> dict[str, Any]:
    return {
        "says": trial.recipe.says(),
        "state": trial.state,
        "role": role,
        "why": rejected.reason if rejected is not None and rejected.reason else trial.reason,
        "evidence": rejected.evidence if rejected is not None else f"trials/{trial.id}.json",
        "numbers": _numbers(trial),
        "steps": [[part.name(), _fields(part)] for part in (*trial.recipe.moves, trial.recipe.runtime)],
        "seconds": [[stage, f"{s:.1f} s"] for stage, s in trial.seconds.items()],
        "costs": [[f"up to {c.tokens} tokens", f"p50 {c.p50_ms:.2f} ms, p95 {c.p95_ms:.2f} ms, n={c.n:,}"]
                  for c in trial.cost_table],
        "traceback": trial.traceback[-_TRACEBACK:] if rows else "",
    }


def _numbers(trial: Trial) -> list[list[str]]:
    latency = trial.latency_ms
    found: Sequence[tuple[str, Measurement | None, Any]] = (
        ("p50", latency and latency.p50, number),
        ("p95", latency and latency.p95, number),
        ("p99", latency and latency.p99, number),
        ("speed-up at p50", trial.speedup_p50, number),
        ("speed-up at p95", trial.speedup_p95, number),
        ("quality on test", trial.quality, share),
        ("against the baseline on test", trial.quality_delta, delta),
        ("quality on validation", trial.validation, share),
        ("against the baseline on validation", trial.validation_delta, delta),
        ("the same, as the baseline's probabilities expect it", trial.expected_delta, delta),
        ("size on disk", trial.size_mb, number),
        ("peak memory", trial.peak_memory_mb, number),
        ("cold start", trial.cold_start_s, number),
    )
    shown = [[name, words(m)] for name, m, words in found if m is not None]
    if trial.disagreement is not None:
        shown.append(["validation rows answered differently", f"{trial.disagreement:.2%}"])
    if trial.device_p50_ms is not None:
        shown.append(["p50 of the device alone", f"{trial.device_p50_ms:.3f} ms"])
    if trial.invariance is not None:
        shown.append(["labels changed by other rows of a batch",
                      f"{trial.invariance.flips} of {trial.invariance.rows}"])
    return shown


def _fields(part: Part) -> str:
    """Return every field of a part, defaults too."""
    tagged = find.write(part)
    return ", ".join(f"{k} {v}" for k, v in list(tagged.items())[1:]) or "no settings"

"""What several papers say of a run: its model and data, its sides, its limits, its notes."""

from __future__ import annotations

from collections.abc import Sequence

from plimsoll.core import ink as places
from plimsoll.core.dossier import Dossier
from plimsoll.core.ink import DECISION, EVALUATED, Ink, Place
from plimsoll.core.standing import Known
from plimsoll.report.sheet import Sheet

RECIPE, LABEL, SENTENCE = 20, 6, 28
"""Words of a recipe, of a label and of a recorded sentence at most."""

_SIZES = (("size on disk", "size_mb"), ("peak memory", "peak_memory_mb"), ("cold start", "cold_start_s"))
_STATES = {"measured": "measured", "scored": "judged but not timed", "pruned": "ruled out before they were made",
           "failed": "failed", "skipped": "skipped"}
CHOSEN, BASELINE = DECISION / "chosen", DECISION / "baseline"


def model(ink: Ink) -> str:
    """Return the pre-trained model's name."""
    return ink.file(DECISION / "spec" / "model" / "name", LABEL)


def task(ink: Ink) -> str:
    """Return what kind of task it is."""
    return ink.quoted(DECISION / "spec" / "task" / "kind", LABEL)


def data(ink: Ink) -> str:
    """Return how many rows there were and of how many classes, as far as the records say."""
    rows, classes = DECISION / "data" / "rows", DECISION / "data" / "classes"
    parts = [f"{ink.number(rows / split)} {split}" for split in ("train", "validation", "test")
             if ink.at(rows / split) is not None]
    told = f"{', '.join(parts)} rows" if parts else ""
    return f"{told}, {ink.number(classes)} classes" if told and ink.at(classes) else told


def machine(ink: Ink) -> str:
    """Return the processor and how many cores of it, and the digest of its fingerprint."""
    at = DECISION / "machine"
    cpu, cores = ink.quoted(at / "fingerprint" / "cpu", SENTENCE), at / "fingerprint" / "cores_allowed"
    allowed = f", {ink.number(cores)} cores allowed" if isinstance(ink.at(cores), int | float) else ""
    return f"{cpu or 'an unrecorded processor'}{allowed}"


def threads(ink: Ink) -> str:
    """Return the threads a request of the chosen one may use."""
    recipe = ink.at(CHOSEN / "recipe")
    at = CHOSEN / "recipe" / (len(recipe) - 1) / "threads"
    return ink.number(at) if ink.at(at) is not None else "as many as there are"


def confidence(ink: Ink) -> str:
    """Return what the bounds in brackets mean."""
    sure = ink.percent(DECISION / "speedup_p95" / "confidence", digits=0)
    return f"Bounds in brackets hold one-sided at {sure} each."


def asked(ink: Ink) -> str:
    """Return the limits of the budget in words."""
    parts: list[str] = []
    for name, words in (("p95_ms", "a p95 of at most {} ms"), ("min_speedup", "a speed-up of at least {}x"),
                        ("size_mb", "at most {} MB on disk"), ("memory_mb", "at most {} MB of memory")):
        if ink.at(DECISION / "budget" / name) is not None:
            parts.append(words.format(ink.whole(DECISION / "budget" / name)))
    if ink.at(DECISION / "budget" / "quality_drop") is not None:
        drop = ink.percent(DECISION / "budget" / "quality_drop").rstrip("%")
        parts.append(f"a loss of quality of at most {drop} points")
    return ", ".join(parts)


def sides(sheet: Sheet, ink: Ink) -> None:
    """Add the table of both sides: latency, quality, size."""
    rows = [(p, *(ink.measured(side / "latency_ms" / p) for side in (BASELINE, CHOSEN))) for p in ("p50", "p95", "p99")]
    unit = ink.quoted(CHOSEN / "quality" / "unit", LABEL)
    rows.append((f"{unit} on the test rows", *(ink.percent(side / "quality") for side in (BASELINE, CHOSEN))))
    rows += [(words, *(ink.measured(side / name) for side in (BASELINE, CHOSEN))) for words, name in _SIZES]
    sheet.table(("what", "baseline", "chosen"), rows)


def measured_of(k: Known, ink: Ink) -> tuple[str, str]:
    """Return a recipe's p95, and its change of quality with the rows that were asked."""
    p95 = "-" if k.p95_at is None else ink.measured(k.p95_at)
    return p95, "-" if k.delta_at is None else f"{ink.points(k.delta_at)} on {k.delta_on}"


def counts(every: Sequence[Known], ink: Ink) -> str:
    """Return how many recipes are on record, and what became of them."""
    parts = [f"{ink.count([k.said_at for k in those])} {said}" for state, said in _STATES.items()
             if (those := [k for k in every if k.state == state])]
    return f"{ink.count([k.said_at for k in every])} recipes are on record: {', '.join(parts)}."


def notes(dossier: Dossier, ink: Ink, most: int) -> list[str]:
    """Return what a reviewer should know: the notes of the decision, then those of the evaluation."""
    found: list[str] = [ink.quoted(DECISION / "notes" / i, SENTENCE) for i in range(len(dossier.decision.notes))]
    if dossier.evaluation is not None:
        found += [ink.quoted(EVALUATED / "notes" / i, SENTENCE) for i in range(len(dossier.evaluation.notes))]
    return found[:most]


def worst_classes(dossier: Dossier, ink: Ink, most: int) -> list[str]:
    """Return the classes with the lowest recall, each with its change against the baseline where that is known."""
    if dossier.evaluation is not None:
        return [f"{_named(EVALUATED / 'classes' / i, ink)}" for i in range(min(most, len(dossier.evaluation.classes)))]
    recall: dict[str, float] = (ink.at(CHOSEN / "scores" / "recall") or {}) if dossier.decision.chosen else {}
    worst = sorted(recall, key=lambda name: (recall[name], name))[:most]
    return [f"{ink.key(CHOSEN / 'scores' / 'recall' / name, LABEL)}: recall "
            f"{ink.percent(CHOSEN / 'scores' / 'recall' / name)}" for name in worst]


def invariance(dossier: Dossier, ink: Ink) -> str:
    """Return whether answers depend on the company in the batch, as far as that is on record."""
    chosen = dossier.decision.chosen
    at = places.trial(chosen.trial) / "invariance" if chosen is not None else None
    if at is None or ink.at(at) is None:
        return ""
    return (f"{ink.number(at / 'flips')} of {ink.number(at / 'rows')} answers changed with the company in the batch.")


def _named(at: Place, ink: Ink) -> str:
    change = f", {ink.points(at / 'change')} against the baseline" if ink.at(at / "change") is not None else ""
    flags: list[str] = ink.at(at / "flags") or []
    flagged = f" ({', '.join(ink.quoted(at / 'flags' / i) for i in range(len(flags)))})" if flags else ""
    return f"{ink.quoted(at / 'name', LABEL)}: recall {ink.percent(at / 'quality')}{change}{flagged}"

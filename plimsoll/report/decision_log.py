"""A raw decision log: what was considered and rejected, in at most 500 words whatever the number of alternatives."""

from __future__ import annotations

from collections.abc import Sequence

from plimsoll.core import standing
from plimsoll.core.dossier import Dossier
from plimsoll.core.ink import COMPARED, DECISION, FORECAST, Ink
from plimsoll.core.standing import Known
from plimsoll.report import facts
from plimsoll.report.facts import CHOSEN, SENTENCE
from plimsoll.report.sheet import Paper, Sheet

WORDS = 500
_EACH = 6
"""Alternatives that are told one by one; of more, groups are told by their best."""
_WHY, _SAID = 24, 14
"""Words of a reason and of a recipe at most."""


def write(dossier: Dossier) -> Paper:
    """Return the log of a finished run: the choice, then the alternatives, the ones that came nearest first."""
    ink, sheet, decision = Ink(dossier.written()), Sheet(), dossier.decision
    every = standing.known(dossier)
    sheet.heading(f"Decision log: {decision.verdict}", level=1)
    sheet.say(ink.quoted(DECISION / "why", 2 * SENTENCE))
    if decision.binding is not None:
        for i in range(len(decision.binding.relaxing)):
            sheet.item(ink.quoted(DECISION / "binding" / "relaxing" / i, _WHY), may=True)
    if every:
        sheet.heading("Chosen")
        sheet.item(f"{ink.recipe(CHOSEN / 'recipe', _SAID)}: {ink.measured(CHOSEN / 'latency_ms' / 'p95')} at p95, "
                   f"{ink.points(DECISION / 'three_numbers' / 'quality_delta')}")
        for x in standing.limits(ink):
            sheet.item(f"{x.limit}: {x.allowed} allowed, {x.measured}, {x.room} to spare")
        sheet.heading("Considered and rejected")
        sheet.say(facts.counts(every, ink))
        others = [k for k in every if not k.chosen]
        for those in _groups(others):
            _tell(those, sheet, ink)
    _compared(dossier, sheet, ink)
    _weighed(dossier, sheet, ink)
    for note in facts.notes(dossier, ink, 3):
        sheet.item(note, may=True)
    sheet.say("All of them, each with its reason and its record: decisions.md.")
    return Paper(sheet.text(WORDS), ink.figures)


def _groups(others: Sequence[Known]) -> list[list[Known]]:
    """Return the alternatives in groups of one runtime, number format and kind of model, the fastest group first.

    A few of them are each a group of their own.
    """
    groups: dict[tuple[object, ...], list[Known]] = {}
    for k in others:
        runtime = k.recipe.runtime
        key = (k.id,) if len(others) <= _EACH else (runtime.name(), runtime.number, _smaller(k))
        groups.setdefault(key, []).append(k)
    return sorted(groups.values(), key=lambda those: min((k.p95_ms, not k.made) for k in those))


def _smaller(k: Known) -> bool:
    return any(m.name() in ("drop_layers", "narrow", "funnel") for m in k.recipe.moves)


def _tell(those: Sequence[Known], sheet: Sheet, ink: Ink) -> None:
    """Add the best of a group with its numbers and its reason, and how many there are."""
    best = min(those, key=lambda k: (k.p95_ms, not k.made))
    p95, delta = facts.measured_of(best, ink)
    numbers = "" if p95 == "-" else f" {p95} at p95, {delta};"
    reason = ink.quoted(best.reason_at, _WHY) if best.reason_at is not None else best.state
    more = ""
    if len(those) > 1:
        kind, runtime = "smaller models" if _smaller(best) else "recipes", best.recipe.runtime
        more = (f"{ink.count([k.said_at for k in those])} {kind} on {runtime.name()} in {runtime.number}, the "
                "nearest: ")
    sheet.item(f"{more}{ink.recipe(best.said_at, _SAID)} ({best.state}):{numbers} {reason}", may=True)


def _compared(dossier: Dossier, sheet: Sheet, ink: Ink) -> None:
    """Add why each other way to tune lost, where ways were compared."""
    if dossier.comparison is None:
        return
    sheet.heading("Ways to tune")
    for i in range(len(dossier.comparison.questions)):
        sheet.item(ink.quoted(COMPARED / "questions" / i, _WHY), may=True)


def _weighed(dossier: Dossier, sheet: Sheet, ink: Ink) -> None:
    """Add the smaller models that the latency table spoke against, which never became trials."""
    forecast, tried = dossier.forecast, {r.trial for r in dossier.decision.rejected}
    if forecast is None:
        return
    left = [(i, s) for i, s in enumerate(forecast.students)
            if s.recipe.id not in tried and s.outlook in ("beyond the limit", "passed over")]
    if not left:
        return
    sheet.heading("Never made")
    for i, s in sorted(left, key=lambda pair: pair[1].p95_ms)[:_EACH]:
        at = FORECAST / "students" / i
        sheet.item(f"{ink.recipe(at / 'recipe', _SAID)}: {s.outlook}; {ink.number(at / 'p95_ms', 'ms')} predicted at "
                   f"p95, {ink.number(FORECAST / 'limit_ms', 'ms')} to reach", may=True)

"""A case study: problem, approach, metrics and impact on a page, in at most 700 words whatever the run."""

from __future__ import annotations

from plimsoll.core import standing
from plimsoll.core.dossier import Dossier
from plimsoll.core.ink import DECISION, EVALUATED, FORECAST, Ink
from plimsoll.report import facts
from plimsoll.report.facts import BASELINE, CHOSEN, RECIPE, SENTENCE
from plimsoll.report.sheet import Paper, Sheet

WORDS = 700
_NOTES, _CLASSES = 4, 3


def write(dossier: Dossier) -> Paper:
    """Return the case study of a finished run, met or not."""
    ink, sheet, decision = Ink(dossier.written()), Sheet(), dossier.decision
    every = standing.known(dossier)
    if not every:
        _nothing_made(sheet, ink, dossier)
        return Paper(sheet.text(WORDS), ink.figures)
    met = decision.verdict == "met"
    times = ink.number(DECISION / "speedup_p95" / "value")
    sheet.heading(f"Case study: {facts.model(ink)}, {times} times as fast at p95", level=1)
    sheet.heading("Problem")
    sheet.say(f"{facts.model(ink)} is tuned for {facts.task(ink)}: {facts.data(ink)}.",
              f"Served as it is today, {ink.recipe(BASELINE / 'recipe', RECIPE)}, a request takes "
              f"{ink.measured(BASELINE / 'latency_ms' / 'p95')} at p95 with {facts.threads(ink)} threads of "
              f"{facts.machine(ink)}.", f"Asked for: {facts.asked(ink)}.")
    sheet.heading("Approach")
    sheet.say(f"One search of {_minutes(ink)}: {facts.counts(every, ink)}", _weighed(dossier, ink))
    sheet.say("Every contestant answered the same requests in turn, text in and label out, in a process of its own; "
              "quality was chosen on validation rows and certified on test rows that took no part in choosing.")
    sheet.say(f"Chosen: {ink.recipe(CHOSEN / 'recipe', RECIPE)}.", *_runner_up(every, ink))
    sheet.heading("Metrics")
    facts.sides(sheet, ink)
    held = standing.limits(ink)
    sheet.table(("limit", "allowed", "measured", "to spare at its bound"),
                [(x.limit, x.allowed, x.measured, x.room) for x in held])
    sheet.say(facts.confidence(ink))
    sheet.heading("Impact")
    disk, memory = (ink.ratio(CHOSEN / name / "value", BASELINE / name / "value")
                    for name in ("size_mb", "peak_memory_mb"))
    sheet.say("A request that waits for no other is answered "
              f"{ink.measured(DECISION / 'speedup_p50')} as fast at the median, and "
              f"{ink.measured(DECISION / 'speedup_p95')} at p95.",
              f"The artifact takes {disk} of the baseline's disk and {memory} of its memory.",
              f"Quality changes by {ink.points(DECISION / 'three_numbers' / 'quality_delta')}.", _flips(dossier, ink))
    sheet.say("" if met else f"Not every limit holds: {ink.quoted(DECISION / 'why', SENTENCE)}")
    for line in facts.worst_classes(dossier, ink, _CLASSES):
        sheet.item(f"Among the hardest classes: {line}", may=True)
    for note in facts.notes(dossier, ink, _NOTES):
        sheet.item(note, may=True)
    sheet.say("Every number stands in decision.json, or in the records beside it; decisions.md has every alternative.")
    return Paper(sheet.text(WORDS), ink.figures)


def _minutes(ink: Ink) -> str:
    total = DECISION / "seconds" / "total"
    return f"{ink.number(total, 's', digits=0)}" if ink.at(total) is not None else "unrecorded length"


def _weighed(dossier: Dossier, ink: Ink) -> str:
    """Return what the latency table did, where there was one."""
    forecast = dossier.forecast
    if forecast is None:
        return ""
    weighed = ink.count([FORECAST / "students" / i for i in range(len(forecast.students))])
    return (f"A latency table, right to {ink.percent(FORECAST / 'margin', digits=0)} on the models it was fitted to, "
            f"weighed {weighed} smaller models before any was trained.")


def _runner_up(every: tuple[standing.Known, ...], ink: Ink) -> list[str]:
    """Return the fastest of the others, and the recorded reason why it lost."""
    second = min((k for k in every if not k.chosen and k.made and k.timed), key=lambda k: k.p95_ms, default=None)
    if second is None:
        return []
    p95, delta = facts.measured_of(second, ink)
    reason = ink.quoted(second.reason_at, SENTENCE) if second.reason_at is not None else ""
    named = ink.recipe(second.said_at, RECIPE)
    return [f"The fastest of the others, {named}, takes {p95} at p95, and in quality {delta}.",
            f"Why not: {reason}." if reason else ""]


def _flips(dossier: Dossier, ink: Ink) -> str:
    if dossier.evaluation is None or dossier.evaluation.flips is None:
        return ""
    at = EVALUATED / "flips"
    return (f"Of {ink.number(EVALUATED / 'rows')} test rows it loses {ink.number(at / 'lost')} that the baseline has "
            f"right, and gains {ink.number(at / 'gained')}.")


def _nothing_made(sheet: Sheet, ink: Ink, dossier: Dossier) -> None:
    """Write of a run whose limit was ruled out before anything was made."""
    sheet.heading(f"Case study: {facts.model(ink)}, and a limit that nothing holds here", level=1)
    sheet.heading("Problem")
    sheet.say(f"{facts.model(ink)} for {facts.task(ink)}: {facts.data(ink)}.", f"Asked for: {facts.asked(ink)}.")
    sheet.heading("Approach")
    sheet.say(ink.quoted(DECISION / "why", 3 * SENTENCE))
    sheet.heading("Metrics")
    if dossier.decision.binding is not None:
        at = DECISION / "binding"
        sheet.say(f"The floor of {dossier.decision.binding.limit}: {ink.measured(at / 'floor')}, "
                  f"{ink.quoted(at / 'floor_from', SENTENCE)}.")
        for i in range(len(dossier.decision.binding.relaxing)):
            sheet.item(ink.quoted(at / "relaxing" / i, SENTENCE), may=True)
    sheet.heading("Impact")
    sheet.say(f"Nothing was trained: the answer took {_minutes(ink)} of the "
              f"{ink.number(DECISION / 'budget' / 'search_minutes')} minutes the search might have taken.")
    for note in facts.notes(dossier, ink, _NOTES):
        sheet.item(note, may=True)

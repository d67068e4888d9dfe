"""A launch checklist: latency, accuracy, rollout, rollback and open risks, with fields for people to fill."""

from __future__ import annotations

from plimsoll.core import ink as places
from plimsoll.core import standing
from plimsoll.core.dossier import Dossier
from plimsoll.core.evaluation import Evaluation
from plimsoll.core.ink import DECISION, EVALUATED, Ink
from plimsoll.report import facts
from plimsoll.report.facts import BASELINE, CHOSEN, RECIPE, SENTENCE
from plimsoll.report.sheet import Paper, Sheet

_CLASSES, _NOTES = 5, 8
_FIELDS = "Owner: ____   Reviewer: ____   Date: ____"
"""Filled by people: nobody is invented."""


def write(dossier: Dossier) -> Paper:
    """Return the checklist for what a finished run hands over; what does not hold is a box without a tick."""
    ink, sheet, decision = Ink(dossier.written()), Sheet(), dossier.decision
    every = standing.known(dossier)
    if not every:
        sheet.heading("Launch checklist: there is nothing to launch", level=1)
        sheet.raw(_FIELDS)
        sheet.say(ink.quoted(DECISION / "why", 3 * SENTENCE))
        return Paper(sheet.text(), ink.figures)
    sheet.heading(f"Launch checklist: {ink.recipe(CHOSEN / 'recipe', RECIPE)}", level=1)
    sheet.raw(_FIELDS)
    sheet.say("" if decision.verdict == "met" else f"Not every limit holds. {ink.quoted(DECISION / 'why', SENTENCE)}")
    held = standing.limits(ink)
    sheet.heading("Latency and size")
    for x in (h for h in held if h.limit != "quality_drop"):
        sheet.item(f"{x.limit}: {x.allowed} allowed, {x.measured} measured, {x.room} to spare at its bound",
                   done=x.holds)
    p50, p95, p99 = (ink.measured(CHOSEN / "latency_ms" / p) for p in ("p50", "p95", "p99"))
    before = ink.measured(BASELINE / "latency_ms" / "p95")
    sheet.item(f"p50 {p50}, p95 {p95}, p99 {p99}; the baseline's p95 is {before}")
    sheet.item(f"Measured with {facts.threads(ink)} threads of {facts.machine(ink)}, one request at a time")
    sheet.item("The machine that will serve is this one, or the race was run again on it", done=False)
    sheet.heading("Accuracy")
    _accuracy(sheet, ink, dossier, held)
    sheet.heading("Rollout")
    sheet.raw(_FIELDS)
    _rollout(sheet, ink, dossier)
    sheet.heading("Rollback")
    sheet.item(f"The baseline stays ready: {ink.recipe(BASELINE / 'recipe', RECIPE)}, "
               f"{ink.measured(BASELINE / 'size_mb')} on disk, {ink.measured(BASELINE / 'peak_memory_mb')} of memory, "
               f"up in {ink.measured(BASELINE / 'cold_start_s')}", done=False)
    sheet.item("Going back was tried once before the first stage", done=False)
    sheet.heading("Open risks")
    for note in [*facts.notes(dossier, ink, _NOTES), facts.invariance(dossier, ink), *_fragile(dossier, ink)]:
        if note:
            sheet.item(note)
    sheet.item("Requests whose lengths or texts differ from the test rows were not measured")
    sheet.say(facts.confidence(ink))
    return Paper(sheet.text(), ink.figures)


def _accuracy(sheet: Sheet, ink: Ink, dossier: Dossier, held: list[standing.Held]) -> None:
    for x in (h for h in held if h.limit == "quality_drop"):
        sheet.item(f"{x.limit}: {x.allowed} allowed, {x.measured} on the test rows, {x.room} to spare at its bound",
                   done=x.holds)
    unit = ink.quoted(CHOSEN / "quality" / "unit")
    sheet.item(f"{unit} {ink.percent(CHOSEN / 'quality')} against the baseline's {ink.percent(BASELINE / 'quality')}")
    for line in facts.worst_classes(dossier, ink, _CLASSES):
        sheet.item(f"hardest classes: {line}")
    if dossier.evaluation is not None and dossier.evaluation.flips is not None:
        flips = EVALUATED / "flips"
        sheet.item(f"Rows that only the baseline has right: {ink.number(flips / 'lost')}; only the artifact: "
                   f"{ink.number(flips / 'gained')} (p = {ink.number(flips / 'p')}); each was read by somebody",
                   done=False)


def _rollout(sheet: Sheet, ink: Ink, dossier: Dossier) -> None:
    """Add the stages, and the guards that end each of them: filled from the limits and from what was measured."""
    guards = [f"p95 above {_p95_guard(ink)}", "an error rate above the baseline's own"]
    agreement = _disagreement(dossier, ink)
    if agreement:
        guards.append(f"more than {agreement} of rows on which exactly one of it and the baseline is right, as on "
                      "validation")
    if ink.at(DECISION / "budget" / "memory_mb") is not None:
        guards.append(f"memory above {ink.whole(DECISION / 'budget' / 'memory_mb', 'MB')}")
    for stage in ("Shadow: it answers beside the baseline, and nobody sees its answers",
                  "Canary: the smallest share of the traffic that shows a p95", "Half of the traffic",
                  "All of the traffic, with the baseline kept warm"):
        sheet.item(f"{stage}. Goes on when no guard fired for the time agreed: ____", done=False)
    sheet.say(f"Guards, any of which sends the traffic back: {'; '.join(guards)}.")
    sheet.say("To watch: p95 by length of request, agreement with the baseline on a sample of shadowed requests, error "
              "rate, memory.")


def _p95_guard(ink: Ink) -> str:
    """Return the p95 that the limits allow, else the upper bound that was measured."""
    if ink.at(DECISION / "budget" / "p95_ms") is not None:
        return ink.whole(DECISION / "budget" / "p95_ms", "ms")
    if ink.at(DECISION / "budget" / "min_speedup") is not None:
        allowed = ink.ratio(BASELINE / "latency_ms" / "p95" / "value", DECISION / "budget" / "min_speedup")
        return f"{allowed} ms, the baseline's over the speed-up asked for"
    return f"{ink.number(CHOSEN / 'latency_ms' / 'p95' / 'high', 'ms')}, the bound that was measured"


def _disagreement(dossier: Dossier, ink: Ink) -> str:
    chosen = dossier.decision.chosen
    at = places.trial(chosen.trial) / "disagreement" if chosen is not None else None
    if at is None or not ink.at(at):
        return ""
    return ink.percent(at)


def _fragile(dossier: Dossier, ink: Ink) -> list[str]:
    """Return the slices that are flagged, and the noise that the artifact minds more than the baseline does."""
    if dossier.evaluation is None:
        return []
    slices = [f"{ink.quoted(at / 'name')}: {ink.percent(at / 'quality')}, {', '.join(s.flags)}"
              for i, s in enumerate(dossier.evaluation.slices) if s.flags and (at := EVALUATED / "slices" / i)]
    return [*slices, *_noise(dossier.evaluation, ink)]


def _noise(found: Evaluation, ink: Ink) -> list[str]:
    return [f"It minds {ink.quoted(EVALUATED / 'robustness' / i / 'noise')} more than the baseline: "
            f"{ink.points(EVALUATED / 'robustness' / i / 'change')}"
            for i, r in enumerate(found.robustness) if r.fragile]

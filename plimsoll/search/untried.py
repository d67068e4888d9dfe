"""What was never tried: what was predicted of it, what it would take to try it, and the nearest that was measured."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, get_args

from plimsoll.core import find
from plimsoll.core.answer import Step
from plimsoll.core.forecast import Foreseen
from plimsoll.core.ink import DECISION, FORECAST, Place
from plimsoll.core.standing import Known
from plimsoll.search.facets import Facet, layers_kept
from plimsoll.search.known import Ran
from plimsoll.search.phrases import Pen

STUDENTS = Place("timings/students.json#")
"""What a search settled on for students: seconds of a short lesson, how many of them, copies of the rows."""
_OF_STUDENTS = ("drop_layers", "narrow", "funnel", "augment", "distil")
_OUTLOOK = {
    "beyond the limit": "too slow by that, and not taught",
    "passed over": "in time by that, and passed over for others",
    "to be taught": "to be taught, and the search ended before its turn",
    "ruled out": "ruled out by that",
}


def foreseen(facets: Sequence[Facet], pen: Pen) -> str:
    """Return what the latency table said of recipes like that which were never made; empty where it said nothing."""
    forecast, tried = pen.ran.dossier.forecast, {k.id for k in pen.ran.every}
    if forecast is None:
        return ""
    found = [(i, s) for i, s in enumerate(forecast.students)
             if s.recipe.id not in tried and all(f.holds(_known(i, s)) for f in facets)]
    if not found:
        return ""
    i, s = min(found, key=lambda pair: pair[1].p95_ms)
    at = FORECAST / "students" / i
    such = pen.ink.count([FORECAST / "students" / j for j, _ in found])
    more = f" It is the fastest of {such} such." if len(found) > 1 else ""
    return (f"By the latency table {pen.ink.recipe(at / 'recipe')} would take {pen.ink.number(at / 'p95_ms', 'ms')} at "
            f"p95, {pen.ink.number(at / 'least_p95_ms', 'ms')} with its error of "
            f"{pen.ink.percent(FORECAST / 'margin', digits=0)} in its favour, against "
            f"{pen.ink.number(FORECAST / 'limit_ms', 'ms')} to reach: {_OUTLOOK[s.outlook]}.{more}")


def because(facet: Facet, pen: Pen) -> str:
    """Return why nothing like it was made, as far as the records say."""
    spec = pen.ran.dossier.decision.spec
    runtimes = spec.get("target", {}).get("runtimes")
    if facet.kind == "runtime" and runtimes is not None:
        names = ", ".join(pen.ink.quoted(DECISION / "spec" / "target" / "runtimes" / i) for i in range(len(runtimes)))
        return f"The spec names no runtime but {names}."
    if facet.kind == "format" and runtimes is not None:
        names = ", ".join(pen.ink.quoted(DECISION / "spec" / "target" / "runtimes" / i) for i in range(len(runtimes)))
        return f"No setting of the runtimes that the spec names was tried in {facet.value}: {names}."
    if impossible(facet, pen.ran):
        return ("The chosen one drops no layer, so none can drop fewer." if facet.value == "fewer" else
                "The chosen one keeps a single layer, and none can be without any.")
    students = facet.kind == "layers" or facet.value in _OF_STUDENTS
    for lessons, seconds in ((FORECAST / "lessons", FORECAST / "lesson_s"), (STUDENTS / 1, STUDENTS / 0)):
        if students and pen.ink.at(lessons) is not None:
            return (f"The time that was left allowed {pen.ink.number(lessons)} short lessons of "
                    f"{pen.ink.number(seconds, 's', digits=0)} to rank smaller models by.")
    if facet.value == "quantize":
        return "The search keeps layers in fp32 only where int8 alone loses more than the quality limit allows."
    if facet.value == "trim_vocabulary":
        return "The search trims the vocabulary only of what is beyond a limit of size or memory."
    return ""


def impossible(facet: Facet, ran: Ran) -> bool:
    """Return whether nothing could be like that: less than nothing cannot be dropped, and something must stay."""
    own = layers_kept(ran.chosen.recipe)
    return facet.kind == "layers" and (facet.value, own) in (("fewer", None), ("more", 1))


def relative(facets: Sequence[Facet], pen: Pen) -> Known:
    """Return the nearest recipe that was measured: like the facets but the last, and alike in depth where that counts.
    """
    others = [k for k in pen.ran.every if not k.chosen and k.made]
    alike = [k for k in others if all(f.holds(k) for f in facets[:-1])] or others
    last = facets[-1]
    if last.kind == "layers" and alike:
        wanted, own = _depth(last, pen.ran), layers_kept(pen.ran.chosen.recipe)
        dropped = [k for k in alike if layers_kept(k.recipe) is not None]
        if dropped and (wanted is not None or own is not None):
            near = own if wanted is None else wanted
            assert near is not None
            return min(dropped, key=lambda k: (abs((layers_kept(k.recipe) or 0) - near), k.p95_ms))
        students = [k for k in alike if any(m.name() in _OF_STUDENTS for m in k.recipe.moves)]
        alike = students or alike
    elif last.kind in ("runtime", "format"):
        alike = [k for k in alike if k.recipe.moves == pen.ran.chosen.recipe.moves] or alike
    return pen.ran.fastest(alike) or pen.ran.chosen


def steps(facet: Facet, ran: Ran) -> list[Step]:
    """Return the command that would try it, where there is one."""
    tails = {"runtime": _runtime, "format": _format, "layers": _layers, "move": _move}.get(facet.kind)
    tail = tails(facet, ran) if tails is not None else ""
    return [Step(question=f"try {facet.words}", command=f"plimsoll tune SPEC {tail} --out NEW")] if tail else []


def more_time(ran: Ran) -> Step:
    """Return the command that gives the search twice the time."""
    minutes = _set("budget.search_minutes", f"{2 * ran.budget.search_minutes:g}")
    return Step(question="give the search more time", command=f"plimsoll tune SPEC {minutes} --out NEW")


def train(ran_moves: Sequence[str], method: str = "") -> list[Step]:
    """Return the command that compares a method with those that the run used, or all of them where none is named."""
    if not method:
        return [Step(question="compare every way to tune", command="plimsoll train SPEC --out NEW")]
    names = ",".join(dict.fromkeys([*(m for m in ran_moves if m in find.methods()), method]))
    command = f"plimsoll train SPEC --methods {names} --out NEW"
    return [Step(question=f"compare {method} with what was used", command=command)]


def _known(i: int, s: Foreseen) -> Known:
    return Known(id=s.recipe.id, recipe=s.recipe, state="skipped", said_at=FORECAST / "students" / i / "recipe",
                 evidence="forecast.json")


def _depth(facet: Facet, ran: Ran) -> int | None:
    return int(facet.value) if facet.value.isdigit() else None


def _set(key: str, value: str) -> str:
    return f"--set {shlex.quote(f'{key}={value}')}"


def _names(names: Sequence[str]) -> str:
    return json.dumps(list(names))


def _runtime(facet: Facet, ran: Ran) -> str:
    known: Any = ran.dossier.decision.spec.get("target", {}).get("runtimes")
    return _set("target.runtimes", _names([*known, facet.value])) if known is not None else ""


def _format(facet: Facet, ran: Ran) -> str:
    """Name the runtimes that have a setting of this number format."""
    able: list[str] = []
    for name in find.names("runtimes"):
        field = find.part("runtimes", name).model_fields.get("precision")
        if field is not None and any(str(x).startswith(facet.value) for x in get_args(field.annotation)):
            able.append(name)
    known: Any = ran.dossier.decision.spec.get("target", {}).get("runtimes")
    more = [n for n in able if known is None or n not in known]
    return _set("target.runtimes", _names([*(known or ()), *more])) if more else ""


def _layers(facet: Facet, ran: Ran) -> str:
    own, forecast = layers_kept(ran.chosen.recipe), ran.dossier.forecast
    wanted = _depth(facet, ran)
    if wanted is None and facet.value == "more":
        whole = own if own is not None else forecast.layers if forecast is not None else 2
        wanted = whole // 2
    elif wanted is None and own is not None:
        wanted = own + 1
    return _set("search.keep_layers", f"[{wanted}]") if wanted else ""


def _move(facet: Facet, ran: Ran) -> str:
    """Give the search more time for students, or a limit under which it uses the move."""
    budget = ran.budget
    if facet.value in _OF_STUDENTS:
        return _set("budget.search_minutes", f"{2 * budget.search_minutes:g}")
    if facet.value == "trim_vocabulary":
        size = ran.dossier.decision.chosen
        return _set("budget.size_mb", f"{size.size_mb.value / 2:.3g}") if size is not None else ""
    return ""

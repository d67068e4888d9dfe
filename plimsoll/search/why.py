"""Why this one, why not that one: the chain of reasons behind a choice, from what the run recorded and nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plimsoll.core import standing
from plimsoll.core.answer import Answer, Step, Table
from plimsoll.core.artifact import ARTIFACT_RECORD
from plimsoll.core.comparison import COMPARISON, Comparison
from plimsoll.core.dossier import Dossier
from plimsoll.core.ink import DECISION, Ink
from plimsoll.core.standing import Known
from plimsoll.search import details, facets, known, methods_why, untried
from plimsoll.search.dossier import gathered
from plimsoll.search.facets import Facet
from plimsoll.search.known import Ran
from plimsoll.search.phrases import Pen
from plimsoll.search.rounds import Kept

_BESIDE = ("timings/students.json", f"artifact/{ARTIFACT_RECORD}")
"""Records of a run folder that a dossier does not hold."""
_NAMED = 6
"""Trials whose question is offered by name."""


def why(folder: Path, recipe: str = "", without: Sequence[str] = ()) -> Answer:
    """Return why a finished run chose what it did, or why not what is named.

    recipe: a trial's id or its recipe, or the beginning of one. without: what is asked "why not", each within the
    answer to the one before; asked again, an answer goes one level deeper. Raises RunError for a folder without a
    finished run, and UserError for a name that is none.
    """
    ask = " ".join(["plimsoll why", shlex.quote(str(folder)), *([shlex.quote(recipe)] if recipe else []),
                    *(f"--not {shlex.quote(x)}" for x in without)])
    if not (folder / "decision.json").exists() and (folder / COMPARISON).exists():
        return _of_methods(folder, [*([recipe] if recipe else []), *without], ask)
    beside = {name: json.loads((folder / name).read_text()) for name in _BESIDE if (folder / name).exists()}
    return answer(gathered(folder), Kept(folder), beside, ask, recipe, without)


def answer(
    dossier: Dossier, kept: Kept, beside: Mapping[str, Any], ask: str, recipe: str = "", without: Sequence[str] = ()
) -> Answer:
    """Return the answer that these records have: see `why`. beside: other JSON of the run folder, by file name."""
    ran, ink = known.of_run(dossier), Ink({**dossier.written(), **beside})
    if ran is None:
        for name in (*([recipe] if recipe else []), *without):
            facets.check(name)
        return _nothing_made(dossier, ink, without)
    pen = Pen(ran, kept, ink)
    named = [*([facets.one(recipe, ran)] if recipe else []), *(facets.read(x, ran) for x in without)]
    # "why not the chosen one" is why it was chosen
    asked = [f for f in named if f.kind != "trial" or f.value != ran.chosen.id]
    if not asked:
        return _overview(pen, ask if not named else f"plimsoll why {shlex.quote(dossier.folder)}")
    if asked[-1].kind == "method":
        return _method(asked, pen, ask)
    return _not(asked, pen, ask)


def _of_methods(folder: Path, asked: Sequence[str], ask: str) -> Answer:
    found = Comparison.from_file(folder / COMPARISON)
    ink = Ink({COMPARISON: json.loads(found.to_json())})
    if not asked:
        return methods_why.overview(found, ink, ask)
    last = asked[-1].replace("-", "_")
    depth = sum(name.replace("-", "_") == last for name in asked)
    return methods_why.compared(found, last, depth, ink, f"{ask} --not {shlex.quote(asked[-1])}")


def _nothing_made(dossier: Dossier, ink: Ink, without: Sequence[str]) -> Answer:
    """Return why a run ended before anything was made: the floor speaks for every recipe at once."""
    decision = dossier.decision
    said = [ink.sentence(DECISION / "why")]
    if decision.binding is not None:
        at = DECISION / "binding"
        said.append(f"The floor of {decision.binding.limit} is {ink.measured(at / 'floor')}, "
                    f"{ink.sentence(at / 'floor_from')}")
        said += [ink.sentence(at / "relaxing" / i) for i in range(len(decision.binding.relaxing))]
    notes = Table(title="Notes", head=("note",),
                  rows=tuple((ink.quoted(DECISION / "notes" / i),) for i in range(len(decision.notes))))
    question = f"why not {without[-1]}?" if without else "why nothing?"
    return Answer(question=question, sentence=" ".join(said), tables=(notes,) if notes.rows else (),
                  numbers=ink.figures, evidence=("decision.json",))


def _overview(pen: Pen, ask: str) -> Answer:
    """Return why the chosen one: which limits hold with what to spare, and who came next."""
    ran, decision = pen.ran, pen.ran.dossier.decision
    made = [k for k in ran.every if k.made]
    stand = standing.limits(pen.ink)
    held = "; ".join(f"{x.limit} {x.allowed} allowed, {x.measured}, {x.room} to spare" for x in stand)
    relaxing = decision.binding.relaxing if decision.binding is not None else ()
    said = [f"{pen.ink.sentence(DECISION / 'why')} Of {pen.count(ran.every)} on record {pen.number_of(made)} were "
            f"measured. The limits by their bounds: {held}.",
            *(pen.ink.sentence(DECISION / "binding" / "relaxing" / i) for i in range(len(relaxing)))]
    others = [k for k in made if not k.chosen]
    second = ran.fastest(others)
    if second is not None:
        kept = all(k.trial is not None for k in others)
        name = ("The runner-up" if ran.holds(second) else
                "None of the others holds every limit; the fastest of them" if kept else "One of the others")
        said.append(f"{name}, {pen.recipe(second)}, {pen.numbers(second)}; of the chosen one "
                    f"{pen.quality(ran.chosen) or 'the quality is the baseline it is compared with'}."
                    f"{pen.lost(second)}")
    limits = Table(title="Limits", head=("limit", "allowed", "measured", "to spare at its bound"),
                   rows=tuple((x.limit, x.allowed, x.measured, x.room) for x in stand))
    evidence = ["decision.json", ran.chosen.evidence, *([second.evidence] if second is not None else [])]
    return Answer(question=f"why {ran.chosen.id}?", sentence=" ".join(said), tables=(limits,) if limits.rows else (),
                  numbers=pen.ink.figures, evidence=tuple(dict.fromkeys(evidence)), deeper=tuple(questions(ran, ask)))


def questions(ran: Ran, ask: str) -> list[Step]:
    """Return what this run can be asked, each with its command."""
    names = dict.fromkeys(k.recipe.runtime.name() for k in ran.every if not k.baseline)
    formats = [f for f in facets.FORMATS if any(k.recipe.runtime.number == f for k in ran.every if not k.chosen)]
    own = ran.chosen.recipe.runtime
    asked = [("eager, as it is today", "eager"),
             *((name, name) for name in names if name != own.name()),
             ("more layers dropped", "more-layers"), ("fewer layers dropped", "fewer-layers"),
             *((f if f != own.number else f"another recipe in {f}", f) for f in dict.fromkeys(["fp32", *formats])),
             ("full fine-tuning", "finetune")]
    if sum(k.recipe.runtime.name() == own.name() and k.recipe.moves == ran.chosen.recipe.moves for k in ran.every) > 1:
        asked.append((f"another setting of {own.name()}", own.name()))
    if ran.dossier.comparison is not None:
        asked += [(m.move.name(), m.move.name()) for m in ran.dossier.comparison.methods if m.state != "chosen"]
    near = sorted((k for k in ran.every if k.made and not k.chosen), key=lambda k: k.p95_ms)
    asked += [(k.recipe.says(), k.id) for k in near[:_NAMED]]
    seen = {value: words for words, value in reversed(asked)}
    return [Step(question=f"why not {words}?", command=f"{ask} --not {shlex.quote(value)}")
            for value, words in reversed(seen.items())]


def _method(asked: Sequence[Facet], pen: Pen, ask: str) -> Answer:
    last, comparison = asked[-1], pen.ran.dossier.comparison
    depth = sum(f.value == last.value for f in asked)
    if comparison is not None and any(m.move.name() == last.value for m in comparison.methods):
        return methods_why.compared(comparison, last.value, depth, pen.ink, f"{ask} --not {last.value}")
    sentence, steps = methods_why.uncompared(last.value, last.words, pen)
    table = pen.each([k for k in pen.ran.every if k.made], "What was made of the model") if depth > 1 else None
    return Answer(question=f"why not {last.words}?", sentence=sentence, tables=(table,) if table else (),
                  numbers=pen.ink.figures, evidence=("decision.json",), deeper=tuple(steps))


def _not(asked: Sequence[Facet], pen: Pen, ask: str) -> Answer:
    """Return why none of the recipes that have everything asked about was chosen."""
    ran, last = pen.ran, asked[-1]
    within = _having(asked[:-1], ran)
    found = _alike([k for k in within if last.holds(k)], last, ran)
    own = all(f.holds(ran.chosen) for f in asked)
    steps: list[Step] = []
    if any(k.state == "skipped" for k in found) and not any(k.made for k in found):
        steps.append(untried.more_time(ran))
    if own and (not found or last.kind in ("move", "eager")):
        sentence, spoken = _has_it_itself(last, [k for k in within if not last.holds(k)], pen)
    elif found:
        sentence, spoken = _of_these(asked, found, own, pen)
    else:
        sentence, spoken = _never(asked, pen)
        steps = untried.steps(last, ran)
    tables, files = _tables(asked, found, spoken, pen)
    if len(asked) < (3 if len(found) > 1 else 2):
        steps += _further(asked, found, pen, ask)
    evidence = dict.fromkeys([*(k.evidence for k in spoken), *files, "decision.json"])
    words = ", and ".join(dict.fromkeys(f.words for f in asked))
    return Answer(question=f"why not {words}?", sentence=sentence, tables=tuple(tables), numbers=pen.ink.figures,
                  evidence=tuple(evidence), deeper=tuple(steps))


def _having(asked: Sequence[Facet], ran: Ran) -> list[Known]:
    return [k for k in ran.every if not k.chosen and all(f.holds(k) for f in asked)]


def _alike(found: list[Known], last: Facet, ran: Ran) -> list[Known]:
    """Return, of recipes of another depth, those in the chosen one's runtime where there are any: the rest is other."""
    same = [k for k in found if k.recipe.runtime.name() == ran.chosen.recipe.runtime.name()]
    return (same or found) if last.kind == "layers" else found


def _of_these(asked: Sequence[Facet], found: Sequence[Known], own: bool, pen: Pen) -> tuple[str, list[Known]]:
    """Return what was found of recipes that were tried, and those the sentence speaks of."""
    last, made = asked[-1], [k for k in found if k.made]
    best = pen.ran.fastest(made)
    ruled_out = _nearest_depth([k for k in found if k.state == "pruned"], pen.ran)
    said = [f"The chosen one itself {pen.ink.asked(last.does)}."] if own else []
    spoken = [k for k in (best, ruled_out) if k is not None]
    if best is None:
        first = ruled_out or found[0]
        reason = pen.ink.sentence(first.reason_at) if first.reason_at is not None else ""
        said += [f"None of {pen.count(found)} was measured. {pen.recipe(first)}: {reason or f'{first.state}.'}",
                 untried.foreseen(asked, pen), f"The chosen one {pen.numbers(pen.ran.chosen)}."]
        return " ".join(filter(None, said)), [first]
    if len(found) == 1:
        said.append(f"{pen.recipe(best)} {pen.numbers(best)}; the chosen one {pen.numbers(pen.ran.chosen)}."
                    f"{pen.lost(best)}")
    else:
        which = ("one" if not best.timed else "the fastest that holds every limit" if pen.ran.holds(best)
                 else "the fastest")
        said.append(f"Of {pen.count(found)}, {pen.number_of(made)} measured, {which} is {pen.recipe(best)}: "
                    f"it {pen.numbers(best)}; the chosen one {pen.numbers(pen.ran.chosen)}.{pen.lost(best)}")
        if ruled_out is not None:
            count = pen.count([k for k in found if k.state == "pruned"])
            assert ruled_out.reason_at is not None
            said.append(f"Ruled out before they were made: {count}, the nearest of them {pen.recipe(ruled_out)}: "
                        f"{pen.ink.sentence(ruled_out.reason_at)}")
    said.append(untried.foreseen(asked, pen))
    return " ".join(filter(None, said)), spoken


def _nearest_depth(those: Sequence[Known], ran: Ran) -> Known | None:
    own = facets.layers_kept(ran.chosen.recipe)

    def far(k: Known) -> int:
        kept = facets.layers_kept(k.recipe)
        return 0 if own == kept else 10**6 if own is None or kept is None else abs(kept - own)

    return min(those, key=far, default=None)


def _has_it_itself(last: Facet, without: Sequence[Known], pen: Pen) -> tuple[str, list[Known]]:
    """Return that the chosen one is what was asked about, and what the fastest without it comes to."""
    ran = pen.ran
    said = f"The chosen one itself {pen.ink.asked(last.does)}: {pen.recipe(ran.chosen)} {pen.numbers(ran.chosen)}."
    other = ran.fastest([k for k in without if k.made])
    if other is None:
        return f"{said} Nothing without it was measured.", [ran.chosen]
    return (f"{said} The fastest that was measured without it, {pen.recipe(other)}, {pen.numbers(other)}."
            f"{pen.lost(other)}"), [ran.chosen, other]


def _never(asked: Sequence[Facet], pen: Pen) -> tuple[str, list[Known]]:
    """Return that nothing like it was made: what was predicted of it, why, and the nearest that was measured."""
    last, near = asked[-1], untried.relative(asked, pen)
    predicted = untried.foreseen(asked, pen)
    beside = "" if near.chosen else f"; the chosen one {pen.numbers(pen.ran.chosen)}"
    who = "The chosen one" if near.chosen else "The nearest that was measured"
    nothing = f"no recipe of this run {pen.ink.asked(' and '.join(f.does for f in asked))}."
    # of what cannot be there is no "not tried"
    lead = "" if untried.impossible(last, pen.ran) else f"{'Never made' if predicted else 'Not tried'}: {nothing}"
    said = [lead, untried.because(last, pen), predicted, f"{who}, {pen.recipe(near)}, {pen.numbers(near)}{beside}."]
    return " ".join(filter(None, said)), [near]


def _tables(
    asked: Sequence[Facet], found: Sequence[Known], spoken: Sequence[Known], pen: Pen
) -> tuple[list[Table], list[str]]:
    """Return the tables that an answer at this depth has, and the files they rest on."""
    depth = len(asked)
    if depth < 2 or not found:
        return [], []
    tables = [pen.each(found, "Each of them")] if len(found) > 1 else []
    if depth == 2 and len(found) > 1:
        return tables, []
    best = next((k for k in spoken if k in found and k.made), None)
    if best is None:
        return tables, []
    return [*tables, *details.of(best, pen)], details.files(best, pen)


def _further(asked: Sequence[Facet], found: Sequence[Known], pen: Pen, ask: str) -> list[Step]:
    """Return what narrows these recipes further, and what asks the same again, one level deeper."""
    if not found:
        return []
    last = shlex.quote(asked[-1].asked)
    several = len(found) > 1 and len(asked) == 1
    again = "each of them with its intervals" if several else "its numbers beside the chosen one's"
    steps = [Step(question=again, command=f"{ask} --not {last}")]
    for values in ([k.recipe.runtime.name() for k in found], [k.recipe.runtime.number for k in found],
                   [k.id for k in found if k.made]):
        different = list(dict.fromkeys(values))
        if len(different) > 1:
            steps += [Step(question=f"then why not {v}?", command=f"{ask} --not {shlex.quote(v)}")
                      for v in different[:_NAMED]]
    return steps

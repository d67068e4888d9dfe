"""Why this way to tune and no other: from a comparison where there is one, else from what the run was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from plimsoll.core import find
from plimsoll.core.answer import Answer, Step, Table
from plimsoll.core.comparison import COMPARISON, Comparison, Stage
from plimsoll.core.errors import UserError, nearest
from plimsoll.core.ink import COMPARED, DECISION, Ink
from plimsoll.core.parts import Move
from plimsoll.search import untried
from plimsoll.search.phrases import Pen

_STAGES: Mapping[Stage, str] = {"equal_rows": "same rows", "equal_time": "same time", "full": "in full"}


def overview(found: Comparison, ink: Ink, ask: str) -> Answer:
    """Return why a comparison of methods ended with the one it did. ask: the command but for what is asked."""
    return Answer(
        question=f"why {found.chosen}?", sentence=f"{ink.sentence(COMPARED / 'why')} On the test rows it has "
        f"{found.metric} {ink.percent(COMPARED / 'quality')}.",
        numbers=ink.figures, evidence=(COMPARISON,),
        deeper=tuple(Step(question=f"why not {m.move.name()}?", command=f"{ask} --not {m.move.name()}")
                     for m in found.methods if m.state != "chosen"))


def compared(found: Comparison, name: str, depth: int, ink: Ink, ask: str) -> Answer:
    """Return why a comparison did not choose a method, or why it did; from `depth` 2 on with every stage's numbers.

    Raises UserError for a method that was not compared.
    """
    names = [m.move.name() for m in found.methods]
    if name not in names:
        raise UserError(f"{name} is none of the methods that were compared", nearest(name, names))
    i = names.index(name)
    method = found.methods[i]
    if method.state == "chosen":
        sentence = f"It is what was chosen: {ink.sentence(COMPARED / 'why')}"
    else:
        # one question for each that was not chosen, in their order
        before = sum(m.state != "chosen" for m in found.methods[:i])
        at = COMPARED / "questions" / before
        sentence = ink.sentence(at if ink.at(at) else COMPARED / "methods" / i / "reason")
    sentence += f" The one that was chosen has {found.metric} {ink.percent(COMPARED / 'quality')} on the test rows."
    tables = (_stages(found, i, ink),) if depth > 1 else ()
    deeper = [] if depth > 1 else [Step(question="the numbers of every stage", command=ask)]
    return Answer(question=f"why not {name}?", sentence=sentence, tables=tables, numbers=ink.figures,
                  evidence=(COMPARISON,), deeper=tuple(deeper))


def uncompared(name: str, words: str, pen: Pen) -> tuple[str, list[Step]]:
    """Return what a run without a comparison says of a way to tune, and the command that would compare it."""
    used = [m.name() for m in pen.ran.chosen.recipe.moves]
    tuned = [m for m in used if m in find.methods()]
    quality = DECISION / "chosen" / "quality"
    reached = f"{pen.ink.quoted(quality / 'unit')} {pen.ink.percent(quality)} on the test rows"
    spent = DECISION / "seconds" / name
    took = f" in {pen.ink.number(spent, 's', digits=0)} of training" if pen.ink.at(spent) is not None else ""
    missing = cast(type[Move], find.part("moves", name)).missing()
    needs = f", after {missing}" if missing else ""
    minutes = pen.ink.number(DECISION / "budget" / "search_minutes")
    if name in used:
        said = "is fully fine-tuned" if name == "finetune" else f"is tuned by {name}"
        return (f"It is not passed over: the chosen one {said}{took}, as {pen.recipe(pen.ran.chosen)}, and reaches "
                f"{reached}. No other way to tune was compared in this run. "
                f"plimsoll train SPEC would compare others with it in about {minutes} minutes.",
                untried.train(used))
    by = f"is tuned by {', '.join(tuned)}" if tuned else "takes the model as it is given, without tuning it"
    return (f"It was not compared in this run. The chosen one {by} and reaches {reached}. "
            f"plimsoll train SPEC would compare {words} with it in about {minutes} minutes{needs}.",
            untried.train(used, name))


def _stages(found: Comparison, i: int, ink: Ink) -> Table:
    winner = next(j for j, m in enumerate(found.methods) if m.state == "chosen")
    rows: list[tuple[str, ...]] = []
    for stage, words in _STAGES.items():
        cells: list[str] = []
        for j in (i, winner):
            at = COMPARED / "methods" / j
            has, took = at / "qualities" / stage, at / "seconds" / stage
            cells += [ink.percent(has) if ink.at(has) is not None else "-",
                      ink.number(took, "s", digits=0) if ink.at(took) is not None else "-"]
        change = COMPARED / "methods" / i / "deltas" / stage
        if cells[0] != "-":
            rows.append((words, *cells, ink.points(change) if ink.at(change) is not None else "-"))
    name = found.methods[i].move.name()
    return Table(title=f"{found.metric} on the validation rows, stage by stage", rows=tuple(rows),
                 head=("stage", name, "seconds", found.chosen, "seconds", "difference"))


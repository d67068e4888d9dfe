"""The tables of the deepest answers: one recipe beside the chosen one, quantity by quantity, class by class."""

from __future__ import annotations

from plimsoll.core.answer import Table
from plimsoll.core.artifact import ARTIFACT_RECORD
from plimsoll.core.evaluation import EVALUATION, Group
from plimsoll.core.ink import EVALUATED, Place
from plimsoll.core.standing import Known
from plimsoll.search.phrases import Pen, record_at
from plimsoll.search.rounds import Apart

LABELS = Place(f"artifact/{ARTIFACT_RECORD}#") / "labels"
_CLASSES = 8
_QUANTITIES = {"size_mb": "size on disk", "peak_memory_mb": "peak memory", "cold_start_s": "cold start"}
_QUALITIES = (("validation", "validation rows", False),
              ("validation_delta", "validation rows, against the baseline", True),
              ("quality", "test rows", False), ("quality_delta", "test rows, against the baseline", True))
"""Field of a trial, in words, and whether it is a change."""


def of(k: Known, pen: Pen) -> list[Table]:
    """Return every table that the records have of a recipe beside the chosen one; those without rows are left out."""
    tables = [_beside(k, pen), _quality(k, pen), _seconds(k, pen), *_groups(k, pen), _apart(k, pen)]
    return [t for t in tables if t.rows]


def files(k: Known, pen: Pen) -> list[str]:
    """Return the files of the run folder that these tables rest on."""
    raced, apart = pen.kept.ratio(k.id, pen.ran.chosen.id), _of_classes(k, pen)
    evaluated = [EVALUATION] if k.baseline and pen.ran.dossier.evaluation is not None else []
    return [*([raced.of[0].partition("#")[0]] if raced else []), *(apart.of if apart else []), *evaluated]


def _beside(k: Known, pen: Pen) -> Table:
    mine, its = record_at(k), record_at(pen.ran.chosen)
    rows: list[tuple[str, ...]] = []
    if mine is not None and its is not None:
        for p in (50, 95, 99):
            places = mine / "latency_ms" / f"p{p}", its / "latency_ms" / f"p{p}"
            if all(pen.ink.at(place) is not None for place in places):
                raced = pen.kept.ratio(k.id, pen.ran.chosen.id, p)
                times = pen.ink.raced(raced.ratio, raced.of, f"p{p}") if raced else "-"
                rows.append((f"p{p}", *map(pen.ink.measured, places), times))
        for name, words in _QUANTITIES.items():
            if pen.ink.at(mine / name) is not None and pen.ink.at(its / name) is not None:
                some = float(pen.ink.at(its / name / "value")) > 0
                times = pen.ink.ratio(mine / name / "value", its / name / "value") if some else "-"
                rows.append((words, pen.ink.measured(mine / name), pen.ink.measured(its / name), times))
    raced = pen.kept.ratio(k.id, pen.ran.chosen.id)
    sure = f"; ratios of times are paired by round, their bounds hold one-sided at {_sure(pen, k)}" if raced else ""
    return Table(title=f"{k.id} beside the chosen one{sure}", head=("what", k.id, "the chosen one", "ratio"),
                 rows=tuple(rows))


def _sure(pen: Pen, k: Known) -> str:
    raced = pen.kept.ratio(k.id, pen.ran.chosen.id)
    assert raced is not None
    return pen.ink.sure(raced.ratio, raced.of, "p95")


def _quality(k: Known, pen: Pen) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, words, change in _QUALITIES:
        cells: list[str] = []
        for one in (k, pen.ran.chosen):
            at = record_at(one)
            found = None if at is None else pen.ink.at(at / name)
            write = pen.ink.points if change else pen.ink.percent
            cells.append("-" if found is None or at is None else write(at / name))
        if cells[0] != "-":
            rows.append((words, *cells))
    return Table(title="Quality", head=("rows", k.id, "the chosen one"), rows=tuple(rows))


def _seconds(k: Known, pen: Pen) -> Table:
    spent = [one.trial.seconds if one.trial is not None else {} for one in (k, pen.ran.chosen)]
    rows: list[tuple[str, ...]] = []
    for stage in dict.fromkeys([*spent[0], *spent[1]]):
        cells = [pen.ink.number(at / "seconds" / stage, "s", digits=1) if stage in found and at is not None else "-"
                 for found, at in zip(spent, (record_at(k), record_at(pen.ran.chosen)), strict=True)]
        rows.append((stage, *cells))
    return Table(title="Seconds spent on it; what others share counts in full",
                 head=("stage", k.id, "the chosen one"), rows=tuple(rows))


def _groups(k: Known, pen: Pen) -> list[Table]:
    """Return where the chosen one differs from the baseline, by class and by length or look of the text."""
    found = pen.ran.dossier.evaluation
    if not k.baseline or found is None:
        return []
    classes = sorted(range(len(found.classes)), key=lambda i: _change(found.classes[i]))[:_CLASSES]
    tables = (("classes", classes, "Classes that the chosen one loses most in, against the baseline"),
              ("slices", list(range(len(found.slices))), "By length and look of the text, against the baseline"))
    return [Table(title=title, head=("group", "right", "change"),
                  rows=tuple(_group(EVALUATED / name / i, pen) for i in which)) for name, which, title in tables]


def _group(at: Place, pen: Pen) -> tuple[str, ...]:
    changed = "-" if pen.ink.at(at / "change") is None else pen.ink.points(at / "change")
    return pen.ink.quoted(at / "name"), pen.ink.percent(at / "quality"), changed


def _change(group: Group) -> float:
    return 0.0 if group.change is None else group.change.value


def _apart(k: Known, pen: Pen) -> Table:
    found = _of_classes(k, pen)
    labels = pen.ink.at(LABELS)
    if found is None or not isinstance(labels, list):
        return Table(title="", head=(), rows=())
    differ, every = pen.ink.apart(found.rows, found.of), pen.ink.apart(found.n, (*found.of, "all"))
    rows = [("all", f"{differ} of {every}"),
            *((pen.ink.quoted(LABELS / number), pen.ink.apart(count, (*found.of, f"class {number}")))
              for number, count in found.by_class[:_CLASSES])]
    title = f"Rows of {found.split} that are answered differently, by the chosen one's answer"
    return Table(title=title, head=("class", "rows"), rows=tuple(rows))


def _of_classes(k: Known, pen: Pen) -> Apart | None:
    """Return on which rows two classifiers differ; None where an answer is no single class."""
    task = pen.ran.dossier.decision.spec.get("task", {})
    return pen.kept.apart(k.id, pen.ran.chosen.id) if task.get("kind") == "text-classification" else None

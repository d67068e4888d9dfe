"""An evaluation on the terminal, and as evaluation.md: the paragraph to read first, then every table behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from plimsoll.core.evaluation import EVALUATION, Evaluation, Forgotten, Group, Judged, Robustness
from plimsoll.core.record import Measurement
from plimsoll.core.store import write_atomic
from plimsoll.report.words import delta, lines, place, plain, safe, share

_PAGE = "evaluation.md"
_WORST = 8
_FLIPS = 20

Cells = list[list[str]]


def keep(found: Evaluation) -> Path:
    """Write evaluation.md beside evaluation.json and return its path."""
    path = Path(found.folder) / _PAGE
    write_atomic(path, write(found))
    return path


def show(found: Evaluation, console: Console) -> None:
    """Print an evaluation: of the classes only those that are flagged and the worst."""
    console.print()
    console.print(f"[bold]{plain(found.artifact)}[/]   {plain(found.verdict)}", highlight=False)
    for title, head, rows in tables(found, _some(found.classes)):
        console.print()
        console.print(f"[bold]{plain(title)}[/]", highlight=False)
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        for i, name in enumerate(head):
            table.add_column(plain(name), justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        console.print(table, highlight=False)
    for note in found.notes:
        console.print(f"[dim]note: {plain(note)}[/]", highlight=False)
    console.print("[dim]bounds in brackets hold one-sided at 95 % each[/]", highlight=False)
    if found.folder:
        folder = Path(found.folder)
        console.print(lines(f"\nrecord     {folder / EVALUATION}\nall of it  {folder / _PAGE}"), highlight=False)


def write(found: Evaluation) -> str:
    """Return an evaluation as Markdown, every class in it; text from data and models is escaped."""
    page = [f"# Evaluation of {safe(found.artifact)}", "", safe(found.verdict), "",
            f"{found.rows:,} rows of {safe(found.source)}. Bounds in brackets hold one-sided at 95 % each.", ""]
    for title, head, rows in tables(found, found.classes):
        page += [f"## {safe(title)}", "", f"| {' | '.join(safe(name) for name in head)} |", f"|{'---|' * len(head)}",
                 *(f"| {' | '.join(safe(cell) for cell in row)} |" for row in rows), ""]
    if found.flips is not None and found.flips.rows:
        page += ["## Rows that only one of artifact and baseline has right", "",
                 "| row | text | label | baseline | artifact |", "|---|---|---|---|---|",
                 *(f"| {f.row} | {safe(f.text)} | {safe(f.label)} | {safe(f.baseline)} | {safe(f.artifact)} |"
                   for f in found.flips.rows[:_FLIPS]), ""]
        if found.flips.lost + found.flips.gained > _FLIPS:
            page += [f"{found.flips.lost} lost and {found.flips.gained} gained in all; more are in {EVALUATION}.", ""]
    page += ["## Notes", "", *(f"- {safe(note)}" for note in found.notes), ""] if found.notes else []
    return "\n".join([*page, "## Machine and time", "",
                      f"- {place(found.machine)}", f"- {found.seconds:g} s", ""])


def tables(found: Evaluation, classes: Sequence[Group]) -> list[tuple[str, list[str], Cells]]:
    """Return every table as (title, column names, rows of cells), unescaped."""
    made = [
        ("Quality and calibration",
         ["model", found.metric, "artifact against it", "macro F1", "calibration error", "by chance", "overconfidence",
          "Brier"],
         [_judged(m) for m in found.models]),
        (f"Classes ({len(classes)} of {len(found.classes)}, the worst first)",
         ["class", "recall", "precision", "F1", "against baseline", "p below rest", "p below baseline", "flags"],
         [_group(g, classes=True) for g in classes]),
        ("Slices", ["slice", found.metric, "against baseline", "p below rest", "p below baseline", "flags"],
         [_group(g, classes=False) for g in found.slices]),
        ("Noise in the texts",
         ["noise", "rows changed", found.metric, "against clean", "beyond the baseline's", "flags"],
         [_noise(r) for r in found.robustness]),
    ]
    if found.forgotten is not None:
        made += _forgotten(found.forgotten)
    return [(title, head, rows) for title, head, rows in made if rows]


def _judged(m: Judged) -> list[str]:
    c = m.calibration
    return [f"{m.name}: {m.says}", share(m.quality), _maybe(m.change, delta), f"{m.macro_f1:.4f}", _number(c.ece),
            f"{c.ece_by_chance:.3f}", _number(c.overconfidence), _number(c.brier)]


def _group(g: Group, *, classes: bool) -> list[str]:
    own = [share(g.quality), _maybe(g.precision, share), _maybe(g.f1, _number)] if classes else [share(g.quality)]
    below = "-" if g.p_below_baseline is None else f"{g.p_below_baseline:.2g}"
    return [g.name, *own, _maybe(g.change, delta), f"{g.p_below_rest:.2g}", below, ", ".join(g.flags)]


def _noise(r: Robustness) -> list[str]:
    return [f"{r.noise}: {r.says}", f"{r.changed:,}", share(r.quality), delta(r.change),
            _maybe(r.beyond_baseline, delta), "fragile" if r.fragile else ""]


def _forgotten(f: Forgotten) -> list[tuple[str, list[str], Cells]]:
    base = ["base model", share(f.base_probe), "-", _number(f.base_pairs), "-", "-", ""]
    models = [[f"{m.name}: {m.says}", share(m.probe), delta(m.change), _number(m.pairs), _number(m.pairs_change),
               share(m.neighbours), "forgets" if m.forgets else ""] for m in f.models]
    title = (f"Forgetting on {f.other}: {f.classes} classes; a probe learns from {f.learn:,} rows, {f.choose:,} choose "
             f"its penalty, {f.held:,} judge it")
    head = ["model", "linear probe", "against base", "same-label pairs AUC", "against base", "neighbours kept", "flags"]
    layers = [[f"{m.name}, layer {x.layer}", str(x.base_layer), _number(x.cka)] for m in f.models for x in m.layers]
    return [(title, head, [base, *models]),
            ("Likeness to the base model, layer by layer", ["layer", "base layer", "linear CKA"], layers)]


def _some(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups that are flagged, and the worst, in their order."""
    return tuple(g for i, g in enumerate(groups) if g.flags or i < _WORST)


def _number(m: Measurement) -> str:
    return f"{m.value:.3f} ({m.low:.3f} to {m.high:.3f})"


def _maybe(m: Measurement | None, words: Callable[[Measurement], str]) -> str:
    return "-" if m is None else words(m)

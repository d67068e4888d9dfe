"""Two runs side by side: on the terminal, and as a Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from plimsoll.core.contrast import QUALITY_DELTA, Both, Compared, Contrast, Party
from plimsoll.core.errors import UserError
from plimsoll.core.store import write_atomic
from plimsoll.report.words import delta, number, plain, safe, share

_UNITS = {"ms", "MB", "s", "x"}
"""Of what is no quality; a quality has its metric for a unit."""
_NEAR_ONE = 0.01
"""A ratio as near to one as this shows more digits, so that what differs does not read 1.00x."""
_LONGEST = 60
"""Characters of a value that the terminal shows; the page has all of it."""

Table_ = tuple[str, list[str], list[list[str]]]
"""Title, names of the columns, rows of cells: unescaped."""


def keep(found: Contrast, page: Path) -> Path:
    """Write the page, and the record beside it under the same name with .json; return the record's path.

    Raises UserError when the page itself is named so.
    """
    record = page.with_suffix(".json")
    if record == page:
        raise UserError(f"--out {page} names the page, which is Markdown", "name it compare.md: the record is written "
                        "beside it as compare.json")
    write_atomic(page, write(found))
    write_atomic(record, found.to_json())
    return record


def show(found: Contrast, console: Console) -> None:
    """Print two runs side by side; of recipes that both tried, those that came out differently."""
    console.print()
    console.print(plain(found.verdict), highlight=False)
    console.print(plain(found.rows), highlight=False)
    differently = [t for t in found.trials if t.differs]
    for title, head, rows in _tables(found, differently, brief=True):
        console.print()
        console.print(f"[bold]{plain(title)}[/]", highlight=False)
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        for name in head:
            table.add_column(plain(name))
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        console.print(table, highlight=False)
    for note in found.notes:
        console.print(f"[dim]note: {plain(note)}[/]", highlight=False)


def write(found: Contrast) -> str:
    """Return two runs side by side as Markdown; text from data and models is escaped."""
    a, b = found.first, found.second
    lines = [f"# {safe(a.name)} and {safe(b.name)}", "", safe(found.verdict), "", safe(found.rows), ""]
    for title, head, rows in _tables(found, found.trials, brief=False):
        lines += [f"## {safe(title)}", "", f"| {' | '.join(safe(x) for x in head)} |", f"|{'---|' * len(head)}",
                  *(f"| {' | '.join(safe(cell) for cell in row)} |" for row in rows), ""]
    for party, only in ((a, found.only_first), (b, found.only_second)):
        if only:
            lines += [f"## Tried by {safe(party.name)} alone", "", *(f"- {safe(recipe)}" for recipe in only), ""]
    lines += ["## Why each decided as it did", "", *(f"- {safe(p.name)}: {safe(p.why)}" for p in (a, b)), ""]
    lines += ["## Notes", "", *(f"- {safe(note)}" for note in found.notes), ""] if found.notes else []
    machines = [f"- {safe(digest)}: {safe(cpu)}" for digest, cpu in found.machines.items()]
    return "\n".join([*lines, "## Machines", "", *machines, ""])


def _tables(found: Contrast, trials: Sequence[Both], *, brief: bool) -> list[Table_]:
    def short(text: str) -> str:
        return text if not brief or len(text) <= _LONGEST else text[:_LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"

    a, b = found.first.name, found.second.name
    tables: list[Table_] = [
        ("The decisions", ["", a, b], [[name, short(x), short(y)] for name, x, y in _decisions(found)]),
        ("The numbers", ["what", a, b, f"{b} against {a}", "finding", "how"],
         [[*_compared(c), c.how if brief or not c.why else f"{c.how}: {c.why}"] for c in found.numbers]),
        ("What differs", ["", "key", a, b], [[d.where, d.key, short(d.first), short(d.second)] for d in found.differs]),
        (f"Recipes that both tried: {sum(t.differs for t in found.trials)} of {len(found.trials)} came out differently",
         ["recipe", a, b, "speed-up", "quality on validation"], [_both(t, short) for t in trials]),
        *(_front(p) for p in (found.first, found.second)),
    ]
    return [(title, head, rows) for title, head, rows in tables if rows]


def _decisions(found: Contrast) -> list[tuple[str, str, str]]:
    a, b = found.first, found.second
    return [("verdict", a.verdict, b.verdict), ("chosen", a.chosen or "-", b.chosen or "-"),
            ("baseline", a.baseline or "-", b.baseline or "-"), ("spec", a.spec_digest, b.spec_digest),
            ("machine", a.machine, b.machine)]


def _compared(c: Compared) -> list[str]:
    words = number if _unit(c) in _UNITS else delta if c.name == QUALITY_DELTA else share
    return [c.name, *("-" if m is None else words(m) for m in (c.first, c.second)), _change(c), c.finding]


def _unit(c: Compared) -> str:
    return next((m.unit for m in (c.first, c.second) if m is not None), "")


def _change(c: Compared) -> str:
    m = c.change
    if m is None:
        return "-"
    if m.unit != "x":
        return delta(m)
    digits = 2 if abs(m.value - 1) > _NEAR_ONE or m.value == 1 else 4
    return f"{m.value:.{digits}f}x" if m.low == m.high else f"{m.value:.{digits}f}x ({m.low:.2f} to {m.high:.2f})"


def _both(t: Both, short: Callable[[str], str]) -> list[str]:
    states = [f"{state}: {short(reason)}" if reason and t.first != t.second else state
              for state, reason in ((t.first, t.first_reason), (t.second, t.second_reason))]
    told = [f"{_change(c)} {c.finding}, {c.how}" if c is not None else "-" for c in (t.speed, t.quality)]
    return [t.recipe, *states, *told]


def _front(party: Party) -> Table_:
    return (f"The front of {party.name}: what no other of its recipes beats in both speed and quality",
            ["recipe", "p95", "quality delta", "seen on"],
            [[f.recipe, f"{f.p95_ms:.3g} ms", f"{f.quality_delta * 100:+.2f} points", f.on] for f in party.front])

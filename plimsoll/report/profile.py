"""Profiles on the terminal, and as profile.md: where a request's time goes, and what to attack first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from plimsoll.core.dossier import Who
from plimsoll.core.profile import Allotted, Operators, Profile, Stage, profile_record, trace_file
from plimsoll.core.record import Measurement
from plimsoll.core.store import write_atomic
from plimsoll.report.words import plain, safe

_PAGE = "profile.md"

_WORDS = ("verdict", "in", "heaviest")
"""Columns that hold no numbers."""

Cells = list[list[str]]


def keep(profiles: Mapping[Who, Profile], folder: Path, notes: Sequence[str] = ()) -> Path:
    """Write profile.md beside the records and return its path."""
    path = folder / _PAGE
    write_atomic(path, write(profiles, notes))
    return path


def show(profiles: Mapping[Who, Profile], folder: Path, console: Console, notes: Sequence[str] = ()) -> None:
    """Print profiles, the chosen artifact's last."""
    for who, one in profiles.items():
        console.print()
        console.print(f"[bold]{who}: {plain(one.artifact)}[/]   {plain(_first(one))}", highlight=False)
        for title, head, rows in tables(one):
            console.print()
            console.print(f"[bold]{plain(title)}[/]", highlight=False)
            table = Table(box=None, pad_edge=False, padding=(0, 2))
            for i, name in enumerate(head):
                table.add_column(name, justify="left" if i == 0 or name in _WORDS else "right")
            for row in rows:
                table.add_row(*(plain(cell) for cell in row))
            console.print(table, highlight=False)
        for line in lines(one):
            console.print(f"[dim]{plain(line)}[/]", highlight=False)
    for note in notes:
        console.print(f"[dim]note: {plain(note)}[/]", highlight=False)
    console.print("[dim]bounds in brackets hold one-sided at 95 % each[/]\n", highlight=False)
    for who in profiles:
        files = f"record     {folder / profile_record(who)}\ntrace      {folder / trace_file(who)}"
        console.print(files, highlight=False, markup=False)
    console.print(f"all of it  {folder / _PAGE}", highlight=False, markup=False)


def write(profiles: Mapping[Who, Profile], notes: Sequence[str] = ()) -> str:
    """Return profiles as Markdown; text from models is escaped."""
    page = ["# Where the time of a request goes", "",
             "From the JSON that comes in to the answer that goes out, one request at a time. Bounds in brackets hold "
             "one-sided at 95 % each. The traces open in [Perfetto](https://ui.perfetto.dev).", ""]
    for who, one in profiles.items():
        page += [f"## {who.capitalize()}: {safe(one.artifact)}", "", safe(_first(one)), ""]
        for title, head, rows in tables(one):
            page += [f"### {safe(title)}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}",
                      *(f"| {' | '.join(safe(cell) for cell in row)} |" for row in rows), ""]
        page += [*(f"- {safe(line)}" for line in lines(one)), ""]
    page += ["## Notes", "", *(f"- {safe(note)}" for note in notes), ""] if notes else []
    return "\n".join(page)


def _first(one: Profile) -> str:
    """Return the sentence to read first."""
    p50, p95 = (one.end_to_end_ms.get(p) for p in ("p50", "p95"))
    takes = f"p50 {_ms(p50)}, p95 {_ms(p95)} ms. " if p50 and p95 else ""
    return f"{takes}To attack first: {one.attack}"


def tables(one: Profile) -> list[tuple[str, list[str], Cells]]:
    """Return every table as (title, column names, rows of cells), unescaped."""
    made = [
        (f"Stages of {one.requests:,} requests",
         ["stage", "p50 ms", "p95 ms", "mean ms", "share"],
         [_stage(s) for s in one.stages]),
        ("Latency budget",
         ["part", "p95 ms", "may take ms", "share of p95", "verdict"],
         [_allotted(a) for a in one.budget]),
        ("Operators of the model stage",
         ["group", "ms", "share", "M operations", "kB moved", "GOP/s", "operations a byte", "of the roof", "in",
          "heaviest"],
         [_operators(o) for o in one.operators]),
    ]
    return [(title, head, rows) for title, head, rows in made if rows]


def _stage(s: Stage) -> list[str]:
    return [s.name, _ms(s.p50_ms), _ms(s.p95_ms), f"{s.mean_ms:.4g}", f"{s.share:.1%}"]


def _allotted(a: Allotted) -> list[str]:
    name = a.name if a.stages == (a.name,) else f"{a.name} ({', '.join(a.stages)})"
    return [name, _ms(a.p95_ms), f"{a.allowed_ms:.4g}", f"{a.allowed:.0%}", "holds" if a.holds else "over"]


def _operators(o: Operators) -> list[str]:
    return [
        o.group, f"{o.mean_ms:.4g}", f"{o.share:.1%}",
        _maybe(o.flop, 1e6, ".2f"), _maybe(o.traffic_bytes, 1e3, ".0f"), _maybe(o.gops, 1, ".0f"),
        _maybe(o.intensity, 1, ".1f"), "-" if o.share_of_roof is None else f"{o.share_of_roof:.0%}", o.number or "-",
        ", ".join(o.heaviest),
    ]


def lines(one: Profile) -> list[str]:
    """Return what else a profile says, in sentences."""
    tokens = ", ".join(f"{name} {value:.4g}" for name, value in one.tokens.items())
    said = [
        f"Tokens in a request: {tokens}. {one.padding_waste:.1%} of what the model computed was padding.",
        f"The stages add up to {one.adds_up.value:.3f} ({one.adds_up.low:.3f} to {one.adds_up.high:.3f}) of whole "
        f"requests without a stopwatch inside, at the median; reading the clock takes {one.stopwatch_us:.2f} us.",
    ]
    if one.operators_factor is not None:
        said.append(f"By the runtime's own profile the operators take {one.operators_factor:.2f} times what the model "
                     "stage takes without it; above they are scaled to that stage.")
    if one.operators_reason:
        said.append(f"No operators: {one.operators_reason}.")
    if one.share_of_ceiling is not None:
        said.append(f"The model stage reaches {one.share_of_ceiling:.0%} of the ceiling that was measured here for "
                     "its number format.")
    return [*said, *one.notes, f"{one.runtime}, {one.threads} threads, machine {one.machine}, {one.seconds:g} s."]


def _ms(m: Measurement) -> str:
    return f"{m.value:.4g} ({m.low:.4g} to {m.high:.4g})"


def _maybe(value: float | None, unit: float, form: str) -> str:
    return "-" if value is None else format(value / unit, form)

"""A load test on the terminal, and as load.md: what the service held, and whether the measurement can be trusted."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from plimsoll.core.record import Measurement
from plimsoll.core.store import write_atomic
from plimsoll.core.traffic import TRAFFIC_RECORD, Asked, TrafficReport, UnderLoad
from plimsoll.report.words import plain, safe

_PAGE = "load.md"
_WORDS_OF_LOADGEN = 24
"""Lines of LoadGen's summary that the terminal shows; the page has all of them."""

_Table = tuple[str, list[str], list[list[str]]]
"""Title, names of the columns, rows of cells: unescaped."""


def keep(found: TrafficReport, folder: Path) -> Path:
    """Write load.json and load.md into a folder, and return the path of the page."""
    write_atomic(folder / TRAFFIC_RECORD, found.to_json())
    write_atomic(folder / _PAGE, write(found))
    return folder / _PAGE


def show(found: TrafficReport, folder: Path, console: Console) -> None:
    """Print a load test."""
    color = "green" if found.stands else "red"
    console.print()
    console.print(f"[bold {color}]{'stands' if found.stands else 'does not stand'}[/]   {plain(found.verdict)}",
                  highlight=False)
    for title, head, rows in _tables(found, brief=True):
        console.print()
        console.print(f"[bold]{plain(title)}[/]", highlight=False)
        table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=any(head))
        for name in head:
            table.add_column(plain(name))
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        console.print(table, highlight=False)
    for note in found.notes:
        console.print(f"[dim]note: {plain(note)}[/]", highlight=False)
    console.print("[dim]bounds in brackets hold one-sided at 95 % each; times run from when a request was due[/]",
                  highlight=False)
    console.print(f"\nrecord     {folder / TRAFFIC_RECORD}\nall of it  {folder / _PAGE}", highlight=False, markup=False)


def write(found: TrafficReport) -> str:
    """Return a load test as Markdown; whatever a service or a file said is escaped."""
    lines = [f"# Load on {safe(found.asked.url)}", "", safe(found.verdict[:1].upper() + found.verdict[1:]), ""]
    for title, head, rows in _tables(found, brief=False):
        lines += [f"## {safe(title)}", "", f"| {' | '.join(safe(x) for x in head)} |", f"|{'---|' * len(head)}",
                  *(f"| {' | '.join(safe(cell) for cell in row)} |" for row in rows), ""]
    lines += ["## Notes", "", *(f"- {safe(note)}" for note in found.notes), ""] if found.notes else []
    lines += ["Times run from when a request was due, whether or not it could be sent then. Bounds in brackets hold "
              "one-sided at 95 % each.", "",
              f"The client's machine: {safe(found.machine)}. It took {found.seconds:g} s.", ""]
    return "\n".join(lines)


def _tables(found: TrafficReport, *, brief: bool) -> list[_Table]:
    asked, load = found.asked, found.load
    tables: list[_Table] = [("What was asked", ["", ""], _asked(asked))]
    if load is not None:
        tables += [("What it held", ["", ""], _held(load, asked)), _refusals(load), _stages(load), _checks(load)]
    if found.highest is not None:
        tables.append(("The rates that were tried",
                       ["requests/s", "outcome", "p50 ms", "p99 ms", "refused", "failed", "why"],
                       [[f"{s.rate_per_s:,.1f}", s.outcome, *(_ms(s.load.latency_ms.get(p)) for p in ("p50", "p99")),
                         f"{s.load.refused:,}", f"{s.load.failed:,}", s.why] for s in found.highest.steps]))
        tables.append(("How sure that is", ["", ""], [
            ["each step", f"{found.highest.confidence:.0%} for either error, looked at as often as one likes; as "
                          "near as the clustering of late requests can be told from a run"],
            ["all steps together", f"{found.highest.together:.0%}"]]))
    if found.loadgen is not None:
        said = [[name, value] for name, value in found.loadgen.summary.items()]
        tables.append((f"What LoadGen {found.loadgen.version} says", ["", ""],
                       said[:_WORDS_OF_LOADGEN] if brief else said))
    if load is not None and not brief:
        tables.append(("Over time", ["from s", "requests", "p50 ms", "p99 ms", "refused", "failed"], [
            [f"{s.start_s:.1f}", f"{s.requests:,}", _maybe(s.p50_ms), _maybe(s.p99_ms), f"{s.refused:,}",
             f"{s.failed:,}"] for s in load.stretches]))
    return [(title, head, rows) for title, head, rows in tables if rows]


def _asked(asked: Asked) -> list[list[str]]:
    how = {"single-stream": "one request at a time", "offline": f"{asked.connections} requests in flight",
           "server": f"arrivals of {asked.trace}" if asked.trace else "a Poisson stream"}[asked.scenario]
    rate = "" if asked.rate_per_s is None else f" at {asked.rate_per_s:,.1f} requests/s"
    quantiles = " / ".join(f"{n:,.0f}" for n in asked.characters.values())
    length = f" of {quantiles} characters ({' / '.join(asked.characters)})" if asked.characters else ""
    rows = [
        ["service", asked.url],
        ["arrivals", f"{asked.scenario}: {how}{rate}, for {asked.seconds:g} s after {asked.warm_up_s:g} s to warm up"],
        ["texts", f"{asked.texts:,}{length}, {asked.rows} in a request"],
        ["client", f"{asked.connections} connections, {asked.processes} process{'es' if asked.processes > 1 else ''}, "
                   f"gives up after {asked.timeout_s:g} s"],
    ]
    if asked.p99_ms is not None:
        rows.append(["limit", f"p99 <= {asked.p99_ms:g} ms"])
    if asked.deadline_ms is not None:
        rows.append(["deadline", f"{asked.deadline_ms:g} ms, which each request told the service"])
    return rows


def _held(load: UnderLoad, asked: Asked) -> list[list[str]]:
    rows = [[f"latency {name}", f"{_ms(m)} ms, from sent {_ms(load.from_sent_ms.get(name))} ms (n={m.n:,})"]
            for name, m in load.latency_ms.items()]
    rows += [
        ["requests", f"{load.requests:,} were due: {load.accepted:,} accepted, {load.refused:,} refused, "
                     f"{load.failed:,} failed"],
        ["rate", f"{load.achieved_per_s:,.1f} sent, {load.answered_per_s:,.1f} accepted a second"
                 + (f", {load.answered_per_s * asked.rows:,.1f} texts a second" if asked.rows > 1 else "")],
    ]
    if load.goodput_per_s is not None and load.late is not None:
        rows.append(["within the limit", f"{load.goodput_per_s:,.1f} a second; {load.late:,} were late, refused or "
                                         f"failed, {load.clustering:.1f} of them worth one that is late by itself"])
    rows += [[f"failed: {kind}", f"{n:,}"] for kind, n in load.errors.items()]
    if load.versions:
        rows.append(["version", ", ".join(load.versions)])
    if load.client_cores is not None:
        rows.append(["client's processor time", f"{load.client_cores:.2f} cores"])
    return rows


def _refusals(load: UnderLoad) -> _Table:
    return ("Refusals, from sent", ["", "ms"], [[name, _ms(m)] for name, m in load.refusal_ms.items()])


def _stages(load: UnderLoad) -> _Table:
    return ("Where the time goes, by the service itself", ["stage", "p50 ms", "p95 ms", "mean ms", "answers"], [
        [name, *(f"{s[k]:.4f}" for k in ("p50", "p95", "mean")), f"{s['n']:,.0f}"]
        for name, s in load.stages_ms.items()])


def _checks(load: UnderLoad) -> _Table:
    return ("Is the measurement valid?", ["", "", ""],
            [[c.name, "yes" if c.holds else "NO", c.says] for c in load.checks])


def _ms(m: Measurement | None) -> str:
    if m is None:
        return "-"
    return f"{m.value:.3f} ({m.low:.3f} to {'unbounded' if math.isinf(m.high) else f'{m.high:.3f}'})"


def _maybe(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}"

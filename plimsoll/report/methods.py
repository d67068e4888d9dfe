"""A comparison of ways to tune: a table on the terminal, and decisions.md with why each other method was not chosen."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from plimsoll.core.comparison import Comparison, Method
from plimsoll.core.record import Measurement
from plimsoll.core.store import write_atomic
from plimsoll.report.words import code, lines, place, plain, safe, share

_STAGES = {"equal_rows": "same rows", "equal_time": "same time", "full": "in full"}


def keep(compared: Comparison, folder: Path) -> Path:
    """Write decisions.md into a run folder and return its path."""
    path = folder / "decisions.md"
    write_atomic(path, write(compared))
    return path


def show(compared: Comparison, console: Console) -> None:
    """Print a comparison."""
    console.print()
    console.print(f"[bold green]chosen: {plain(compared.chosen)}[/]   {plain(compared.why)}", highlight=False)
    console.print(f"on the test rows: {plain(compared.metric)} {share(compared.quality)}\n", highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for title in titles(compared):
        table.add_column(title, justify="left" if title == "method" else "right")
    for method in compared.methods:
        table.add_row(*(plain(cell) for cell in cells(method)))
    console.print(table, highlight=False)
    console.print(f"[dim]{plain(legend(compared))}[/]\n", highlight=False)
    for question in compared.questions:
        console.print(plain(question), highlight=False)
    console.print(f"activation checkpointing: {plain(compared.checkpointing)}", highlight=False)
    for note in compared.notes:
        console.print(f"[dim]note: {plain(note)}[/]", highlight=False)
    if compared.run:
        run = Path(compared.run)
        console.print(lines(f"\nmodel      {run / compared.model}\nrecord     {run / 'methods.json'}\n"
                            f"why        {run / 'decisions.md'}"), highlight=False)


def write(compared: Comparison) -> str:
    """Return the comparison as Markdown; text from data and models is escaped."""
    names = titles(compared)
    metric = safe(compared.metric)
    page = [
        f"# Chosen: {safe(compared.chosen)}", "", safe(compared.why), "",
        f"On the test rows, which took no part in choosing: {metric} {share(compared.quality)}.", "",
        "## Every method", "",
        f"| {' | '.join(names)} |", f"|{'---|' * len(names)}",
        *(f"| {' | '.join(safe(cell) for cell in cells(method))} |" for method in compared.methods), "",
        safe(legend(compared)), "",
        "## Why not the others", "", *(f"- {safe(q)}" for q in compared.questions), "",
        "## Activation checkpointing", "", safe(compared.checkpointing) + ".", "",
        *_policies(compared),
        "## Learning rates", "", f"| method | {metric} after the sweep, by learning rate |", "|---|---|",
        *(f"| {safe(m.move.name())} | {', '.join(f'{safe(rate)}: {q:.1%}' for rate, q in m.rates.items())} |"
          for m in compared.methods if m.rates), "",
    ]
    if compared.notes:
        page += ["## Notes", "", *(f"- {safe(n)}" for n in compared.notes), ""]
    page += ["## Machine and time", "",
             f"- {place(compared.machine)}",
             f"- {compared.seconds / 60:.1f} minutes in all", f"- spec digest {code(compared.spec_digest)}", ""]
    return "\n".join(page)


def titles(compared: Comparison) -> list[str]:
    """Return the names of the columns in which methods are compared."""
    return ["method", *_STAGES.values(), "minutes", "peak MB", "trained weights", "step ms", "recomputed", "verdict"]


def cells(method: Method) -> list[str]:
    """Return a method's row below `titles`, unescaped."""
    step = method.step_ms.get("none")
    again = method.recompute
    return [
        method.move.says(),
        *(_percent(method.qualities.get(stage)) for stage in _STAGES),
        " / ".join(f"{method.seconds[s] / 60:.1f}" if s in method.seconds else "-" for s in _STAGES),
        f"{method.peak_memory_mb['none']:,.0f}" if method.peak_memory_mb else "-",
        f"{method.trainable:,} of {method.parameters:,}" if method.parameters else "-",
        f"{step.value:.0f} ({step.low:.0f} to {step.high:.0f})" if step else "-",
        f"{again.direct.value:.1%} / {again.fitted.value:.1%}" if again else "-",
        method.state,
    ]


def _percent(m: Measurement | None) -> str:
    return "-" if m is None else f"{m.value:.1%} ({m.low:.1%} to {m.high:.1%})"


def legend(compared: Comparison) -> str:
    """Return how to read those columns."""
    seen = f"{compared.rows.get('equal_rows', 0):,}"
    return (f"{compared.metric} on the validation rows: the mean of {compared.seeds} seeds with bounds that hold "
            f"one-sided at 95 % each, for other seeds and other rows; after the same {seen} rows, in the same time, "
            "and in full. minutes: of one training at each. recomputed: the share of a step that full activation "
            "checkpointing would spend on computing again, by a stopwatch and from step times alone.")


def _policies(compared: Comparison) -> list[str]:
    rows = [m for m in compared.methods if len(m.step_ms) > 1]
    if not rows:
        return []
    names = list(rows[0].step_ms)
    return [
        f"| method | {' | '.join(f'{safe(n)}: step ms, peak MB' for n in names)} |", f"|{'---|' * (len(names) + 1)}",
        *(f"| {' | '.join([safe(m.move.name()), *(_step(m, n) for n in names)])} |" for m in rows), "",
    ]


def _step(method: Method, policy: str) -> str:
    return f"{method.step_ms[policy].value:.0f}, {method.peak_memory_mb[policy]:,.0f}"

"""The decision on the terminal: the three numbers, the recipe, the top losers and why, and where the files are."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from plimsoll.core.decision import Decision
from plimsoll.core.dossier import PAGE
from plimsoll.report.words import delta, lines, number, plain, share

_LOSERS = 6


def show(decision: Decision, console: Console) -> None:
    """Print a decision."""
    color = "green" if decision.verdict == "met" else "red"
    console.print()
    console.print(f"[bold {color}]verdict: {decision.verdict}[/]   {plain(decision.why)}", highlight=False)
    console.print()
    _numbers(decision, console)
    if decision.binding is not None:
        console.print(
            f"\n[bold]what stood in the way[/]: {decision.binding.limit}; the best measured was {_floor(decision)}",
            highlight=False,
        )
        if decision.binding.floor_from:
            console.print(f"  {plain(decision.binding.floor_from)}", highlight=False)
        for line in decision.binding.relaxing:
            console.print(f"  {plain(line)}", highlight=False)
    _losers(decision, console)
    for note in decision.notes:
        console.print(f"[dim]note: {plain(note)}[/]", highlight=False)
    if decision.run:
        run = Path(decision.run)
        files = [f"record     {run / 'decision.json'}", f"why        {run / 'decisions.md'}"]
        if (run / PAGE).exists():  # a run of an earlier version has none: plimsoll report RUN makes it
            files.append(f"page       {run / PAGE}")
        if decision.artifact:
            use = f'use it     plimsoll predict {run} --text "..."'
            files = [f"artifact   {decision.artifact}", *files, use]
        console.print(lines("\n" + "\n".join(files)), highlight=False)


def _numbers(decision: Decision, console: Console) -> None:
    """Print the three numbers and what belongs to them; nothing when nothing was made."""
    three, base, chosen = decision.three_numbers, decision.baseline, decision.chosen
    if three is None or base is None or chosen is None or decision.speedup_p95 is None or decision.speedup_p50 is None:
        return
    numbers = Table.grid(padding=(0, 2))
    numbers.add_row("baseline p95", number(three.baseline_p95_ms), plain(base.recipe.says()))
    numbers.add_row(
        "optimized p95", f"[bold]{number(three.optimized_p95_ms)}[/]", plain(chosen.recipe.says())
    )
    numbers.add_row(
        "quality delta",
        f"[bold]{delta(three.quality_delta)}[/]",
        f"{plain(chosen.quality.unit)} {share(chosen.quality)} against the baseline's {base.quality.value:.2%}",
    )
    numbers.add_row("speed-up", number(decision.speedup_p95), f"at p95; at p50 {number(decision.speedup_p50)}")
    numbers.add_row(
        "size, memory",
        f"{chosen.size_mb.value:.1f} MB, {chosen.peak_memory_mb.value:.0f} MB peak",
        f"baseline {base.size_mb.value:.1f} MB, {base.peak_memory_mb.value:.0f} MB peak; "
        f"cold start {chosen.cold_start_s.value:.2f} s against {base.cold_start_s.value:.2f} s",
    )
    console.print(numbers, highlight=False)
    console.print(
        "[dim]bounds in brackets hold one-sided at 95 % each; latency is text in, label out, one request at a time[/]"
        if decision.spec.get("load", {}).get("batch", 1) == 1
        else ""
    )


def _losers(decision: Decision, console: Console) -> None:
    if not decision.rejected:
        return
    console.print("\n[bold]why not the others[/]")
    order = {"measured": 0, "scored": 0, "failed": 1, "pruned": 2, "skipped": 3}
    table = Table.grid(padding=(0, 2))
    ranked = sorted(decision.rejected, key=lambda r: order[r.state])
    for r in ranked[:_LOSERS]:
        table.add_row(f"  {plain(r.recipe.says())}", f"{r.state}", plain(r.reason))
    console.print(table, highlight=False)
    if len(ranked) > _LOSERS:
        console.print(f"  and {len(ranked) - _LOSERS} more in decisions.md", highlight=False)


def _floor(decision: Decision) -> str:
    assert decision.binding is not None
    if decision.binding.limit == "quality_drop":
        return delta(decision.binding.floor)
    return number(decision.binding.floor)

"""An answer on the terminal: the sentence first, then the tables behind it, its evidence, and what to ask next."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from plimsoll.core.answer import Answer
from plimsoll.report.words import plain

_WIDEST = 60
"""Columns of a cell before it is folded."""


def show(answer: Answer, console: Console, folder: Path) -> None:
    """Print an answer; texts from data and models are shown as they are."""
    console.print(f"\n[bold]{plain(answer.question)}[/]", highlight=False)
    console.print(plain(answer.sentence), highlight=False)
    for table in answer.tables:
        console.print(f"\n[bold]{plain(table.title)}[/]", highlight=False)
        grid = Grid(box=None, pad_edge=False, padding=(0, 2))
        for i, title in enumerate(table.head):
            long = any(len(row[i]) > _WIDEST for row in table.rows)
            grid.add_column(plain(title), overflow="fold", max_width=_WIDEST if long else None)
        for row in table.rows:
            grid.add_row(*(plain(cell) for cell in row))
        console.print(grid, highlight=False)
    files = "   ".join(str(folder / name) for name in answer.evidence)
    console.print(f"\nevidence   {plain(files)}", highlight=False, soft_wrap=True)
    if answer.deeper:
        console.print("\n[bold]to go on[/]", highlight=False)
    width = max((len(plain(step.question)) for step in answer.deeper), default=0)
    for step in answer.deeper:
        # no breaks of ours: a line is a command to copy
        console.print(f"{plain(step.question).ljust(width)}   {plain(step.command)}", highlight=False, soft_wrap=True)

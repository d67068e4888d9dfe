"""The machine on the terminal: what it is and what it can do at most."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from plimsoll.core.record import Record


def show(machine: Record, ceilings: Record, console: Console) -> None:
    """Print two records field by field."""
    for title, record in (("machine", machine), ("measured ceilings", ceilings)):
        table = Table.grid(padding=(0, 2))
        for name, value in record.model_dump(mode="json").items():
            table.add_row(name, _plain(value))
        console.print(f"[bold]{title}[/]")
        console.print(table, highlight=False, markup=False)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(_plain(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

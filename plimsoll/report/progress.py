"""Progress on the terminal: a bar for the stage at work, a line for what is done. Plain lines when not a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from plimsoll.core.parts import Event
from plimsoll.report.words import lines, plain

_QUIET_S = 15.0
"""Seconds between plain progress lines of one stage."""


class Screen:
    """Shows events as they come; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._spoken = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def show(self, event: Event) -> None:
        """Show one event: `text` and `note` are lines, `done` of `total` moves the bar."""
        stage = str(event.get("stage", ""))
        if "text" in event:
            # no breaks of ours: a line may be a command to copy
            self._console.print(lines(str(event["text"])), highlight=False, soft_wrap=True)
        elif "done" not in event:
            self._console.print(f"[bold]{plain(stage)}[/bold]  {plain(str(event.get('note', '')))}", highlight=False)
        else:
            self._bar(stage, event)

    def _bar(self, stage: str, event: Event) -> None:
        words = _words(event)
        if self._console.is_terminal:
            if stage != self._stage or self._task is None:
                if self._task is not None:
                    self._bars.remove_task(self._task)
                self._task = self._bars.add_task(plain(stage), words="")
            self._bars.update(self._task, completed=event["done"], total=event["total"], words=words)
        elif stage != self._stage or time.monotonic() - self._spoken > _QUIET_S:
            share = event["done"] / event["total"] if event["total"] else 0
            self._console.print(f"{plain(stage)}  {share:.0%}  {words}", highlight=False)
            self._spoken = time.monotonic()
        self._stage = stage


def _words(event: Event) -> str:
    parts: list[str] = []
    if "epoch" in event:
        parts.append(f"epoch {event['epoch']}")
    if event.get("loss") is not None:
        parts.append(f"loss {event['loss']:.3f}")
    if event.get("rows_per_s") is not None:
        parts.append(f"{event['rows_per_s']:.0f} rows/s")
    if event.get("validation") is not None:
        parts.append(f"validation {event['validation']:.4f}")
    if event.get("seconds_left") is not None:
        parts.append(f"{event['seconds_left']:.0f} s left")
    if "note" in event:
        parts.append(plain(str(event["note"])))
    return "  ".join(parts)

"""A training in several processes, in a few lines on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from plimsoll.core.trained import TRAINED, Trained
from plimsoll.report.words import lines, share


def show(trained: Trained, console: Console) -> None:
    """Print what a training came to, and where its model is."""
    run = Path(trained.run)
    console.print(lines(
        f"\n{trained.move.says()} in {trained.processes} processes of {trained.threads} threads: {trained.metric} "
        f"{share(trained.quality)} on the validation rows, {trained.seconds:.0f} s\n"
        f"model      {run / trained.model}\nrecord     {run / TRAINED}"), highlight=False)

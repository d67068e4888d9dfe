"""Rows: labelled texts of one split, the form every reader gives and every task takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rows:
    """Labelled texts in file order; `texts[i]` has the label `labels[i]`."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    """Where the rows came from, for messages."""

    def __len__(self) -> int:
        return len(self.texts)

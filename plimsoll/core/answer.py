"""An answer to "why this?" or "why not that?": a sentence whose every number is traced to a record."""

from __future__ import annotations

from plimsoll.core.ink import Figure
from plimsoll.core.record import Record


class Table(Record):
    """Rows of cells that stand behind a sentence."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Step(Record):
    """A question that may be asked next, and the command that asks it."""

    question: str
    command: str


class Answer(Record):
    """What the records of a run say to one question. Texts in it come from data and models: escape them."""

    question: str
    sentence: str
    tables: tuple[Table, ...] = ()
    numbers: tuple[Figure, ...]
    """Every number of the sentence and the tables, with the place it was read from; never empty."""
    evidence: tuple[str, ...]
    """Files of the run folder that it rests on."""
    deeper: tuple[Step, ...] = ()
    """What asks further, and what would try what was not tried."""

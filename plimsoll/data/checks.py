"""Checks of rows: what every source's cells must be, by what a row is labelled with, or why one cannot be used."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from plimsoll.data.rows import PAIR

MAX_TEXT_BYTES = 1_000_000
"""Longest text in UTF-8 bytes. No encoder reads that far: a longer one is a quote left open or a dump in one field."""


class Cell(NamedTuple):
    """One row as it was found, unchecked."""

    where: str
    text: Any
    label: Any


class Fault(NamedTuple):
    """One row that cannot be used."""

    where: str
    problem: str
    hint: str


def one(cell: Cell) -> Cell | Fault:
    """Return a row with one label, stripped and a string, or why it cannot be used."""
    label = _as_string(cell.label)
    for column, value in (("text", cell.text), ("label", label)):
        if problem := _problem(cell.where, column, value):
            return problem
    return Cell(cell.where, cell.text, str(label).strip())


def any_of(cell: Cell, separator: str) -> Cell | Fault:
    """Return a row with the set of its labels, given as a list or as a string that is cut at `separator`."""
    given = cell.label
    if isinstance(given, str):
        given = [part for part in given.split(separator) if part.strip()]
    labels = [_as_string(label) for label in given] if isinstance(given, list | tuple) else [_as_string(given)]
    for column, value in (("text", cell.text), *(("label", label) for label in labels)):
        if problem := _problem(cell.where, column, value):
            return problem
    return Cell(cell.where, cell.text, frozenset(str(label).strip() for label in labels))


def each(cell: Cell) -> Cell | Fault:
    """Return a row of words, joined by spaces, with a tuple of as many tags; both are lists, or cut at white space."""
    words, tags = (value.split() if isinstance(value, str) else value for value in (cell.text, cell.label))
    for column, values in (("text", words), ("label", tags)):
        if not isinstance(values, list | tuple) or not values:
            return Fault(cell.where, f"the {column} is no list, or an empty one ({values!r:.40})",
                          "write a list of words and one of as many tags, or both as strings with spaces between")
        for value in values:
            if problem := _problem(cell.where, column, value):
                return problem
            if value.split() != [value]:
                return Fault(cell.where, f"the {column} has {value!r:.40} for one word, and it has a space in it",
                              "cut it into two words, each with a tag")
    if len(words) != len(tags):
        return Fault(cell.where, f"{len(words)} words and {len(tags)} tags", "give each word one tag")
    text = " ".join(words)
    return _problem(cell.where, "text", text) or Cell(cell.where, text, tuple(tags))


def score(cell: Cell) -> Cell | Fault:
    """Return a row of two texts, joined by `PAIR`, with a finite number."""
    for text in cell.text:
        if problem := _problem(cell.where, "text", text):
            return problem
        if PAIR in text:
            return Fault(cell.where, "the text holds a unit separator, U+001F", "take the control character out")
    try:
        value = float(cell.label)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        return Fault(cell.where, f"the score is {cell.label!r:.40}, not a number", "write how alike the texts are")
    return Cell(cell.where, PAIR.join(cell.text), value)


def _as_string(label: Any) -> Any:
    """Return a whole number or a truth value as a string; anything else as it is."""
    if isinstance(label, (bool, int)) or (isinstance(label, float) and label.is_integer()):
        return str(int(label) if isinstance(label, float) else label)  # pandas turns 3 into 3.0 beside a missing value
    return label


def _problem(where: str, column: str, value: Any) -> Fault | None:
    nothing = value is None or (isinstance(value, float) and math.isnan(value))
    if nothing or (isinstance(value, str) and not value.strip()):
        return Fault(where, f"the {column} is empty or missing", f"fill in the {column} or delete the row")
    if not isinstance(value, str):
        wanted = "a string" if column == "text" else "a string or a whole number"
        return Fault(
            where,
            f"the {column} is {type(value).__name__} ({value!r:.40}), not {wanted}",
            f"write the {column} as a string",
        )
    if "\0" in value:
        return nul(where)
    try:
        size = len(value.encode())
    except UnicodeEncodeError as e:
        return Fault(
            where,
            f"the {column} holds half of a surrogate pair, U+{ord(value[e.start]):04X}",
            "the character was cut in two when the row was written; write it again or delete the row",
        )
    if size > MAX_TEXT_BYTES:
        return Fault(
            where,
            f"the {column} is {size:,} bytes long, more than {MAX_TEXT_BYTES:,}",
            "cut it: no model reads that far; if it should be short, look for a double quote left open",
        )
    return None


def nul(where: str) -> Fault:
    """Return the fault of a line with a NUL byte in it."""
    return Fault(
        where,
        "it holds a NUL byte",
        "the file is binary, damaged, or in an encoding such as UTF-16: convert it or write it again",
    )

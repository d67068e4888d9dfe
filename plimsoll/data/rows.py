"""Rows: labelled texts of one split, the form every reader gives and every task takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Label = str | tuple[str, ...] | frozenset[str]
"""Of one row: a class; or a tag for each word of its text, which are cut at single spaces; or all classes it has."""

NO_TARGET = -100
"""In place of a target where there is none: past the last word of a row."""


@dataclass(frozen=True)
class Rows:
    """Labelled texts in file order; `texts[i]` has the label `labels[i]`."""

    texts: tuple[str, ...]
    labels: tuple[Label, ...]
    source: str
    """Where the rows came from, for messages."""

    def __len__(self) -> int:
        return len(self.texts)

    def names(self) -> Counter[str]:
        """Return every name that labels have, and in how many rows."""
        return Counter(name for label in self.labels for name in names(label))

    def strata(self) -> tuple[str, ...]:
        """Return for each row the class by which shares are cut: its label, or the rarest of its names."""
        rows = self.names()
        return tuple(label if isinstance(label, str) else min(label, key=lambda n: (rows[n], n), default="")
                     for label in self.labels)


def names(label: Label) -> frozenset[str]:
    """Return the names that a label is made of."""
    return frozenset((label,)) if isinstance(label, str) else frozenset(label)


def targets(labels: Sequence[Label], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return labels as numbers, their places among the classes.

    int64 [rows] for one class a row; [rows, words] for a tag a word, `NO_TARGET` past the last one; [rows, classes]
    of 0 and 1 for rows with any number of classes.
    """
    index = {name: i for i, name in enumerate(classes)}
    if all(isinstance(label, str) for label in labels):
        return np.array([index[label] for label in labels], dtype=np.int64)  # type: ignore[index]
    if all(isinstance(label, frozenset) for label in labels):
        return np.array([[name in label for name in classes] for label in labels], dtype=np.int64)
    out = np.full((len(labels), max(map(len, labels))), NO_TARGET, dtype=np.int64)
    for row, tags in enumerate(labels):
        out[row, : len(tags)] = [index[tag] for tag in tags]
    return out


_KEYS: dict[type, str] = {str: "label", tuple: "tags", frozenset: "labels"}


def to_json(text: str, label: Label) -> dict[str, Any]:
    """Return a row as JSON; the key of the label says of which kind it is."""
    return {"text": text, _KEYS[type(label)]: label if isinstance(label, str | tuple) else sorted(label)}


def from_json(row: Mapping[str, Any]) -> tuple[str, Label]:
    """Return text and label of a row that `to_json` wrote; raises KeyError for another."""
    if "label" in row:
        return row["text"], row["label"]
    return row["text"], tuple(row["tags"]) if "tags" in row else frozenset(row["labels"])

"""Rows: labelled texts of one split, the form every reader gives and every task takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.spelling import PAIR as PAIR

Label = str | tuple[str, ...] | frozenset[str] | float
"""Of one row: a class; or a tag for each word of its text, which are cut at single spaces; or all classes it has; or
the score of its two texts."""

NO_TARGET = -100
"""In place of a target where there is none: past the last word of a row."""


@dataclass(frozen=True)
class Rows:
    """Labelled texts in file order; `texts[i]` has the label `labels[i]`."""

    texts: tuple[str, ...]
    labels: tuple[Any, ...]
    """Each a `Label`, all of one kind."""
    source: str
    """Where the rows came from, for messages."""

    def __len__(self) -> int:
        return len(self.texts)

    def single_texts(self) -> tuple[str, ...]:
        """Return every text, those of a row one after the other."""
        return tuple(part for text in self.texts for part in text.split(PAIR))

    def names(self) -> Counter[str]:
        """Return every name that labels have, and in how many rows."""
        return Counter(name for label in self.labels for name in names(label))

    def strata(self) -> tuple[str, ...]:
        """Return the class of each row by which shares are cut: its label, its rarest name, or its score's tenth."""
        rows = self.names()
        scores = [label for label in self.labels if isinstance(label, float)]
        if scores:
            return tuple(str(i) for i in np.searchsorted(np.quantile(scores, np.arange(0.1, 1, 0.1)), scores).tolist())
        return tuple(label if isinstance(label, str) else min(names(label), key=lambda n: (rows[n], n), default="")
                     for label in self.labels)


def names(label: Label) -> frozenset[str]:
    """Return the names that a label is made of."""
    if isinstance(label, float | int):
        return frozenset()
    return frozenset((label,)) if isinstance(label, str) else frozenset(label)


def targets(labels: Sequence[Any], classes: Sequence[str]) -> NDArray[Any]:
    """Return labels as numbers, their places among the classes; scores as they are, float64 [rows].

    int64 [rows] for one class a row; [rows, words] for a tag a word, `NO_TARGET` past the last one; [rows, classes]
    of 0 and 1 for rows with any number of classes.
    """
    if all(isinstance(label, float) for label in labels):
        return np.array(labels, dtype=np.float64)
    index = {name: i for i, name in enumerate(classes)}
    if all(isinstance(label, str) for label in labels):
        return np.array([index[label] for label in labels], dtype=np.int64)
    if all(isinstance(label, frozenset) for label in labels):
        return np.array([[name in label for name in classes] for label in labels], dtype=np.int64)
    out = np.full((len(labels), max(map(len, labels))), NO_TARGET, dtype=np.int64)
    for row, tags in enumerate(labels):
        out[row, : len(tags)] = [index[tag] for tag in tags]
    return out


_KEYS: dict[type, str] = {str: "label", tuple: "tags", frozenset: "labels", float: "score"}


def to_json(text: str, label: Label) -> dict[str, Any]:
    """Return a row as JSON; the key of the label says of which kind it is."""
    return {"text": text, _KEYS[type(label)]: sorted(label) if isinstance(label, frozenset) else label}


def from_json(row: Mapping[str, Any]) -> tuple[str, Label]:
    """Return text and label of a row that `to_json` wrote; raises KeyError for another."""
    for key in ("label", "score"):
        if key in row:
            return row["text"], row[key]
    return row["text"], tuple(row["tags"]) if "tags" in row else frozenset(row["labels"])

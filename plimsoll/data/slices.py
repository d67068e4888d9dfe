"""Slices of the rows by what a text looks like: where an average hides who is served badly."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_QUESTION = re.compile(
    r"(?i)^\W*(who|whom|whose|what|which|when|where|why|how|is|are|am|was|were|do|does|did|can|could|will|would|should|"
    r"may|has|have)\b|\?\s*$"
)
_SENTENCES = re.compile(r"[.!?]\s+\S")


def slices(texts: Sequence[str], lengths: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Return which rows each slice holds, bool [rows] by the slice's name; slices of no row or of all are left out.

    lengths: int64 [rows], the tokens of each text. By length in quarters; texts with a digit; questions (by a question
    mark at the end or an English question word in front); several sentences; letters beyond ASCII. Slices overlap.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    # lengths that rows have, so that ties stay together; equal quartiles make fewer, larger slices
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf")).tolist()
    for low, high in zip([0, *edges], [*edges, None], strict=True):
        inside = lengths > low if high is None else (lengths > low) & (lengths <= high)
        found[_length_name(low, high)] = inside
    looks = {
        "with a digit": lambda text: any(c.isdigit() for c in text),
        "a question": lambda text: _QUESTION.search(text) is not None,
        "several sentences": lambda text: _SENTENCES.search(text) is not None,
        "not plain ASCII": lambda text: not text.isascii(),
    }
    for name, has in looks.items():
        found[name] = np.array([has(text) for text in texts], dtype=bool)
    return {name: rows for name, rows in found.items() if 0 < np.count_nonzero(rows) < len(rows)}


def _length_name(low: int, high: int | None) -> str:
    if high is None:
        return f"over {low} tokens"
    if not low:
        return f"up to {high} tokens"
    return f"{high} tokens" if low + 1 == high else f"{low + 1} to {high} tokens"

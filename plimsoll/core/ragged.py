"""Answers of several tokens a row, as one array: [rows, longest, labels], with NaN past the end of each row.

A row of an array without that axis, [rows, labels], is an answer by itself, and everything here leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answers = NDArray[np.float32]
"""float32 [rows, labels], or [rows, longest, labels]."""


def joined(parts: Sequence[Answers]) -> Answers:
    """Return batches of answers one below the other, all as long as the longest of them."""
    if parts[0].ndim == 2:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([_filled(part, longest) for part in parts])


def stacked(rows: Sequence[NDArray[Any]]) -> Answers:
    """Return the answers of single rows, each [labels] or [tokens, labels], as one array."""
    return joined([row[None] for row in rows])


def ended(answers: Answers, lengths: Sequence[int] | NDArray[np.int64]) -> Answers:
    """Return answers with NaN past the end of each row; in place."""
    if answers.ndim == 3:
        answers[np.arange(answers.shape[1]) >= np.asarray(lengths)[:, None]] = np.nan
    return answers


def flat(answers: Answers, lengths: Sequence[int] | NDArray[np.int64]) -> Answers:
    """Return one answer a line, float32 [answers, labels]: each row's, or each token's of rows of these lengths."""
    if answers.ndim == 2:
        return answers
    return answers[np.arange(answers.shape[1]) < np.asarray(lengths)[:, None]]


def of_words(answers: Answers, places: Sequence[Sequence[int]]) -> Answers:
    """Return the answers of words, float32 [rows, most words, labels], given the place of each word's first token.

    places: for each row the place of each of its words among its tokens, or -1 for a word that has none there, such
    as one past the longest input; its answer is NaN.
    """
    out = np.full((len(answers), max(map(len, places)), answers.shape[2]), np.nan, dtype=np.float32)
    for row, (answer, found) in enumerate(zip(answers, places, strict=True)):
        at = np.array(found, dtype=np.int64)
        seen = np.flatnonzero(at >= 0)
        out[row, seen] = answer[at[seen]]
    return out


def _filled(answers: Answers, length: int) -> Answers:
    missing = length - answers.shape[1]
    return answers if not missing else np.pad(answers, ((0, 0), (0, missing), (0, 0)), constant_values=np.nan)

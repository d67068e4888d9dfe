"""Rows that nobody wrote: parts of training rows put together, with tokens swapped for their neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import DataError
from plimsoll.train.batches import Tokens

if TYPE_CHECKING:
    import torch

_NEIGHBOURS = 8
_LONGEST_FILE = 200_000  # lines; the teacher answers some hundred a second


def rows(train: Tokens, table: torch.Tensor, copies: int, replace: float, leave_out: float, mix: float,
         max_length: int, seed: int) -> Tokens:
    """Return `copies` invented rows for each training row; the same seed gives the same rows.

    table: [vocabulary, hidden], the model's token embeddings. The first and last token of a row, which are special
    in every encoder known here, stay. Rows have at least one token between them and at most `max_length` in all.
    """
    random = np.random.default_rng(seed)
    known, near = _neighbours(train, table)
    place = np.full(table.shape[0], -1)
    place[known] = np.arange(len(known))
    whole = [train.ids[a:b] for a, b in zip(train.starts[:-1], train.starts[1:], strict=True)]
    inside = [row[1:-1] for row in whole]
    made: list[NDArray[np.int64]] = []
    for _ in range(copies):
        for i, row in enumerate(whole):
            ids = inside[i]
            if random.random() < mix:
                other = inside[random.integers(len(inside))]
                joined = np.concatenate([ids[:random.integers(len(ids) + 1)], other[random.integers(len(other) + 1):]])
                ids = joined if len(joined) else other
            kept = ids[random.random(len(ids)) >= leave_out]
            ids = (kept if len(kept) else ids)[:max_length - 2].copy()
            at = place[ids]
            swapped = (random.random(len(ids)) < replace) & (at >= 0)
            ids[swapped] = near[at[swapped], random.integers(near.shape[1], size=int(swapped.sum()))]
            made.append(np.concatenate([row[:1], ids, row[-1:]]))
    starts = np.cumsum([0, *map(len, made)])
    return Tokens(np.concatenate([np.empty(0, dtype=np.int64), *made]), starts, train.pad_id)


def _neighbours(train: Tokens, table: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens inside training rows, int64 [tokens], and the nearest others to each by cosine, [tokens, 8]."""
    import torch

    edges = np.union1d(train.ids[train.starts[:-1]], train.ids[train.starts[1:] - 1])
    known = np.setdiff1d(train.ids, edges)
    if not len(known):
        return known, np.empty((0, 1), dtype=np.int64)
    unit = torch.nn.functional.normalize(table[torch.from_numpy(known)].float().cpu(), dim=1)
    alike = (unit @ unit.T).fill_diagonal_(-2)
    nearest = alike.topk(min(_NEIGHBOURS, max(1, len(known) - 1)), dim=1).indices
    return known, known[nearest.numpy()]


def read(file: Path) -> list[str]:
    """Return the lines of a text file that are not empty. Raises DataError for a file that cannot be used."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"cannot read the unlabelled text {file}: {e}", "give a UTF-8 file, one text per line") from e
    texts = [line for line in lines if line]
    if not texts or len(texts) > _LONGEST_FILE:
        raise DataError(f"{file} has {len(texts):,} texts", f"give one text per line, at most {_LONGEST_FILE:,}")
    return texts

"""Rows to batches: tokenized once, then grouped by length so that almost nothing is padded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import ragged
from plimsoll.core.parts import Task
from plimsoll.core.spelling import first_tokens
from plimsoll.data.rows import NO_TARGET, PAIR

if TYPE_CHECKING:
    import torch

_LONGEST = 512
_MEGABATCH = 150  # batches sorted together: BANKING77 at 32 rows computes 3 % more tokens than it has, unsorted 191 %
_PADDED_FROM = {"roberta", "xlm-roberta", "camembert", "mpnet"}  # these count positions from the padding id on


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together."""

    rows: torch.Tensor
    """int64 [batch]: which rows of the split these are, to look up targets by."""
    input_ids: torch.Tensor
    """int64 [batch, length], padded to the longest of these rows; [batch * texts, length] where rows have several."""
    attention_mask: torch.Tensor
    """int64, as large: 1 for real tokens."""
    weight: float = 1.0
    """What its mean loss counts for in the mean over the processes that share the batch."""


@dataclass(frozen=True)
class Tokens:
    """Tokenized rows of one split, unpadded, one after the other."""

    ids: NDArray[np.int64]
    """int64 [tokens], special tokens included."""
    starts: NDArray[np.int64]
    """int64 [rows + 1]: row `i` is `ids[starts[i]:starts[i + 1]]`. [texts * rows + 1] where a row has several texts."""
    pad_id: int
    words: NDArray[np.int64] | None = None
    """int64 [tokens]: which word of its row begins with this token, -1 for none; None where no words are answered."""
    texts: int = 1
    """Texts in a row, which stand one after the other, and in a batch too."""

    def __len__(self) -> int:
        return (len(self.starts) - 1) // self.texts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Token counts, int64 [rows]; of the longest of a row's texts."""
        return np.diff(self.starts).reshape(-1, self.texts).max(axis=1)

    def batch(self, rows: NDArray[np.int64], device: str = "cpu") -> Batch:
        """Return the rows as one batch on a device, padded on the right to the longest of them."""
        import torch

        texts = (rows[:, None] * self.texts + np.arange(self.texts)).ravel()
        lengths = np.diff(self.starts)[texts]
        real = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(real.shape, self.pad_id, dtype=np.int64)
        ids[real] = np.concatenate([self.ids[self.starts[t]:self.starts[t + 1]] for t in texts])
        of_rows, input_ids, mask = (torch.from_numpy(a).to(device) for a in (rows, ids, real.astype(np.int64)))
        return Batch(of_rows, input_ids, mask)

    def subset(self, rows: NDArray[np.int64]) -> Tokens:
        """Return the tokens of some rows only, in the order given."""
        places = np.concatenate([np.arange(int(self.starts[r]), int(self.starts[r + 1])) for r in rows])
        return Tokens(self.ids[places], np.cumsum([0, *self.lengths[rows]]), self.pad_id,
                      None if self.words is None else self.words[places])

    def answers(self, outputs: ragged.Answers) -> ragged.Answers:
        """Return what a model's outputs on these rows answer: as they are, or those of each word's first token.

        outputs: float32 [rows, labels] or [rows, longest, labels]; then [rows, most words, labels] comes back, NaN
        where a word has no token.
        """
        if self.words is None:
            return outputs
        rows, places = self._words()
        words = self.words[self.starts[rows] + places]
        out = np.full((len(self), words.max(initial=-1) + 1, outputs.shape[2]), np.nan, dtype=np.float32)
        out[rows, words] = outputs[rows, places]
        return out

    def of_tokens(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the targets of words, int64 [rows, words], as int64 [tokens], `NO_TARGET` for all but first tokens."""
        assert self.words is not None
        rows, places = self._words()
        at = self.starts[rows] + places
        out = np.full(len(self.ids), NO_TARGET, dtype=np.int64)
        out[at] = targets[rows, self.words[at]]
        return out

    def _words(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return row and place of every token that begins a word."""
        at = np.flatnonzero(self.words != -1)
        rows = np.searchsorted(self.starts, at, side="right") - 1
        return rows, at - self.starts[rows]


def joined(first: Tokens, second: Tokens) -> Tokens:
    """Return the rows of both, those of the first before those of the second."""
    starts = np.concatenate([first.starts, first.starts[-1] + second.starts[1:]])
    return Tokens(np.concatenate([first.ids, second.ids]), starts, first.pad_id)


def of_task(task: Task, model: Path, texts: Sequence[str], max_length: int | None = None) -> Tokens:
    """Return the texts of a task's rows as `tokenize` does: with their words, or as the texts that each row has."""
    if task.texts == 1:
        return tokenize(model, texts, max_length, task.per_token)
    return replace(tokenize(model, [part for text in texts for part in text.split(PAIR)], max_length), texts=task.texts)


def tokenize(model: Path, texts: Sequence[str], max_length: int | None = None, words: bool = False) -> Tokens:
    """Return the texts as token ids by the model folder's `tokenizer.json`.

    A text is cut at `max_length` tokens; None cuts it at the longest input the model takes, at most 512. `words`: say
    which tokens begin a word, for a task that is answered per token.
    """
    from tokenizers import Tokenizer

    config = json.loads((model / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(max_length or _LONGEST, longest_input(config)))
    # the fast one knows no offsets
    encodings: Any = tokenizer.encode_batch(list(texts)) if words else tokenizer.encode_batch_fast(list(texts))
    ids = [encoding.ids for encoding in encodings]
    starts = np.cumsum([0, *(len(row) for row in ids)])
    flat = np.fromiter((i for row in ids for i in row), dtype=np.int64, count=int(starts[-1]))
    found = Tokens(flat, starts, config.get("pad_token_id") or 0)
    if not words:
        return found
    begins = np.full(len(flat), -1, dtype=np.int64)
    for start, text, encoding in zip(starts, texts, encodings, strict=False):
        places = np.array(first_tokens(text, encoding.offsets))
        begins[start + places[places >= 0]] = np.flatnonzero(places >= 0)
    return replace(found, words=begins)


def longest_input(config: dict[str, object]) -> int:
    """Return the most tokens a model of this config takes, at most 512, special tokens included."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return _LONGEST
    pad_id = config.get("pad_token_id")
    reserved = pad_id + 1 if config.get("model_type") in _PADDED_FROM and isinstance(pad_id, int) else 0
    return min(_LONGEST, positions - reserved)


def shuffled(lengths: NDArray[np.int64], batch_size: int, generator: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of one epoch, each row once, as int64 arrays of at most `batch_size` rows of similar length.

    lengths: int64 [rows], token counts. Rows are shuffled, sorted by length within groups of 150 batches,
    and the batches are shuffled again, so that which rows meet and when stays random.
    Source: Khomenko et al., Accelerating recurrent neural network training using sequence bucketing, 2016.
    """
    import torch

    order = torch.randperm(len(lengths), generator=generator).numpy()
    group = batch_size * _MEGABATCH
    batches: list[NDArray[np.int64]] = []
    for first in range(0, len(order), group):
        rows = order[first:first + group]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i:i + batch_size] for i in range(0, len(rows), batch_size)]
    for i in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[i]


def by_length(lengths: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield all rows in order of length, in arrays of at most `batch_size` rows: the least padding there can be."""
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first:first + batch_size]

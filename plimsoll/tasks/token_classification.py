"""Token classification: each word of a text gets a tag, and tags make entities: named things in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import DataError
from plimsoll.core.parts import Task
from plimsoll.core.prediction import Entity, Tagging
from plimsoll.data.read import read
from plimsoll.data.rows import NO_TARGET, Rows

_OUTSIDE = "O"
_SHOWN = 5


class TokenClassification(Task):
    """A tag for each word, in IOB2: B-person begins a person, I-person goes on with it, O is outside.

    The head is a linear layer over each token; a word is tagged at its first token. The metric is the F1 of entities:
    one counts when its type, its first and its last word are right.
    """

    metric: ClassVar[str] = "entity_f1"
    per_token: ClassVar[bool] = True

    train: str
    """Rows to learn from: a jsonl or parquet file, a folder, or a hub data set id; a csv with spaces between words."""
    test: str | None = None
    """Rows for reporting only. Cut from train (a fifth, stratified by each row's rarest tag) when absent."""
    validation: str | None = None
    """Rows for choosing. Cut from train (a tenth, likewise) when absent."""
    tokens: str = "tokens"
    """Column of the words: a list, or a string that is cut at white space."""
    tags: str = "tags"
    """Column of the tags, one for each word."""

    def read(self, split: Literal["train", "validation", "test"]) -> Rows | None:
        """Return the rows of a split, or None when the spec names no source for it.

        Raises DataError for rows that cannot be read, and for tags that are not in IOB2.
        """
        source = getattr(self, split)
        if source is None:
            return None
        rows = read(source, split=split, text=self.tokens, label=self.tags, labels="each")
        odd = sorted(tag for tag in rows.names() if tag != _OUTSIDE and not (tag[:2] in ("B-", "I-") and tag[2:]))
        if odd:
            shown = ", ".join(f'"{tag:.40}"' for tag in odd[:_SHOWN]) + (" and more" if len(odd) > _SHOWN else "")
            raise DataError(f"{rows.source} has tags that are not in IOB2: {shown}",
                            "write B-<type> where an entity begins, I-<type> where it goes on, and O elsewhere")
        return rows

    def classes(self, names: Collection[str]) -> tuple[str, ...]:
        """Return O, then for each type B-<type> and I-<type>: places that say by themselves what they stand for."""
        types = sorted({name[2:] for name in names if name != _OUTSIDE})
        return (_OUTSIDE, *(f"{sign}-{kind}" for kind in types for sign in "BI"))

    def head(self, hidden_size: int, labels: int) -> Any:
        """Return a module: (hidden [batch, length, hidden], mask [batch, length]) -> logits [batch, length, labels]."""
        import torch

        class TokenHead(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dropout = torch.nn.Dropout(0.1)
                self.classifier = torch.nn.Linear(hidden_size, labels)

            def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                return self.classifier(self.dropout(hidden))

        return TokenHead()

    def loss(self, outputs: Any, targets: Any, smoothing: float) -> Any:
        """Return the cross-entropy with int64 [tokens] targets, a mean over those that are not `NO_TARGET`."""
        from torch.nn.functional import cross_entropy

        total = cross_entropy(outputs, targets, label_smoothing=smoothing, ignore_index=NO_TARGET, reduction="sum")
        return total / (targets != NO_TARGET).sum().clamp(min=1)  # rows may come without a word that has a token

    def evidence(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return float64 [rows, 3]: entities that are right, that are claimed, and that there are.

        outputs: float32 [rows, words, labels]; targets: int64 [rows, words]. A word that was not seen, for the text was
        cut before it, is outside. What begins and ends an entity is as in seqeval's default mode (Nakayama 2018), which
        is that of CoNLL-2000's conlleval: an I- that goes on with nothing of its type begins one.
        """
        claimed, there = _claimed(outputs, targets), _entities(np.where(targets == NO_TARGET, 0, targets))

        def by_row(entities: Collection[tuple[int, int, int, int]]) -> NDArray[np.int64]:
            return np.bincount(np.array([row for row, *_ in entities], dtype=np.int64), minlength=len(targets))

        return np.stack([by_row(claimed & there), by_row(claimed), by_row(there)], axis=1).astype(np.float64)

    def value(self, evidence: NDArray[Any]) -> float:
        """Return the micro-averaged F1 of entities; 0 where there are none."""
        right, claimed, there = evidence.sum(axis=0)
        return float(2 * right / (claimed + there)) if claimed + there else 0.0

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any], labels: Sequence[str]) -> dict[str, Any]:
        """Return F1, precision and recall of entities, and the recall of each type that occurs."""
        evidence = self.evidence(logits, targets)
        right, claimed, there = evidence.sum(axis=0)
        gold = _entities(np.where(targets == NO_TARGET, 0, targets))
        found = Counter(kind for *_, kind in gold & _claimed(logits, targets))
        recall = {labels[2 * kind][2:]: found[kind] / n for kind, n in sorted(Counter(k for *_, k in gold).items())}
        return {"entity_f1": self.value(evidence), "entity_precision": float(right / claimed) if claimed else 0.0,
                "entity_recall": float(right / there) if there else 0.0, "recall": recall}

    def prediction(self, outputs: NDArray[np.float32], text: str, labels: Sequence[str]) -> Tagging:
        """Return the tags of a text's words and the entities they make; outputs: float32 [words or more, labels]."""
        words = text.split()
        tags = _tags(outputs[: len(words)])
        chance = 1 / np.exp(outputs[: len(words)] - outputs[: len(words)].max(axis=1, keepdims=True)).sum(axis=1)
        entities = tuple(
            Entity(label=labels[2 * kind][2:], text=" ".join(words[start:end]), start=start, end=end,
                   score=float(chance[start:end].min()))
            for _, start, end, kind in sorted(_entities(tags[None])))
        said: list[int] = tags.tolist()
        return Tagging(tuple(words), tuple(labels[tag] for tag in said), entities)


def _tags(outputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the likeliest tag of each word, int64 [..., words]; O for words that were not seen, which are NaN."""
    return np.where(np.isnan(outputs[..., 0]), 0, outputs.argmax(axis=-1))


def _claimed(outputs: NDArray[np.float32], targets: NDArray[Any]) -> set[tuple[int, int, int, int]]:
    """Return the entities of rows by their outputs, among the words that there are."""
    tags = np.zeros_like(targets)
    words = min(targets.shape[1], outputs.shape[1])
    tags[:, :words] = _tags(outputs[:, :words])
    return _entities(np.where(targets == NO_TARGET, 0, tags))


def _entities(tags: NDArray[np.int64]) -> set[tuple[int, int, int, int]]:
    """Return (row, first word, word after the last, type) of the entities in tags, int64 [rows, words].

    Of tag i the type is (i + 1) // 2, and odd ones begin an entity: see `TokenClassification.classes`.
    """
    kind = (tags + 1) // 2
    around = np.pad(kind, ((0, 0), (1, 1)))
    begins = (kind > 0) & ((tags % 2 == 1) | (around[:, :-2] != kind))
    ends = (kind > 0) & ((around[:, 2:] != kind) | np.pad(begins, ((0, 0), (0, 1)))[:, 1:])
    rows, starts = np.nonzero(begins)  # row by row, and each that begins ends before the next begins
    return set(zip(rows.tolist(), starts.tolist(), (np.nonzero(ends)[1] + 1).tolist(), kind[rows, starts].tolist(),
                   strict=True))

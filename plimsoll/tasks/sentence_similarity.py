"""Sentence similarity: a text becomes a vector, and two texts are as alike as their vectors' directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from plimsoll.core.parts import Task
from plimsoll.core.pooling import mean_of_real
from plimsoll.core.prediction import Embedding, Similarity
from plimsoll.data.pairs import derived
from plimsoll.data.read import read
from plimsoll.data.rows import PAIR, Rows


class SentenceSimilarity(Task):
    """How alike two texts are: the cosine of their embeddings, each the mean of a text's last hidden states.

    The metric is Spearman's correlation with the gold scores: only their order counts. With `label` the pairs are made
    of labelled texts, one of each text with another of its label (gold score 1) and one with a text of another (0);
    name a file for each split then, for pairs that are cut from train share texts with those that are left.
    """

    metric: ClassVar[str] = "spearman"
    texts: ClassVar[int] = 2

    train: str
    """Rows to learn from: a csv, jsonl or parquet file, a folder, or a hub data set id."""
    test: str | None = None
    """Rows for reporting only. Cut from train (a fifth, stratified by score) when absent."""
    validation: str | None = None
    """Rows for choosing. Cut from train (a tenth, likewise) when absent."""
    text: str = "text"
    """Column of the first text."""
    other: str = "other"
    """Column of the second text."""
    score_column: str = "score"
    """Column of the gold score, a number that is higher the more alike the texts are."""
    scale: PositiveFloat = 1.0
    """Gold score of two texts that mean the same: 5 for the STS sets. Training aims at cosine = score / scale."""
    label: str | None = None
    """Column of a label, where pairs are to be made of labelled texts; `other` and `score_column` are then not read."""

    def read(self, split: Literal["train", "validation", "test"]) -> Rows | None:
        """Return the pairs of a split, or None when the spec names no source for it; raises DataError."""
        source = getattr(self, split)
        if source is None:
            return None
        if self.label is not None:
            return derived(read(source, split=split, text=self.text, label=self.label))
        return read(source, split=split, text=self.text, label=self.score_column, labels="score", other=self.other)

    def classes(self, names: Any) -> tuple[str, ...]:
        """Return none: an embedding's numbers have no names."""
        return ()

    def head(self, hidden_size: int, labels: int) -> Any:
        """Return a module: (hidden [batch, length, hidden], mask [batch, length]) -> unit vectors [batch, hidden]."""
        import torch

        class UnitMean(torch.nn.Module):
            def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.normalize(mean_of_real(hidden, mask), dim=-1)

        return UnitMean()

    def loss(self, outputs: Any, targets: Any, smoothing: float) -> Any:
        """Return the mean squared error of the cosines of pairs, one after the other in [2 * pairs, hidden].

        Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, section 3: the regression objective.
        """
        one, other = outputs[::2], outputs[1::2]
        return ((one * other).sum(dim=-1) - targets.to(outputs.dtype) / self.scale).square().mean()

    def evidence(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return float64 [rows, 2]: the cosine and the gold score. outputs: float32 [rows, 2, hidden], unit vectors."""
        return np.stack([_cosines(outputs), targets], axis=1)

    def value(self, evidence: NDArray[Any]) -> float:
        """Return Spearman's rank correlation, ties at their mean rank; 0 where all scores are equal."""
        from scipy.stats import rankdata

        ranks = rankdata(evidence, axis=0) - (len(evidence) + 1) / 2
        size = np.sqrt((ranks**2).sum(axis=0).prod())
        return float(ranks.prod(axis=1).sum() / size) if size else 0.0

    def decisions(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Return nothing to compare, [rows, 0]: an embedding decides nothing by itself."""
        return np.zeros((len(outputs), 0))

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any], labels: Sequence[str]) -> dict[str, Any]:
        """Return Spearman's and Pearson's correlations, and the mean squared error of the cosines."""
        cosines, gold = _cosines(logits), targets / self.scale
        spread = cosines.std() * gold.std()
        pearson = float(((cosines - cosines.mean()) * (gold - gold.mean())).mean() / spread) if spread else 0.0
        return {"spearman": self.value(self.evidence(logits, targets)), "pearson": pearson,
                "mean_squared_error": float(np.square(cosines - gold).mean())}

    def prediction(self, outputs: NDArray[np.float32], text: str, labels: Sequence[str]) -> Embedding | Similarity:
        """Return the embedding of a text, float32 [hidden], or the similarity of two, float32 [2, hidden]."""
        if PAIR in text:
            return Similarity(float(_cosines(outputs[None])[0]))
        return Embedding(tuple(outputs.tolist()))


def _cosines(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines of pairs, float64 [rows]; rounding may leave a runtime's vectors a little off their length."""
    whole = outputs.astype(np.float64)
    sizes = np.linalg.norm(whole, axis=2).prod(axis=1)
    return whole.prod(axis=1).sum(axis=1) / np.maximum(sizes, 1e-12)

"""Multi-label: one text in, any number of a fixed set of labels out, none included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plimsoll.core.parts import Task
from plimsoll.core.pooling import mean_of_real
from plimsoll.core.prediction import Labelling, Prediction
from plimsoll.data.read import read
from plimsoll.data.rows import Rows


class MultiLabel(Task):
    """Several labels per text, each one a question of its own: a text has it when its probability is above a half.

    The head is a linear layer over the mean of the last hidden states of the real tokens, with a sigmoid for each
    label; the metric is the F1 of all labels of all texts together.
    """

    metric: ClassVar[str] = "micro_f1"

    train: str
    """Rows to learn from: a csv, jsonl or parquet file, a folder, or a hub data set id."""
    test: str | None = None
    """Rows for reporting only. Cut from train (a fifth, stratified by each row's rarest label) when absent."""
    validation: str | None = None
    """Rows for choosing. Cut from train (a tenth, likewise) when absent."""
    text: str = "text"
    """Column of the text."""
    labels: str = "labels"
    """Column of the labels: a list, or a string that is cut at `separator`; an empty one is no label."""
    separator: str = Field(",", min_length=1)
    """What stands between labels that are given as a string."""

    def read(self, split: Literal["train", "validation", "test"]) -> Rows | None:
        """Return the rows of a split, or None when the spec names no source for it; raises DataError."""
        source = getattr(self, split)
        return None if source is None else read(
            source, split=split, text=self.text, label=self.labels, labels="any", separator=self.separator)

    def head(self, hidden_size: int, labels: int) -> Any:
        """Return a module: (hidden [batch, length, hidden], mask [batch, length]) -> logits [batch, labels]."""
        import torch

        class MeanPooledHead(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dropout = torch.nn.Dropout(0.1)
                self.classifier = torch.nn.Linear(hidden_size, labels)

            def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                return self.classifier(self.dropout(mean_of_real(hidden, mask)))

        return MeanPooledHead()

    def loss(self, outputs: Any, targets: Any, smoothing: float) -> Any:
        """Return the binary cross-entropy of each label with targets of 0 and 1, int64 [rows, labels]."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs, targets * (1 - smoothing) + smoothing / 2)

    def evidence(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return float64 [rows, 3]: labels that are right, that are claimed, and that there are."""
        claimed, there = self.decisions(outputs), targets == 1
        return np.stack([x.sum(axis=1) for x in (claimed & there, claimed, there)], axis=1).astype(np.float64)

    def value(self, evidence: NDArray[Any]) -> float:
        """Return the micro-averaged F1; 0 where there are no labels."""
        right, claimed, there = evidence.sum(axis=0)
        return float(2 * right / (claimed + there)) if claimed + there else 0.0

    def decisions(self, outputs: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which labels each text has, bool [rows, labels]: those whose logit is above 0."""
        return outputs > 0

    def log_probabilities(self, outputs: Any) -> Any:
        """Return the logs of the probability of each label, then of its absence: [..., 2 * labels]."""
        import torch
        from torch.nn.functional import logsigmoid

        return torch.cat([logsigmoid(outputs), logsigmoid(-outputs)], dim=-1)

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any], labels: Sequence[str]) -> dict[str, Any]:
        """Return micro F1, precision and recall, the mean F1 of the labels that occur, and the recall of each."""
        claimed, there = self.decisions(logits), targets == 1
        right, claims, support = ((x).sum(axis=0).astype(float) for x in (claimed & there, claimed, there))
        seen = support > 0
        f1 = 2 * right / np.maximum(support + claims, 1)
        return {
            "micro_f1": self.value(self.evidence(logits, targets)),
            "micro_precision": float(right.sum() / max(claims.sum(), 1)),
            "micro_recall": float(right.sum() / max(support.sum(), 1)),
            "macro_f1": float(f1[seen].mean()) if seen.any() else 0.0,
            "recall": {label: float(right[i] / support[i]) for i, label in enumerate(labels) if seen[i]},
        }

    def prediction(self, outputs: NDArray[np.float32], text: str, labels: Sequence[str]) -> Labelling:
        """Return the labels whose probability is above a half, the surest first; outputs: float32 [labels]."""
        chosen: list[int] = [i for i in np.argsort(-outputs).tolist() if outputs[i] > 0]
        return Labelling(tuple(Prediction(labels[i], float(1 / (1 + np.exp(-outputs[i])))) for i in chosen))

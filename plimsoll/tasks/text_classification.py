"""Text classification: one text in, one of a fixed set of labels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.parts import Task
from plimsoll.core.pooling import mean_of_real
from plimsoll.core.prediction import Prediction
from plimsoll.data.read import read
from plimsoll.data.rows import NO_TARGET, Rows


class TextClassification(Task):
    """One label per text.

    The head is a linear layer over the mean of the last hidden states of the real tokens; the metric is accuracy.
    """

    metric: ClassVar[str] = "accuracy"

    train: str
    """Rows to learn from: a csv, jsonl or parquet file, a folder, a hub data set id, or builtin:assistant."""
    test: str | None = None
    """Rows for reporting only. Cut from train (a fifth, stratified) when absent."""
    validation: str | None = None
    """Rows for choosing. Cut from train (a tenth, stratified) when absent."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label."""

    def read(self, split: Literal["train", "validation", "test"]) -> Rows | None:
        """Return the rows of a split, or None when the spec names no source for it; raises DataError."""
        source = getattr(self, split)
        return None if source is None else read(source, split=split, text=self.text, label=self.label)

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
        """Return the cross-entropy with int64 [rows] targets; of these `NO_TARGET` counts for nothing."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets, label_smoothing=smoothing, ignore_index=NO_TARGET)

    def evidence(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.bool_]:
        """Return bool [rows]: the largest logit is the target's."""
        return outputs.argmax(axis=1) == targets

    def expected_change(
        self, reference: NDArray[np.float32], logits: NDArray[np.float32], targets: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Return per row the reference's probability of these labels less that of its own, float64 [rows], <= 0.

        The probabilities are calibrated by one temperature that fits the targets best (Guo et al., On Calibration of
        Modern Neural Networks, ICML 2017).
        """
        from scipy.optimize import minimize_scalar
        from scipy.special import log_softmax

        rows = np.arange(len(targets))

        def surprise(log_temperature: float) -> float:
            return -float(log_softmax(reference / np.exp(log_temperature), axis=1)[rows, targets].mean())

        best = minimize_scalar(surprise, bounds=(-3.0, 3.0), method="bounded").x
        chance = np.exp(log_softmax(reference.astype(np.float64) / np.exp(best), axis=1))
        return chance[rows, logits.argmax(axis=1)] - chance[rows, reference.argmax(axis=1)]

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any], labels: Sequence[str]) -> dict[str, Any]:
        """Return accuracy, macro-F1 (unweighted mean over classes that occur) and the recall of each class."""
        predicted = logits.argmax(axis=1)
        classes = np.arange(len(labels))
        true = np.array([np.sum((predicted == c) & (targets == c)) for c in classes], dtype=float)
        support = np.array([np.sum(targets == c) for c in classes], dtype=float)
        claimed = np.array([np.sum(predicted == c) for c in classes], dtype=float)
        seen = support > 0
        f1 = 2 * true / np.maximum(support + claimed, 1)
        recall = true / np.maximum(support, 1)
        return {
            "accuracy": float(np.mean(predicted == targets)),
            "macro_f1": float(np.mean(f1[seen])),
            "recall": {labels[c]: float(recall[c]) for c in classes.tolist() if seen[c]},
        }

    def prediction(self, outputs: NDArray[np.float32], text: str, labels: Sequence[str]) -> Prediction:
        """Return the label of the largest logit, float32 [labels], and its probability."""
        best = int(outputs.argmax())
        # the softmax of the largest logit, shifted by it so that nothing overflows
        return Prediction(labels[best], float(1 / np.add.reduce(np.exp(outputs - outputs[best]))))

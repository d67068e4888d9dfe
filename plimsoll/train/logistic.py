"""Multinomial logistic regression on fixed features: what can be read off an encoder without changing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ITERATIONS = 200
PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Weights of the squared norm that are tried, per row."""


class Linear(NamedTuple):
    """Logits = features @ weights.T + biases."""

    weights: NDArray[np.float32]
    """float32 [labels, features]."""
    biases: NDArray[np.float32]
    """float32 [labels]."""

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 [rows, labels]."""
        return features @ self.weights.T + self.biases


def best(features: NDArray[np.float32], targets: NDArray[np.int64], labels: int,
         score: Callable[[Linear], float], penalties: Sequence[float] = PENALTIES) -> tuple[Linear, float, float]:
    """Return the regression of the best score among the penalties, its score, and its penalty.

    features: float32 [rows, features]; targets: int64 [rows]. The largest penalty goes first and each fit starts where
    the one before ended; among equals the larger penalty stays.
    """
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = (features - centre) / spread
    found = np.zeros((labels, features.shape[1] + 1))
    kept: tuple[Linear, float, float] | None = None
    for penalty in sorted(penalties, reverse=True):
        found = fit(scaled, targets, found, penalty)
        weights = found[:, :-1] / spread
        one = Linear(weights.astype(np.float32), (found[:, -1] - weights @ centre).astype(np.float32))
        value = score(one)
        if kept is None or value > kept[1]:
            kept = one, value, penalty
    assert kept is not None
    return kept


def fit(features: NDArray[np.float32], targets: NDArray[np.int64], start: NDArray[np.float64], penalty: float
        ) -> NDArray[np.float64]:
    """Return weights and biases, float64 [labels, features + 1], of least mean cross-entropy plus penalty / 2 |w|^2.

    Source: L-BFGS as in Liu and Nocedal, Mathematical Programming 1989, by scipy.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    rows = np.arange(len(targets))

    def cost(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(start.shape)
        chances = log_softmax(features @ weights[:, :-1].T.astype(np.float32) + weights[:, -1], axis=1)
        loss = -float(chances[rows, targets].mean())
        slope = np.exp(chances)
        slope[rows, targets] -= 1
        slope /= len(targets)
        gradient = np.empty_like(weights)
        gradient[:, :-1] = slope.T.astype(np.float32) @ features + penalty * weights[:, :-1]
        gradient[:, -1] = slope.sum(axis=0)
        return loss + penalty / 2 * float(np.square(weights[:, :-1]).sum()), gradient.ravel()

    found = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    return found.x.reshape(start.shape)

"""How alike two representations of the same rows are: pairs of rows, nearest neighbours, and whole layers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench.stats import Floats
from plimsoll.core.record import Measurement

States = NDArray[np.float32]
"""float32 [rows, width]: one vector a row."""
NEIGHBOURS = 10
_PARTS = 10


def pairs(states: States, targets: NDArray[np.int64]) -> Floats:
    """Return for each row how often a row of its label is more alike than one of another label, float64 [rows].

    Alike is the cosine; ties count half. The mean over rows is the area under the curve that tells same-label from
    different-label pairs, row by row, so that two models can be compared on the same rows. A row that is the only one
    of its label, or that has no row of another, is not a number.
    """
    from scipy.stats import rankdata

    alike = _cosines(states)
    same = targets[:, None] == targets[None, :]
    np.fill_diagonal(same, False)
    others = targets[:, None] != targets[None, :]
    np.fill_diagonal(alike, -np.inf)  # a row is no neighbour of its own: it takes the first rank of its line
    ranks = rankdata(alike, axis=1) - 1
    of_same, of_others = same.sum(axis=1), others.sum(axis=1)
    above = (ranks * same).sum(axis=1) - of_same * (of_same + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((of_same > 0) & (of_others > 0), above / (of_same * of_others), np.nan)


def neighbours(before: States, after: States, count: int = NEIGHBOURS) -> Floats:
    """Return for each row which share of its nearest rows (by cosine) are the same in both, float64 [rows].

    Raises ValueError unless there are more rows than neighbours.
    """
    if len(before) != len(after) or len(before) <= count:
        raise ValueError(f"need equally many rows of both, more than {count}, got {len(before)} and {len(after)}")
    nearest = [_nearest(states, count) for states in (before, after)]
    both = nearest[0] & nearest[1]
    return both.sum(axis=1) / count


def cka(before: States, after: States, confidence: float = 0.95) -> Measurement:
    """Return the linear centred kernel alignment of two representations of the same rows: 1 for the same up to rotation
    and scale, about 0 for unrelated ones, with bounds EACH one-sided at `confidence`.

    The estimate without bias is taken, which may be a little below zero: the plain one is far above it for unrelated
    representations whose width is not small beside the rows. Bounds are of the jackknife over ten parts of the rows.

    Raises ValueError for fewer than 40 rows.
    Source: Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019; Song et al., Feature
    Selection via Dependence Maximization, JMLR 13, 2012, equation 5 (the estimate without bias).
    """
    from scipy.special import stdtrit

    rows = len(before)
    if rows != len(after) or rows < 4 * _PARTS:
        raise ValueError(f"need equally many rows of both, at least {4 * _PARTS}, got {rows} and {len(after)}")
    products = [_products(states) for states in (before, after)]
    value = _alignment(*products)
    left_out = np.empty(_PARTS)
    for part in range(_PARTS):
        kept = np.arange(rows) % _PARTS != part
        left_out[part] = _alignment(*(p[np.ix_(kept, kept)] for p in products))
    spread = math.sqrt((_PARTS - 1) / _PARTS * float(np.square(left_out - left_out.mean()).sum()))
    reach = float(stdtrit(_PARTS - 1, confidence)) * spread
    return Measurement(value=value, low=value - reach, high=max(value, min(1.0, value + reach)), confidence=confidence,
                       n=rows, unit="cka")


def _cosines(states: States) -> NDArray[np.float32]:
    unit = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def _nearest(states: States, count: int) -> NDArray[np.bool_]:
    alike = _cosines(states)
    np.fill_diagonal(alike, -np.inf)
    order = np.argsort(-alike, axis=1, kind="stable")[:, :count]  # among equals the earlier row, in both alike
    found = np.zeros(alike.shape, dtype=bool)
    np.put_along_axis(found, order, True, axis=1)
    return found


def _products(states: States) -> Floats:
    """Return the inner products of all pairs of centred rows, with nothing on the diagonal."""
    centred = states.astype(np.float64) - states.mean(axis=0, dtype=np.float64)
    products = centred @ centred.T
    np.fill_diagonal(products, 0.0)
    return products


def _alignment(a: Floats, b: Floats) -> float:
    whole = math.sqrt(max(0.0, _dependence(a, a)) * max(0.0, _dependence(b, b)))
    return _dependence(a, b) / whole if whole > 0 else 0.0


def _dependence(a: Floats, b: Floats) -> float:
    """Return the unbiased estimate of the Hilbert-Schmidt independence criterion, but for a factor; diagonals are 0."""
    n = len(a)
    rows_a, rows_b = a.sum(axis=0), b.sum(axis=0)
    return float((a * b).sum() + rows_a.sum() * rows_b.sum() / ((n - 1) * (n - 2)) - 2 * (rows_a @ rows_b) / (n - 2))

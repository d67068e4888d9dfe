"""Which static lengths to compile: few, since each costs build time, and placed where the requests are."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, PositiveInt

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Sample


def _ascending(lengths: tuple[int, ...]) -> tuple[int, ...]:
    if list(lengths) != sorted(set(lengths)):
        raise ValueError("buckets must ascend, each length once")
    return lengths


StaticLengths = Annotated[tuple[PositiveInt, ...], AfterValidator(_ascending)]
"""A runtime's static lengths in tokens, ascending. Empty: chosen from the lengths of the training rows."""


def for_runtime(name: str, given: tuple[int, ...], count: int, sample: Sample) -> tuple[int, ...]:
    """Return the static lengths to build a runtime's programs for: those given, or at most `count` chosen ones.

    Raises Unsupported when the longest input would fit none of those given.
    """
    chosen = given or choose(sample.lengths, count, sample.max_length)
    if chosen[-1] < sample.max_length:
        raise Unsupported(f"inputs may have {sample.max_length} tokens, the longest bucket holds {chosen[-1]}",
                          f"add {sample.max_length} to the buckets of {name}")
    return chosen


def choose(lengths: NDArray[np.int64], count: int, max_length: int, p: float = 0.95) -> tuple[int, ...]:
    """Return at most `count` static lengths in tokens, ascending; the last is `max_length`, so every input fits.

    lengths: int64 [rows], measured token counts, each in [1, max_length]. A row runs in the smallest static
    length that holds it. The p-quantile of the lengths is always one of them (when count > 1): the p95 latency
    is the cost of the length that holds the p95 row, so that row is not padded. The others minimise the
    padded tokens summed over the rows, exactly. There are fewer than `count` when there are fewer distinct lengths.

    Raises ValueError for no rows, a row outside [1, max_length], count < 1 or p outside (0, 1].
    Source: the dynamic programme for optimal one-dimensional partitions, Jackson et al., IEEE SPL 12:105-108, 2005.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if count < 1 or not 0 < p <= 1:
        raise ValueError(f"need count >= 1 and 0 < p <= 1, got {count=}, {p=}")
    if not lengths.size or lengths.min() < 1 or lengths.max() > max_length:
        raise ValueError(f"need at least one length, all within [1, {max_length}], got {lengths!r:.80}")
    held, rows = np.unique(np.append(lengths, max_length), return_counts=True)
    rows[-1] -= 1  # max_length itself is no measured row
    count = min(count, len(held))
    if count == 1:
        return (max_length,)
    quantile = int(np.searchsorted(held, np.quantile(lengths, p, method="inverted_cdf")))
    return tuple(int(held[i]) for i in _cheapest_ends(_padding(held, rows, quantile), count))


def _padding(held: NDArray[np.int64], rows: NDArray[np.int64], must: int) -> NDArray[np.float64]:
    """Return float64 [n + 1, n]: padded tokens when lengths start..end all run at length `end`, else infinity.

    A span that runs past index `must` without ending there is not allowed either.
    """
    n = len(held)
    before = np.concatenate([[0], np.cumsum(rows)])
    tokens_before = np.concatenate([[0], np.cumsum(rows * held)])
    start, end = np.arange(n + 1)[:, None], np.arange(n)[None, :]
    padded = held * (before[end + 1] - before[start]) - (tokens_before[end + 1] - tokens_before[start])
    return np.where((start <= end) & ~((start <= must) & (must < end)), padded, np.inf)


def _cheapest_ends(cost: NDArray[np.float64], count: int) -> list[int]:
    """Return the ends of exactly `count` adjoining spans that cover all columns of `cost` at the least sum."""
    best = cost[0]
    came_from = []
    for _ in range(count - 1):
        total = best[:, None] + cost[1:]  # [previous end, end]: the next span starts after the previous end
        came_from.append(total.argmin(axis=0))
        best = total.min(axis=0)
    ends = [cost.shape[1] - 1]
    for choice in reversed(came_from):
        ends.append(int(choice[ends[-1]]))
    return ends[::-1]

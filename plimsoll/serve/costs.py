"""The cost table: what a batch of so many rows of such a length takes here, measured on the artifact at start.

Every time is from the supervisor's call to its answer, so the way to the worker and back is in it. The rows of a
measured batch are one token apart each, as neighbours in a queue sorted by length are: a session that runs equal
lengths together gets no gift.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.record import Record

MOST_ROWS = 8
"""Rows of the largest batch: beyond it a CPU gains nothing, and everybody in it waits for the last."""

_ROWS = (1, 2, 4, 8)
_REPEATS, _SINGLE_REPEATS = 3, 8
_SHARE = 0.25
"""Single rows say which lanes there are, and one held-up call must not settle that: they are timed more often where
that takes no more than this share of the time that is left."""
_NOISY = 1.5
_WORTH = 0.95
"""All threads for a single row must take at most this share of the time that its share of them takes."""
_AS_GOOD = 1.05
"""Batches side by side may take this share of the time of one batch on all threads. Under load the requests' own work
runs on the same cores: a batch on all threads waits for the one that was held up, a lane holds up nobody. Where the
table said 1.03 they answered 1.06 times as many."""

Ask = Callable[[int, Sequence[Sequence[int]]], Awaitable[float]]
"""Asks lane n for rows of token ids; returns the ms until the answer was here."""
Grid = tuple[tuple[float, ...], ...]
"""Milliseconds, [rows][lengths]."""


class Costs(Record):
    """Times of batches by rows and length in tokens.

    Lane 0 has all threads and the others share them out: batches run one at a time on the one, or side by side on the
    others, whichever answers more rows under load.
    """

    version: str
    """Of the artifact."""
    machine: str
    threads: tuple[int, ...]
    """Of each lane that was tried."""
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    wide_ms: Grid
    """Lane 0, nothing else running."""
    alone_ms: Grid = ()
    """One of the others, nothing else running."""
    busy_ms: Grid = ()
    """One of the others while all of them run; empty where there are none."""
    alone: str = ""
    """Why every row is computed by itself, where it is: see `plimsoll.serve.company`."""
    measured: float = 1.0
    """Share of the cells that were measured; the rest follow from the nearest by their area."""
    noise: float = 1.0
    """Of a cell's times the longest over the shortest, the median cell's."""

    @property
    def quiet(self) -> bool:
        """Return whether nothing else of weight ran meanwhile, so that the table will hold for the next start, too."""
        return self.noise <= _NOISY

    def narrow_pays(self) -> bool:
        """Return whether batches side by side answer as many rows in a second, or nearly, as one with all threads."""
        if not self.busy_ms:
            return False
        lanes = len(self.threads) - 1
        return sum(_per_row(self.rows, self.busy_ms)) / lanes <= _AS_GOOD * sum(_per_row(self.rows, self.wide_ms))

    def wide_pays(self) -> bool:
        """Return whether a single row is answered sooner with all threads than with its share of them."""
        return not self.narrow_pays() or sum(self.wide_ms[0]) <= _WORTH * sum(self.alone_ms[0])


class Forecast:
    """A cost table as the scheduler asks it: each answer is one look into a list."""

    def __init__(self, costs: Costs) -> None:
        self.narrow = costs.narrow_pays()
        self.wide = costs.wide_pays()
        self.lanes = len(costs.threads) - 1 if self.narrow else 1
        """Batches that may run at the same time."""
        self.longest = costs.lengths[-1]
        self.most_rows = costs.rows[-1]
        """Rows that a batch may have."""
        self.alone = costs.alone
        self.wide_ms = _dense(costs.rows, costs.lengths, costs.wide_ms)
        """Of a batch with all threads, [rows][length]."""
        self.quiet_ms = _dense(costs.rows, costs.lengths, costs.alone_ms) if self.narrow else self.wide_ms
        """The same on a lane that shares the cores, while no other runs."""
        self.crowded_ms = _dense(costs.rows, costs.lengths, costs.busy_ms) if self.narrow else self.wide_ms
        """The same while others run as well."""
        self.row_ms = [min(self.crowded_ms[n][length] / n for n in range(1, self.most_rows + 1))
                       for length in range(self.longest + 1)]
        """Lane time that a row of a length costs in a full queue, [length]: its share of the best batch of its
        length."""

    def widens(self, length: int) -> bool:
        """Return whether a single row of this length is answered sooner with all threads."""
        return self.narrow and self.wide and self.wide_ms[1][length] < self.quiet_ms[1][length]


async def measure(ask: Ask, threads: Sequence[int], filler: Sequence[int], budget_s: float, version: str,
                  machine: str, alone: str = "") -> Costs:
    """Measure a cost table within about `budget_s` seconds.

    threads: of each lane, the first having all. filler: a row of token ids as long as the artifact takes. alone: why
    rows may not share a batch; then only single rows are measured. Small batches come first; what there is no time for
    follows from what there was.
    """
    longest, others = len(filler), range(1, len(threads))
    sizes = _ROWS[:1] if alone else _ROWS
    lengths = tuple(sorted({min(longest, 2**k) for k in range(3, longest.bit_length() + 1)} | {longest}))
    ways: dict[str, Sequence[int]] = {"wide": [0]}
    if others:
        ways |= {"alone": [1], "busy": list(others)}
    found: dict[str, dict[tuple[int, int], float]] = {way: {} for way in ways}
    spreads: list[float] = []
    started = time.perf_counter()
    for rows, length in sorted(((n, m) for n in sizes for m in lengths), key=lambda cell: cell[0] * cell[1]):
        batch = [filler[: max(1, length - i)] for i in range(rows)]
        left_s = budget_s - (time.perf_counter() - started)
        likely_ms = sum(_near(times, rows, length) for times in found.values())
        repeats = _REPEATS
        if rows == 1 and 0 < (_SINGLE_REPEATS + 1) * likely_ms / 1e3 <= left_s * _SHARE:
            repeats = _SINGLE_REPEATS
        if rows * length > min(lengths) and (_REPEATS + 1) * likely_ms / 1e3 > left_s:
            continue
        for way, lanes in ways.items():
            await _together(ask, lanes, batch)  # the first of a shape fills caches, and compiles in some runtimes
            times = [max(await _together(ask, lanes, batch)) for _ in range(repeats)]
            # what else runs here only adds to a time; how much of that there is of late, the engine's drift knows
            found[way][rows, length] = min(times)
            spreads.append(max(times[:_REPEATS]) / min(times[:_REPEATS]))
    grids = {way: _grid(times, sizes, lengths) for way, times in found.items()}
    return Costs(version=version, machine=machine, threads=tuple(threads), rows=sizes, lengths=lengths,
                 wide_ms=grids["wide"], alone_ms=grids.get("alone", ()), busy_ms=grids.get("busy", ()),
                 alone=alone, measured=len(found["wide"]) / (len(sizes) * len(lengths)),
                 noise=statistics.median(spreads))


async def _together(ask: Ask, lanes: Sequence[int], batch: Sequence[Sequence[int]]) -> list[float]:
    return await asyncio.gather(*(ask(lane, batch) for lane in lanes))


def _near(times: dict[tuple[int, int], float], rows: int, length: int) -> float:
    """Return the time of a cell from the nearest measured one by their areas; 0 before any was measured."""
    if not times:
        return 0.0
    n, m = min(times, key=lambda cell: (abs(np.log(cell[1] / length)), abs(np.log(cell[0] / rows))))
    return times[n, m] * max(1.0, (rows * length) / (n * m))


def _grid(times: dict[tuple[int, int], float], sizes: Sequence[int], lengths: Sequence[int]) -> Grid:
    """Return the whole grid; a batch never takes less than a smaller one, which only noise would say."""
    whole = np.array([[times.get((n, m)) or _near(times, n, m) for m in lengths] for n in sizes])
    whole = np.maximum.accumulate(np.maximum.accumulate(whole, axis=0), axis=1)
    return tuple(tuple(row) for row in whole.round(5).tolist())


def _per_row(rows: Sequence[int], grid: Grid) -> list[float]:
    """Return the ms of lane time of a row in the best batch of its length, for each length."""
    return [min(line[i] / n for n, line in zip(rows, grid, strict=True)) for i in range(len(grid[0]))]


def _dense(rows: Sequence[int], lengths: Sequence[int], grid: Grid) -> list[list[float]]:
    """Return the ms for every number of rows a batch may have and every length, by straight lines between cells."""
    every = np.arange(lengths[-1] + 1)
    by_rows = np.array([np.interp(every, lengths, line) for line in grid])
    return [[0.0] * len(every)] + [_between(rows, by_rows, n).tolist() for n in range(1, rows[-1] + 1)]


def _between(rows: Sequence[int], lines: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    above = bisect_left(rows, n)
    if rows[above] == n:
        return lines[above]
    low, high = rows[above - 1], rows[above]
    return lines[above - 1] + (lines[above] - lines[above - 1]) * (n - low) / (high - low)

"""The queue, and which rows of it run next: pure, so that every rule can be tried without a clock or a socket.

It never waits for more to come: where a lane is free and a row waits, something runs. The queue that forms while all
lanes are busy is the window from which the next batch is chosen. It is sorted by length, so that a batch pads little;
it holds the row with the nearest deadline, so that none starves; and of such batches it is the one with the least
measured time per row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plimsoll.serve.costs import Forecast

_NEARLY = 1.03

Reason = Literal["single", "wide", "alone", "spread", "urgent", "full", "cheapest"]
REASONS: dict[Reason, str] = {
    "single": "one row waited, and ran on a share of the threads",
    "wide": "one row waited while nothing ran, and ran on all threads",
    "alone": "more rows waited, and no two rows of this artifact may share a batch",
    "spread": "as many as leave something for the other free lanes",
    "urgent": "a larger batch would have made a row miss its deadline",
    "full": "as many rows as a batch takes",
    "cheapest": "the least measured time per row, or nearly, with fewer rows than a batch takes",
}


@dataclass(slots=True, eq=False)
class Row:
    """One row of a request, waiting to be computed."""

    ids: Sequence[int]
    deadline: float
    """Seconds, on the clock of `now`."""
    owner: Any
    """Whose row it is."""
    index: int
    """Which of the owner's rows."""
    number: int = 0
    """Its place in the order of arrival."""
    work_ms: float = 0.0
    """What it counts for in the backlog."""
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that run together."""

    rows: list[Row]
    wide: bool
    """On all threads, and nothing else runs meanwhile."""
    reason: Reason
    predicted_ms: float


class Queue:
    """Rows that wait, at most so many."""

    def __init__(self, limit: int, forecast: Forecast) -> None:
        self.limit, self.forecast = limit, forecast
        self.work_ms = 0.0
        """Lane time that all waiting rows will take."""
        self._by_length: list[Row] = []
        self._by_deadline: list[Row] = []
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, row: Row) -> None:
        """Let a row wait. Raises ValueError when there is no room: see `room` first."""
        if len(self) >= self.limit:
            raise ValueError(f"the queue holds {self.limit} rows and is full")
        self._arrived += 1
        row.number, row.waits = self._arrived, True
        row.work_ms = self.forecast.row_ms(len(row.ids))
        self.work_ms += row.work_ms
        insort(self._by_length, row, key=_length)
        insort(self._by_deadline, row, key=_deadline)

    def room(self) -> int:
        """Return how many rows more may wait."""
        return self.limit - len(self)

    def work_before_ms(self, deadline: float) -> float:
        """Return the lane time of the rows that come before one with this deadline, about."""
        if not self._by_deadline:
            return 0.0
        before = bisect_left(self._by_deadline, (deadline, self._arrived + 1), key=_deadline)
        return self.work_ms * before / len(self)

    def last_deadline(self) -> float:
        """Return the furthest deadline of the rows that wait. Raises IndexError where none does."""
        return self._by_deadline[-1].deadline

    def drop(self, row: Row) -> None:
        """Take a waiting row out."""
        row.waits = False
        del self._by_length[self._place(row)]
        del self._by_deadline[bisect_left(self._by_deadline, _deadline(row), key=_deadline)]
        self.work_ms = self.work_ms - row.work_ms if self._by_length else 0.0  # no rounding stays in an empty queue

    def all(self) -> list[Row]:
        """Return all waiting rows, the nearest deadline first."""
        return list(self._by_deadline)

    def overdue(self, now: float) -> list[Row]:
        """Take out and return the rows whose deadline has passed."""
        late = self._by_deadline[: bisect_left(self._by_deadline, (now, 0), key=_deadline)]
        for row in late:
            self.drop(row)
        return late

    def pick(self, now: float, free: int, drift: float = 1.0) -> Batch | None:
        """Take out and return the rows to run next on one of `free` lanes; None only where no row or no lane is.

        drift: by what factor batches take longer than the table says, of late.
        """
        if not self._by_length or free < 1:
            return None
        forecast, waiting = self.forecast, len(self)
        urgent = self._by_deadline[0]
        if waiting == 1:
            return self._single(urgent, idle=free == forecast.lanes, drift=drift)
        share = -(-waiting // free)  # the other free lanes want rows, too
        most = min(share, forecast.most_rows)
        times = forecast.batch(crowded=True)
        first, last, cut = self._window(urgent, most, times, (urgent.deadline - now) * 1e3 / drift)
        chosen = self._by_length[first : last + 1]
        for row in chosen:
            self.drop(row)
        predicted_ms = times[len(chosen)][len(chosen[-1].ids)] * drift
        reason = _reason(len(chosen), waiting, most, forecast.most_rows, cut=cut)
        return Batch(chosen, wide=False, reason=reason, predicted_ms=predicted_ms)

    def _single(self, row: Row, *, idle: bool, drift: float) -> Batch:
        self.drop(row)
        length = len(row.ids)
        if idle and self.forecast.widens(length):
            return Batch([row], wide=True, reason="wide", predicted_ms=self.forecast.wide_ms(1, length) * drift)
        alone_ms = self.forecast.batch(crowded=not idle)[1][length]
        return Batch([row], wide=False, reason="single", predicted_ms=alone_ms * drift)

    def _window(self, urgent: Row, most: int, times: list[list[float]], slack_ms: float) -> tuple[int, int, bool]:
        """Return first and last place of the batch, and whether the deadline forbade a cheaper one."""
        waiting, place = self._by_length, self._place(urgent)
        windows = [(times[last - first + 1][len(waiting[last].ids)], last - first + 1, first, last)
                   for last in range(place, min(place + most, len(waiting)))
                   for first in range(max(0, last - most + 1), place + 1)]
        single = (times[1][len(urgent.ids)], 1, place, place)
        in_time = [w for w in windows if w[0] <= slack_ms] or [single]
        cheapest_ms = min(whole_ms / rows for whole_ms, rows, *_ in in_time)
        # nearly as cheap and smaller is better: fewer rows wait for one another
        nearly = [w for w in in_time if w[0] / w[1] <= cheapest_ms * _NEARLY]
        _, _, first, last = min(nearly, key=lambda w: (w[1], w[0]))
        cut = len(in_time) < len(windows) and min(w[0] / w[1] for w in windows) < cheapest_ms
        return first, last, cut

    def _place(self, row: Row) -> int:
        return bisect_left(self._by_length, _length(row), key=_length)


def _length(row: Row) -> tuple[int, int]:
    return len(row.ids), row.number


def _deadline(row: Row) -> tuple[float, int]:
    return row.deadline, row.number


def _reason(rows: int, waiting: int, most: int, most_rows: int, *, cut: bool) -> Reason:
    if most_rows == 1:
        return "alone"
    if cut:
        return "urgent"
    if rows == most_rows:
        return "full"
    return "spread" if rows == most < waiting else "cheapest"

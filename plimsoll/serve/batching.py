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
from typing import Any, Literal, NamedTuple

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


class Batch(NamedTuple):
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
        # with what they are sorted by in front: tuples are compared without a call of ours
        self._by_length: list[tuple[int, int, Row]] = []
        self._by_deadline: list[tuple[float, int, Row]] = []
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, row: Row) -> None:
        """Let a row wait. Raises ValueError when there is no room: see `room` first."""
        length = len(row.ids)
        if len(self._by_length) >= self.limit:
            raise ValueError(f"the queue holds {self.limit} rows and is full")
        self._arrived = number = self._arrived + 1
        row.number, row.waits, row.work_ms = number, True, self.forecast.row_ms[length]
        self.work_ms += row.work_ms
        insort(self._by_length, (length, number, row))
        insort(self._by_deadline, (row.deadline, number, row))

    def room(self) -> int:
        """Return how many rows more may wait."""
        return self.limit - len(self._by_length)

    def work_before_ms(self, deadline: float) -> float:
        """Return the lane time of the rows that come before one with this deadline, about."""
        if not self._by_deadline:
            return 0.0
        before = bisect_left(self._by_deadline, (deadline, self._arrived + 1))
        return self.work_ms * before / len(self._by_deadline)

    def last_deadline(self) -> float:
        """Return the furthest deadline of the rows that wait. Raises IndexError where none does."""
        return self._by_deadline[-1][0]

    def drop(self, row: Row) -> None:
        """Take a waiting row out."""
        del self._by_length[bisect_left(self._by_length, (len(row.ids), row.number))]
        self._dropped(row)

    def all(self) -> list[Row]:
        """Return all waiting rows, the nearest deadline first."""
        return [row for *_, row in self._by_deadline]

    def overdue(self, now: float) -> list[Row]:
        """Take out and return the rows whose deadline has passed."""
        if not self._by_deadline or self._by_deadline[0][0] >= now:
            return []
        late = [row for *_, row in self._by_deadline[: bisect_left(self._by_deadline, (now, 0))]]
        for row in late:
            self.drop(row)
        return late

    def pick(self, now: float, free: int, drift: float = 1.0) -> Batch | None:
        """Take out and return the rows to run next on one of `free` lanes; None only where no row or no lane is.

        drift: by what factor batches take longer than the table says, of late.
        """
        waiting = len(self._by_length)
        if not waiting or free < 1:
            return None
        forecast, (deadline, number, urgent) = self.forecast, self._by_deadline[0]
        if waiting == 1:
            return self._single(urgent, idle=free == forecast.lanes, drift=drift)
        share = -(-waiting // free)  # the other free lanes want rows, too
        most = min(share, forecast.most_rows)
        place = bisect_left(self._by_length, (len(urgent.ids), number))
        rows, predicted_ms, cut = self._size(place, most, (deadline - now) * 1e3 / drift)
        last = _last(place, rows)
        chosen = [row for *_, row in self._by_length[last + 1 - rows : last + 1]]
        del self._by_length[last + 1 - rows : last + 1]
        for row in chosen:
            self._dropped(row)
        return Batch(chosen, wide=False, reason=_reason(rows, waiting, most, forecast.most_rows, cut=cut),
                     predicted_ms=predicted_ms * drift)

    def _single(self, row: Row, *, idle: bool, drift: float) -> Batch:
        self.drop(row)
        forecast, length = self.forecast, len(row.ids)
        if idle and forecast.widens(length):
            return Batch([row], wide=True, reason="wide", predicted_ms=forecast.wide_ms[1][length] * drift)
        alone_ms = (forecast.quiet_ms if idle else forecast.crowded_ms)[1][length]
        return Batch([row], wide=False, reason="single", predicted_ms=alone_ms * drift)

    def _size(self, place: int, most: int, slack_ms: float) -> tuple[int, float, bool]:
        """Return the rows of the batch, its ms by the table, and whether the deadline forbade a cheaper one.

        Of all stretches of so many rows that hold the urgent one, the cheapest is the one of the shortest rows: it is
        the only one that is looked at.
        """
        times, waiting = self.forecast.crowded_ms, self._by_length
        sizes = [(rows, times[rows][waiting[_last(place, rows)][0]]) for rows in range(1, most + 1)]
        in_time = [(rows, ms) for rows, ms in sizes if ms <= slack_ms] or sizes[:1]
        cheapest_ms = min([ms / rows for rows, ms in in_time])
        nearly = [(rows, ms) for rows, ms in in_time if ms / rows <= cheapest_ms * _NEARLY]
        # Of those nearly as cheap the smallest, in which fewer rows wait for one another. But with another batch behind
        # it the largest, since each batch takes its turn of the supervisor, which runs on the same cores; if it leaves
        # as much time again to whoever must wait for it.
        rows, ms = nearly[0]
        if len(waiting) > self.forecast.most_rows and 2 * nearly[-1][1] <= slack_ms:
            rows, ms = nearly[-1]
        cut = len(in_time) < len(sizes) and min([ms / rows for rows, ms in sizes]) < cheapest_ms
        return rows, ms, cut

    def _dropped(self, row: Row) -> None:
        """Take a row out of what is left of it here."""
        row.waits = False
        del self._by_deadline[bisect_left(self._by_deadline, (row.deadline, row.number))]
        self.work_ms = self.work_ms - row.work_ms if self._by_deadline else 0.0  # no rounding stays in an empty queue


def _last(place: int, rows: int) -> int:
    """Return where a stretch of so many rows ends that holds a place and has the shortest rows."""
    return max(place, rows - 1)


def _reason(rows: int, waiting: int, most: int, most_rows: int, *, cut: bool) -> Reason:
    if most_rows == 1:
        return "alone"
    if cut:
        return "urgent"
    if rows == most_rows:
        return "full"
    return "spread" if rows == most < waiting else "cheapest"

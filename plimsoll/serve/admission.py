"""Whether a request is taken in: pure arithmetic on what waits, what runs, and the cost table.

A request that could not be answered by its deadline is refused while that costs nothing, not answered late: what is
accepted keeps its promise, and the queue never grows beyond what the deadlines allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Code = Literal["overloaded", "rate_limited", "unavailable", "deadline"]

_MARGIN = 0.85
"""Share of the time to a deadline that a prediction may fill: batches differ, and so do other processes' demands."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, and when to try again."""

    code: Code
    message: str
    retry_after_ms: float


class Load(NamedTuple):
    """What stands before a request."""

    waiting: int
    """Rows in the queue."""
    room: int
    """Rows that may still wait."""
    before_ms: float
    """Lane time of the waiting rows that come first."""
    backlog_ms: float
    """Lane time of all waiting rows."""
    lanes: int
    """Batches that run at the same time."""
    free_in_ms: float
    """Until the first lane is free; 0 when one is."""
    drift: float
    """By what factor batches take longer than the cost table says, of late."""
    last_ms: float = 0.0
    """Until the furthest deadline of those that wait; 0 where none does."""


def admit(load: Load, rows: int, work_ms: float, single_ms: float, deadline_ms: float) -> Refusal | None:
    """Return None to take a request in, else why not.

    rows: of the request; work_ms: the lane time they will take in a full queue; single_ms: what its longest row takes
    by itself, which is the least there is to wait for; deadline_ms: from now.
    """
    if rows > load.room:
        excess = rows - load.room
        drained_ms = load.backlog_ms * min(1.0, excess / max(load.waiting, 1)) / load.lanes * load.drift
        return Refusal("overloaded", f"{load.waiting} rows wait and there is room for {load.room} more, not for {rows}",
                       max(1.0, drained_ms))
    least_ms = max(single_ms, work_ms / load.lanes)
    alone_ms = least_ms * load.drift
    predicted_ms = load.free_in_ms + load.before_ms / load.lanes * load.drift + alone_ms
    allowed_ms = deadline_ms * _MARGIN
    if predicted_ms <= allowed_ms:
        return _pushed_back(load, work_ms, deadline_ms)
    if least_ms > allowed_ms:
        # waiting does not help: even an idle server would be too late
        return Refusal("deadline", f"{rows} rows take about {least_ms:.1f} ms, and the deadline is in "
                                   f"{deadline_ms:.1f} ms", max(1.0, math.ceil(least_ms)))
    return Refusal("overloaded", f"the answer is expected in {predicted_ms:.0f} ms, and the deadline is in "
                                 f"{deadline_ms:.0f} ms", max(1.0, predicted_ms - allowed_ms))


def _pushed_back(load: Load, work_ms: float, deadline_ms: float) -> Refusal | None:
    """Return why not, where a request with a nearer deadline would make those late that were taken in before it.

    Asked of the last of them: it waits for all others.
    """
    if load.last_ms <= deadline_ms:
        return None
    whole_ms = load.free_in_ms + (load.backlog_ms + work_ms) / load.lanes * load.drift
    excess_ms = whole_ms - load.last_ms * _MARGIN
    if excess_ms <= 0:
        return None
    return Refusal("overloaded", f"requests that were taken in before would be answered {excess_ms:.0f} ms too late",
                   max(1.0, excess_ms))

"""The highest rate that holds a p99: rates are tried until one holds and one just above it does not."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from plimsoll.bench.sequential import CONFIDENCE, Decided, decide
from plimsoll.bench.trend import trend
from plimsoll.core.parts import Event
from plimsoll.core.traffic import Highest, Outcome, Step, UnderLoad
from plimsoll.traffic.book import Book, Floats
from plimsoll.traffic.checks import counts_as_trend, rising
from plimsoll.traffic.weigh import P99, clustered

_PROBED = 0.7
"""Share of the rate that the service answers when it always has something to do, to begin with."""
_STRIDE = 1.5
_PRECISION = 1.05
"""Ratio of broken to held at which the search ends: closer than that, the machine's own drift decides."""
_MOST_STEPS = 16
_LOWEST_PER_S = 0.5
_BLOCK_S = 0.25
_LEAST_S = 4.0
"""Before it nothing is decided: it takes sixteen blocks to see whether the late ones come in clusters."""
LEAST_HELD_S = 20.0
"""Before it, or the end of a shorter step, nothing is held: a run begins with an empty queue, near its limit one takes
seconds to build up, and what slows a service now and then must have had time to come."""
_BETWEEN_S = 0.5

Try = Callable[[float, "Watch"], UnderLoad]
"""Puts a service under a rate, ends early when the watch says so, and returns what it did with its checks."""


@dataclass
class Watch:
    """Looks at a run while it goes on, and says when it has seen enough; for one run.

    Each look asks `bench.sequential.decide`, which may be asked as often as one likes; its docstring says what of that
    is guaranteed. To show that the rate is held, the counts are divided by the clustering of the late and the nearly
    late; to show that it is broken, by that of the late alone (`weigh.clustered`). No run can know of what comes less
    often than once in its length: a pause of d seconds that matters, since it makes one of a hundred late, may come
    every 100 d seconds, and is met surely only by a run as long as that.
    """

    limit_s: float
    skip_s: float
    """Warm-up, which does not count."""
    held_after_s: float = LEAST_HELD_S
    decided: Decided | None = None
    _counted: int = 0
    _start: float = math.nan
    _late: int = 0
    _at_s: array[float] = field(default_factory=lambda: array("d"))
    """When the requests that count were due, from the end of the warm-up."""
    _took_s: array[float] = field(default_factory=lambda: array("d"))
    """Infinite for what was not accepted within the limit."""

    def __call__(self, book: Book, now: float) -> bool:
        """Return whether what is known by now decides it.

        A request is counted when it has been due for as long as the limit: then it is on time or late, and a slow one
        cannot hide by not being answered yet.
        """
        if math.isnan(self._start) and book.due:
            self._start = book.due[0] + self.skip_s
        until = now - self.limit_s
        while self._counted < len(book.due) and book.due[self._counted] < until:
            self._count(book, self._counted)
            self._counted += 1
        seconds = until - self._start
        if seconds >= _LEAST_S:
            self.decided = self._decide(seconds)
        return self.decided is not None

    def _count(self, book: Book, index: int) -> None:
        due = book.due[index]
        if due < self._start:
            return
        took = book.done[index] - due if book.status[index] == 200 else math.inf
        if took > self.limit_s:
            took = math.inf
            self._late += 1
        self._at_s.append(due - self._start)
        self._took_s.append(took)

    def _decide(self, seconds: float) -> Decided | None:
        late, total = self._late, len(self._took_s)
        seems = decide(total - late, late, P99)
        if seems is None or (seems == "held" and seconds < self.held_after_s):
            return None  # nor would it be if they were worth less
        at_s, took_s = np.array(self._at_s), np.array(self._took_s)
        found = weighted(total, late, clustered(at_s, took_s, self.limit_s, seconds))
        return None if found == "held" and _rises(at_s, took_s) else found


def weighted(requests: int, late: int, worth: tuple[float, float]) -> Decided | None:
    """Return what counts show where as many requests are worth one: to the proof that few are late, and that many."""
    seems = decide(requests - late, late, P99)
    by = worth[1] if seems == "broken" else worth[0]
    return decide((requests - late) / by, late / by, P99)


def _rises(at_s: Floats, took_s: Floats) -> bool:
    """Return whether the medians of quarters of a second have a trend upwards."""
    on_time = np.isfinite(took_s)
    ends = np.flatnonzero(np.diff((at_s[on_time] / _BLOCK_S).astype(np.intp))) + 1
    medians = [float(np.median(part)) for part in np.split(took_s[on_time], ends) if part.size]
    return len(medians) >= 2 and counts_as_trend(found := trend(medians)) and found.slope > 0


def highest(try_: Try, limit_ms: float, warm_up_s: float, begin_per_s: float, report: Callable[[Event], None]
            ) -> Highest:
    """Return the highest rate at which 99 of 100 requests are answered within the limit.

    From `begin_per_s` on, rates are raised or lowered, by half at first and then in longer strides, until one held and
    a higher one did not; then the gap is halved, by ratio, until the two are within 5 %. Each step ends as soon as it
    is decided. A step that stays undecided counts as not held for where to look next, and is named as what it is.
    """
    steps: list[Step] = []

    def step(rate_per_s: float) -> Outcome:
        watch = Watch(limit_ms / 1e3, warm_up_s)
        load = try_(rate_per_s, watch)
        outcome, why = judged(load, watch.decided or in_the_end(load))
        steps.append(Step(rate_per_s=rate_per_s, outcome=outcome, why=why, load=load))
        report({"stage": "rate", "note": f"{rate_per_s:,.1f} requests/s: {outcome}, {why}"})
        time.sleep(_BETWEEN_S)
        return outcome

    held, not_held, rate, stride = 0.0, math.inf, begin_per_s, _STRIDE
    while len(steps) < _MOST_STEPS and rate >= _LOWEST_PER_S:
        if step(rate) == "held":
            held = rate
        else:
            not_held = rate
        if held and not_held / held <= _PRECISION:
            break
        if held and math.isfinite(not_held):
            rate = math.sqrt(held * not_held)
        else:
            rate = held * stride if held else not_held / stride
            stride *= _STRIDE
    return _found(limit_ms, steps)


def probed(answered_per_s: float) -> float:
    """Return the rate to begin with, from what a service answers when it always has something to do."""
    return max(1.0, _PROBED * answered_per_s)


def judged(load: UnderLoad, decided: Decided | None) -> tuple[Outcome, str]:
    """Return what a step shows, and why in words."""
    late, n = load.late or 0, load.requests
    share = f"{late:,} of {n:,} late ({late / max(n, 1):.2%}"
    share += f", {load.refused:,} of them refused)" if load.refused else ")"
    unfit = [check for check in load.checks if check.name in ("client", "rate") and not check.holds]
    if unfit and decided != "held":
        return "inconclusive", f"{share}, but {unfit[0].says}"
    if decided is None:
        return "inconclusive", f"{share}, which shows neither in {load.seconds:.1f} s"
    return decided, f"{share} in {load.seconds:.1f} s"


def in_the_end(load: UnderLoad) -> Decided | None:
    """Return what a whole step shows, the last requests of which no look could count any more."""
    found = weighted(load.requests, load.late or 0, (load.clustering, load.late_clustering))
    return None if found == "held" and rising(load) else found


def _found(limit_ms: float, steps: list[Step]) -> Highest:
    held = max((s.rate_per_s for s in steps if s.outcome == "held"), default=None)
    broken = min((s.rate_per_s for s in steps if s.outcome == "broken" and s.rate_per_s > (held or 0.0)), default=None)
    between = tuple(sorted(s.rate_per_s for s in steps if s.outcome == "inconclusive" and (held or 0.0) < s.rate_per_s
                           < (broken or math.inf)))
    if held is None:
        why = f"no rate that was tried is shown to hold p99 <= {limit_ms:g} ms"
        why += f"; the lowest, {min(s.rate_per_s for s in steps):,.1f} requests/s, does not" if broken else ""
    else:
        why = f"p99 <= {limit_ms:g} ms holds at {held:,.1f} requests/s"
        why += f" and breaks at {broken:,.1f}" if broken is not None else ", and no higher rate is shown to break it"
    if between:
        why += f"; between them {', '.join(f'{rate:,.1f}' for rate in between)} stayed undecided"
    return Highest(limit_ms=limit_ms, held_per_s=held, broken_per_s=broken, inconclusive_per_s=between,
                   confidence=CONFIDENCE, together=max(0.0, 1 - len(steps) * (1 - CONFIDENCE)), steps=tuple(steps),
                   why=why)

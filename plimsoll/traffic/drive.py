"""Two ways to put requests to a service: each when it is due, or the next when one is answered."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from plimsoll.traffic.arrivals import Times
from plimsoll.traffic.book import Book, Outcomes
from plimsoll.traffic.lines import Lines, clock
from plimsoll.traffic.wire import Answer

_LOOK_S = 0.25
"""Between looks at what takes too long."""
_AT_ONCE = 16
"""Overdue requests sent before answers are looked at again: they are timed when they are read."""
_PAUSE_S = 0.01
"""After a failure in a closed loop: a service that fails at once would be asked as fast as this process can."""
_SLACK = Path("/proc/self/timerslack_ns")
"""By how much Linux may wake the main thread of this process later than it asked, 50,000 ns where nobody changed it."""

Look = Callable[[Book, float], bool]
"""Asked now and then with the book and the time on its clock; True sends nothing more."""


def open_loop(lines: Lines, book: Book, requests: Sequence[bytes], times: Times, start: float, look: Look | None = None
              ) -> Outcomes:
    """Send request i at start + times[i], answered or not what came before; return when all have ended.

    The clock of a request starts when it is due, so that a service that stalls is charged for every request that would
    have come meanwhile. start: on `lines.clock`. Each of the given requests is sent once before one is sent twice.
    """
    due: list[float] = (times + start).tolist()
    book.expect(due)
    lines.begin(book)
    n, kinds, at, next_look = len(due), len(requests), 0, start + _LOOK_S
    with _undisturbed(), _punctual():
        while True:
            now = clock()
            for _ in range(_AT_ONCE):
                if at >= n or due[at] > now:
                    break
                book.seen[at] = now
                lines.send(at, requests[at % kinds])
                at += 1
                now = clock()
            if at >= n and lines.idle:
                break
            if now >= next_look:
                lines.expire(now)
                next_look = now + _LOOK_S
                if look is not None and look(book, now):
                    n = at
            lines.turn(min(due[at] if at < n else next_look, next_look) - clock())
    return Outcomes.of(book, start)


def closed_loop(lines: Lines, book: Book, requests: Sequence[bytes], in_flight: int, seconds: float) -> Outcomes:
    """Keep so many requests in flight for so many seconds: each answer is followed by the next request.

    The clock of a request starts when it is sent, so this says what a service takes for a request, and how many it
    answers when it always has something to do; it says nothing of how long requests that come by themselves wait.
    """
    wanted, failures = in_flight, 0

    def ended(index: int, status: int, now: float, answer: Answer | None) -> None:
        nonlocal wanted, failures
        book.close(index, status, now, answer)
        wanted += 1
        failures += status < 0

    lines.begin(book, ended)
    start = clock()
    end, next_look, kinds = start + seconds, start + _LOOK_S, len(requests)
    with _undisturbed():
        while True:
            if failures:
                time.sleep(_PAUSE_S)
                failures = 0
            now = clock()
            while wanted and now < end:
                wanted -= 1
                at = book.add(now)
                lines.send(at, requests[at % kinds])
                if failures:
                    break
                now = clock()
            if now >= end and lines.idle:
                break
            if now >= next_look:
                lines.expire(now)
                next_look = now + _LOOK_S
            lines.turn(0.0 if failures else next_look - now)
    return Outcomes.of(book, start)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the garbage collector from stopping everything in between: nothing here makes cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def _punctual() -> Iterator[None]:
    """Have Linux end every wait when its time is over, and not as much later as suits its timers.

    Only in the main thread of a process: no file of another thread says how late it may be woken.
    """
    was = ""
    if threading.current_thread() is threading.main_thread():
        with suppress(OSError):  # another system, or one that does not let us
            was = _SLACK.read_text()
            _SLACK.write_text("1")
    try:
        yield
    finally:
        if was:
            with suppress(OSError):
                _SLACK.write_text(was)

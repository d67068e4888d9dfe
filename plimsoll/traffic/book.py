"""What became of every request: written while they run, read as arrays afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.traffic.wire import Answer

CLOSED, TIMEOUT, GARBLED, UNREACHABLE = -1, -2, -3, -4
FAULTS = {
    CLOSED: "connection closed before the answer",
    TIMEOUT: "no answer in time",
    GARBLED: "not an answer of HTTP/1.1",
    UNREACHABLE: "no connection",
}
"""What stands in place of a status where there was no answer."""

_VERSION = re.compile(rb'"version"\s*:\s*"([^"\\]{1,128})"')
_UNDECIDED = 0
_NEVER = float("nan")

ARRAYS = ("due", "seen", "sent", "done", "status", "waited")
"""Of `Outcomes`: one value a request each."""

Floats = NDArray[np.float64]


class Book:
    """One line a request, in the order they are due; times are those of one clock, in seconds.

    Lists and not arrays: a load test writes numbers one by one, which lists take in a third of the time.
    """

    def __init__(self, keep_every: int = 0, inspect: Callable[[int, bytes], None] | None = None) -> None:
        self.due: list[float] = []
        self.seen: list[float] = []
        self.sent: list[float] = []
        self.done: list[float] = []
        self.status: list[int] = []
        self.waited = bytearray()
        self.kept: list[tuple[bytes, bytes]] = []
        """Head and body of every so-manieth accepted answer."""
        self.versions: list[tuple[float, str]] = []
        """When an accepted answer named another version than the one before it, and which."""
        self._keep_every, self._inspect = keep_every, inspect
        self._accepted = 0
        self._version, self._named = b"", b""

    def expect(self, due: list[float]) -> None:
        """Add requests that are due at these times."""
        n = len(due)
        self.due += due
        for times in (self.seen, self.sent, self.done):
            times += [_NEVER] * n
        self.status += [_UNDECIDED] * n
        self.waited += bytes(n)

    def add(self, now: float) -> int:
        """Add a request that is due and seen just now, and return its number."""
        self.due.append(now)
        self.seen.append(now)
        self.sent.append(_NEVER)
        self.done.append(_NEVER)
        self.status.append(_UNDECIDED)
        self.waited.append(0)
        return len(self.due) - 1

    def close(self, index: int, status: int, now: float, answer: Answer | None) -> None:
        """Write down how a request ended."""
        self.done[index], self.status[index] = now, status
        if status != 200 or answer is None:
            return
        # nearly all name the same version in the same words, and words are found sooner than an expression
        at = answer.body.find(b'"version"')
        if at >= 0 and not (self._named and answer.body.startswith(self._named, at)):
            self._look_for_version(now, answer.body)
        if self._keep_every and self._accepted % self._keep_every == 0:
            self.kept.append((answer.head, answer.body))
        self._accepted += 1
        if self._inspect is not None:
            self._inspect(index, answer.body)

    def _look_for_version(self, now: float, body: bytes) -> None:
        found = _VERSION.search(body)
        if found is None:
            return
        self._named = found[0]
        if found[1] != self._version:
            self._version = found[1]
            self.versions.append((now, found[1].decode("ascii", "replace")))


@dataclass(frozen=True)
class Outcomes:
    """What became of requests; of each its times in seconds from the start, nan where there was none."""

    due: Floats
    seen: Floats
    """When the client got to it: what lies between is the client's own lag."""
    sent: Floats
    done: Floats
    status: NDArray[np.int16]
    """HTTP status, or one of `FAULTS`; 0 for one that was never sent, since the run was ended before."""
    waited: NDArray[np.bool_]
    """Whether every connection was busy when it was due."""
    kept: tuple[tuple[bytes, bytes], ...] = ()
    versions: tuple[tuple[float, str], ...] = field(default=())

    @classmethod
    def of(cls, book: Book, start: float) -> Self:
        """Return the outcomes of a book whose clock was at `start` when the first request could be due."""
        due, seen, sent, done = (
            np.array(t, dtype=np.float64) - start for t in (book.due, book.seen, book.sent, book.done))
        return cls(due, seen, sent, done, np.array(book.status, dtype=np.int16),
                   np.frombuffer(bytes(book.waited), dtype=np.bool_), tuple(book.kept),
                   tuple((when - start, name) for when, name in book.versions))

    @classmethod
    def together(cls, parts: list[Outcomes]) -> Outcomes:
        """Return the outcomes of several clients as those of one, in the order they were due."""
        order = np.argsort(np.concatenate([part.due for part in parts]), kind="stable")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in ARRAYS}
        return cls(**arrays, kept=tuple(k for part in parts for k in part.kept),
                   versions=tuple(sorted(v for part in parts for v in part.versions)))

    def between(self, low: float, high: float) -> Outcomes:
        """Return the requests that were due in a span of time, and were sent or would have been."""
        inside = (self.due >= low) & (self.due < high) & (self.status != _UNDECIDED)
        return Outcomes(**{name: getattr(self, name)[inside] for name in ARRAYS}, kept=self.kept,
                        versions=self.versions)

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Answered with 200."""
        return self.status == 200

    @property
    def refused(self) -> NDArray[np.bool_]:
        """Answered with 429: the service said no at once, as it should when it cannot keep up."""
        return self.status == 429

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Neither."""
        return ~(self.accepted | self.refused)

    @property
    def latency_ms(self) -> Floats:
        """From when a request was due to when it was answered."""
        return (self.done - self.due) * 1e3

"""Services by arithmetic: queues, whose true share of late requests can be found, to hold a load test to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plimsoll.traffic.book import Book, Floats, Outcomes

LOOK_S = 0.25
"""Between looks, as in a run."""


@dataclass(frozen=True)
class Queue:
    """A service that answers Poisson arrivals."""

    name: str
    says: str
    limit_s: float
    answer: Callable[[Floats, np.random.Generator], Floats]
    """From when requests are due, ascending, [requests], to when each is answered."""
    steady: bool = True
    """Whether it stays the same: if not, its share of late ones is one of a step and not of all time."""

    def run(self, rate_per_s: float, seconds: float, seed: int) -> tuple[Floats, Floats]:
        """Return when requests were due, and when each was answered, in seconds from the start with nothing waiting."""
        rng = np.random.default_rng(seed)
        due = np.sort(rng.uniform(0.0, seconds, rng.poisson(rate_per_s * seconds)))
        return due, self.answer(due, rng)

    def late_share(self, rate_per_s: float, skip_s: float, seconds: float, runs: int, seed: int = 0) -> float:
        """Return the share of requests due after `skip_s` that are later than the limit, over so many runs."""
        late = total = 0
        for i in range(runs):
            due, done = self.run(rate_per_s, skip_s + seconds, seed + i)
            counts = due >= skip_s
            total += int(counts.sum())
            late += int(((done - due)[counts] > self.limit_s).sum())
        return late / max(total, 1)


def one_server(due: Floats, work_s: Floats) -> Floats:
    """Return when a server that takes one request after the other is done with each; Lindley 1952."""
    until = np.cumsum(work_s)
    return np.maximum.accumulate(due - (until - work_s)) + until


def servers(due: Floats, work_s: float, count: int) -> Floats:
    """Return the same of several servers that all take as long for any request: then each gets every so-manieth."""
    done = np.empty_like(due)
    for i in range(count):
        mine = due[i::count]
        done[i::count] = one_server(mine, np.full(mine.size, work_s))
    return done


def batches(due: Floats, pass_s: float, row_s: float, most: int) -> Floats:
    """Return the same of one that takes all that wait at once, up to `most`, and never waits itself."""
    done, free, at = np.empty_like(due), -math.inf, 0
    while at < due.size:
        begin = max(free, float(due[at]))
        end = min(at + most, int(np.searchsorted(due, begin, "right")))
        free = begin + pass_s + row_s * (end - at)
        done[at:end] = free
        at = end
    return done


def pausing(due: Floats, work_s: Floats, every_s: float, pause_s: float, first_s: float) -> Floats:
    """Return the same of one server that pauses now and then, as soon as it is done with what came before."""
    last = float(due[-1]) if due.size else 0.0
    pauses = np.arange(first_s, last, every_s)
    times: Floats = np.concatenate([due, pauses])
    order = np.argsort(times, kind="stable")
    work = np.concatenate([work_s, np.full(pauses.size, pause_s)])
    done = np.empty_like(times)
    done[order] = one_server(times[order], work[order])
    return done[:due.size]


def played(due: Floats, done: Floats, look: Callable[[Book, float], bool]) -> float:
    """Return when `look` ended a run of which it saw at each time what a client would; else the last look's time."""
    book = Book()
    book.expect(due.tolist())
    order = np.argsort(done, kind="stable")
    ended, at, now = done[order], 0, 0.0
    while now < (due[-1] if due.size else 0.0):
        now += LOOK_S
        end = int(np.searchsorted(ended, now, "right"))
        for i in order[at:end].tolist():
            book.close(i, 200, float(done[i]), None)
        at = end
        if look(book, now):
            break
    return now


def outcomes(due: Floats, done: Floats) -> Outcomes:
    """Return a whole run as the client writes it down, without lag of its own."""
    return Outcomes(due, due, due, done, np.full(due.size, 200, dtype=np.int16), np.zeros(due.size, dtype=np.bool_))


def exponential(name: str, mean_s: float, limit_s: float) -> Queue:
    """Return M/M/1, of whose requests exp(-(1 / mean_s - rate) * limit_s) are late."""
    return Queue(name, f"one server, {mean_s * 1e3:g} ms on average, exponential; limit {limit_s * 1e3:g} ms", limit_s,
                 lambda due, rng: one_server(due, rng.exponential(mean_s, due.size)))


def kinds(step_s: float) -> tuple[Queue, ...]:
    """Return services that forget soon and late, with and without batches and pauses; step_s: of the one that slows."""
    def heavy(due: Floats, rng: np.random.Generator) -> Floats:
        return one_server(due, rng.lognormal(math.log(0.003) - 0.5, 1.0, due.size))

    def slowing(due: Floats, rng: np.random.Generator) -> Floats:
        return one_server(due, rng.exponential(0.003, due.size) * (1 + 0.2 * due / step_s))

    return (
        exponential("short memory", 0.003, 0.03),
        exponential("long memory", 0.003, 0.3),
        Queue("some long texts", "one server, 3 ms on average, log-normal with sigma 1; limit 60 ms", 0.06, heavy),
        Queue("two lanes", "two servers, 6 ms each; limit 20 ms", 0.02, lambda due, rng: servers(due, 0.006, 2)),
        Queue("hardly longer than it takes", "two servers, 6 ms each; limit 9 ms", 0.009,
              lambda due, rng: servers(due, 0.006, 2)),
        Queue("batches", "a pass takes 4 ms and 1 ms a row, up to 16 rows; limit 30 ms", 0.03,
              lambda due, rng: batches(due, 0.004, 0.001, 16)),
        Queue("pauses", "one server, 3 ms each, that pauses for 300 ms every 20 s; limit 250 ms", 0.25,
              lambda due, rng: pausing(due, np.full(due.size, 0.003), 20.0, 0.3, float(rng.uniform(0.0, 20.0)))),
        Queue("slowing", f"one server, 3 ms on average, exponential, 20 % more over {step_s:g} s; limit 60 ms", 0.06,
              slowing, steady=False),
    )

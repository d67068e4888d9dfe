"""The highest rate is found between one that holds and one that does not, and what was not shown is said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from plimsoll.bench.sequential import Decided
from plimsoll.core.traffic import Check, UnderLoad
from plimsoll.testing import queues
from plimsoll.traffic import rate
from plimsoll.traffic.book import Book
from plimsoll.traffic.rate import Watch, highest, judged


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_BETWEEN_S", 0.0)


def load(**changes: Any) -> UnderLoad:
    return UnderLoad(seconds=5, requests=1000, accepted=1000, refused=0, late=0, achieved_per_s=100,
                answered_per_s=100).model_copy(update=changes)


def service(decides: Callable[[float], Decided | None]) -> rate.Try:
    def try_(rate_per_s: float, watch: Watch) -> UnderLoad:
        watch.decided = decides(rate_per_s)
        return load(rate_per_s=rate_per_s, late=9)  # of 1,000, which shows nothing by itself

    return try_


@pytest.mark.parametrize("begin", [3.0, 90.0, 130.0, 5000.0])
@pytest.mark.parametrize("capacity", [37.0, 100.0, 412.0])
def test_the_capacity_lies_between_held_and_broken_wherever_one_begins(begin: float, capacity: float) -> None:
    told: list[Any] = []
    found = highest(service(lambda r: "held" if r <= capacity else "broken"), 20.0, 1.0, begin, told.append)
    assert found.held_per_s is not None
    assert found.broken_per_s is not None
    assert found.held_per_s <= capacity < found.broken_per_s
    assert found.broken_per_s / found.held_per_s <= 1.05
    assert len(told) == len(found.steps)
    assert found.together == pytest.approx(1 - 0.01 * len(found.steps))
    assert f"{found.held_per_s:,.1f}" in found.why


def test_a_rate_that_stays_undecided_is_named_and_not_taken_for_held() -> None:
    def decides(r: float) -> Decided | None:
        return "held" if r < 95 else "broken" if r > 120 else None

    found = highest(service(decides), 20.0, 1.0, 60.0, lambda event: None)
    assert found.held_per_s is not None
    assert found.held_per_s < 95
    assert found.broken_per_s is not None
    assert found.inconclusive_per_s
    assert all(95 <= r <= 120 for r in found.inconclusive_per_s)
    assert "stayed undecided" in found.why


def test_a_service_that_never_holds_is_said_to() -> None:
    found = highest(service(lambda r: "broken"), 20.0, 1.0, 10.0, lambda event: None)
    assert found.held_per_s is None
    assert found.broken_per_s is not None
    assert "no rate that was tried" in found.why


def test_a_service_that_always_holds_is_not_tried_for_ever() -> None:
    found = highest(service(lambda r: "held"), 20.0, 1.0, 10.0, lambda event: None)
    assert found.broken_per_s is None
    assert len(found.steps) <= 16
    assert "no higher rate is shown to break it" in found.why


def test_a_client_that_could_not_keep_up_breaks_nothing() -> None:
    unfit = load(late=500, checks=(Check(name="client", holds=False, says="the client was late"),))
    assert judged(unfit, "broken") == ("inconclusive", "500 of 1,000 late (50.00%), but the client was late")
    assert judged(unfit, "held")[0] == "held"


def test_the_end_of_a_step_decides_where_no_look_could() -> None:
    def try_(rate_per_s: float, watch: Watch) -> UnderLoad:
        return load(late=0 if rate_per_s <= 50 else 900)

    found = highest(try_, 20.0, 1.0, 60.0, lambda event: None)
    assert found.held_per_s is not None
    assert found.broken_per_s is not None
    assert found.held_per_s <= 50 < found.broken_per_s


def looked(latencies: list[float | None], every_s: float, limit_s: float = 0.02) -> Watch:
    """Return a watch that looked at a run of these latencies, None for not yet answered, every quarter second."""
    book = Book()
    book.expect([100 + i * every_s for i in range(len(latencies))])
    watch = Watch(limit_s, 0.0)
    for step in range(1, int(len(latencies) * every_s / 0.25) + 2):
        now = 100 + step * 0.25
        for i, took in enumerate(latencies):
            if took is not None and book.due[i] + took <= now and not book.status[i]:
                book.close(i, 200, book.due[i] + took, None)
        if watch(book, now):
            break
    return watch


def test_on_time_for_long_enough_is_held() -> None:
    assert looked([0.005] * 4400, 0.005).decided == "held"
    assert looked([0.005] * 3600, 0.005).decided is None


def test_late_or_never_answered_is_broken() -> None:
    assert looked([0.005] * 300 + [0.05] * 900, 0.005).decided == "broken"
    assert looked([0.005] * 300 + [None] * 900, 0.005).decided == "broken"


SHORT, LONG = queues.exponential("", 0.003, 0.03), queues.exponential("", 0.003, 0.3)
"""Queues that forget within a tenth of a second, and within seconds."""


def at_most(queue: queues.Queue) -> float:
    """Return the rate at which one of a hundred is late."""
    return 1 / 0.003 - math.log(100) / queue.limit_s


def shown(queue: queues.Queue, share: float, runs: int) -> Counter[Decided | None]:
    """Return what watches decide of steps at this share of the rate that holds, as long as the command's."""
    found: Counter[Decided | None] = Counter()
    for seed in range(runs):
        watch = Watch(queue.limit_s, 3.0)
        queues.played(*queue.run(share * at_most(queue), 33.0, seed), watch)
        found[watch.decided] += 1
    return found


def most(runs: int, share: float) -> int:
    """Return what a rule that errs in no more than this share exceeds with a chance below one in a million."""
    return int(binom.isf(1e-6, runs, share))


@pytest.mark.parametrize("queue", [SHORT, LONG], ids=["short", "long"])
def test_above_its_limit_a_queue_is_seldom_held_and_below_it_seldom_broken(queue: queues.Queue) -> None:
    assert shown(queue, 1.03, 60)["held"] <= most(60, 0.05)
    assert shown(queue, 0.9, 60)["broken"] <= most(60, 0.05)


def test_a_queue_far_below_its_limit_is_held_and_one_above_it_broken() -> None:
    # both were so in all runs of benchmarks/load_rates.py, so in 95 of 100 for certain
    assert shown(LONG, 0.5, 40)["held"] >= 40 - most(40, 0.05)
    assert shown(LONG, 1.1, 40)["broken"] >= 40 - most(40, 0.05)


def test_a_pause_every_twenty_seconds_is_waited_for() -> None:
    def pausing(first_s: float) -> Watch:
        due = np.arange(0.0, 33.0, 0.004)
        watch = Watch(0.02, 3.0)
        queues.played(due, queues.pausing(due, np.full(due.size, 0.002), 20.0, 0.3, first_s), watch)
        return watch

    # three of a hundred are late, all of them in one piece
    assert "held" not in [pausing(first_s).decided for first_s in (4.0, 12.0, 19.0)]


def test_nothing_is_decided_on_a_second_of_it() -> None:
    assert looked([0.005] * 1000, 0.001).decided is None


def test_what_still_rises_is_not_held() -> None:
    assert looked([0.001 + i * 3.5e-6 for i in range(4400)], 0.005).decided is None

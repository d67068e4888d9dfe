"""What is known of the simulated queues by formula is what they do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plimsoll.testing import queues
from plimsoll.traffic.book import Book


@pytest.mark.parametrize("rate_per_s", [150.0, 180.0, 210.0])
def test_the_share_of_late_ones_is_that_of_the_formula(rate_per_s: float) -> None:
    queue = queues.exponential("", 0.003, 0.03)
    known = math.exp(-(1 / 0.003 - rate_per_s) * 0.03)
    # the share of 4,000 s spreads by about two of a hundred of it
    assert queue.late_share(rate_per_s, 10.0, 4000.0, 1) == pytest.approx(known, rel=0.15)


def test_one_after_the_other_and_several_at_once() -> None:
    due = np.array([0.0, 1.0, 1.0, 9.0])
    assert queues.one_server(due, np.array([2.0, 3.0, 1.0, 1.0])).tolist() == [2.0, 5.0, 6.0, 10.0]
    assert queues.servers(due, 2.0, 2).tolist() == [2.0, 3.0, 4.0, 11.0]


def test_a_batch_takes_all_that_wait_up_to_the_most() -> None:
    due = np.array([0.0, 0.5, 0.5, 0.5, 9.0])
    assert queues.batches(due, 1.0, 0.5, 2).tolist() == [1.5, 3.5, 3.5, 5.0, 10.5]


def test_a_pause_delays_what_is_due_in_it() -> None:
    due = np.array([0.0, 1.0, 2.1, 6.0])
    assert queues.pausing(due, np.full(4, 0.1), 20.0, 3.0, 2.0).tolist() == pytest.approx([0.1, 1.1, 5.1, 6.1])


def test_a_look_sees_what_has_been_answered_by_then_and_may_end_it() -> None:
    seen: list[tuple[float, list[int]]] = []

    def look(book: Book, now: float) -> bool:
        seen.append((now, list(book.status)))
        return now >= 0.5

    assert queues.played(np.array([0.0, 0.1, 5.0]), np.array([0.4, 0.2, 5.1]), look) == 0.5
    assert seen == [(0.25, [0, 200, 0]), (0.5, [200, 200, 0])]


def test_every_kind_holds_its_limit_at_a_low_rate_and_breaks_it_at_a_high_one() -> None:
    for queue in queues.kinds(33.0):
        assert queue.late_share(20.0, 3.0, 30.0, 10) < 0.01, queue.name
        assert queue.late_share(900.0, 3.0, 30.0, 1) > 0.5, queue.name

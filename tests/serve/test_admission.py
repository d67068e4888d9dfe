"""Refused is what could not be answered in time, at once, and with a time to come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plimsoll.serve.admission import Load, admit

IDLE = Load(waiting=0, room=100, before_ms=0, backlog_ms=0, lanes=2, free_in_ms=0, drift=1.0)


def test_an_idle_server_takes_what_it_can_answer_in_time() -> None:
    assert admit(IDLE, rows=1, work_ms=2, single_ms=2, deadline_ms=20) is None


def test_a_deadline_that_even_an_idle_server_would_miss_is_said_to_be_one() -> None:
    refusal = admit(IDLE, rows=1, work_ms=30, single_ms=30, deadline_ms=20)
    assert refusal is not None
    assert refusal.code == "deadline"


def test_a_backlog_refuses_and_says_when_it_will_be_short_enough() -> None:
    busy = IDLE._replace(waiting=50, room=50, before_ms=100, backlog_ms=100, free_in_ms=2)
    refusal = admit(busy, rows=1, work_ms=2, single_ms=2, deadline_ms=20)
    assert refusal is not None
    assert refusal.code == "overloaded"
    later = busy._replace(before_ms=100 - 2 * refusal.retry_after_ms)
    assert admit(later, rows=1, work_ms=2, single_ms=2, deadline_ms=20) is None


def test_what_is_slower_of_late_is_refused_earlier() -> None:
    busy = IDLE._replace(waiting=5, before_ms=20, backlog_ms=20)
    assert admit(busy, rows=1, work_ms=2, single_ms=2, deadline_ms=20) is None
    assert admit(busy._replace(drift=2.0), rows=1, work_ms=2, single_ms=2, deadline_ms=20) is not None


@given(rows=st.integers(1, 500), room=st.integers(0, 100), waiting=st.integers(0, 500))
def test_more_rows_than_there_is_room_for_are_never_taken(rows: int, room: int, waiting: int) -> None:
    load = IDLE._replace(waiting=waiting, room=room, backlog_ms=float(waiting))
    refusal = admit(load, rows=rows, work_ms=0.001, single_ms=0.001, deadline_ms=1e9)
    assert (refusal is not None) == (rows > room)
    if refusal is not None:
        assert refusal.retry_after_ms >= 1


def test_being_slow_of_late_is_no_reason_to_say_that_it_can_never_be() -> None:
    slow = IDLE._replace(drift=32.0)
    refusal = admit(slow, rows=1, work_ms=2, single_ms=2, deadline_ms=20)
    assert refusal is not None
    assert refusal.code == "overloaded"


def test_who_comes_first_by_its_deadline_does_not_push_others_past_theirs() -> None:
    # 80 ms of work on two lanes is promised within 50 ms, and the newcomer would have its answer long before
    promised = IDLE._replace(waiting=40, room=60, before_ms=0, backlog_ms=80, last_ms=50)
    assert admit(promised, rows=1, work_ms=4, single_ms=4, deadline_ms=20) is None
    refusal = admit(promised, rows=4, work_ms=16, single_ms=4, deadline_ms=20)
    assert refusal is not None
    assert refusal.code == "overloaded"
    assert "taken in before" in refusal.message
    assert refusal.retry_after_ms == 48 - 50 * 0.85
    # behind them all it is only its own deadline that counts
    assert admit(promised._replace(before_ms=80), rows=4, work_ms=16, single_ms=4, deadline_ms=60) is None

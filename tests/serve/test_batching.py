"""The queue never lets a free lane wait, never forgets or doubles a row, and keeps deadlines where it can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.serve.batching import REASONS, Queue, Row
from plimsoll.serve.costs import MOST_ROWS, Costs, Forecast

LONGEST = 64


def forecast(per_token: float = 0.01, each: float = 0.0, lanes: int = 2, wide_gain: float = 1.6) -> Forecast:
    """A machine on which a batch costs its padded area, and each call something by itself."""
    rows, lengths = (1, 2, 4, 8), (8, 16, 32, LONGEST)
    narrow = tuple(tuple(each + per_token * n * m for m in lengths) for n in rows)
    wide = tuple(tuple(ms / wide_gain for ms in line) for line in narrow)
    threads = (lanes, *[1] * lanes) if lanes > 1 else (1,)
    more = {"alone_ms": narrow, "busy_ms": narrow} if lanes > 1 else {}
    return Forecast(Costs(version="v", machine="m", threads=threads, rows=rows, lengths=lengths,
                          wide_ms=wide if lanes > 1 else narrow, **more))


def row(length: int, deadline: float = 1e9, index: int = 0) -> Row:
    return Row(ids=[1] * length, deadline=deadline, owner="o", index=index)


def queue_of(rows: list[Row], **machine: float) -> Queue:
    queue = Queue(1000, forecast(**machine))  # type: ignore[arg-type]
    for one in rows:
        queue.add(one)
    return queue


lengths = st.integers(1, LONGEST)
arrivals = st.lists(st.tuples(lengths, st.floats(0.001, 2.0)), min_size=1, max_size=40)


@given(arriving=arrivals, lanes=st.sampled_from([1, 2, 4]), each=st.floats(0, 1))
def test_every_row_runs_once_and_no_lane_is_free_while_a_row_waits(
    arriving: list[tuple[int, float]], lanes: int, each: float
) -> None:
    machine = forecast(each=each, lanes=lanes)
    queue = Queue(1000, machine)
    rows = [row(n, deadline) for n, deadline in arriving]
    for one in rows:
        queue.add(one)
    now, running, done = 0.0, list[float](), list[Row]()
    while len(queue):
        while (batch := queue.pick(now, machine.lanes - len(running))) is not None:
            assert 1 <= len(batch.rows) <= MOST_ROWS
            assert batch.reason in REASONS
            running.append(now + batch.predicted_ms / 1e3)
            done += batch.rows
            if batch.wide:
                assert len(running) == 1
                break
        assert not len(queue) or batch is not None or len(running) == machine.lanes
        now = min(running)
        running.remove(now)
    assert sorted(map(id, done)) == sorted(map(id, rows))
    assert queue.work_ms == 0


@given(arriving=arrivals)
def test_the_nearest_deadline_is_always_in_the_next_batch(arriving: list[tuple[int, float]]) -> None:
    queue = queue_of([row(n, deadline) for n, deadline in arriving])
    nearest = min((deadline for _, deadline in arriving))
    batch = queue.pick(0.0, 1)
    assert batch is not None
    assert min(r.deadline for r in batch.rows) == nearest
    ordered = [len(r.ids) for r in batch.rows]
    assert ordered == sorted(ordered)


@given(arriving=arrivals)
def test_a_batch_keeps_the_deadlines_in_it_unless_even_one_row_alone_could_not(
    arriving: list[tuple[int, float]]
) -> None:
    queue = queue_of([row(n, deadline / 100) for n, deadline in arriving], each=0.5)
    batch = queue.pick(0.0, 1)
    assert batch is not None
    assert len(batch.rows) == 1 or batch.predicted_ms / 1e3 <= min(r.deadline for r in batch.rows)


@given(arriving=arrivals, each=st.floats(0, 1), drift=st.floats(0.5, 3.0))
def test_no_other_batch_with_the_urgent_row_would_take_less_time_for_each_row(
    arriving: list[tuple[int, float]], each: float, drift: float
) -> None:
    machine, rows = forecast(each=each), [row(n, deadline / 100) for n, deadline in arriving]
    queue = queue_of(rows, each=each)
    batch = queue.pick(0.0, 1, drift)
    assert batch is not None
    urgent = min(rows, key=lambda r: (r.deadline, r.number))
    in_order = sorted(rows, key=lambda r: (len(r.ids), r.number))
    place, slack_ms = in_order.index(urgent), urgent.deadline * 1e3 / drift
    costs = [ms / (last - first + 1)
             for first in range(place + 1) for last in range(place, min(first + MOST_ROWS, len(rows)))
             if (ms := machine.crowded_ms[last - first + 1][len(in_order[last].ids)]) <= slack_ms]
    if costs and len(rows) > 1:
        assert batch.predicted_ms / drift / len(batch.rows) <= min(costs) * 1.03 + 1e-9


def test_rows_of_a_length_run_together_and_the_odd_one_does_not() -> None:
    queue = queue_of([row(8), row(64), row(9), row(8), row(10)], each=0.5)
    batch = queue.pick(0.0, 1)
    assert batch is not None
    assert [len(r.ids) for r in batch.rows] == [8, 8, 9, 10]
    assert batch.reason == "cheapest"


def test_where_calls_cost_nothing_by_themselves_nothing_is_padded() -> None:
    queue = queue_of([row(8), row(40), row(41)])
    batch = queue.pick(0.0, 1)
    assert batch is not None
    assert [len(r.ids) for r in batch.rows] == [8]


def test_free_lanes_share_what_waits() -> None:
    queue = queue_of([row(8) for _ in range(4)], each=1.0)
    first, second = queue.pick(0.0, 2), queue.pick(0.0, 1)
    assert first is not None
    assert second is not None
    assert [len(first.rows), len(second.rows)] == [2, 2]
    assert first.reason == "spread"


def test_a_row_by_itself_on_an_idle_machine_gets_all_threads() -> None:
    batch = queue_of([row(8)]).pick(0.0, 2)
    assert batch is not None
    assert (batch.wide, batch.reason) == (True, "wide")
    shared = queue_of([row(8)]).pick(0.0, 1)
    assert shared is not None
    assert (shared.wide, shared.reason) == (False, "single")


def test_a_deadline_makes_the_batch_smaller_and_says_so() -> None:
    rows = [row(32, deadline=0.9e-3), *(row(32) for _ in range(7))]
    batch = queue_of(rows, each=0.5).pick(0.0, 1)
    assert batch is not None
    assert (len(batch.rows), batch.reason) == (1, "urgent")
    slower = queue_of([row(32, deadline=2.5e-3), *(row(32) for _ in range(7))], each=0.5).pick(0.0, 1, drift=2.0)
    assert slower is not None
    assert len(slower.rows) < MOST_ROWS


def test_full_batches_are_called_so() -> None:
    batch = queue_of([row(8) for _ in range(20)], each=1.0).pick(0.0, 1)
    assert batch is not None
    assert (len(batch.rows), batch.reason) == (MOST_ROWS, "full")


def test_of_sizes_as_cheap_the_smallest_runs_but_with_a_queue_behind_it_the_largest() -> None:
    sizes = [queue_of([row(8) for _ in range(waiting)]).pick(0.0, 1) for waiting in (6, MOST_ROWS, MOST_ROWS + 1)]
    assert [batch and len(batch.rows) for batch in sizes] == [1, 1, MOST_ROWS]


def test_a_larger_batch_leaves_time_for_who_must_wait_for_it() -> None:
    near = [row(20, deadline=8.5e-3), row(30, deadline=9e-3)]
    queue = queue_of([*near, *(row(10) for _ in range(7))], per_token=0.0, each=1.0, lanes=1)
    queue.forecast.crowded_ms[1:] = [[n + 0.02] * (LONGEST + 1) for n in range(1, MOST_ROWS + 1)]
    now, ended = 0.0, dict[int, float]()
    while (batch := queue.pick(now, 1)) is not None:
        now += batch.predicted_ms / 1e3
        ended |= {id(one): now for one in batch.rows}
    assert all(ended[id(one)] <= one.deadline for one in near)


def test_what_nobody_waits_for_any_more_leaves_the_queue() -> None:
    rows = [row(8, 0.5), row(9, 3.0), row(8, 0.5)]
    queue = queue_of(rows)
    queue.drop(rows[2])
    assert queue.overdue(1.0) == [rows[0]]
    assert len(queue) == 1
    assert queue.work_before_ms(2.0) == 0
    assert queue.work_before_ms(4.0) == queue.work_ms > 0
    assert queue.overdue(4.0) == [rows[1]]
    assert (queue.pick(4.0, 1), queue.work_ms) == (None, 0)


def test_the_queue_is_bounded() -> None:
    queue = Queue(2, forecast())
    queue.add(row(8))
    queue.add(row(8))
    assert queue.room() == 0
    with pytest.raises(ValueError, match="holds 2 rows"):
        queue.add(row(8))

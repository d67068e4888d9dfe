"""Rows of requests come back to their own request, whatever fails beside them. The worker here is made of paper."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from plimsoll.core.errors import ChildError
from plimsoll.serve.costs import Costs, Forecast
from plimsoll.serve.engine import Engine, Ticket
from plimsoll.serve.ipc import Answer
from plimsoll.serve.link import Heard, Lane
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.reading import Reading
from plimsoll.serve.versions import Version
from plimsoll.testing.server import settings_of, write_artifact

POISON = 13


class Paper:
    """Lanes whose batches are answered when the test says so."""

    def __init__(self, threads: Sequence[int]) -> None:
        self.lanes = tuple(Lane(number, count, since=time.perf_counter()) for number, count in enumerate(threads))
        self.sent: list[tuple[Lane, list[list[int]], Heard]] = []
        self.dead, self.pid, self.killed = False, 0, False
        self.on_death: Callable[[], None] = lambda: None

    def send(self, lane: Lane, rows: list[list[int]], heard: Heard) -> None:
        lane.asked[len(self.sent)] = heard
        lane.since = time.perf_counter()
        self.sent.append((lane, rows, heard))

    def answer(self) -> list[list[int]]:
        """Answer the batch that was sent first: each row by its first token. A poisoned one fails."""
        lane, rows, heard = self.sent.pop(0)
        lane.asked.clear()
        if any(POISON in row for row in rows):
            heard(ChildError("poison"))
        else:
            heard(Answer(np.array([[row[0]] for row in rows], dtype=np.float32), 0.0, 1.0))
        return rows

    def kill(self) -> None:
        self.killed = True

    async def close(self) -> None:
        self.dead = True


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Engine, Paper]]:
    folder = write_artifact(tmp_path / "a")
    from plimsoll.core.artifact import verified

    version = Version("v", folder, verified(folder))

    def make(threads: tuple[int, ...] = (1,), **settings: Any) -> tuple[Engine, Paper]:
        grid = tuple(tuple(0.5 + 0.5 * n for _ in (8, 32)) for n in (1, 2, 4, 8))
        more = {"alone_ms": grid, "busy_ms": grid} if len(threads) > 1 else {}
        costs = Costs(version="v", machine="m", threads=threads, rows=(1, 2, 4, 8), lengths=(8, 32),
                      wide_ms=tuple(tuple(ms / 1.5 for ms in line) for line in grid) if more else grid, **more)
        engine = Engine(version, Reading(version.artifact, folder), Forecast(costs), threads,
                        settings_of(tmp_path, **settings), Metrics())
        paper = Paper(threads)
        engine.attach(cast(Any, paper))
        return engine, paper

    return make


def ticket(rows: list[list[int]], done: list[Ticket], deadline_s: float = 60.0) -> Ticket:
    return Ticket(rows, time.perf_counter() + deadline_s, done.append)


def outputs(found: Ticket) -> list[float]:
    return [float(o[0]) for o in found.found if o is not None]


def test_rows_that_ran_together_go_back_to_their_requests_in_order(made: Any) -> None:
    async def session() -> None:
        (engine, paper), done = made(), list[Ticket]()
        first, second, third = (ticket(rows, done) for rows in ([[1, 1]], [[2], [3, 3, 3]], [[4]]))
        for one in (first, second, third):
            assert engine.submit(one) is None
        assert paper.answer() == [[1, 1]]  # nothing else waited when it came
        assert paper.answer() == [[2], [4], [3, 3, 3]]  # and these in the meantime, by length
        assert done == [first, second, third] or done == [first, third, second]
        assert [outputs(t) for t in (first, second, third)] == [[1], [2, 3], [4]]
        assert second.queue_ms > 0

    asyncio.run(session())


def test_a_text_that_breaks_its_batch_breaks_nobody_elses(made: Any) -> None:
    async def session() -> None:
        (engine, paper), done = made(), list[Ticket]()
        engine.submit(ticket([[9]], done))
        good, bad, fine = (ticket([[n]], done) for n in (5, POISON, 6))
        for one in (good, bad, fine):
            engine.submit(one)
        while paper.sent:
            paper.answer()
        await asyncio.sleep(0)
        assert {id(t): t.failure for t in done} == {id(done[0]): None, id(good): None, id(bad): "failed",
                                                   id(fine): None}
        assert [outputs(t) for t in (good, fine)] == [[5], [6]]

    asyncio.run(session())


def test_a_session_that_gives_too_few_answers_gives_none_to_the_wrong_request(made: Any) -> None:
    async def session() -> None:
        (engine, paper), done = made(), list[Ticket]()
        engine.submit(ticket([[9]], done))
        first, second = ticket([[1]], done), ticket([[2]], done)
        engine.submit(first)
        engine.submit(second)
        paper.answer()
        lane, _, heard = paper.sent.pop(0)
        lane.asked.clear()
        heard(Answer(np.array([[7]], dtype=np.float32), 0.0, 1.0))
        while paper.sent:
            paper.answer()
        assert [outputs(t) for t in (first, second)] == [[1], [2]]

    asyncio.run(session())


def test_a_death_fails_what_was_in_flight_and_what_waited_and_no_more_is_taken(made: Any) -> None:
    async def session() -> None:
        (engine, paper), done = made(), list[Ticket]()
        running, waiting = ticket([[1]], done), ticket([[2]], done)
        engine.submit(running)
        engine.submit(waiting)
        engine._closed = True  # nobody starts another
        paper.dead = True
        paper.sent[0][2](None)
        paper.on_death()
        await asyncio.sleep(0)
        assert [t.failure for t in done] == ["died", "died"]
        assert not engine.ready
        refusal = engine.submit(ticket([[3]], done))
        assert refusal is not None
        assert refusal.code == "unavailable"

    asyncio.run(session())


def test_a_request_whose_deadline_passes_in_the_queue_is_told_so(made: Any) -> None:
    async def session() -> None:
        (engine, paper), done = made(), list[Ticket]()
        engine.submit(ticket([[1]], done))
        late = ticket([[2], [3]], done, deadline_s=0.05)
        assert engine.submit(late) is None
        await asyncio.sleep(0.06)
        engine.tick()
        await asyncio.sleep(0)
        assert late.failure == "overdue"
        assert len(engine.queue) == 0
        paper.answer()
        assert paper.sent == []

    asyncio.run(session())


def test_what_nobody_waits_for_is_not_computed(made: Any) -> None:
    async def session() -> None:
        (engine, paper), done = made(), list[Ticket]()
        engine.submit(ticket([[1]], done))
        gone, stays = ticket([[2], [2], [2]], done), ticket([[3]], done)
        engine.submit(gone)
        engine.submit(stays)
        engine.cancel(gone)
        paper.answer()
        assert paper.answer() == [[3]]
        assert gone not in done
        assert await engine.drain(1.0)

    asyncio.run(session())


def test_one_row_gets_all_threads_and_nothing_runs_beside_it(made: Any) -> None:
    async def session() -> None:
        (engine, paper), done = made((2, 1, 1)), list[Ticket]()
        for n in range(1, 5):
            engine.submit(ticket([[n]], done))
        assert [lane.threads for lane, *_ in paper.sent] == [2]
        paper.answer()
        assert [lane.threads for lane, *_ in paper.sent] == [1, 1]
        while paper.sent:
            paper.answer()
        assert sorted(outputs(t)[0] for t in done) == [1, 2, 3, 4]
        assert sum(engine._metrics.batches.values()) == 3

    asyncio.run(session())


def test_a_lane_that_owes_an_answer_is_not_called_ready_and_then_killed(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def session() -> None:
        engine, paper = made(stuck_s=5.0)
        began = time.perf_counter()
        monkeypatch.setattr(time, "perf_counter", lambda: began + 1.5)
        engine.tick()
        assert [rows for _, rows, _ in paper.sent] == [[engine._beat]]  # an idle lane is asked for a sign of life
        assert engine.ready
        monkeypatch.setattr(time, "perf_counter", lambda: began + 3.0)
        engine.tick()
        assert not engine.ready
        assert not paper.killed
        monkeypatch.setattr(time, "perf_counter", lambda: began + 7.0)
        engine.tick()
        assert paper.killed

    asyncio.run(session())


def test_a_full_queue_refuses_before_anything_is_looked_at(made: Any) -> None:
    async def session() -> None:
        (engine, _), done = made(queue_rows=3), list[Ticket]()
        engine.submit(ticket([[1]], done))
        assert engine.submit(ticket([[2], [2], [2]], done)) is None
        assert engine.full(1) is not None
        refusal = engine.submit(ticket([[3]], done))
        assert refusal is not None
        assert refusal.code == "overloaded"
        assert refusal.retry_after_ms >= 1

    asyncio.run(session())


def test_a_lane_has_its_next_batch_before_it_answers_where_more_waits_than_a_batch_takes(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        for i in range(1 + 8):
            assert engine.submit(ticket([[20 + i] * 8], done)) is None
        assert [len(rows) for _, rows, _ in paper.sent] == [1]  # eight may still wait for a better batch
        assert engine.submit(ticket([[29] * 8], done)) is None
        assert [len(rows) for _, rows, _ in paper.sent] == [1, 8]
        for i in range(10, 20):
            assert engine.submit(ticket([[20 + i] * 8], done)) is None
        assert len(paper.sent) == 2  # one ahead and no more
        while paper.sent:
            paper.answer()
        await asyncio.sleep(0)
        assert sorted(t.found[0][0] for t in done if t.found[0] is not None) == list(range(20, 40))
        assert engine.running == 0
        assert "plimsoll_ahead_total 2" in engine._metrics.text({}, "v")

    asyncio.run(check())


def test_every_lane_gets_one_ahead_and_none_while_all_threads_work_on_one_row(made: Any) -> None:
    async def check() -> None:
        engine, paper = made((2, 1, 1))
        done: list[Ticket] = []
        assert engine.submit(ticket([[0] * 8], done)) is None
        assert engine.submit(ticket([[i] * 8 for i in range(1, 41)], done)) is None
        assert [lane.number for lane, *_ in paper.sent] == [0]
        paper.answer()
        assert sorted(lane.number for lane, *_ in paper.sent) == [1, 1, 2, 2]
        assert len(engine.queue) == 40 - sum(len(rows) for _, rows, _ in paper.sent)

    asyncio.run(check())


def test_a_death_fails_what_was_given_ahead_too(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        for i in range(20):
            assert engine.submit(ticket([[i] * 8], done)) is None
        heards = [heard for *_, heard in paper.sent]
        assert len(heards) == 2
        for heard in heards:
            heard(None)
        engine._closed = True  # not to be started again
        paper.on_death()
        for _ in range(3):
            await asyncio.sleep(0)
        assert [t.failure for t in done] == ["died"] * 20
        assert engine.running == 0

    asyncio.run(check())


def test_rows_to_be_asked_alone_come_before_anything_is_given_ahead(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        for i in range(30):
            assert engine.submit(ticket([[POISON if i == 5 else 20 + i] * 8], done)) is None
        paper.answer()
        assert any([POISON] * 8 in rows for _, rows, _ in paper.sent)
        sizes = list[int]()
        while paper.sent:
            sizes.append(len(paper.answer()))
        await asyncio.sleep(0)
        # the batch that broke, the one that was given ahead, the eight rows by themselves, and the rest
        assert sizes[:10] == [8, 8, *[1] * 8]
        assert sum(sizes[10:]) == 30 - 1 - 16
        assert [t.failure for t in done].count("failed") == 1
        assert [t.failure for t in done].count(None) == 29

    asyncio.run(check())


def test_a_prediction_counts_what_a_lane_has_been_given(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        for i in range(10):
            assert engine.submit(ticket([[i] * 8], done)) is None
        assert [len(rows) for _, rows, _ in paper.sent] == [1, 8]
        # one row and eight rows run and one waits: 1 + 4.5 + 0.6 ms, and its own
        refusal = engine.submit(ticket([[10] * 8], done, deadline_s=5e-3))
        assert refusal is not None
        assert refusal.code == "overloaded"

    asyncio.run(check())


def test_broken_deadlines_make_predictions_longer_and_kept_ones_shorter_again(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        assert engine.submit(ticket([[1] * 8], done)) is None
        for _ in range(30):
            engine.submit(ticket([[2] * 8], done, deadline_s=0.02))
        time.sleep(0.03)  # the lane is stuck, and nothing that the drift could see has come back
        engine.tick()  # which calms by a little as well
        await asyncio.sleep(0)
        broken = [t for t in done if t.failure == "overdue"]
        assert broken
        assert engine.caution > 1
        while paper.sent:  # a batch that was given ahead is late as well
            paper.answer()
        cautious = engine.gauges()["caution"]
        assert cautious > 1.1
        for _ in range(500):
            assert engine.submit(ticket([[3] * 8], done)) is None
            paper.answer()
        assert 1 < engine.caution < cautious
        for _ in range(150):  # five a second
            engine.tick()
        assert engine.caution == 1

    asyncio.run(check())


def test_a_storm_is_forgotten_soon_once_nothing_is_late_any_more(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        engine, _ = made()
        engine._too_late()
        engine.caution = 8.0
        for _ in range(12):  # two seconds and a half
            engine.tick()
        assert engine.caution > 6
        monkeypatch.setattr("plimsoll.serve.engine._NO_LATE_S", 0.0)
        for _ in range(12):
            engine.tick()
        assert engine.caution == 1

    asyncio.run(check())


def test_a_death_fails_rows_that_were_to_be_asked_alone(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        assert engine.submit(ticket([[20]], done)) is None
        for i in range(4):
            assert engine.submit(ticket([[POISON if i == 1 else 30 + i]], done)) is None
        paper.answer()
        assert len(paper.answer()) == 4  # which broke; now each is asked alone, and the first of them is in the lane
        assert len(paper.sent) == 1
        engine._closed = True  # not to be started again
        paper.dead = True
        paper.sent[0][2](None)
        paper.on_death()
        for _ in range(3):
            await asyncio.sleep(0)
        assert [t.failure for t in done] == [None, *["died"] * 4]

    asyncio.run(check())


def test_an_answer_that_is_late_is_sent_and_counted_and_makes_the_server_careful(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        late = ticket([[20]], done, deadline_s=0.01)
        assert engine.submit(late) is None
        time.sleep(0.02)
        paper.answer()
        assert outputs(late) == [20]
        assert late.failure is None
        assert engine.caution > 1
        assert "plimsoll_late_total 1" in engine._metrics.text({}, "v")

    asyncio.run(check())


def test_a_row_to_be_asked_alone_has_a_deadline_too(made: Any) -> None:
    async def check() -> None:
        engine, paper = made()
        done: list[Ticket] = []
        assert engine.submit(ticket([[20]], done)) is None
        for n in (POISON, 31):
            assert engine.submit(ticket([[n]], done, deadline_s=0.05)) is None
        paper.answer()
        time.sleep(0.06)
        while paper.sent:
            paper.answer()
        await asyncio.sleep(0)
        assert [t.failure for t in done] == [None, "overdue", "overdue"]

    asyncio.run(check())

"""A worker answers on every lane, may be killed at any time, and says why it could not open an artifact."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plimsoll.core.errors import ChildError, RunError
from plimsoll.serve import ipc
from plimsoll.serve.link import Worker
from plimsoll.testing.server import write_artifact


def test_each_lane_answers_by_itself_and_one_that_is_closed_ends_no_other(tmp_path: Path) -> None:
    async def session() -> None:
        worker, name = await Worker.start(write_artifact(tmp_path / "a"), (2, 1))
        try:
            assert len(name) == 16
            one, other = worker.lanes
            first, second = await asyncio.gather(worker.ask(one, [[3], [4, 5]]), worker.ask(other, [[4]]))
            np.testing.assert_array_equal(first.outputs.argmax(axis=1), [0, 2])
            np.testing.assert_array_equal(second.outputs.argmax(axis=1), [1])
            assert first.compute_ms > 0
            worker.close_lane(one)
            await asyncio.sleep(0.2)
            assert not worker.dead
            assert (await worker.ask(other, [[5]])).outputs.argmax() == 2
        finally:
            await worker.close()

    asyncio.run(session())


def test_who_waits_for_a_worker_that_is_killed_hears_of_it_at_once(tmp_path: Path) -> None:
    async def session() -> list[Any]:
        worker, _ = await Worker.start(write_artifact(tmp_path / "a", speed="slow", delay_ms=5000), (1, 1))
        told = asyncio.Event()
        worker.on_death = told.set
        asked = [asyncio.ensure_future(worker.ask(lane, [[3]])) for lane in worker.lanes]
        await asyncio.sleep(0.1)
        os.kill(worker.pid, signal.SIGKILL)
        async with asyncio.timeout(2):
            found = await asyncio.gather(*asked, return_exceptions=True)
            await told.wait()
        with pytest.raises(ChildError, match="died"):
            await worker.ask(worker.lanes[0], [[3]])
        await worker.close()
        return found

    assert all(isinstance(error, ChildError) for error in asyncio.run(session()))


def test_a_worker_that_answers_what_is_no_answer_is_ended_and_who_waits_hears_of_it(tmp_path: Path) -> None:
    async def session() -> None:
        worker, _ = await Worker.start(write_artifact(tmp_path / "a", speed="slow", delay_ms=5000), (1,))
        asked = asyncio.ensure_future(worker.ask(worker.lanes[0], [[3]]))
        await asyncio.sleep(0.1)
        worker.heard(worker.lanes[0], ipc.Frame(ipc.Kind.ANSWER, next(iter(worker.lanes[0].asked)), b"odd"))
        with pytest.raises(ChildError, match="died"):
            async with asyncio.timeout(2):
                await asked
        await worker.close()

    asyncio.run(session())


def test_signals_that_are_meant_for_the_supervisor_leave_its_worker_at_work(tmp_path: Path) -> None:
    async def session() -> None:
        worker, _ = await Worker.start(write_artifact(tmp_path / "a"), (1,))
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(worker.pid, number)
            await asyncio.sleep(0.1)
            assert (await worker.ask(worker.lanes[0], [[4]])).outputs.argmax() == 1
        finally:
            await worker.close()

    asyncio.run(session())


def test_a_batch_that_cannot_be_computed_fails_alone(tmp_path: Path) -> None:
    async def session() -> None:
        worker, _ = await Worker.start(write_artifact(tmp_path / "a"), (1,))
        try:
            with pytest.raises(ChildError, match="IndexError"):
                await worker.ask(worker.lanes[0], [[]])
            assert (await worker.ask(worker.lanes[0], [[5]])).outputs.argmax() == 2
        finally:
            await worker.close()

    asyncio.run(session())


def test_an_artifact_that_does_not_open_says_why_in_its_own_words(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "a")
    (folder / "null.json").write_text("{}")
    with pytest.raises(RunError, match="sha256 differs"):
        asyncio.run(Worker.start(folder, (1,)))
    broken = write_artifact(tmp_path / "b")
    (broken / "artifact.json").write_text((broken / "artifact.json").read_text().replace('"null.json"', '"x.json"'))
    with pytest.raises(RunError, match="missing"):
        asyncio.run(Worker.start(broken, (1,)))

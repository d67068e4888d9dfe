"""A worker process as the supervisor sees it: batches go in by lane, answers come back to whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from plimsoll.core.child import revive
from plimsoll.core.errors import ChildError, PlimsollError
from plimsoll.serve import ipc
from plimsoll.serve.ipc import Answer, Frame, Kind

_START_S = 120.0
"""Longest that opening an artifact may take: a runtime that compiles at open takes tens of seconds."""

_ANSWER_S = 60.0
"""Longest that a batch may take while an artifact is warmed up and measured."""

Heard = Callable[["Answer | PlimsollError | None"], None]
"""Called with the answer to a batch, with what went wrong with it, or with None when the worker died."""


@dataclass(slots=True)
class Lane:
    """One session of the worker, and the batches that it has not answered yet."""

    number: int
    threads: int
    transport: asyncio.Transport | None = None
    asked: dict[int, Heard] = field(default_factory=dict[int, "Heard"])
    since: float = 0.0
    """When it was last asked or last answered, by `time.perf_counter`."""
    closed: bool = False


class Worker:
    """A running worker; `start` makes one. When it dies, everybody who waits hears None, and `on_death` is called."""

    def __init__(self, process: subprocess.Popen[bytes], threads: Sequence[int]) -> None:
        self._process = process
        self.lanes = tuple(Lane(number, count) for number, count in enumerate(threads))
        self.on_death: Callable[[], None] = lambda: None
        self.dead = self.killed = False
        self._number = 0
        self._hello: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in threads]

    @classmethod
    async def start(cls, folder: Path, threads: Sequence[int]) -> tuple[Worker, str]:
        """Start a process that opens the artifact `folder` once for each lane, with so many threads each.

        Returns it with the version that it opened. Raises what went wrong in it, ChildError when it died.
        """
        ours, theirs = zip(*(socket.socketpair() for _ in threads), strict=True)
        limits = {k: str(max(threads)) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        lanes = [f"{end.fileno()}:{count}" for end, count in zip(theirs, threads, strict=True)]
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "plimsoll.serve.worker", str(folder), *lanes],
                stdin=subprocess.DEVNULL,
                pass_fds=[end.fileno() for end in theirs],
                env={**os.environ, **limits, "TOKENIZERS_PARALLELISM": "false"},
            )
        finally:
            for end in theirs:
                end.close()
        worker = cls(process, threads)
        loop = asyncio.get_running_loop()
        try:
            for lane, end in zip(worker.lanes, ours, strict=True):
                end.setblocking(False)
                await loop.create_unix_connection(lambda lane=lane: _Reader(worker, lane), sock=end)
            async with asyncio.timeout(_START_S):
                versions = await asyncio.gather(*worker._hello)
        except TimeoutError:
            await worker.close()
            raise ChildError(f"the worker did not open the artifact within {_START_S:.0f} s",
                             "look at what it printed") from None
        except BaseException:
            await worker.close()
            raise
        return worker, versions[0]

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def send(self, lane: Lane, rows: Sequence[Sequence[int]], heard: Heard) -> None:
        """Ask a lane for the outputs of rows of token ids; it answers in the order it was asked."""
        if self.dead or lane.transport is None:
            heard(None)
            return
        self._number = (self._number + 1) & 0xFFFFFFFF
        if not lane.asked:
            lane.since = time.perf_counter()
        lane.asked[self._number] = heard
        lane.transport.write(ipc.frame(Kind.RUN, self._number, ipc.pack_rows(rows)))

    async def ask(self, lane: Lane, rows: Sequence[Sequence[int]]) -> Answer:
        """Return a lane's answer. Raises what went wrong with the batch, ChildError when the worker died."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def heard(found: Answer | PlimsollError | None) -> None:
            if future.done():
                return
            if isinstance(found, Answer):
                future.set_result(found)
            else:
                future.set_exception(ChildError("the worker died") if found is None else found)

        self.send(lane, rows, heard)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await future
        except TimeoutError:
            raise ChildError(f"the worker did not answer within {_ANSWER_S:.0f} s",
                             "look at what it printed") from None

    def close_lane(self, lane: Lane) -> None:
        """Let go of a lane that is not needed; its session is closed and its memory given back."""
        lane.closed = True
        if lane.transport is not None:
            lane.transport.write(ipc.frame(Kind.CLOSE))

    def kill(self) -> None:
        """End the process now. Everybody who waits hears of it when its sockets close, within a moment."""
        self.killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End the process and wait until it is gone."""
        self.on_death = lambda: None
        self.kill()
        self._died()
        for lane in self.lanes:
            if lane.transport is not None:
                lane.transport.abort()
        await asyncio.to_thread(self._process.wait)

    def heard(self, lane: Lane, frame: Frame) -> None:
        """Take in a frame from a lane."""
        if self.dead:  # a frame that was still on its way when another lane was lost: nobody waits for it
            return
        lane.since = time.perf_counter()
        hello = self._hello[lane.number]
        if frame.kind == Kind.HELLO:
            hello.set_result(str(ipc.unpack_json(frame.payload)["version"]))
        elif frame.kind == Kind.ANSWER:
            try:
                answer = ipc.unpack_answer(frame.payload)
            except (struct.error, ValueError):
                self.kill()  # it writes what is no answer: who waits hears of its death
                return
            lane.asked.pop(frame.number)(answer)
        elif frame.kind == Kind.FAILED:
            error = revive(cast(dict[str, str], ipc.unpack_json(frame.payload)))
            if hello.done():
                lane.asked.pop(frame.number)(error)
            else:
                hello.set_exception(error)

    def lost(self, lane: Lane) -> None:
        """Take in that a lane's socket closed."""
        lane.transport = None
        if not lane.closed:
            self._died()

    def _died(self) -> None:
        if self.dead:
            return
        self.dead = True
        self.kill()  # of a process that lost one lane, the others answer for nobody
        failed = ChildError("the worker ended before it had opened the artifact", "look at what it printed")
        for hello in self._hello:
            if not hello.done():
                hello.set_exception(failed)
        for hello in self._hello:
            if not hello.cancelled():
                hello.exception()  # seen, though nobody may be waiting
        waiting = [heard for lane in self.lanes for heard in lane.asked.values()]
        for lane in self.lanes:
            lane.asked.clear()
        for heard in waiting:
            heard(None)
        self.on_death()

    async def gone(self) -> None:
        """Return once the process has ended and left nothing behind."""
        await asyncio.to_thread(self._process.wait)


class _Reader(asyncio.Protocol):
    def __init__(self, worker: Worker, lane: Lane) -> None:
        self._worker, self._lane, self._frames = worker, lane, ipc.Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lane.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._frames.feed(data)
        except ChildError:
            self._worker.kill()  # it writes what is no frame: nothing that follows can be trusted
            return
        for frame in frames:
            self._worker.heard(self._lane, frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.lost(self._lane)

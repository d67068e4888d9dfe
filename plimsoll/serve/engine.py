"""One version in service: its queue, its worker and what runs on which lane; requests go in, outputs come out.

Everything happens on the loop's thread. A worker that dies fails what was in flight at once and is started again; one
that does not answer is killed first.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import ChildError, PlimsollError
from plimsoll.core.memory import resident_bytes
from plimsoll.serve.admission import Load, Refusal, admit
from plimsoll.serve.batching import Batch, Queue, Row
from plimsoll.serve.costs import Forecast
from plimsoll.serve.ipc import Answer
from plimsoll.serve.link import Lane, Worker
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.reading import Reading
from plimsoll.serve.settings import Settings
from plimsoll.serve.versions import Version

_log = logging.getLogger("plimsoll.serve")

_BEAT_S = 1.0
"""An idle lane is asked for a short row this often: what answers health is the path that answers requests."""
_BEAT_TOKENS = 4
_LATE_S = 1.0
"""Without an answer this much longer than predicted, a worker is no longer called ready."""
_DRIFT_STEP = 0.05
_MORE_CAUTION, _LESS_CAUTION, _CALMER, _MOST_CAUTION = 1.1, 0.9999, 0.98, 8.0
"""A moment in which requests that were taken in are found to be late makes predictions longer by a tenth, however many
they are; each answer in time, and each look at the worker, make them shorter. At a thousand requests a second two such
moments a second are the most that there are for long, whatever the table and the drift do not see."""
_NO_LATE_S, _CALM_SOON = 3.0, 0.8
"""So long after the last such moment each look makes them shorter by more: a storm is forgotten within five seconds,
and a server that is still careful would refuse for nothing."""
_CALM_S = 30.0
"""A worker that lived so long starts again at once; sooner, each time later."""

Failure = Literal["died", "overdue", "failed"]


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the engine, from its rows of token ids to their outputs."""

    rows: Sequence[list[int]]
    deadline: float
    """Seconds, on the clock of `time.perf_counter`."""
    done: Callable[[Ticket], None]
    """Called once, when all rows are answered or the first has failed; not after `Engine.cancel`."""
    parts: Sequence[Row] = ()
    found: list[NDArray[np.float32] | None] = field(default_factory=list[NDArray[np.float32] | None])
    failure: Failure | None = None
    message: str = ""
    left: int = 0
    over: bool = False
    queued: float = 0.0
    queue_ms: float = 0.0
    """Of the row that was answered last, like the two below."""
    pad_ms: float = 0.0
    compute_ms: float = 0.0


@dataclass(slots=True)
class _Run:
    batch: Batch
    began: float
    """When its lane was given it, or had answered the one before."""
    table_ms: float

    def ends(self) -> float:
        """Return when it will have been answered by what was predicted."""
        return self.began + self.batch.predicted_ms / 1e3


class Engine:
    """See the module. `start` before use, `tick` several times a second, `close` at the end."""

    def __init__(self, version: Version, reading: Reading, forecast: Forecast, threads: Sequence[int],
                 settings: Settings, metrics: Metrics) -> None:
        """threads: of each lane that is in use, that of all threads first where there is one beside the others."""
        self.version, self.reading, self.forecast = version, reading, forecast
        self._threads, self._settings, self._metrics = tuple(threads), settings, metrics
        self._beat = reading.filler()[:_BEAT_TOKENS]
        self.queue = Queue(settings.queue_rows, forecast)
        self.drift = 1.0
        self.caution = 1.0
        """By what factor predictions were too short of late, as broken deadlines tell."""
        self._late_at = -math.inf
        self.promised = 0
        """Requests that are its to answer, from before their texts are tokenized; kept by those who ask."""
        self.worker: Worker | None = None
        self._idle: list[Lane] = []
        self._wide: Lane | None = None
        self._lanes: list[Lane] = []
        """Those that run side by side: all but `_wide`."""
        self._running: dict[int, _Run] = {}
        self._ahead: dict[int, _Run] = {}
        """What lanes were given before they had answered the last."""
        self._again: deque[Row] = deque()
        self._start: asyncio.Task[None] | None = None
        self._failed_starts = 0
        self._born = self._start_s = 0.0
        self._closed = False

    # -- requests

    def full(self, rows: int) -> Refusal | None:
        """Return why so many rows cannot be taken in whatever they are; a look before their texts are tokenized."""
        if self.worker is None:
            return Refusal("unavailable", "the worker is being started", max(100.0, self._start_s * 1e3))
        if rows <= self.queue.room():
            return None
        return admit(self._load(time.perf_counter(), math.inf), rows, 0.0, 0.0, math.inf)

    def submit(self, ticket: Ticket) -> Refusal | None:
        """Take a request in, or return why not; `ticket.done` is called later, never from here."""
        if (refusal := self.full(len(ticket.rows))) is not None:
            return refusal
        now, rows, forecast = time.perf_counter(), ticket.rows, self.forecast
        work_ms = sum([forecast.row_ms[len(ids)] for ids in rows])
        longest = max(map(len, rows))
        idle = len(rows) == 1 and not self._running  # then it gets all threads, where that helps
        single_ms = (forecast.wide_ms if idle and forecast.widens(longest) else forecast.quiet_ms)[1][longest]
        if (refusal := admit(self._load(now, ticket.deadline), len(rows), work_ms, single_ms,
                             (ticket.deadline - now) * 1e3)) is not None:
            return refusal
        ticket.found, ticket.left, ticket.queued = [None] * len(rows), len(rows), now
        ticket.parts = [Row(ids, ticket.deadline, ticket, index) for index, ids in enumerate(rows)]
        for row in ticket.parts:
            self.queue.add(row)
        self._pump(now)
        return None

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request: what waits of it leaves the queue, and nobody is told."""
        ticket.over = True
        for row in ticket.parts:
            if row.waits:
                self.queue.drop(row)
        ticket.parts = ()

    @property
    def ready(self) -> bool:
        """Whether a request asked now would be computed: the worker is there, and no lane owes an answer for long."""
        now = time.perf_counter()
        return self.worker is not None and not any(self._late_s(lane, now) > _LATE_S for lane in self.worker.lanes)

    @property
    def running(self) -> int:
        """Batches that run now."""
        return len(self._running)

    def gauges(self) -> dict[str, float]:
        """Return what metrics show of it now."""
        worker = self.worker
        return {"ready": self.ready, "queue_rows": len(self.queue), "queue_work_ms": self.queue.work_ms,
                "running_batches": self.running, "lanes": self.forecast.lanes, "drift": self.drift,
                "caution": self.caution,
                **({} if worker is None else {"worker_resident_bytes": resident_bytes(worker.pid)})}

    # -- scheduling

    def _load(self, now: float, deadline: float) -> Load:
        free_in_ms = 0.0
        if not self._running:  # nothing waits either
            return Load(0, self.queue.limit, 0.0, 0.0, self.forecast.lanes, 0.0, self.drift * self.caution)
        if not self._idle or self._wide_runs():
            free_in_ms = max(0.0, min(map(self._free_at, self._running), default=now) - now) * 1e3
        last_ms = (self.queue.last_deadline() - now) * 1e3 if len(self.queue) else 0.0
        return Load(len(self.queue), self.queue.room(), self.queue.work_before_ms(deadline), self.queue.work_ms,
                    self.forecast.lanes, free_in_ms, self.drift * self.caution, last_ms)

    def _free_at(self, number: int) -> float:
        """Return when a lane that runs will have answered all that it was given, as predicted."""
        ahead = self._ahead.get(number)
        return self._running[number].ends() + (ahead.batch.predicted_ms / 1e3 if ahead else 0.0)

    def _wide_runs(self) -> bool:
        return self._wide is not None and self._wide.number in self._running

    def _pump(self, now: float) -> None:
        """Give every free lane something to do while something waits."""
        if not self._again and not len(self.queue):
            return
        overdue = self.queue.overdue(now)
        if overdue:
            self._too_late()
        for row in overdue:
            self._fail(row.owner, "overdue", "the deadline passed while the request waited")
        while self._again and self._idle and not self._wide_runs():
            row = self._again.popleft()
            if row.deadline < now:
                self._fail(row.owner, "overdue", "the deadline passed while the request waited")
            elif not row.owner.over:
                alone_ms = self.forecast.crowded_ms[1][len(row.ids)] * self.drift
                self._run(self._idle.pop(), Batch([row], wide=False, reason="single", predicted_ms=alone_ms), now)
        while self._idle and not self._wide_runs():
            batch = self.queue.pick(now, len(self._idle), self.drift)
            if batch is None:
                return
            lane = self._wide if batch.wide and self._wide is not None else self._idle.pop()
            self._run(lane, batch, now)
        if len(self.queue) > self.forecast.most_rows:
            self._give_ahead(now)

    def _give_ahead(self, now: float) -> None:
        """Give lanes their next batch while they compute, so that they need not wait for it.

        Only where more waits than a batch takes: a batch chosen later would be as full. Else the queue is the window.
        """
        for lane in self._lanes:
            if self._again or self._wide_runs() or len(self.queue) <= self.forecast.most_rows:
                return
            run = self._running.get(lane.number)
            if run is not None and lane.number not in self._ahead:
                batch = self.queue.pick(max(now, run.ends()), 1, self.drift)
                assert batch is not None
                self._metrics.ahead += 1
                self._run(lane, batch, now)

    def _run(self, lane: Lane, batch: Batch, now: float) -> None:
        """Give a lane a batch: to run now, or after the one that it has."""
        assert self.worker is not None
        self._metrics.batch(batch.reason, [len(row.ids) for row in batch.rows])
        run = _Run(batch, now, batch.predicted_ms / self.drift)
        (self._ahead if lane.number in self._running else self._running)[lane.number] = run
        self.worker.send(lane, [row.ids for row in batch.rows], partial(self._heard, lane, run))

    def _heard(self, lane: Lane, run: _Run, answer: Answer | PlimsollError | None) -> None:
        now = time.perf_counter()
        self._running.pop(lane.number, None)
        rows = run.batch.rows
        if answer is None:
            for row in rows:
                self._fail(row.owner, "died", "the worker died with this request in flight")
            return
        following = self._ahead.pop(lane.number, None)
        if following is not None:
            following.began = now
            self._running[lane.number] = following
        elif lane is not self._wide:
            self._idle.append(lane)
        if isinstance(answer, Answer) and len(answer.outputs) != len(rows):
            answer = ChildError(f"the session gave {len(answer.outputs)} answers to {len(rows)} rows")
        if isinstance(answer, Answer):
            # clipped, so that one stall of the machine does not refuse requests for long
            slower = min(max((now - run.began) * 1e3 / run.table_ms, 0.25), 4.0)
            self.drift += _DRIFT_STEP * (slower - self.drift)
        elif len(rows) > 1:
            # somebody's row breaks the batch: each is asked by itself, so that only that one hears of it
            self._metrics.split += 1
            self._again.extend(rows)
        self._pump(now)  # before the answers are written: the lane is free
        if isinstance(answer, Answer):
            late = False
            for row, outputs in zip(rows, answer.outputs, strict=True):
                if not row.owner.over:
                    late |= row.deadline < now
                    self._answered(row, outputs, answer, run, now)
            if late:
                self._too_late()
        elif len(rows) == 1:
            self._fail(rows[0].owner, "failed", "the model could not answer this text")
            _log.error("a row of %d tokens could not be computed: %s", len(rows[0].ids), answer.message)

    def _answered(self, row: Row, outputs: NDArray[np.float32], answer: Answer, run: _Run, now: float) -> None:
        ticket: Ticket = row.owner
        ticket.found[row.index] = outputs
        ticket.left -= 1
        if not ticket.left:
            ticket.over, ticket.parts = True, ()  # which point back: nothing is left for the garbage collector
            if now > ticket.deadline:
                self._metrics.late += 1  # it is sent all the same: it is computed, and somebody may still want it
            else:
                self.caution = max(1.0, self.caution * _LESS_CAUTION)
            ticket.queue_ms = (run.began - ticket.queued) * 1e3
            ticket.pad_ms, ticket.compute_ms = answer.pad_ms, answer.compute_ms
            ticket.done(ticket)

    def _too_late(self) -> None:
        self._late_at = time.perf_counter()
        self.caution = min(self.caution * _MORE_CAUTION, _MOST_CAUTION)

    def _fail(self, ticket: Ticket, failure: Failure, message: str) -> None:
        if ticket.over:
            return
        self._metrics.overdue += failure == "overdue"
        self.cancel(ticket)
        ticket.failure, ticket.message = failure, message
        # not from within a call of the requester's own
        asyncio.get_running_loop().call_soon(ticket.done, ticket)

    # -- the worker

    def attach(self, worker: Worker) -> None:
        """Serve with a worker whose lanes are those this engine was made for."""
        lanes = [lane for lane in worker.lanes if not lane.closed]
        if len(lanes) != len(self._threads):
            raise ValueError(f"the engine has {len(self._threads)} lanes, the worker {len(lanes)}")
        if worker.dead:
            raise ChildError("the worker died as soon as it was there", "look at what it printed")
        self._wide = lanes[0] if self.forecast.narrow and self.forecast.wide else None
        self._lanes = [lane for lane in lanes if lane is not self._wide]
        self._idle = self._lanes[::-1]
        self._running.clear()
        self._ahead.clear()
        self.worker, worker.on_death = worker, self._died
        self._born = time.perf_counter()

    async def start(self) -> None:
        """Start a worker of this version. Raises what kept it from opening the artifact."""
        began = time.perf_counter()
        worker, name = await Worker.start(self.version.folder, self._threads)
        try:
            if name != self.version.name:
                raise ChildError(f"the worker opened version {name}, not {self.version.name}", "load it again")
            for lane in worker.lanes:
                await worker.ask(lane, [self._beat])
            self.attach(worker)
        except BaseException:
            await worker.close()
            raise
        self._start_s = time.perf_counter() - began

    def tick(self) -> None:
        """Look after the worker: ask idle lanes for a sign of life, and end one that owes an answer for too long."""
        now, worker = time.perf_counter(), self.worker
        self.caution = max(1.0, self.caution * (_CALMER if now - self._late_at < _NO_LATE_S else _CALM_SOON))
        if worker is None or worker.killed:
            return
        self._pump(now)
        if any(self._late_s(lane, now) > self._settings.stuck_s for lane in worker.lanes):
            _log.error("worker %d has not answered for %.1f s; it is killed", worker.pid, self._settings.stuck_s)
            self._metrics.stuck += 1
            worker.kill()
            return
        for lane in worker.lanes:
            if not lane.closed and not lane.asked and now - lane.since > _BEAT_S:
                worker.send(lane, [self._beat], lambda answer: None)

    def _late_s(self, lane: Lane, now: float) -> float:
        """Return by how much a lane is behind what was predicted; 0 when it owes nothing."""
        if not lane.asked:
            return 0.0
        run = self._running.get(lane.number)
        return now - lane.since - (run.batch.predicted_ms / 1e3 if run else 0.0)

    def _died(self) -> None:
        worker, self.worker = self.worker, None
        self._idle, self._lanes, self._wide = [], [], None
        self._running.clear()
        self._ahead.clear()
        waiting = {id(row.owner): row.owner for row in (*self.queue.all(), *self._again)}
        self._again.clear()
        for ticket in waiting.values():
            self._fail(ticket, "died", "the worker died while this request waited")
        if worker is not None and not self._closed:
            self._metrics.restarts += 1
            _log.error("worker %d died; %d waiting requests were failed", worker.pid, len(waiting))
            self._start = asyncio.get_running_loop().create_task(self._start_again(worker))

    async def _start_again(self, dead: Worker) -> None:
        await dead.gone()
        self._failed_starts = 0 if time.perf_counter() - self._born > _CALM_S else self._failed_starts + 1
        while not self._closed:
            # at once after two deaths in a row; then after 0.25, 0.5, 1 ... 30 s
            wait_s = 0.0 if self._failed_starts <= 1 else min(30.0, 0.125 * 2 ** (self._failed_starts - 1))
            await asyncio.sleep(wait_s)
            try:
                await self.start()
            except Exception as e:  # the border: whatever it was, a server without a worker tries again
                self._failed_starts += 1
                _log.error("the worker could not be started again: %s", e, exc_info=not isinstance(e, PlimsollError))
            else:
                _log.warning("the worker is back after %.2f s", self._start_s + wait_s)
                return

    async def drain(self, most_s: float) -> bool:
        """Wait until nothing waits or runs, at most so long; return whether that came about."""
        end = time.perf_counter() + most_s
        while self.promised or len(self.queue) or self._running or self._again:
            if time.perf_counter() > end:
                return False
            await asyncio.sleep(0.005)
        return True

    async def close(self) -> None:
        """End the worker; what is still in flight fails."""
        self._closed = True
        if self._start is not None:
            self._start.cancel()
            await asyncio.gather(self._start, return_exceptions=True)
        if self.worker is not None:
            worker = self.worker
            await worker.close()
            self._died()

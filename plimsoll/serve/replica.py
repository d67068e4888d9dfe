"""A server without a network of its own: what a replica holds, asked through somebody else's proxy.

Engine, routes, limits and answers are those of `plimsoll.serve.supervisor`; only who brings the requests is another.
What a proxy does before a request is here is not done again: headers, connections and slow clients are its to bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plimsoll.bench.machine import fingerprint
from plimsoll.core.errors import ChildError
from plimsoll.core.memory import resident_bytes
from plimsoll.serve import opening, spans, versions
from plimsoll.serve.asking import Asker
from plimsoll.serve.costs import Costs
from plimsoll.serve.engine import Engine
from plimsoll.serve.http import JSON
from plimsoll.serve.keys import Caller, Keys
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.parity import RECENT
from plimsoll.serve.reading import Question
from plimsoll.serve.routes import Routes
from plimsoll.serve.settings import Settings

_log = logging.getLogger("plimsoll.serve")

_TICK_S = 0.2


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    """In small letters; the body's kind and length are among them."""
    body: bytes


class Brought:
    """A request that a proxy brought, as `plimsoll.serve.routes` sees one."""

    def __init__(self, method: str, path: str, headers: dict[bytes, bytes]) -> None:
        """headers: their names in small letters."""
        self.method, self.path, self.headers = method, path, headers
        self.body = b""
        self.arrived = time.perf_counter()
        self.caller: Caller | None = None
        self.route = "other"
        self.gone: Callable[[], None] | None = None
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def respond(self, status: int, body: bytes, extra: bytes = b"", kind: bytes = JSON) -> None:
        """Answer; extra: more header lines, each with its end. What comes after the first answer is not sent."""
        if self.reply.done():
            return
        lines = [line.partition(b": ") for line in extra.split(b"\r\n") if line]
        self.reply.set_result(Reply(status, [(b"content-type", kind), (b"content-length", str(len(body)).encode()),
                                             *((name, value) for name, _, value in lines)], body))


class Replica:
    """One version behind a proxy. `start` before use, `close` at the end."""

    def __init__(self, settings: Settings, keys: Keys | None, tag: str) -> None:
        """tag: which replica this is. Its metrics say so, because a proxy asks now one of them and now another."""
        self.settings, self.keys, self.name = settings, keys, settings.name
        self.metrics = Metrics(replica=tag)
        self.engine: Engine | None = None
        self._routes = Routes(self)
        self._tracing = spans.exported() if settings.spans else None
        self._recent: deque[tuple[str, Any]] = deque(maxlen=RECENT)
        self._bodies = 0
        self._ticking: asyncio.Task[None] | None = None
        self._stack = contextlib.ExitStack()

    async def start(self, version: str, files: Mapping[str, bytes], costs: Costs | None) -> None:
        """Open a version, and return when it answers. Raises what keeps it from that.

        files: of the artifact, its record among them. costs: measured by somebody else; good on a machine like that.
        """
        threads = self.settings.threads
        if threads is None:
            raise ValueError("a replica is told how many threads it has")
        try:
            shelf = self._stack.enter_context(versions.shelf())
            taken, here = await asyncio.gather(asyncio.to_thread(versions.unpack, files, shelf),
                                               asyncio.to_thread(fingerprint))
            if taken.name != version:
                raise ChildError(f"version {taken.name} came where {version} was asked for", "deploy it again")
            tables = {version: costs} if costs is not None and costs.machine == here.digest else {}
            settings = self.settings.model_copy(update={"run": taken.folder})
            self.engine = await opening.opened(taken, settings, self.metrics, threads, here.digest, tables,
                                               budget_s=settings.measure_s, keep=False)
        except BaseException:
            self._stack.close()
            raise
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def answer(self, method: str, path: str, headers: dict[bytes, bytes], body: AsyncIterator[bytes]) -> Reply:
        """Answer a request, whose body is taken in as far as it may be. Cancelled, its work is dropped."""
        request = Brought(method, path, headers)
        self._routes.headers(request)
        held = [0]
        try:
            if not request.reply.done():
                await self._receive(request, body, held)
            if not request.reply.done():
                request.arrived = time.perf_counter()
                self._ask(request)
            return await request.reply
        except asyncio.CancelledError:
            if request.gone is not None:
                request.gone()
            raise
        finally:
            self._bodies -= held[0]

    async def _receive(self, request: Brought, body: AsyncIterator[bytes], held: list[int]) -> None:
        """Take in the body, or refuse it. held: its bytes so far, which count until the request is answered."""
        settings = self.settings
        announced = request.headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced[:20]) > settings.body_bytes:
            self._too_large(request)
            return
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(settings.body_s):
                async for chunk in body:
                    held[0] += len(chunk)
                    self._bodies += len(chunk)
                    chunks.append(chunk)
                    if held[0] > settings.body_bytes:
                        self._too_large(request)
                        return
                    if self._bodies > settings.bodies_bytes:
                        self._routes.malformed(request, 429, "overloaded", "too many requests are being received", 1000)
                        return
        except TimeoutError:
            self._routes.malformed(request, 408, "too_slow", "the request did not arrive in time")
        request.body = b"".join(chunks)

    def _too_large(self, request: Brought) -> None:
        self._routes.malformed(request, 413, "body_too_large", f"more than {self.settings.body_bytes} bytes of body")

    def _ask(self, request: Brought) -> None:
        try:
            self._routes.request(request)
        except Exception:  # the border of the server: one request's fault is not another's
            _log.exception("a request could not be answered")
            self._routes.malformed(request, 500, "internal", "this request met a fault of the server")

    def check(self) -> None:
        """Raise ChildError when a request asked now would not be computed."""
        if self.engine is None or not self.engine.ready:
            raise ChildError("the worker does not answer", "look at what it printed")

    def recent(self) -> list[tuple[str, Any]]:
        """Return texts that were asked of late and the answers they were given."""
        return list(self._recent)

    async def close(self) -> None:
        """End the worker; what is still in flight fails."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        self._stack.close()

    # -- what the routes need

    def gauges(self) -> dict[str, float]:
        """Return what is read when the metrics are."""
        found = {"bodies_bytes": self._bodies, "resident_bytes": resident_bytes(os.getpid())}
        return {"ready": 0, **found} if self.engine is None else {**self.engine.gauges(), **found}

    def remember(self, engine: Engine, question: Question, answer: Any) -> None:
        """Keep a text and its answer, in memory, for the parity check of the next version."""
        self._recent.append((question.text, answer))

    def traced(self, request: Asker, stages_ms: Sequence[float], version: str) -> None:
        """Write the spans of a request, where spans are wanted."""
        if self._tracing is not None:
            self._tracing.record(request, stages_ms, version)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self.engine is not None:
                self.engine.tick()

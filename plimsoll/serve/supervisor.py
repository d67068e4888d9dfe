"""The server: it listens, keeps one version in service, and replaces it without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plimsoll.bench.machine import cores_allowed, fingerprint
from plimsoll.core.errors import PlimsollError, Unsupported, UserError
from plimsoll.core.memory import resident_bytes
from plimsoll.serve import opening, parity, spans, versions
from plimsoll.serve.asking import Asker
from plimsoll.serve.costs import Costs
from plimsoll.serve.engine import Engine
from plimsoll.serve.http import Front
from plimsoll.serve.keys import Keys
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.reading import Question
from plimsoll.serve.routes import Routes
from plimsoll.serve.settings import Settings

_log = logging.getLogger("plimsoll.serve")

_TICK_S = 0.2
_FILES = 256
"""Open files beside the connections: sockets of workers, and what a swap copies."""
_WATCH_TICKS = 5
_LONGEST_WATCH_S = 60.0
"""Between looks at an artifact that is not whole; the first comes after two seconds."""
_FLUSH_S = 1.0
"""For clients to take their last answers, when the server ends."""
SWAP_MEASURE_S = 0.5
"""For the cost table of a version that comes while another answers: requests share the processor with it."""


class Server:
    """One model behind one address. `start`, then `stop` when it is enough."""

    def __init__(self, settings: Settings, tracing: spans.Spans | None = None) -> None:
        settings.check()
        self.settings, self.metrics = settings, Metrics()
        self.keys = None if settings.keys is None else Keys.read(settings.keys)
        self.name = settings.name or named(settings.run)
        self.engine: Engine | None = None
        self._tls = _tls(settings)
        self._tracing = tracing if tracing is not None else spans.exported() if settings.spans else None
        self._front = Front(settings, Routes(self))
        self._recent: deque[tuple[str, Any]] = deque(maxlen=parity.RECENT)
        self._threads = settings.threads or max(1, int(cores_allowed()))
        self._machine = ""
        self._tables: dict[str, Costs] = {}
        self._listening: asyncio.Server | None = None
        self._rpc: Any = None
        self.grpc_port = 0
        self._ticking: asyncio.Task[None] | None = None
        self._swapping: asyncio.Task[None] | None = None
        self._again = self._stopping = False
        self._torn = 0
        """Times in a row that the run folder held an artifact that was not whole."""
        self._look_at = 0.0
        self._seen: tuple[int, int] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._outgoing: list[Engine] = []
        """Versions that were replaced and still have requests to answer."""
        self._stack = contextlib.ExitStack()
        self._shelf = Path()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._listening is not None
        host, port = self._listening.sockets[0].getsockname()[:2]
        return f"http{'s' if self._tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"

    def introduction(self) -> list[str]:
        """Return what to tell who started it."""
        assert self.engine is not None
        forecast, version = self.engine.forecast, self.engine.version
        lanes = "one batch at a time, on all threads" if not forecast.narrow else (
            f"{forecast.lanes} batches side by side" + ("; a single row on all threads" if forecast.wide else ""))
        return [f"serving    {self.name}, version {version.name}, at {self.url}",
                f"lanes      {lanes}",
                *([f"batches    of one row each: {forecast.alone}"] if forecast.alone else []),
                f"look       {self.url}/ and {self.url}/metrics",
                *([f"grpc       {self.settings.host}:{self.grpc_port}"] if self.grpc_port else [])]

    async def start(self) -> None:
        """Listen, and return when the first version answers. Raises what keeps it from doing so.

        From the moment it listens health is answered: live, and not ready.
        """
        settings, loop = self.settings, asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(
                self._front.connection, settings.host, settings.port, backlog=settings.connections, ssl=self._tls,
                ssl_handshake_timeout=settings.header_s if self._tls else None)
        except OSError as e:
            raise cannot_listen(settings, e) from None
        self._ticking = loop.create_task(self._tick())
        try:
            if settings.grpc_port is not None:
                self._rpc = _service(self)
                self.grpc_port = await self._rpc.start(settings.host, settings.grpc_port)
            self._shelf = self._stack.enter_context(versions.shelf())
            self._seen = versions.stamp(settings.run)
            version, here = await asyncio.gather(asyncio.to_thread(versions.take, settings.run, self._shelf),
                                                 asyncio.to_thread(fingerprint))
            self._machine = here.digest
            self.engine = await opening.opened(version, settings, self.metrics, self._threads, self._machine,
                                               self._tables, budget_s=settings.measure_s, keep=True)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take nothing new, answer what was taken in, and end."""
        self._stopping = True
        if self._swapping is not None:  # the version that is in service stays it
            self._swapping.cancel()
            await asyncio.gather(self._swapping, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
        self._front.end_idle()
        end = time.perf_counter() + self.settings.drain_s
        engine = self.engine
        await asyncio.gather(*([] if self._rpc is None else [self._rpc.stop(self.settings.drain_s)]),
                             *([] if engine is None else [engine.drain(self.settings.drain_s)]))
        # who was in the middle of a request is answered, too; what is written reaches who reads it
        soon = time.perf_counter() + _FLUSH_S
        while self._front.connections and time.perf_counter() < (end if self._front.busy() else soon):
            await asyncio.sleep(0.01)
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await asyncio.gather(*self._retiring, return_exceptions=True)
        self.engine = None
        if engine is not None:
            await engine.drain(_FLUSH_S)
            await engine.close()
        for connection in list(self._front.connections):
            connection.time_out()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        self._stack.close()

    def swap(self) -> asyncio.Task[None]:
        """Take up the version that the run folder holds now, unless it is the one in service; see `_swap`."""
        if self._swapping is None or self._swapping.done():
            self._swapping = asyncio.get_running_loop().create_task(self._swap())
        else:
            self._again = True  # the folder may have changed since that one looked
        return self._swapping

    # -- what the routes need

    def gauges(self) -> dict[str, float]:
        """Return what is read when the metrics are."""
        engine = self.engine
        found = {"connections": len(self._front.connections), "bodies_bytes": self._front.bodies,
                 "retiring_versions": len(self._retiring), "resident_bytes": resident_bytes(os.getpid())}
        return {"ready": 0, **found} if engine is None else {**engine.gauges(), **found}

    def remember(self, engine: Engine, question: Question, answer: Any) -> None:
        """Keep a text and its answer, in memory, for the parity check of the next version."""
        if engine is self.engine:
            self._recent.append((question.text, answer))

    def traced(self, request: Asker, stages_ms: Sequence[float], version: str) -> None:
        """Write the spans of a request, where spans are wanted."""
        if self._tracing is not None:
            self._tracing.record(request, stages_ms, version)

    # -- versions

    async def _swap(self) -> None:
        while True:
            self._again = False
            if self._stopping:
                return
            try:
                await self._take_up()
            except Exception as e:  # the border: whatever is wrong with a new version, the one in service goes on
                self.metrics.swaps["refused"] += 1
                _log.error("the new version is refused, the one in service stays: %s", e,
                           exc_info=not isinstance(e, PlimsollError | OSError))
            if not self._again:
                return

    async def _take_up(self) -> None:
        """Open the new version beside the old, compare them, and put it in its place; what the old has it answers."""
        settings, old = self.settings, self.engine
        try:
            name = await asyncio.to_thread(versions.offered, settings.run)
            if old is None or name == old.version.name:
                return
            version = await asyncio.to_thread(versions.take, settings.run, self._shelf)
        except (PlimsollError, OSError):
            # whoever watches the folder looks again: files that are copied into it come one after the other
            self._torn += 1
            self._seen, self._look_at = None, time.perf_counter() + min(_LONGEST_WATCH_S, 2.0**self._torn)
            raise
        self._torn = 0
        new, found = await opening.successor(
            version, old.version.artifact, list(self._recent), settings, self.metrics, self._threads, self._machine,
            self._tables, budget_s=min(SWAP_MEASURE_S, settings.measure_s))
        self.engine = new  # from here on every request is the new one's; no request is of both
        self._recent.clear()
        self.metrics.swaps["taken"] += 1
        _log.warning("version %s replaces %s: %d of %d recent texts answered alike", version.name, old.version.name,
                     found.alike, found.texts)
        task = asyncio.get_running_loop().create_task(self._retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, old: Engine) -> None:
        self._outgoing.append(old)  # its worker may hang as any other
        if not await old.drain(self.settings.drain_s):
            _log.error("version %s ends with requests unanswered after %.0f s", old.version.name, self.settings.drain_s)
        self._outgoing.remove(old)
        await old.close()
        old.version.remove()

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            ticks += 1
            try:
                self._look_after(watch=self.settings.watch and ticks % _WATCH_TICKS == 0)
            except Exception:  # the border: nothing else would cut slow clients off or end a worker that hangs
                _log.exception("a look at connections and workers failed")

    def _look_after(self, *, watch: bool) -> None:
        self._front.sweep()
        for engine in (self.engine, *self._outgoing):
            if engine is not None:
                engine.tick()
        if watch and self.engine is not None and time.perf_counter() >= self._look_at:
            stamp = versions.stamp(self.settings.run)
            if stamp is not None and stamp != self._seen:
                self._seen = stamp
                self.swap()


def cannot_listen(settings: Settings, e: OSError) -> UserError:
    """Return what to say where the address cannot be had."""
    taken = e.errno == errno.EADDRINUSE
    return UserError(f"cannot listen at {settings.host}:{settings.port}: "
                     f"{'something else does' if taken else e.strerror}",
                     "give another --port; 0 takes any that is free" if taken else "give another --host")


def named(run: Path) -> str:
    """Return the name of the model of a run folder: the folder's, in letters that need no escape in a path."""
    folder = run.resolve()
    name = folder.parent.name if folder.name == "artifact" else folder.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "model"


def serve(settings: Settings, ready: Callable[[Server], None]) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP takes up a new version. `ready` is called once, when it answers.

    Returns the exit code: 0 after an orderly end.
    """
    _open_files(settings)
    factory = _loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_until_told(settings, ready))


async def _until_told(settings: Settings, ready: Callable[[Server], None]) -> int:
    import signal

    loop, over = asyncio.get_running_loop(), asyncio.Event()
    server = Server(settings)
    early: list[bool] = []  # whether a new version was announced before there was one

    def take_up() -> None:
        if server.engine is None:
            early.append(True)
        else:
            server.swap()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.add_signal_handler(signal.SIGHUP, take_up)
    starting = loop.create_task(server.start())
    ending = loop.create_task(over.wait())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    ending.cancel()
    await starting
    gc.collect()
    gc.freeze()  # what is here by now stays: no collection looks at it again
    ready(server)
    if early:
        server.swap()
    await over.wait()
    await server.stop()
    return 0


def _service(server: Server) -> Any:
    try:
        from plimsoll.serve.rpc import Rpc
    except ImportError:
        raise Unsupported("gRPC is not installed here", 'pip install "plimsoll-ml[grpc]", or leave out --grpc-port'
                          ) from None
    return Rpc(server)


def _open_files(settings: Settings) -> None:
    """Let this process have as many sockets as connections, and files beside them for a worker and a swap."""
    try:
        import resource
    except ImportError:  # Windows, which sets no such limit
        return
    wanted = settings.connections + _FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("this process may have %d open files, and %d connections need %d: raise ulimit -n", hard,
                     settings.connections, wanted)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # where it does not build, such as on Windows: the same, a little slower
        return None
    return uvloop.new_event_loop


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.certificate is None or settings.private_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # without a password of ours OpenSSL would ask the terminal for one
        context.load_cert_chain(settings.certificate, settings.private_key, password=lambda: "")
    except (OSError, ssl.SSLError) as e:
        raise UserError(f"the certificate or its key cannot be used: {e}",
                        "give PEM files that belong together, the key without a password") from None
    return context



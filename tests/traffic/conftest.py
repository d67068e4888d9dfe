"""A service that does what a test tells it, on a port of this machine: slow, busy, broken, or gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Says:
    """What the fake does with one request; tests give these as a dictionary."""

    status: int = 200
    wait_s: float = 0.0
    drop: bool = False
    """Close the connection in place of an answer."""
    pause_s: float = 0.0
    """Between the first byte of an answer and the others."""
    raw: bytes | None = None
    """Write this in place of an answer."""
    chunked: bool = False
    close: bool = False
    version: str = "v1"
    predictions: int | None = None
    """Other than there were texts."""
    timing: str = "queue;dur=0.25, compute;dur=1.5"


Behaviour = Callable[[int, dict[str, Any]], dict[str, Any]]
"""Given the number of the request, from 0, and its JSON; returns fields of `Says`."""


@dataclass
class Fake:
    """A running fake service, and what it saw."""

    behave: Behaviour
    port: int = 0
    tls: ssl.SSLContext | None = None
    metrics: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _lines: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = None

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._line, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._lines):
            task.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)
        await self._server.wait_closed()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._lines.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if first.startswith("GET /metrics"):
            page = (self.metrics or "").encode()
            status = 404 if self.metrics is None else 200
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(page), page))
            await writer.drain()
            return True
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        says = Says(**self.behave(len(self.bodies), body))
        self.bodies.append(body)
        self.headers.append(headers | {"first": first})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if says.wait_s:
                await asyncio.sleep(says.wait_s)
        finally:
            self.in_flight -= 1
        if says.drop:
            return False
        answer = says.raw if says.raw is not None else _answer(says, body)
        if says.pause_s:
            writer.write(answer[:1])
            await asyncio.sleep(says.pause_s)
            answer = answer[1:]
        writer.write(answer)
        await writer.drain()
        return not says.close


def _answer(says: Says, asked: dict[str, Any]) -> bytes:
    n = len(asked["texts"]) if says.predictions is None else says.predictions
    body = json.dumps({"predictions": [{"label": "a", "score": 0.9}] * n, "version": says.version}).encode()
    if says.status == 429:
        body = json.dumps({"error": {"code": "overloaded", "message": "full", "retry_after_ms": 5}}).encode()
    lines = [f"HTTP/1.1 {says.status} X", "Content-Type: application/json", f"Server-Timing: {says.timing}"]
    lines += ["Connection: close"] if says.close else []
    if says.chunked:
        half = len(body) // 2
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:], b""))
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def fake() -> Iterator[Callable[..., Fake]]:
    """Start fake services: `fake(status=429)`, or `fake(lambda number, body: {...})`; all end with the test."""
    running: list[Fake] = []

    def start(behave: Behaviour | None = None, *, tls: ssl.SSLContext | None = None, metrics: str | None = None,
              **says: Any) -> Fake:
        one = Fake(behave or (lambda number, body: says), tls=tls, metrics=metrics)
        running.append(one)
        one.start()
        return one

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def texts_file(tmp_path: Path) -> Path:
    """A jsonl file of texts."""
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"text number {i}"}) + "\n" for i in range(20)))
    return file

"""HTTP/1.1 on the event loop: requests in, responses out, and nothing that a client does can cost much.

llhttp parses (the parser of Node.js, through `httptools`), strictly: what two servers could read in two ways is
refused. Every limit holds before memory is taken for what it limits; a client that is slow is cut off by one sweep
over all connections, which costs a request nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, Protocol, cast

import httptools

from plimsoll.serve.keys import Caller
from plimsoll.serve.settings import Settings

_log = logging.getLogger("plimsoll.serve")

JSON = b"application/json"
_HEADERS = 64
"""Most headers of a request."""
_AHEAD = 16
"""Requests that a connection may send before the first is answered; then it is not read from."""
_KNOWN_HEADS, _KNOWN_BYTES = 512, 512
"""Heads that are known again, and the longest of them: a client sends the same one each time but for the length of its
body, and a parser that calls back for each header takes a sixth of a small request's own work. Some 1 MB in all."""
_PLAIN = frozenset((
    b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"connection", b"content-type",
    b"content-length", b"plimsoll-deadline-ms"))
"""With any other header a head is not known again: it may ask for more than an answer, be new each time, or secret."""
_CHUNK_COST = 8
"""Bytes on the wire for each byte of a body, at most: more is a flood of tiny chunks."""
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_LINGER_S = 2.0
"""How long a refused client is listened to before the end: one cut off while it sends would not see the answer."""

Phase = Literal["new", "headers", "body", "idle", "linger"]


class Request:
    """One request that is whole, and the way to answer it."""

    __slots__ = ("_connection", "answered", "arrived", "body", "caller", "gone", "headers", "keep_alive", "method",
                 "path", "route")

    def __init__(self, connection: Connection, method: str, path: str, headers: dict[bytes, bytes]) -> None:
        self.method, self.path, self.headers = method, path, headers
        self.body = b""
        self.answered = False
        self.keep_alive = True
        self.arrived = 0.0
        """When its last byte was here, by `time.perf_counter`."""
        self.caller: Caller | None = None
        self.route = "other"
        """What it is counted as."""
        self.gone: Callable[[], None] | None = None
        """Called when the client goes away before the answer."""
        self._connection = connection

    def respond(self, status: int, body: bytes, extra: bytes = b"", kind: bytes = JSON) -> None:
        """Answer; extra: more header lines, each with its end. What comes after the first answer is not sent."""
        if self.answered:
            return
        self.answered = True
        self._connection.respond(self, status, body, extra, kind)


class Head(NamedTuple):
    """What the parser made of a request's head: the same bytes at the same place mean the same again."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body_bytes: int


class App(Protocol):
    """What answers requests."""

    def headers(self, request: Request) -> None:
        """Look at a request before its body comes; may respond, which refuses it."""
        ...

    def request(self, request: Request) -> None:
        """Answer a whole request, now or later."""
        ...

    def malformed(self, request: Request, status: int, code: str, message: str, retry_after_ms: float = 0) -> None:
        """Answer what is no request, or too much of one."""
        ...


class Front:
    """All connections of a server and what they share."""

    def __init__(self, settings: Settings, app: App) -> None:
        self.settings, self.app = settings, app
        self.connections: set[Connection] = set()
        self.bodies = 0
        """Bytes of the bodies that are being received or answered."""
        self.heads: dict[bytes, Head] = {}
        """Of requests with nothing special about them, by their bytes."""
        self.date = b""
        self.closing = False
        self.sweep()

    def connection(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    def learn(self, data: bytes, head: Head) -> None:
        """Know a head again; of too many all are forgotten, and those in use are back at once."""
        if len(self.heads) >= _KNOWN_HEADS:
            self.heads.clear()
        self.heads[data] = head

    def sweep(self) -> None:
        """Cut off connections that are over their time; call it several times a second."""
        now = time.perf_counter()
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in [c for c in self.connections if c.over_time(now)]:
            connection.time_out()

    def busy(self) -> bool:
        """Return whether a request is on its way in, or an answer on its way out."""
        return any(connection.busy() for connection in self.connections)

    def end_idle(self) -> None:
        """Take no more requests: connections close once they have their answers."""
        self.closing = True
        for connection in list(self.connections):
            connection.end_if_idle()


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = ("_ahead", "_answering", "_chunks", "_count", "_fed", "_front", "_head", "_header_bytes", "_headers",
                 "_held", "_left", "_parser", "_paused", "_phase", "_refused", "_request", "_settings", "_since",
                 "_stalled", "_took_turn", "_transport", "_turn_comes", "_url")

    def __init__(self, front: Front) -> None:
        self._front, self._settings = front, front.settings
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._phase: Phase = "new"
        self._since = time.perf_counter()
        self._stalled: float | None = None
        """Since when the client has not taken what was written."""
        self._request: Request | None = None
        """Being received."""
        self._answering: Request | None = None
        self._ahead: deque[Request] = deque()
        self._took_turn = self._turn_comes = False
        """Of what one read brought a single request is answered at once; others have their turn before the next."""
        self._refused = False
        """The connection ends after what was written; what else comes is not looked at."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head: Head | None = None
        """Of the last request that was parsed, where it may be known again."""
        self._header_bytes = self._fed = self._held = self._count = 0
        self._left = 0
        """Bytes of the body that are still to come of a request that offered another protocol."""
        self._chunks: list[bytes] = []
        self._paused = False

    # -- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take in a client, or turn it away when there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        if len(self._front.connections) >= self._settings.connections or self._front.closing:
            self._transport.abort()
            return
        self._front.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._refused:
            return
        self._took_turn = False
        before = self._ahead[-1] if self._ahead else self._answering
        # the parser has nothing of a request, and takes another: what comes begins one
        begins = self._phase in ("idle", "new") and (before is None or before.keep_alive)
        end = data.find(b"\r\n\r\n", 0, _KNOWN_BYTES) + 4 if begins else 0
        head = self._front.heads.get(data[:end])
        if head is not None and len(data) == end + head.body_bytes:
            self._known(head, data[end:])
            return
        self._fed += len(data)
        self._head = None
        try:
            if self._left:
                self._unparsed(data)
            else:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            self._unparsed(data[e.args[0] :])
        except httptools.HttpParserError as e:
            self._refuse(400, "malformed", f"not HTTP/1.1: {e}")
        if self._phase == "headers" and self._fed > self._settings.header_bytes + len(data):
            self._refuse_headers()
        elif self._fed > self._settings.header_bytes + self._settings.body_bytes * _CHUNK_COST + len(data):
            self._refuse(413, "body_too_large", "too many bytes for the body they bring")
        elif (head := self._head) is not None and end > 4 and len(data) == end + head.body_bytes and (
                self._phase == "idle"):
            self._front.learn(data[:end], head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what nobody waits for any more."""
        self._refused = True
        self._front.connections.discard(self)
        self._front.bodies -= self._held + sum(len(r.body) for r in self._ahead)
        self._held = 0
        self._ahead.clear()
        self._parser = None  # which points back: nothing of a client is left for the garbage collector
        if self._answering is not None:
            self._front.bodies -= len(self._answering.body)
            gone, self._answering = self._answering.gone, None
            if gone is not None:
                gone()

    def pause_writing(self) -> None:
        """Note that the client does not take its answers."""
        self._stalled = time.perf_counter()

    def resume_writing(self) -> None:
        """Note that it does."""
        self._stalled = None
        self._next()

    # -- the parser

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._refused:
            return
        self._phase, self._since, self._fed = "headers", time.perf_counter(), 0
        self._url, self._headers, self._header_bytes, self._count = b"", {}, 0, 0

    def on_url(self, url: bytes) -> None:
        """Take in a part of the path."""
        self._header_bytes += len(url)
        if self._header_bytes > self._settings.header_bytes:
            self._refuse_headers()
        elif not self._refused:
            self._url += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Take in a header; those after a body are not looked at."""
        if self._phase != "headers" or self._refused:
            return
        self._header_bytes += len(name) + len(value or b"")
        self._count += 1
        if self._header_bytes > self._settings.header_bytes or self._count > _HEADERS:
            self._refuse_headers()
            return
        self._headers[name.lower()] = value or b""

    def on_headers_complete(self) -> None:
        """Look at a request before its body comes."""
        if self._refused:
            return
        path = _path(self._url)
        request = self._request = Request(self, self._parser.get_method().decode("latin-1"), path, self._headers)
        request.keep_alive = self._parser.should_keep_alive()
        self._phase, self._since = "body", time.perf_counter()
        if b"host" not in self._headers and self._parser.get_http_version() == "1.1":
            self._refuse(400, "malformed", "the header Host is missing")
            return
        if self._parser.should_upgrade():
            # Java's client and curl --http2 offer HTTP/2 with their first request, and take HTTP/1.1 (RFC 9110, 7.8).
            # It is answered as if it had not, and the connection ends with it: the parser takes no body after an offer.
            request.keep_alive = False
            if request.method == "CONNECT" or b"transfer-encoding" in self._headers:
                self._refuse(501, "upgrade", "this server speaks HTTP/1.1 and nothing else")
                return
        announced = self._headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced[:20]) > self._settings.body_bytes:
            self._refuse_body()
            return
        self._front.app.headers(request)
        if self._parser.should_upgrade():
            self._left = int(announced)
        elif request.keep_alive and self._headers.keys() <= _PLAIN and b"?" not in self._url:
            self._head = Head(request.method, path, self._headers, int(announced[:20]))
        if self._refused or self._headers.get(b"expect", b"").lower() != b"100-continue":
            return
        if self._answering is None and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        if self._refused:
            return
        self._held += len(body)
        self._front.bodies += len(body)
        if self._held > self._settings.body_bytes:
            self._refuse_body()
        elif self._front.bodies > self._settings.bodies_bytes:
            self._refuse(429, "overloaded", "too many requests are being received", retry_after_ms=1000)
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, or let it wait for those before it."""
        if self._refused or self._request is None or self._left:
            return
        request, self._request = self._request, None
        request.body, self._chunks = b"".join(self._chunks), []
        self._held = 0  # the request's own from here on
        request.keep_alive = request.keep_alive and not self._front.closing
        request.arrived = self._since = time.perf_counter()
        self._phase = "idle"
        self._ahead.append(request)
        if len(self._ahead) >= _AHEAD and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        if self._took_turn:
            self._next_in_turn()
        else:
            self._took_turn = True
            self._next()

    def _known(self, head: Head, body: bytes) -> None:
        """Take in a whole request whose head was parsed before; the parser sees nothing of it."""
        request = self._request = Request(self, head.method, head.path, head.headers)
        self._phase, self._since, self._fed = "body", time.perf_counter(), 0
        self._front.app.headers(request)
        if body:
            self.on_body(body)
        self.on_message_complete()

    def _unparsed(self, data: bytes) -> None:
        """Take in what follows the headers of a request that offered another protocol."""
        if self._refused or not self._left:
            return
        part = data[: self._left]
        if part:
            self.on_body(part)
        self._left -= len(part)
        if not self._left:
            self.on_message_complete()

    # -- answers

    def respond(self, request: Request, status: int, body: bytes, extra: bytes, kind: bytes) -> None:
        """Write an answer, and go on with what was sent after it. An answer to a request not yet whole ends all."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        whole = request is self._answering
        if not whole and (self._answering is not None or self._ahead):
            # the answers to earlier requests come first; this one is refused by the end of the connection
            self._refused = True
            return
        last = not whole or not request.keep_alive or self._front.closing or (self._refused and not self._ahead)
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b%b\r\n" % (
            _STATUS[status], kind, len(body), self._front.date, extra, b"connection: close\r\n" if last else b"")
        transport.write(head if request.method == "HEAD" else head + body)
        if whole:
            self._front.bodies -= len(request.body)
            self._answering = None
        self._since = time.perf_counter()
        if last:
            self._end(transport, linger=not whole or self._refused)
        elif self._ahead:
            self._next_in_turn()
        elif self._paused:
            self._paused = False
            transport.resume_reading()

    def _next_in_turn(self) -> None:
        """Go on with what waits when others have had their turn."""
        if not self._turn_comes:
            self._turn_comes = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_comes = False
        self._next()

    def _next(self) -> None:
        if self._answering is not None or not self._ahead or self._stalled is not None or self._transport is None:
            return
        request = self._answering = self._ahead.popleft()
        try:
            self._front.app.request(request)
        except Exception:  # the border of the server: one request's fault is not another's
            _log.exception("a request could not be answered")
            self._front.app.malformed(request, 500, "internal", "this request met a fault of the server")

    def _end(self, transport: asyncio.Transport, *, linger: bool) -> None:
        self._refused = True
        # what was sent after a last request has no answer, and nobody waits for one
        self._front.bodies -= sum(len(r.body) for r in self._ahead)
        self._ahead.clear()
        if linger and transport.can_write_eof():
            self._phase, self._since = "linger", time.perf_counter()
            transport.write_eof()
        else:
            transport.close()

    def _refuse_headers(self) -> None:
        self._refuse(431, "headers_too_large",
                     f"more than {self._settings.header_bytes} bytes or {_HEADERS} lines of headers")

    def _refuse_body(self) -> None:
        self._refuse(413, "body_too_large", f"more than {self._settings.body_bytes} bytes of body")

    def _refuse(self, status: int, code: str, message: str, retry_after_ms: float = 0) -> None:
        """Answer what is wrong and end the connection."""
        if self._refused:
            return
        request = self._request or Request(self, "", _path(self._url), self._headers)
        self._front.app.malformed(request, status, code, message, retry_after_ms)
        self._refused = True

    # -- time

    def over_time(self, now: float) -> bool:
        """Return whether the client has had its time."""
        settings = self._settings
        if self._stalled is not None:
            return now - self._stalled > settings.body_s
        if self._phase == "idle" and (self._answering is not None or self._ahead):
            return False
        limits = {"new": settings.header_s, "headers": settings.header_s, "body": settings.body_s,
                  "idle": settings.idle_s, "linger": _LINGER_S}
        return now - self._since > limits[self._phase]

    def busy(self) -> bool:
        """Return whether a request is on its way in, or an answer on its way out."""
        return self._phase in ("headers", "body") or self._answering is not None or bool(self._ahead) or (
            self._transport is not None and self._transport.get_write_buffer_size() > 0)

    def time_out(self) -> None:
        """End the connection, with a word where there is a request to answer."""
        if self._transport is None:
            return
        if self._stalled is None and self._phase in ("headers", "body") and not self._refused:
            self._refuse(408, "too_slow", "the request did not arrive in time")
        else:
            self._transport.abort()

    def end_if_idle(self) -> None:
        """Close the connection when it waits for nothing."""
        if self._answering is None and not self._ahead and self._phase == "idle" and self._transport is not None:
            self._refused = True
            self._transport.close()


def _path(url: bytes) -> str:
    return url.partition(b"?")[0].decode("latin-1")

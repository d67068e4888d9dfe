"""Connections to one service: each carries one request at a time, and requests that find none free wait in order.

A loop of its own and not asyncio's, whose timers go by whole milliseconds on epoll: requests that are due between two
of them would be sent late, and together, where a small model takes less than that to answer.
"""

from __future__ import annotations

import contextlib
import errno
import select
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from plimsoll.core.errors import UserError
from plimsoll.traffic.book import CLOSED, GARBLED, TIMEOUT, UNREACHABLE, Book
from plimsoll.traffic.service import Service
from plimsoll.traffic.wire import Answer, take

clock = time.perf_counter
"""Of all times here. On Linux and macOS it is one for all processes of a machine."""

_CHUNK = 262_144
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_PATIENCE_S = 10.0
_ROUNDED_S = 0.001
"""By so much at most a selector waits longer than it is told, on Linux."""

Ended = Callable[[int, int, float, Answer | None], None]
"""Called with a request's number, its status (HTTP's or a fault), the time, and the answer where there was one."""


class _Line:
    """One connection: `index` is the number of the request it carries, -1 for none."""

    __slots__ = ("began", "buffer", "events", "index", "open", "rest", "sock")

    def __init__(self) -> None:
        self.sock: Any = None
        self.index = -1
        self.buffer = b""
        self.rest = b""
        """Of the request, what is still to be written."""
        self.open = False
        self.began = 0.0
        self.events = 0


class Lines:
    """So many connections to a service. Not for several threads, but for `wake`."""

    def __init__(self, service: Service, count: int, timeout_s: float) -> None:
        self._service, self._timeout_s = service, timeout_s
        self._address: tuple[Any, ...] = ()
        self._family: int = socket.AF_INET
        self._tls = ssl.create_default_context() if service.tls else None
        self._selector = selectors.DefaultSelector()
        self._lines = [_Line() for _ in range(count)]
        self._free: list[_Line] = []
        self._shut: list[_Line] = []
        self._waiting: deque[tuple[int, bytes]] = deque()
        self.book = Book()
        self.ended: Ended = self.book.close
        self.most_waiting = 0
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._rung.setblocking(False)
        self._selector.register(self._rung, _READ, None)
        self._selectors = [self._selector.fileno()]

    def open(self) -> None:
        """Open every connection before the first request is due; raises UserError when there is no service."""
        for line in self._lines:
            try:
                line.sock = socket.create_connection((self._service.host, self._service.port), _PATIENCE_S)
                self._family, self._address = line.sock.family, line.sock.getpeername()
                if self._tls is not None:
                    line.sock = self._tls.wrap_socket(line.sock, server_hostname=self._service.host)
            except OSError as e:
                self.close()
                raise UserError(f"cannot open {len(self._lines)} connections to {self._service.url}: {e}",
                                "is it running, and does it take so many? --connections changes their number") from None
            self._settle(line)
            line.open = True
            self._watch(line, _READ)
            self._free.append(line)

    def begin(self, book: Book, ended: Ended | None = None) -> None:
        """Write down from here on in this book; `ended` is called in place of the book's own `close`."""
        self.book, self.ended, self.most_waiting = book, ended or book.close, 0

    def send(self, index: int, payload: bytes) -> None:
        """Send a request on a free connection, or let it wait until there is one."""
        if self._free:
            self._start(self._free.pop(), index, payload)
        elif self._shut:
            self._reopen(self._shut.pop(), index, payload)
        else:
            self.book.waited[index] = 1
            self._waiting.append((index, payload))
            self.most_waiting = max(self.most_waiting, len(self._waiting))

    @property
    def idle(self) -> bool:
        """Whether no request is on its way or waiting."""
        return not self._waiting and len(self._free) + len(self._shut) == len(self._lines)

    def turn(self, timeout_s: float) -> None:
        """Wait so long at most for something to happen, and deal with all that did."""
        if timeout_s >= 2 * _ROUNDED_S and not self.idle:
            # an answer will most likely end it; if none does, the rest of the time is for the next turn
            timeout_s -= _ROUNDED_S
        elif timeout_s > 0:
            # nothing but the time ends it, or very soon: select counts in microseconds, but cannot say what happened
            if not select.select(self._selectors, (), (), timeout_s)[0]:
                return
            timeout_s = 0.0
        for key, events in self._selector.select(timeout_s):
            line = key.data
            if line is None:
                self._rung.recv(4096)
            elif events == _READ and line.open:
                self._read(line)
            else:
                self._happened(line, events)
        while self._waiting and (self._free or self._shut):
            index, payload = self._waiting.popleft()
            if self._free:
                self._start(self._free.pop(), index, payload)
            else:
                self._reopen(self._shut.pop(), index, payload)

    def wake(self) -> None:
        """End a `turn` that waits in another thread."""
        with contextlib.suppress(BlockingIOError):  # it was rung so often that nobody can miss it
            self._bell.send(b"!")

    def expire(self, now: float) -> None:
        """Give up every request that has no answer in time, and close its connection."""
        before = now - self._timeout_s
        for line in self._lines:
            if line.index >= 0 and line.began < before:
                self._lose(line, TIMEOUT)
        while self._waiting and self.book.due[self._waiting[0][0]] < before:
            self.ended(self._waiting.popleft()[0], TIMEOUT, now, None)

    def close(self) -> None:
        """Close everything."""
        for line in self._lines:
            if line.sock is not None:
                line.sock.close()
        self._selector.close()
        self._bell.close()
        self._rung.close()

    def _settle(self, line: _Line) -> None:
        line.sock.setblocking(False)
        # without it the kernel holds a small request back until the last one is acknowledged
        line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _start(self, line: _Line, index: int, payload: bytes) -> None:
        line.index = index
        line.began = self.book.sent[index] = clock()
        try:
            written = line.sock.send(payload)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            written = 0
        except OSError:
            self._lose(line, CLOSED)
            return
        if written < len(payload):
            line.rest = payload[written:]
            self._watch(line, _READ | _WRITE)

    def _reopen(self, line: _Line, index: int, payload: bytes) -> None:
        line.index, line.rest = index, payload
        line.began = self.book.sent[index] = clock()
        line.sock = socket.socket(self._family, socket.SOCK_STREAM)
        self._settle(line)
        if line.sock.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            self._lose(line, UNREACHABLE)
            return
        self._watch(line, _READ | _WRITE)

    def _happened(self, line: _Line, events: int) -> None:
        if line.sock is None:  # closed by what happened just before
            return
        if not line.open:
            self._opened(line)
        if line.open and line.rest and events & _WRITE:
            self._write(line)
        if line.open and events & _READ:
            self._read(line)

    def _opened(self, line: _Line) -> None:
        if line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._lose(line, UNREACHABLE)
            return
        if self._tls is not None:
            try:
                if not isinstance(line.sock, ssl.SSLSocket):  # only what is connected can be wrapped
                    line.sock = self._tls.wrap_socket(line.sock, server_hostname=self._service.host,
                                                      do_handshake_on_connect=False)
                line.sock.do_handshake()
            except ssl.SSLWantReadError:
                self._watch(line, _READ)
                return
            except ssl.SSLWantWriteError:
                self._watch(line, _WRITE)
                return
            except OSError:
                self._lose(line, UNREACHABLE)
                return
            self._watch(line, _READ | _WRITE)
        line.open = True

    def _write(self, line: _Line) -> None:
        try:
            line.rest = line.rest[line.sock.send(line.rest):]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError:
            self._lose(line, CLOSED)
            return
        if not line.rest:
            self._watch(line, _READ)

    def _read(self, line: _Line) -> None:
        try:
            data = line.sock.recv(_CHUNK)
            while self._tls is not None and line.sock.pending():
                data += line.sock.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            data = b""
        if not data or line.index < 0:  # closed, or something that nobody asked for
            self._lose(line, CLOSED)
            return
        now = clock()  # it is here: what reading it takes is the client's time and not the service's
        if line.buffer:
            data = line.buffer + data
        try:
            answer = take(data)
        except ValueError:
            self._lose(line, GARBLED)
            return
        if answer is None:
            line.buffer = data
            return
        index, line.index, line.buffer = line.index, -1, b""
        if answer.closes or line.rest:
            self._drop(line)
        else:
            self._free.append(line)
        self.ended(index, answer.status, now, answer)

    def _lose(self, line: _Line, fault: int) -> None:
        """Close a connection that is of no use any more; the request on it has failed, if there was one."""
        index, line.index = line.index, -1
        if index < 0:
            self._free.remove(line)
        self._drop(line)
        if index >= 0:
            self.ended(index, fault, clock(), None)

    def _drop(self, line: _Line) -> None:
        if line.events:
            self._selector.unregister(line.sock)
        if line.sock is not None:
            line.sock.close()
        line.sock, line.events, line.open, line.buffer, line.rest = None, 0, False, b"", b""
        self._shut.append(line)

    def _watch(self, line: _Line, events: int) -> None:
        if not line.events:
            self._selector.register(line.sock, events, line)
        elif line.events != events:
            self._selector.modify(line.sock, events, line)
        line.events = events

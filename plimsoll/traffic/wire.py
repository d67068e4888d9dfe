"""HTTP/1.1 as a load test speaks it: a request is bytes made beforehand, an answer is cut from what came."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

_LONGEST_HEAD = 65_536
_LONGEST_BODY = 64 * 2**20
_GAP = b"\r\n\r\n"


class Answer(NamedTuple):
    """One whole answer."""

    status: int
    head: bytes
    """Status line and headers in lower case, without the empty line."""
    body: bytes
    closes: bool
    """Whether the service closes the connection after it."""


def request(method: str, path: str, host: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a request as bytes; names and values of headers must be printable ASCII."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}",
             *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("ascii") + _GAP + body


def take(data: bytes) -> Answer | None:
    """Return the answer that bytes begin with, or None while some of it is still to come.

    Bodies have a length or come in chunks; informational answers (1xx) before it are passed over. Raises ValueError
    for what is no answer of HTTP/1.
    """
    head, gap, rest = data.partition(_GAP)
    if not gap:
        if len(data) > _LONGEST_HEAD or not b"HTTP/1."[: len(data)] == data[:7]:
            raise ValueError("not an answer of HTTP/1")
        return None
    head = head.lower()
    status, closes = _status(head[:12])
    if status < 200:
        return take(rest)
    # find and not `in`, here and in the book: for bytes it takes half the time
    closes = closes or head.find(b"\r\nconnection: close") >= 0
    if status in (204, 304):
        return Answer(status, head, b"", closes)
    _, named, after = head.partition(b"\r\ncontent-length:")
    if named:
        length = _number(after.partition(b"\r\n")[0].strip(), 10)
        return None if len(rest) < length else Answer(status, head, rest[:length], closes)
    if b"\r\ntransfer-encoding: chunked" in head:
        body = _chunks(rest)
        return None if body is None else Answer(status, head, body, closes)
    raise ValueError("the answer has neither a length nor chunks")


@lru_cache(64)  # a service begins its answers in a few ways, each of them some thousand times a second
def _status(start: bytes) -> tuple[int, bool]:
    """Return the status in the first 12 bytes of a head, and whether that version of HTTP closes after each answer."""
    if not start.startswith(b"http/1.") or not start[9:].isdigit():
        raise ValueError("not an answer of HTTP/1")
    return int(start[9:]), start.startswith(b"http/1.0")


def _chunks(data: bytes) -> bytes | None:
    """Return a body in chunks, or None while some of it is still to come."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = _number(data[at:end].partition(b";")[0].strip(), 16)
        at = end + 2 + size + 2
        if size == 0:
            # trailers, if any, end with an empty line as a head does
            return b"".join(parts) if data.find(_GAP, end) >= 0 else None
        if len(data) < at:
            return None
        parts.append(data[end + 2 : end + 2 + size])


def _number(text: bytes, base: int) -> int:
    """Return a length; raises ValueError for what is none, or is beyond all reason."""
    found = int(text, base) if text.isalnum() else -1
    if not 0 <= found <= _LONGEST_BODY:
        raise ValueError(f"{text!r:.40} is no length of a body")
    return found

"""HTTP/1.1 as a load test speaks it: a request is bytes made beforehand, an answer is cut from what came."""

from __future__ import annotations

from collections.abc import Mapping
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
    end = data.find(_GAP)
    if end < 0:
        if len(data) > _LONGEST_HEAD or not b"HTTP/1."[: len(data)] == data[:7]:
            raise ValueError("not an answer of HTTP/1")
        return None
    head = data[:end].lower()
    if not head.startswith(b"http/1.") or not head[9:12].isdigit():
        raise ValueError("not an answer of HTTP/1")
    status, start = int(head[9:12]), end + len(_GAP)
    if status < 200:
        return take(data[start:])
    closes = b"\r\nconnection: close" in head or head.startswith(b"http/1.0")
    if status in (204, 304):
        return Answer(status, head, b"", closes)
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        length = _number(head[at + 17:].partition(b"\r\n")[0].strip(), 10)
        if len(data) - start < length:
            return None
        return Answer(status, head, data[start : start + length], closes)
    if b"\r\ntransfer-encoding: chunked" in head:
        body = _chunks(data, start)
        return None if body is None else Answer(status, head, body, closes)
    raise ValueError("the answer has neither a length nor chunks")


def _chunks(data: bytes, at: int) -> bytes | None:
    """Return a body in chunks that starts at a place, or None while some of it is still to come."""
    parts: list[bytes] = []
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

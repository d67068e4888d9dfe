"""What supervisor and worker say to each other: binary frames, each with its length in front.

A lane of the worker has a socket of its own, so the kernel is the queue between them and nothing in the worker waits
for anything but its next batch. The layout is little-endian:

    u32 bytes that follow the head, u8 kind, 3 bytes of nothing, u32 number of the batch, payload
    run      i32 rows, i32 [rows] lengths, i32 [sum of lengths] token ids
    answer   i64 ns of padding, i64 ns of computing, 4 x i32 (dimensions, shape), f32 values
    hello    JSON: the version that was opened
    failed   JSON: class, message and hint of what went wrong
    close    nothing
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import ChildError

LARGEST = 256 << 20
"""Bytes of a frame; a longer one is no frame of ours, and nothing is allocated for it."""

_HEAD = struct.Struct("<IBxxxI")
_ANSWER = struct.Struct("<qq4i")


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    RUN = 2
    ANSWER = 3
    FAILED = 4
    CLOSE = 5


class Frame(NamedTuple):
    """One message."""

    kind: int
    number: int
    payload: bytes


class Answer(NamedTuple):
    """What a lane made of a batch."""

    outputs: NDArray[np.float32]
    """float32 [rows, labels], or [rows, longest, labels]."""
    pad_ms: float
    compute_ms: float


def frame(kind: Kind, number: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return _HEAD.pack(len(payload), kind, number) + payload


class Frames:
    """Frames out of a stream of bytes that is cut anywhere."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are whole by now. Raises ChildError for what is no frame."""
        kept = self._kept
        if not kept and len(data) >= _HEAD.size:
            size, kind, number = _HEAD.unpack_from(data)
            if len(data) == _HEAD.size + size:  # as nearly every time: one that came whole, by itself
                return [Frame(kind, number, data[_HEAD.size :])]
        found, at = list[Frame](), 0
        kept += data
        while len(kept) - at >= _HEAD.size:
            size, kind, number = _HEAD.unpack_from(kept, at)
            if size > LARGEST:
                raise ChildError(f"a frame of {size} bytes between supervisor and worker; at most {LARGEST} are one")
            end = at + _HEAD.size + size
            if len(kept) < end:
                break
            found.append(Frame(kind, number, bytes(kept[at + _HEAD.size : end])))
            at = end
        del kept[:at]
        return found


def pack_rows(rows: Sequence[Sequence[int]]) -> bytes:
    """Return the payload that asks for rows of token ids."""
    if len(rows) == 1:
        return array("i", (1, len(rows[0]), *rows[0])).tobytes()
    out = array("i", (len(rows), *map(len, rows)))
    for row in rows:
        out.extend(row)
    return out.tobytes()


def unpack_rows(payload: bytes) -> list[list[int]]:
    """Return the rows of token ids."""
    numbers = memoryview(payload).cast("i").tolist()
    rows, at = list[list[int]](), 1 + numbers[0]
    for length in numbers[1:at]:
        rows.append(numbers[at : at + length])
        at += length
    return rows


def pack_answer(outputs: NDArray[np.float32], pad_ns: int, compute_ns: int) -> bytes:
    """Return the payload of an answer."""
    shape = (*outputs.shape, 0, 0, 0)[:3]
    values = np.ascontiguousarray(outputs, dtype=np.float32)
    return _ANSWER.pack(pad_ns, compute_ns, outputs.ndim, *shape) + values.tobytes()


def unpack_answer(payload: bytes) -> Answer:
    """Return an answer; its array is read-only, over the payload."""
    pad_ns, compute_ns, dimensions, *shape = _ANSWER.unpack_from(payload)
    outputs = np.frombuffer(payload, dtype=np.float32, offset=_ANSWER.size).reshape(shape[:dimensions])
    return Answer(outputs, pad_ns / 1e6, compute_ns / 1e6)


def pack_json(value: dict[str, Any]) -> bytes:
    """Return the payload of a hello or of a failure."""
    return json.dumps(value).encode()


def unpack_json(payload: bytes) -> dict[str, Any]:
    """Return what such a payload says."""
    return json.loads(payload)

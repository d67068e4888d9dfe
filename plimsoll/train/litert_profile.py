"""LiteRT's profile of its operators, which its Python package has in its library and shows nobody.

The calls are those of `litert_compiled_model.h`, `litert_options.h` and `litert_profiler.h` in
https://github.com/google-ai-edge/LiteRT/tree/main/litert/c. They are made in a process that may end with them: a C
interface that has changed is not always an error one can catch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import Unsupported
from plimsoll.core.operators import Operator, group_of
from plimsoll.core.profile import Number, OperatorGroup

Call = tuple[int, NDArray[np.int32], tuple[int, ...]]
"""Which of the file's programs to run, the token ids it takes, padded, and the shape of its answer."""

_KNOWN_RELEASE = "2."
"""Of ai-edge-litert: releases in which these calls have these arguments."""
_CPU = 1
_INT32, _FLOAT32 = 2, 1
_OPERATOR, _IN_DELEGATE, _OF_DELEGATE = 1 << 1, 1 << 2, 1 << 3
_ALIGNMENT = 64
_LAYER_PRODUCTS = 6
"""Fully connected operators of a layer, in their order: query, key, value, context, up, down."""
_AFTER: tuple[OperatorGroup, ...] = ("attention", "attention", "attention", "norm", "feed-forward", "norm")
"""What the other operators after each of them belong to: a residual sum goes with the norm that follows it."""


class _Type(ctypes.Structure):
    """LiteRtRankedTensorType: the kind of element, and the layout; the lowest 7 bits of `rank` are the rank."""

    _fields_ = [("element", ctypes.c_int32), ("rank", ctypes.c_uint32), ("dimensions", ctypes.c_int32 * 8),
                ("strides", ctypes.c_uint32 * 8)]


class _Event(ctypes.Structure):
    """ProfiledEventData."""

    _fields_ = [("tag", ctypes.c_char_p), ("kind", ctypes.c_int), ("start_us", ctypes.c_uint64),
                ("elapsed_us", ctypes.c_uint64), ("memory", ctypes.c_size_t * 6), ("metadata", ctypes.c_uint64 * 2),
                ("source", ctypes.c_int)]


def operators(file: Path, calls: Sequence[Call], threads: int) -> Iterator[Operator]:
    """Return the operators of each call, one after the other; the calls are made twice, and the first time not counted.

    Raises Unsupported for a release whose C interface is not known, and when a call of it refuses.
    """
    for tags in _profiled(file, calls, threads):
        for (tag, seconds), group in zip(tags, in_order([tag for tag, _ in tags]), strict=True):
            yield Operator(tag, group, seconds, number=_number(tag))


def in_order(tags: Sequence[str]) -> list[OperatorGroup]:
    """Return the groups of a program's operators, which have no names of modules, from the order they run in.

    The program is that of an encoder laid out like BERT, none of whose layers has lost a module: six products a layer
    and one for the head. For any other, the products are in the group `other`, and the rest go by their kinds.
    """
    products = [i for i, tag in enumerate(tags) if _is_product(tag)]
    layers, rest = divmod(len(products) - 1, _LAYER_PRODUCTS)
    if rest or layers < 1:
        return ["other" if _is_product(tag) else group_of("", tag) for tag in tags]
    groups: list[OperatorGroup] = []
    seen = since = norm = 0  # products; other operators since the last one, and how many of them a norm is
    for tag in tags:
        if group_of("", tag) == "quantize":
            groups.append("quantize")
            continue
        product = _is_product(tag)
        seen, since = seen + product, 0 if product else since + 1
        place = (seen - 1) % _LAYER_PRODUCTS
        if _AFTER[place] == "norm" and seen < len(products) - 1:
            norm = since
        if seen == 0:
            groups.append("embedding")
        # what follows the last layer's norm pools for the head
        elif seen == len(products) or (seen == len(products) - 1 and since > norm):
            groups.append("head")
        elif product:
            groups.append("attention" if place < 4 else "feed-forward")
        else:
            groups.append(_AFTER[place])
    return groups


def _is_product(tag: str) -> bool:
    return "fully" in tag.lower() and "connected" in tag.lower()


def _number(tag: str) -> Number | None:
    """Return what an operator multiplies in, by XNNPACK's names for formats in its own name."""
    tag = tag.lower()
    if not (_is_product(tag) or "matrix mult" in tag or "batch_matmul" in tag):
        return None
    return "int8" if any(kind in tag for kind in ("qd8", "qs8", "qu8", "qc8", "qp8")) else "fp32"


def _profiled(file: Path, calls: Sequence[Call], threads: int) -> Iterator[list[tuple[str, float]]]:
    """Return name and seconds of the operators of each call."""
    session = _Session(file, threads)
    for call in calls:
        session.run(call)
    for call in calls:
        yield session.run(call)
    session.close()


class _Session:
    """A compiled model that profiles itself."""

    def __init__(self, file: Path, threads: int) -> None:
        spec = find_spec("ai_edge_litert")
        library = Path(next(iter(spec.submodule_search_locations))) / "libLiteRt.so" if (
            spec and spec.submodule_search_locations) else None
        release = version("ai-edge-litert")
        if library is None or not library.exists() or not release.startswith(_KNOWN_RELEASE):
            raise Unsupported(f"the profiler of LiteRT {release} cannot be reached from Python")
        self._library = ctypes.CDLL(str(library))
        self._environment, self._model, self._options, self._compiled, self._profiler = (
            ctypes.c_void_p() for _ in range(5))
        self._call("LiteRtCreateEnvironment", 0, None, ctypes.byref(self._environment))
        self._call("LiteRtCreateModelFromFile", self._environment, str(file).encode(), ctypes.byref(self._model))
        self._call("LiteRtCreateOptions", ctypes.byref(self._options))
        self._call("LiteRtSetOptionsHardwareAccelerators", self._options, _CPU)
        self._kept: list[Any] = []  # what the options point to
        self._set("runtime_options_string", "enable_profiling = true\n")
        self._set("xnnpack", f"num_threads = {threads}\n")
        self._call("LiteRtCreateCompiledModel", self._environment, self._model, self._options,
                   ctypes.byref(self._compiled))
        self._call("LiteRtCompiledModelGetProfiler", self._compiled, ctypes.byref(self._profiler))
        if not self._profiler:
            raise Unsupported(f"LiteRT {release} does not profile its compiled models")

    def run(self, call: Call) -> list[tuple[str, float]]:
        """Run a program once, and return name and seconds of its operators in their order."""
        index, ids, shape = call
        arrays = _aligned(ids.shape, np.int32), _aligned(shape, np.float32)
        arrays[0][:] = ids
        buffers = [self._buffer(arrays[0], _INT32), self._buffer(arrays[1], _FLOAT32)]
        self._call("LiteRtStartProfiler", self._profiler)
        self._call("LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(index), ctypes.c_size_t(1),
                   ctypes.byref(buffers[0]), ctypes.c_size_t(1), ctypes.byref(buffers[1]))
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * max(count.value, 1))()
        self._call("LiteRtGetProfilerEvents", self._profiler, max(count.value, 1), events)
        found = [(e.tag.decode(errors="replace"), e.kind, e.elapsed_us / 1e6) for e in events[: count.value]]
        for buffer in buffers:
            self._library.LiteRtDestroyTensorBuffer(buffer)
        return [(tag, seconds) for tag, kind, seconds in found if kind & (_IN_DELEGATE | _OF_DELEGATE)
                or (kind == _OPERATOR and "delegate" not in tag.lower())]

    def close(self) -> None:
        """Give back what the session holds."""
        self._library.LiteRtDestroyCompiledModel(self._compiled)
        self._library.LiteRtDestroyOptions(self._options)
        self._library.LiteRtDestroyModel(self._model)
        self._library.LiteRtDestroyEnvironment(self._environment)

    def _set(self, identifier: str, toml: str) -> None:
        text, opaque = ctypes.create_string_buffer(toml.encode()), ctypes.c_void_p()
        forget = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda payload: None)
        self._kept += [text, forget]
        self._call("LiteRtCreateOpaqueOptions", identifier.encode(), text, forget, ctypes.byref(opaque))
        self._call("LiteRtAddOpaqueOptions", self._options, opaque)

    def _buffer(self, array: NDArray[Any], element: int) -> ctypes.c_void_p:
        kind, buffer = _Type(element, array.ndim), ctypes.c_void_p()
        for i, n in enumerate(array.shape):
            kind.dimensions[i] = n
        self._call("LiteRtCreateTensorBufferFromHostMemory", ctypes.byref(kind), ctypes.c_void_p(array.ctypes.data),
                   ctypes.c_size_t(array.nbytes), None, ctypes.byref(buffer))
        return buffer

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise Unsupported(f"LiteRT's profiler cannot be reached: {name} returned {status}")


def _aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Return an array that LiteRT reads and writes in place: it starts at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start:start + size].view(dtype).reshape(shape)

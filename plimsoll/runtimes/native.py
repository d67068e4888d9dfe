"""Plimsoll's own int8 program for encoders laid out like BERT: compiled once, one row at a time, no padding."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import RunError, Unsupported
from plimsoll.core.operators import Operator
from plimsoll.core.parts import Device, Runtime, Sample, Session
from plimsoll.core.profile import Number, OperatorGroup
from plimsoll.core.record import Record
from plimsoll.train.shape import LayerShape

_SOURCE = Path(__file__).with_suffix(".cpp")
_CODE = "native.so"
_WEIGHTS = "native.safetensors"
_RECORD = "native.json"
_LANES = 16  # what the program computes at once: widths are multiples of it
_TOLERANCE = 0.5  # of the logits' size; int8 moves those of a trained model by some 0.02, a wrong program by 1 or more
_OK = 0  # what a call returns unless a token is not in the vocabulary; see native.cpp
_V3 = frozenset({
    "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma",
    "abm", "movbe"})
_V4 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_LEVELS = (
    (("-march=x86-64-v4", "-mavx512vnni"), _V3 | _V4 | {"avx512_vnni"}),
    (("-march=x86-64-v3",), _V3),
    ((), frozenset[str]()),
)
"""Compiler flags, and the processor flags (as Linux names them) that code so compiled needs; the best first."""


class Native(Runtime):
    """A program of Plimsoll's own, with int8 weights and activations that are rounded token by token as they come.

    It is compiled for the processor it is built on and knows layers of every shape that moves make. A row runs at its
    own length, without padding, and rows are answered one by one, so no answer depends on what else is in the batch
    or on the number of threads.

    Pays when: requests are short and come one at a time, the model has few layers, and the CPU has AVX512-VNNI.
        A pooled last layer reads its weights once whatever the length.
    Costs: a C++ compiler (g++ from 12 on, or clang++) where it is built, none where it is opened. The artifact holds
        machine code and opens only where the processor has the same instructions. Without AVX512-VNNI the answers are
        the same but slow. A batch takes as long as its rows one after the other. Only BERT's layout is known.
    Source: Plimsoll's own; one scale a token as in ZeroQuant (Yao et al., NeurIPS 2022, section 4.1), the products as
        in chapter 18 of Intel's 64 and IA-32 Architectures Optimization Reference Manual.
    """

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return the one there is. Raises Unsupported for anything but the CPU, and without a C++ compiler."""
        if device != "cpu":
            raise Unsupported("Plimsoll's own program runs on the CPU",
                              'set target.device = "cpu", or leave native out')
        _compiler()
        return (cls(threads=threads),)

    @property
    def steps(self) -> int:
        """Weights are rounded to int8, and activations with scales of their own."""
        return 1

    @property
    def build_s(self) -> float:
        """A comparison with torch; the compiler's few seconds come once."""
        return 2.0

    @property
    def number(self) -> Number:
        """int8: only scores, softmax and head are fp32."""
        return "int8"

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Write the weights in int8 and compile the program for this processor.

        Raises Unsupported without a compiler, for a model of another layout, and when the program's answers are not
        the model's.
        """
        compiler = _compiler()
        from safetensors.numpy import save_file

        from plimsoll.train import encoder, export

        module = encoder.load(model)
        flags, needs = next((flags, needs) for flags, needs in _LEVELS if needs <= _processor())
        program = _program(module, sample.max_length, needs)
        weights = _weights(module, program)
        save_file(weights, out / _WEIGHTS)
        (out / _RECORD).write_text(program.to_json())
        (out / _CODE).write_bytes(_compiled(compiler, flags))
        rows = export.probes(sample.input_ids, sample.max_length)
        _compare(self.open(out), rows, export.logits(module, rows))

    def open(self, folder: Path) -> Session:
        """Load the program and pack the weights for `threads` threads.

        Raises Unsupported when this processor lacks instructions the program was compiled for.
        """
        program = _Program.from_file(folder / _RECORD)
        lacking = sorted(set(program.needs) - _processor())
        if program.machine != platform.machine() or lacking:
            lacks = f"lacks {', '.join(lacking)}" if lacking else f"is {platform.machine()}"
            raise Unsupported(f"the program was compiled for {program.machine} and this processor {lacks}",
                              "build it again on a machine like the one that is to open it")
        return _NativeSession(folder, program, self.threads)

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Return the parts of the program, by clocks between them: rounding to int8 is in what comes before it.

        Seconds are means over the threads, without their waiting. Raises Unsupported for a program that was compiled
        before it had clocks.
        """
        session = cast(_NativeSession, self.open(folder))
        for row in rows:
            session.logits([row])
        spent = np.array([session.timed(row) for row in rows]).mean(axis=0)
        session.close()
        products = dict.fromkeys(("attention", "feed-forward"), self.number) | {"head": "fp32"}
        return [Operator(f"{group} of native.cpp", group, seconds, number=products.get(group))
                for group, seconds in zip(_GROUPS, spent.tolist(), strict=True)]


class _Program(Record):
    """What the compiled program must know of the model, and the processor it was compiled for."""

    hidden: int
    head_size: int
    vocabulary: int
    longest: int
    """Tokens in the longest row."""
    labels: int
    epsilon: float
    """Of the layer norms."""
    layers: tuple[LayerShape, ...]
    machine: str
    needs: tuple[str, ...]
    """Processor flags, as Linux names them."""

    def names(self) -> Iterator[str]:
        """Return the tensors of the weights file in the order in which the program reads them."""
        yield from ("word.weight", "word.scale", "position", "embedding_norm.weight", "embedding_norm.bias")
        for i, layer in enumerate(self.layers):
            yield f"{i}.context.bias"
            if layer.heads:
                yield from (f"{i}.{name}" for name in (
                    "projections.weight", "projections.scale", "projections.bias", "context.weight", "context.scale"))
            yield from (f"{i}.attention_norm.weight", f"{i}.attention_norm.bias", f"{i}.down.bias")
            if layer.neurons:
                yield from (f"{i}.{name}" for name in (
                    "up.weight", "up.scale", "up.bias", "down.weight", "down.scale"))
            yield from (f"{i}.output_norm.weight", f"{i}.output_norm.bias")
        yield from ("classifier.weight", "classifier.bias")


_GROUPS: tuple[OperatorGroup, ...] = ("embedding", "attention", "feed-forward", "norm", "head")
"""In the order of native.cpp."""


class _NativeSession(Session):
    pads_apart: ClassVar[bool] = True

    def __init__(self, folder: Path, program: _Program, threads: int) -> None:
        from safetensors.numpy import load_file

        library = _library(folder / _CODE)
        weights = load_file(folder / _WEIGHTS)
        names = list(program.names())
        sizes = [threads, program.hidden, program.vocabulary, program.longest, program.labels, len(program.layers)]
        for layer in program.layers:
            sizes += [layer.heads, program.head_size, layer.neurons, int(layer.pooled)]
        handle = library.plimsoll_open(
            (ctypes.c_int64 * len(sizes))(*sizes), program.epsilon,
            (ctypes.c_void_p * len(names))(*(weights[name].ctypes.data for name in names)))
        if not handle:
            raise Unsupported(f"no memory or no threads left for a program of {threads} threads",
                              "ask for fewer threads")
        self._longest, self._vocabulary = program.longest, program.vocabulary
        self._ids = (ctypes.c_int32 * program.longest)()
        # prepared for each length: a third of a microsecond where numpy takes two thirds
        self._write = [struct.Struct(f"{n}i").pack_into for n in range(program.longest + 1)]
        self._logits = np.zeros((1, program.labels), dtype=np.float32)
        self._run, self._in_use = library.plimsoll_row, threading.Lock()
        self._timed: Any = getattr(library, "plimsoll_timed_row", None)
        self._arguments = (handle, ctypes.addressof(self._ids), self._logits.ctypes.data)
        self._close = weakref.finalize(self, _close_here, library.plimsoll_close, handle, os.getpid())
        self._close.atexit = False  # a process that ends takes its threads along

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels]; rows run one after the other."""
        if len(input_ids) == 1:
            return self._row(input_ids[0])
        out = np.empty((len(input_ids), self._logits.shape[1]), dtype=np.float32)
        for i, row in enumerate(input_ids):
            out[i] = self._row(row)
        return out

    def close(self) -> None:
        """End the threads and give back the memory; the session answers nothing afterwards."""
        with self._in_use:
            self._run = self._timed = _closed
            self._close()

    def _row(self, row: Sequence[int]) -> NDArray[np.float32]:
        with self._in_use:
            return self.compute(self.prepare(row))

    def prepare(self, row: Sequence[int]) -> Sequence[int]:
        """Return the row, written to where the program reads it; nothing is padded."""
        tokens = len(row)
        if not 0 < tokens <= self._longest:
            raise Unsupported(f"a row of {tokens} tokens, this artifact takes at least 1 and at most {self._longest}",
                              "cut the input, or build again with a larger max_length")
        try:
            self._write[tokens](self._ids, 0, *row)
        except struct.error:
            raise self._not_known(row) from None
        return row

    def compute(self, prepared: Sequence[int]) -> NDArray[np.float32]:
        """Return the program's answer to the row that was prepared last."""
        handle, ids, logits = self._arguments
        if self._run(handle, ids, len(prepared), logits) == _OK:
            return self._logits.copy()
        raise self._not_known(prepared)

    def timed(self, row: Sequence[int]) -> list[float]:
        """Answer a row and return the seconds of each of `_GROUPS`. Raises Unsupported where there are no clocks."""
        if self._timed is None:
            raise Unsupported("this artifact's program was compiled by a version of Plimsoll that had no clocks in it",
                              "run the search again")
        spent = (ctypes.c_double * len(_GROUPS))()
        handle, ids, logits = self._arguments
        with self._in_use:
            self._timed(handle, ids, len(self.prepare(row)), logits, spent)
        return list(spent)

    def _not_known(self, row: Sequence[int]) -> Unsupported:
        unknown = next((token for token in row if not 0 <= token < self._vocabulary), None)
        return Unsupported(f"there is no token {unknown!r} in this artifact's vocabulary of {self._vocabulary}",
                           "encode texts with the artifact's own tokenizer")


def _close_here(close: Any, handle: int, opened_in: int) -> None:
    """Close a program, but not in a fork of the process that opened it: its threads are not there to be waited for."""
    if os.getpid() == opened_in:
        close(handle)


def _closed(*arguments: object) -> int:
    raise RunError("the session is closed", "open the artifact again")


def _library(file: Path) -> Any:
    try:
        library = ctypes.CDLL(str(file.resolve()))  # a name without a folder is looked for in the system's
    except OSError as e:
        raise Unsupported(f"the system cannot load the program: {e}", "build it again on this machine") from e
    library.plimsoll_open.restype = ctypes.c_void_p
    library.plimsoll_open.argtypes = [ctypes.c_void_p, ctypes.c_float, ctypes.c_void_p]
    library.plimsoll_row.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    if hasattr(library, "plimsoll_timed_row"):
        library.plimsoll_timed_row.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
                                               ctypes.c_void_p]
    library.plimsoll_close.argtypes, library.plimsoll_close.restype = [ctypes.c_void_p], None
    return library


def _compiler() -> str:
    wanted = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    found = shutil.which(wanted)
    if found is None:
        raise Unsupported(f"Plimsoll's own program needs a C++ compiler to build, and finds no {wanted}",
                          "install g++ (on Debian and Ubuntu: apt install g++), or name a compiler in CXX")
    return found


@functools.cache
def _compiled(compiler: str, flags: tuple[str, ...]) -> bytes:
    """Return the program as a shared library: the same for every model, and 4 s of every build if made each time."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / _CODE
        # contraction: multiplications and additions of vectors become one instruction where there is one
        command = [compiler, "-std=c++17", "-O3", *flags, "-ffp-contract=fast", "-fPIC", "-shared",
                   "-fvisibility=hidden", "-pthread", "-w", str(_SOURCE), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
            raise Unsupported(f"{compiler} cannot compile Plimsoll's own program: {said}",
                              "use g++ from 12 on or clang++ (name it in CXX), or leave native out")
        return out.read_bytes()


def _processor() -> frozenset[str]:
    """Return the flags of this processor, as Linux names them; none elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def _program(module: Any, longest: int, needs: frozenset[str]) -> _Program:
    """Return what the program must know of a module of `train.encoder.load`. Raises Unsupported for other layouts."""
    from plimsoll.train import shape

    config, head = module.encoder.config, module.head.state_dict()
    head_size = config.hidden_size // getattr(config, "num_attention_heads", 1)
    activation = getattr(config, "hidden_act", None)
    wrong = next((what for what, is_wrong in (
        (f"a model of type {config.model_type}, not bert", config.model_type != "bert"),
        ("positions that are not absolute", getattr(config, "position_embedding_type", "absolute") != "absolute"),
        (f"the activation {activation}, not gelu", activation != "gelu"),
        (f"a hidden size of {config.hidden_size}, not a multiple of {_LANES}", config.hidden_size % _LANES),
        (f"heads of {head_size}, not a multiple of {_LANES}", head_size % _LANES),
        ("an answer to every token", module.task.per_token),
        ("a head that is not one linear layer", set(head) != {"classifier.weight", "classifier.bias"}),
        (f"rows of {longest} tokens and positions for {getattr(config, 'max_position_embeddings', longest)}",
         longest > getattr(config, "max_position_embeddings", longest)),
    ) if is_wrong), None)
    if wrong:
        raise Unsupported(f"Plimsoll's own program does not know {wrong}",
                          "use an encoder like BERT or MiniLM, or leave native out")
    return _Program(
        hidden=config.hidden_size, head_size=head_size, vocabulary=config.vocab_size, longest=longest,
        labels=len(head["classifier.bias"]), epsilon=config.layer_norm_eps, layers=shape.shapes(module.encoder),
        machine=platform.machine(), needs=tuple(sorted(needs)))


def _weights(module: Any, program: _Program) -> dict[str, NDArray[Any]]:
    """Return the tensors of the weights file by name."""
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    found: dict[str, NDArray[Any]] = {}

    def rounded(name: str, weight: NDArray[np.float32]) -> None:
        found[f"{name}.weight"], found[f"{name}.scale"] = _rounded(weight)

    def norm(name: str, source: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = state[f"{source}.weight"], state[f"{source}.bias"]

    source = "encoder.embeddings"
    rounded("word", state[f"{source}.word_embeddings.weight"])
    # there is one text a row, all of the first type
    positions = state[f"{source}.position_embeddings.weight"] + state[f"{source}.token_type_embeddings.weight"][0]
    found["position"] = positions[:program.longest]
    norm("embedding_norm", f"{source}.LayerNorm")
    for i, layer in enumerate(program.layers):
        source = f"encoder.encoder.layer.{i}"
        if layer.heads:
            # the softmax is computed with powers of two, so the queries bring log2(e) along
            factors = {"query": math.log2(math.e) / math.sqrt(program.head_size), "key": 1.0, "value": 1.0}
            weight, bias = (np.concatenate([
                np.float32(factor) * state[f"{source}.attention.self.{name}.{kind}"] for name, factor in factors.items()
            ]) for kind in ("weight", "bias"))
            rounded(f"{i}.projections", weight)
            found[f"{i}.projections.bias"] = bias
            rounded(f"{i}.context", state[f"{source}.attention.output.dense.weight"])
        if layer.neurons:
            rounded(f"{i}.up", state[f"{source}.intermediate.dense.weight"])
            found[f"{i}.up.bias"] = state[f"{source}.intermediate.dense.bias"]
            rounded(f"{i}.down", state[f"{source}.output.dense.weight"])
        found[f"{i}.context.bias"] = state[f"{source}.attention.output.dense.bias"]
        found[f"{i}.down.bias"] = state[f"{source}.output.dense.bias"]
        norm(f"{i}.attention_norm", f"{source}.attention.output.LayerNorm")
        norm(f"{i}.output_norm", f"{source}.output.LayerNorm")
    found |= {f"classifier.{kind}": state[f"head.classifier.{kind}"] for kind in ("weight", "bias")}
    return {name: np.ascontiguousarray(found[name]) for name in program.names()}


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a matrix in int8 and the scale of each of its rows: weight = int8 * scale."""
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    safe = np.where(scale > 0, scale, np.float32(1))
    return np.rint(weight / safe[:, None]).astype(np.int8), scale.astype(np.float32)


def _compare(session: Session, rows: Sequence[Sequence[int]], expected: NDArray[np.float32]) -> None:
    got = session.logits(rows)
    session.close()
    apart = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    if not apart <= _TOLERANCE:
        raise Unsupported(f"the program's logits are {apart:.0%} of their size apart from the model's",
                          "the head pools otherwise, or this model does not bear int8: leave native out")

"""XLA, the compiler of JAX: one program per static input length, one set of weights for all of them."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from plimsoll.core import ragged
from plimsoll.core.errors import Unsupported
from plimsoll.core.operators import Operator
from plimsoll.core.parts import Device, Runtime, Sample, Session
from plimsoll.core.record import Record, digest
from plimsoll.train.buckets import StaticLengths, for_runtime

if TYPE_CHECKING:
    import torch

_PROGRAMS = "programs.json"
_WEIGHTS = "weights.safetensors"
_LARGEST_DIFFERENCE = 1e-2
"""Between the logits of torch and of a program."""
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_PADDING = -1  # no token has this id, so one input says both what is there and what is padding
_POOL_SIZE = "PJRT_NPROC"  # of a client's thread pool; XLA reads it from the environment whenever it makes a client


class Xla(Runtime):
    """XLA on the CPU in fp32, and a program for each of a few static input lengths.

    A request runs in the shortest program that holds it; rows are answered one by one, so no answer depends on what
    else is in the batch. The programs are stored twice: as StableHLO, for any machine, and as the machine code that
    XLA made of them where they were built, which is used where processor, threads and jaxlib are the same. Opening
    needs no PyTorch.

    Pays when: eager PyTorch spends its time between operators, as it does for short inputs: XLA fuses all of them but
        the matrix products, and plans every buffer ahead.
    Costs: 10 s to build and 1 s more for each length. Measured for MiniLM-L6: each length takes 0.1 MB on disk and
        10 MB of memory, and opens in 0.1 s, or in 0.8 s where it has to be compiled again. No int8, and no bf16:
        on a CPU with AVX512-BF16 that took three times as long as fp32.
    Source: https://openxla.org/xla and https://openxla.org/stablehlo
    """

    requires: ClassVar[dict[str, str]] = {"jax": "jax", "jaxlib": "jaxlib"}
    build_requires: ClassVar[dict[str, str]] = {"litert_torch": "litert-torch"}

    buckets: StaticLengths = ()
    """Static lengths in tokens, ascending. Empty: chosen from the lengths of the training rows."""
    bucket_count: PositiveInt = 8
    """How many lengths to choose when `buckets` is empty."""

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return the one there is.

        Raises Unsupported for anything but the CPU, and when the converter is not installed.
        """
        if device != "cpu":
            raise Unsupported("XLA runs on the CPU here", 'set target.device = "cpu", or leave xla out')
        cls.check_buildable()
        return (cls(threads=threads),)

    @property
    def steps(self) -> int:
        """0: the arithmetic stays fp32."""
        return 0

    @property
    def build_s(self) -> float:
        """Two or three lengths are lowered, and each is compiled."""
        return 10.0 + 1.0 * (len(self.buckets) or self.bucket_count)

    @property
    def built_as(self) -> Self:
        """All of them: the machine code is compiled for a number of threads."""
        return self

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Write the weights, and for each length its StableHLO and its machine code.

        Raises Unsupported when the converter does not know an operator of the model, when a program answers otherwise
        than torch, or when `buckets` leave out the longest input.
        """
        self.check_buildable()
        from safetensors.numpy import save_file

        from plimsoll.train import encoder, export

        lengths = for_runtime("xla", self.buckets, self.bucket_count, sample)
        module = encoder.load(model)
        rows = export.probes(sample.input_ids, sample.max_length)
        rows += [rows[-1][:n] for n in lengths]
        expected = export.logits(module, rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converter about itself
            lowered = _all_lowered(_one_row(module), lengths)
        compiler = _Compiler(self.threads)
        for length, program in lowered.items():
            stablehlo, executable = (out / name for name in _files(length))
            stablehlo.write_bytes(program.portable())
            executable.write_bytes(zlib.compress(compiler.compiled(stablehlo.read_bytes()).serialize()))
        save_file({name: array for p in lowered.values() for name, array in p.weights}, out / _WEIGHTS)
        names = {n: tuple(name for name, _ in p.weights) for n, p in lowered.items()}
        record = _Programs(made_for=_place(self.threads), weights=names)
        (out / _PROGRAMS).write_text(record.to_json())
        session = self.open(out)
        off = float(np.abs(ragged.flat(session.logits(rows), [len(row) for row in rows]) - expected).max())
        session.close()
        if not off <= _LARGEST_DIFFERENCE:
            raise Unsupported(f"the logits of XLA's programs differ from torch's by {off:.3g}",
                              "the converter does not read this model rightly; leave xla out")

    def open(self, folder: Path) -> Session:
        """Load the machine code where it was made for this place, else compile; run each program once."""
        return _XlaSession(folder, self.threads)

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Raise Unsupported: the program does not say what it is doing."""
        raise Unsupported("XLA has fused the operators into kernels of its own, and its programs do not say from which "
                          "module any of them came")


class _Programs(Record):
    """What was built, and where its machine code may run."""

    made_for: str
    """Digest of processor, threads and libraries; empty: nowhere."""
    weights: dict[PositiveInt, tuple[str, ...]]
    """For each static length, what its program takes before the token ids, by name in the weights file."""


def _files(length: int) -> tuple[str, str]:
    """Return the names of a program's files: its StableHLO, and its machine code, compressed."""
    return f"len_{length}.mlir", f"len_{length}.bin"


class _Compiler:
    """A client of XLA with a thread pool of its own, beside any that JAX has. Private entry points of jaxlib 0.10."""

    def __init__(self, threads: int) -> None:
        from jax.core import ShapedArray
        from jax.sharding import SingleDeviceSharding
        from jaxlib import xla_client

        before = os.environ.get(_POOL_SIZE)
        os.environ[_POOL_SIZE] = str(threads)
        try:
            # asynchronous: each call would be handed to another thread, and its caller would only wait
            self._client: Any = xla_client.make_cpu_client(asynchronous=False, num_devices=1)
        finally:
            if before is None:
                del os.environ[_POOL_SIZE]
            else:
                os.environ[_POOL_SIZE] = before
        self._device_list = self._client.local_devices()
        self._devices = xla_client.DeviceList(tuple(self._device_list))
        self._options = xla_client.CompileOptions()
        self._sharding = SingleDeviceSharding(self._device_list[0])
        self._shaped: Any = ShapedArray
        self._put: Any = xla_client.batched_device_put

    def compiled(self, stablehlo: bytes) -> Any:
        """Return an executable."""
        return self._client.compile_and_load(stablehlo, self._devices, self._options)

    def loaded(self, executable: bytes) -> Any:
        """Return an executable from what another one's `serialize` gave in the same place."""
        return self._client.deserialize_executable(executable, self._devices, self._options)

    def array(self, host: NDArray[Any]) -> Any:
        """Return what an executable takes for an array; it may read the array's own memory."""
        # jax.device_put comes to the same in thirty times as long; without x64 int64 would be narrowed
        shaped = self._shaped(host.shape, host.dtype)
        return self._put(shaped, self._sharding, [host], self._device_list, enable_x64=True)


class _XlaSession(Session):
    pads_apart: ClassVar[bool] = True

    def __init__(self, folder: Path, threads: int) -> None:
        from safetensors import safe_open

        built = _Programs.from_file(folder / _PROGRAMS)
        compiler = _Compiler(threads)
        self._array = compiler.array
        with safe_open(folder / _WEIGHTS, framework="numpy") as file:
            weights = {name: compiler.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        here = built.made_for and built.made_for == _place(threads)
        opened: list[_Opened] = []
        for length, names in sorted(built.weights.items()):
            stablehlo, executable = (folder / name for name in _files(length))
            program = (compiler.loaded(zlib.decompress(executable.read_bytes())) if here
                       else compiler.compiled(stablehlo.read_bytes()))
            opened.append(_Opened(length, program.execute_sharded, [weights[name] for name in names]))
        self._longest = opened[-1].length
        self._by_length = [next(p for p in opened if p.length >= n) for n in range(self._longest + 1)]
        for program in opened:
            self.compute(self.prepare([0] * program.length))  # the first call allocates

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], or [rows, longest, labels]; rows run one after the other.

        Each runs in the shortest program that holds it.
        """
        return ragged.stacked([self.compute(self.prepare(row))[0] for row in input_ids])

    def close(self) -> None:
        """Give back programs, weights and threads; the session answers nothing afterwards."""
        self._by_length.clear()
        del self._array
        gc.collect()  # jaxlib's clients and devices hold each other

    def prepare(self, row: Sequence[int]) -> tuple[_Opened, Any, int]:
        """Return the shortest program that holds the row, the row as it takes it, and the row's tokens."""
        tokens = len(row)
        if tokens > self._longest:
            raise Unsupported(f"a row of {tokens} tokens, this artifact takes at most {self._longest}",
                              "cut the input, or build again with a larger max_length")
        program = self._by_length[tokens]
        ids = np.full(program.length, _PADDING, dtype=np.int32)
        ids[:tokens] = row
        return program, self._array(ids), tokens

    def padded(self, tokens: int) -> int:
        """Return the length of the program that a row of so many tokens runs in."""
        return self._by_length[tokens].length

    def compute(self, prepared: tuple[_Opened, Any, int]) -> NDArray[np.float32]:
        """Return the program's answer to a prepared row."""
        program, ids, tokens = prepared
        results = program.run([*program.weights, ids])
        answer = np.asarray(results.disassemble_into_single_device_arrays()[0][0])
        return (answer if answer.ndim == 1 else answer[:tokens])[None]


class _Opened(NamedTuple):
    length: int
    run: Callable[[list[Any]], Any]
    weights: list[Any]


def _place(threads: int) -> str:
    """Return a digest of what machine code depends on; empty where the processor cannot be told."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return ""
    first = cpuinfo.read_text().split("\n\n")[0].splitlines()
    cpu = [line for line in first if line.startswith(("model name", "flags", "CPU part", "Features"))]
    libraries = {name: version(name) for name in ("jax", "jaxlib")}
    return digest({"cpu": cpu, "threads": threads, "libraries": libraries, "flags": os.environ.get("XLA_FLAGS")})


class _Lowered(NamedTuple):
    """One static length as StableHLO."""

    text: str
    weights: list[tuple[str, NDArray[Any]]]
    """What the program takes before the ids, in that order, each with a name that only equal arrays share."""

    def portable(self) -> bytes:
        """Return it as bytes that later versions of XLA read as well."""
        from jaxlib.mlir.dialects import stablehlo

        return stablehlo.serialize_portable_artifact_str(self.text, stablehlo.get_current_version())


def _all_lowered(module: torch.nn.Module, lengths: Sequence[int]) -> dict[int, _Lowered]:
    """Return a module of one row as StableHLO for each length; those between two alike are worked out from them."""
    shortest, *longer = lengths
    done = {shortest: _lowered(module, shortest)}
    for end in reversed(longer):
        if end not in done:
            done[end] = _lowered(module, end)
            # the longest may stand alone: its positions are all there are, and are not cut
            done |= _between(shortest, end, done, [n for n in longer if n < end])
    return done


def _between(low: int, high: int, done: Mapping[int, _Lowered], lengths: Sequence[int]) -> dict[int, _Lowered]:
    """Return the programs of `lengths`, whose numbers lie between those of two others; none if these differ in more."""
    ends = [_NUMBER.split(done[end].text) for end in (low, high)]
    if len(ends[0]) != len(ends[1]) or [n for n, _ in done[low].weights] != [n for n, _ in done[high].weights]:
        return {}
    texts: dict[int, list[str]] = {n: [] for n in lengths}
    for pair in zip(*ends, strict=True):
        if pair[0] != pair[1] and not (pair[0].isdigit() and pair[1].isdigit()):
            return {}
        for n, text in texts.items():
            if pair[0] == pair[1]:
                text.append(pair[0])
                continue
            number, rest = divmod(int(pair[0]) * (high - n) + int(pair[1]) * (n - low), high - low)
            if rest:
                return {}
            text.append(str(number))
    return {n: _Lowered("".join(text), done[low].weights) for n, text in texts.items()}


def _lowered(module: torch.nn.Module, length: int) -> _Lowered:
    """Return a module of one row as StableHLO for one length."""
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    import torch
    from litert_converter.mlir.passmanager import PassManager  # type: ignore[attr-defined]
    from litert_torch.backend.export import exported_program_to_mlir

    try:
        program = torch.export.export(module, (torch.zeros(length, dtype=torch.int32),))
        lowered: Any = exported_program_to_mlir(program, inline_constants=False)
    except (RuntimeError, NotImplementedError) as e:
        raise Unsupported(f"the converter does not know this model: {str(e).splitlines()[0]}", "leave xla out") from e
    with lowered.ctx:
        # functions for operators are shared where shapes happen to be equal, and named after their shapes
        PassManager.parse("builtin.module(inline,symbol-dce)").run(lowered.module.operation)
    *weights, _ = (lowered.state_dict.get(part.input_spec.name) for part in lowered.input_signature)
    arrays: list[NDArray[Any]] = [weight.detach().numpy() for weight in weights]
    # without the files and lines of its source, which say where it was built and are longer than the program
    return _Lowered(lowered.module.operation.get_asm(enable_debug_info=False), [(_content(a), a) for a in arrays])


def _one_row(model: Any) -> torch.nn.Module:
    """Return a module for one row: int32 [length] with -1 for padding -> float32 [labels] or [length, labels]."""
    import torch

    encoder: Any = _turned(model).encoder
    pad_id: int = getattr(encoder.config, "pad_token_id", None) or 0

    class OneRow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            real = ids[None] != _PADDING
            mask = real.float()
            # a four-dimensional mask is added to the attention scores as it is, so no graph builds one from ranges
            bias = ((mask - 1) * 1e4)[:, None, None, :]
            filled = torch.where(real, ids[None], torch.full_like(ids[None], pad_id))
            hidden = encoder(input_ids=filled, attention_mask=bias).last_hidden_state
            return self.model.answer(hidden, mask)[0]

    return OneRow().eval()


def _turned(model: Any) -> Any:
    """Return the model with the weights of its linear layers stored [inputs, outputs], in place.

    XLA multiplies by such a matrix as it lies; torch's [outputs, inputs] it turns at each call, which makes a call of
    MiniLM-L6 a quarter longer at 32 tokens.
    """
    import torch

    class Turned(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(linear.weight.detach().T.contiguous())
            self.bias = linear.bias

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            product = hidden @ self.weight
            return product if self.bias is None else product + self.bias

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(module, name, Turned(child))
    return model


def _content(array: NDArray[Any]) -> str:
    """Return a name that only equal arrays share, so that what several lengths use is stored once."""
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()[:16]

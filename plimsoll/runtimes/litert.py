"""LiteRT (TensorFlow Lite): one file, one set of weights, one program per static input length."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from plimsoll.core import ragged
from plimsoll.core.errors import Unsupported
from plimsoll.core.operators import Operator, mean_of
from plimsoll.core.parts import Device, Runtime, Sample, Session
from plimsoll.core.profile import Number
from plimsoll.train.buckets import StaticLengths, for_runtime

if TYPE_CHECKING:
    import torch

_FILE = "model.tflite"
_PADDING = -1  # no token has this id, so one input says both what is there and what is padding
_CALIBRATION_ROWS = 64
_CONVERTED_LENGTHS = 5  # of some ten seconds each, where the programs cannot be worked out from two
_ALIGNMENT = 64  # bytes; LiteRT reads and writes host memory in place only when it starts at such an address


class Litert(Runtime):
    """LiteRT with XNNPACK, and a program for each of a few static input lengths.

    A request runs in the shortest program that holds it. Static shapes let every buffer be planned ahead, and
    rows are answered one by one, so no answer depends on what else is in the batch.

    Pays when: requests are short and come one at a time; int8 weights pay most where the CPU has VNNI or dot-product
        instructions.
    Costs: two conversions of a few seconds each, whatever the number of lengths; 0.1 MB on disk for each length.
        A batch takes as long as its rows one after the other. Full int8 rounds activations with fixed scales
        and loses more quality than dynamic int8: 1.7 points against 0.5 for MiniLM on BANKING77, on a Zen 3.
        Layers that the move quantize keeps stay in fp32.
    Source: https://ai.google.dev/edge/litert and https://github.com/google-ai-edge/ai-edge-quantizer
    """

    requires: ClassVar[dict[str, str]] = {"ai_edge_litert": "ai-edge-litert"}
    build_requires: ClassVar[dict[str, str]] = {
        "litert_torch": "litert-torch", "ai_edge_quantizer": "ai-edge-quantizer"}

    precision: Literal["fp32", "int8_dynamic", "int8"] = "fp32"
    """int8_dynamic: int8 weights, activations scaled per token as they come; int8: activations too, calibrated."""
    buckets: StaticLengths = ()
    """Static lengths in tokens, ascending. Empty: chosen from the lengths of the training rows."""
    bucket_count: PositiveInt = 16
    """How many lengths to choose when `buckets` is empty."""

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return fp32, dynamic int8, and full int8.

        Raises Unsupported for anything but the CPU, and when the converters are not installed.
        """
        if device != "cpu":
            raise Unsupported("LiteRT runs on the CPU here", 'set target.device = "cpu", or leave litert out')
        cls.check_buildable()
        return tuple(cls(threads=threads, precision=p) for p in ("fp32", "int8_dynamic", "int8"))

    @property
    def keeps_precise(self) -> bool:
        """In int8."""
        return self.precision.startswith("int8")

    @property
    def steps(self) -> int:
        """Conversion is exact; dynamic int8 rounds the weights, full int8 also the activations."""
        return {"fp32": 0, "int8_dynamic": 1, "int8": 2}[self.precision]

    @property
    def number(self) -> Number:
        """As `precision` says."""
        return "fp32" if self.precision == "fp32" else "int8"

    @property
    def build_s(self) -> float:
        """Two conversions, whatever the number of lengths; full int8 also watches every activation."""
        return 120.0 if self.precision == "int8" else 30.0

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Convert, quantize and write `model.tflite`.

        Raises Unsupported when a converter does not know an operator of the model, or when `buckets` leave out
        the longest input.
        """
        self.check_buildable()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converters about themselves
            lengths = for_runtime("litert", self.buckets, self.bucket_count, sample)
            if not self._write_from_two(model, lengths, sample, out / _FILE):
                fewer = min(self.bucket_count, _CONVERTED_LENGTHS)
                lengths = for_runtime("litert", self.buckets, fewer, sample)
                _write(self._quantized(model, lengths, sample), out / _FILE)

    def open(self, folder: Path) -> Session:
        """Open the file; packed weights are shared by all lengths and stay in memory only once."""
        return _LitertSession(folder / _FILE, self.threads)

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Return XNNPACK's operators by LiteRT's own profiler, which counts in whole microseconds.

        Raises Unsupported for another release of LiteRT than the one whose C interface is known.
        """
        from plimsoll.train import litert_profile

        session = _LitertSession(folder / _FILE, self.threads)
        calls: list[litert_profile.Call] = []
        for row in rows:
            program, _ = session.prepare(row)
            calls.append((program.index, program.ids.copy(), program.logits.shape))
        session.close()
        with _quiet_loader():
            return mean_of(litert_profile.operators(folder / _FILE, calls, self.threads), len(rows))

    def _write_from_two(self, model: Path, lengths: tuple[int, ...], sample: Sample, file: Path) -> bool:
        """Convert the shortest and the longest program and work out those between; return whether that held."""
        ends = (lengths[0], lengths[-1])
        if len(lengths) <= len(ends):
            return False
        converted = self._quantized(model, ends, sample)
        try:
            _add_between(converted, ends, lengths[1:-1])
        except _DifferentPrograms:
            return False
        _write(converted, file)
        return _same_answers(file, lengths, max(sample.input_ids, key=len))

    def _quantized(self, model: Path, lengths: tuple[int, ...], sample: Sample) -> Any:
        """Return the model as a mutable flatbuffer object, its weights (and activations) rounded as asked."""
        from ai_edge_litert.tools import flatbuffer_utils

        from plimsoll.train import sensitivity

        content = _convert(model, lengths)
        if self.precision != "fp32":
            from ai_edge_quantizer import quantizer, recipe
            from ai_edge_quantizer.qtyping import TFLOperationName

            work = quantizer.Quantizer(bytearray(content))
            work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            if self.precision == "int8":
                # the rest stays float: with static scales in layer norms and masked scores MiniLM answers noise
                work.add_static_config(".*", TFLOperationName.FULLY_CONNECTED, 8, 8)
            for name in _scopes(content, sensitivity.kept(model)):
                work.update_quantization_recipe(f"^{re.escape(name)};$", TFLOperationName.FULLY_CONNECTED,
                                                algorithm_key="no_quantize")
            seen = self._calibrate(work, content, lengths, sample) if self.precision == "int8" else None
            result = work.quantize(seen, enable_progress_bar=False, enable_progress_report=False)
            content = bytes(result.quantized_model or b"")
        return flatbuffer_utils.read_model_from_bytearray(content)

    def _calibrate(self, work: Any, content: bytes, lengths: tuple[int, ...], sample: Sample) -> Any:
        """Return the ranges seen on up to 64 sample rows.

        The programs of all lengths get the same ranges, so that they round alike and share their constants.
        """
        from ai_edge_litert.tools import flatbuffer_utils
        from ai_edge_quantizer.calibrator import CalibrationMode

        rows = sample.input_ids[:_CALIBRATION_ROWS]
        data = {f"len_{n}": [{"args_0": _padded(row[:n], n)} for row in rows] for n in lengths}
        seen = work.calibrate(data, num_threads=self.threads, mode=CalibrationMode.CALIBRATION_PROFILER_BASED)
        programs = [program.tensors for program in flatbuffer_utils.read_model_from_bytearray(content).subgraphs or ()]
        for tensors in zip(*programs, strict=True):
            names = [t.name.decode() for t in tensors]
            ranges = [seen[n] for n in names if seen.get(n)]
            if ranges:
                low, high = min(r["min"] for r in ranges), max(r["max"] for r in ranges)
                seen.update({n: {"min": low, "max": high} for n in names})
        return seen


class _Program:
    """One static length: host arrays that the runtime reads and writes in place."""

    def __init__(self, compiled: Any, name: str, labels: int, per_token: bool) -> None:
        from ai_edge_litert.compiled_model import TensorBuffer

        self.length = int(name.removeprefix("len_"))
        self.index: int = compiled.get_signature_index(name)
        self.ids = _aligned(self.length, np.int32)
        answers = _aligned(labels * (self.length if per_token else 1), np.float32)
        self.logits = answers.reshape(self.length, labels) if per_token else answers
        # kept: the capsules below do not own the memory
        self._buffers = [TensorBuffer.create_from_host_memory(a) for a in (self.ids, answers)]
        self.inputs, self.outputs = ([buffer.capsule] for buffer in self._buffers)


class _LitertSession(Session):
    pads_apart: ClassVar[bool] = True

    def __init__(self, file: Path, threads: int) -> None:
        with _quiet_loader():
            from ai_edge_litert.compiled_model import (
                CompiledModel,
                CpuOptions,
                Environment,
                EnvironmentOptions,
                HardwareAccelerator,
                Options,
            )

            # a folder without vendor plugins: looking for accelerators only costs time on a CPU
            nowhere = str(file.parent)
            environment = Environment.create(options=EnvironmentOptions(
                compiler_plugin_path=nowhere, dispatch_library_path=nowhere))
            # without a cache each program packs its own copy of the weights: 290 MB instead of 96 for MiniLM, 5 lengths
            cpu = CpuOptions(num_threads=threads, xnnpack_weight_cache_path=":memory")
            self._compiled: Any = CompiledModel.from_file(
                str(file), environment=environment, options=Options(HardwareAccelerator.CPU, cpu_options=cpu))
        names = list(self._compiled.get_signature_list())
        (output,) = self._compiled.get_output_tensor_details(names[0]).values()
        labels, per_token = int(output["shape"][-1]), len(output["shape"]) == 2
        programs = sorted((_Program(self._compiled, n, labels, per_token) for n in names), key=lambda p: p.length)
        self._longest = programs[-1].length
        self._by_length = [next(p for p in programs if p.length >= n) for n in range(self._longest + 1)]
        # the public run_by_index unpacks its buffers anew each time, which is 5 of some 30 us of a small model's call
        self._run: Callable[[int, list[Any], list[Any]], None] = self._compiled._model.RunByIndex

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], or [rows, longest, labels]; rows run one after the other.

        Each runs in the shortest program that holds it.
        """
        if len(input_ids) == 1:
            return self.compute(self.prepare(input_ids[0]))
        return ragged.stacked([self.row(row, len(row)) for row in input_ids])

    def close(self) -> None:
        """Give back the programs and their memory; the session answers nothing afterwards."""
        with _quiet_loader():
            self._by_length.clear()
            del self._run, self._compiled

    def row(self, row: Sequence[int], length: int) -> NDArray[np.float32]:
        """Return float32 [labels], or [tokens, labels], of one row, run in the shortest program of `length` or more."""
        return self.compute(self._written(row, length))[0]

    def prepare(self, row: Sequence[int]) -> tuple[_Program, int]:
        """Return the shortest program that holds the row, with the row in it, and the row's tokens."""
        return self._written(row, len(row))

    def compute(self, prepared: tuple[_Program, int]) -> NDArray[np.float32]:
        """Return the program's answer to a prepared row."""
        program, tokens = prepared
        self._run(program.index, program.inputs, program.outputs)
        return (program.logits if program.logits.ndim == 1 else program.logits[:tokens])[None].copy()

    def padded(self, tokens: int) -> int:
        """Return the length of the program that a row of so many tokens runs in."""
        return self._by_length[tokens].length

    def _written(self, row: Sequence[int], length: int) -> tuple[_Program, int]:
        if length > self._longest:
            raise Unsupported(f"a row of {len(row)} tokens, this artifact takes at most {self._longest}",
                              "cut the input, or build again with a larger max_length")
        program = self._by_length[length]
        ids, tokens = program.ids, len(row)
        ids[:tokens] = row
        ids[tokens:] = _PADDING
        return program, tokens


def _aligned(length: int, dtype: type[np.generic]) -> NDArray[Any]:
    size = length * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start:start + size].view(dtype)


@contextlib.contextmanager
def _quiet_loader() -> Iterator[None]:
    """Keep what the native loader prints about absent accelerators off stderr, unless opening fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _convert(folder: Path, lengths: Sequence[int]) -> bytes:
    """Return a flatbuffer with one program per length, named len_8 and so on: int32 [length] -> logits."""
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    import litert_torch
    import torch

    from plimsoll.train import encoder

    module = _with_padding_marked(encoder.load(folder))
    converter: Any = litert_torch
    for length in lengths:
        converter = converter.signature(f"len_{length}", module, (torch.zeros(length, dtype=torch.int32),))
    try:
        return converter.convert().model_content()
    except (RuntimeError, NotImplementedError) as e:
        raise Unsupported(f"LiteRT cannot convert this model: {str(e).splitlines()[0]}", "leave litert out") from e


def _with_padding_marked(model: Any) -> torch.nn.Module:
    """Return a module for one row: int32 [length] with -1 for padding -> float32 [labels] or [length, labels]."""
    import torch

    encoder: Any = model.encoder
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
            hidden = self.model.encoder(input_ids=filled, attention_mask=bias).last_hidden_state
            return self.model.answer(hidden, mask)[0]

    return OneRow().eval()


def _scopes(content: bytes, kept: Mapping[str, NDArray[np.float32]]) -> set[str]:
    """Return the outputs of the linear layers to keep in fp32, by tensor name, in the programs of all lengths.

    Layers are found by their weights, float32 [outputs, inputs]: the converter names a tensor after several modules.
    A factor for each input is allowed for, since it moves the scale of a layer norm into the products that follow.
    Raises Unsupported when one of them is in no program.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    found: dict[str, str] = {}
    for program in model.subgraphs:
        for operator in program.operators:
            for tensor in (program.tensors[i] for i in operator.inputs[1:2]):  # data first, then weights
                data = model.buffers[tensor.buffer].data
                for name, weight in kept.items():
                    if (data is not None and tuple(tensor.shape) == weight.shape and len(data) == weight.nbytes
                            and _scaled(_bytes(data).view(np.float32).reshape(weight.shape), weight)):
                        found[program.tensors[operator.outputs[0]].name.decode()] = name
    lost = set(kept) - set(found.values())
    if lost:
        raise Unsupported(f"{', '.join(sorted(lost))} should stay in fp32, and the converted model has no such layer",
                          "leave the move quantize out, or litert")
    return set(found)


def _scaled(matrix: NDArray[np.float32], weight: NDArray[np.float32]) -> bool:
    """Return whether each column of a matrix is that of the weight times some number."""
    factors = (matrix * weight).sum(axis=0) / np.maximum((weight * weight).sum(axis=0), 1e-30)
    return bool(np.abs(matrix - weight * factors).max() <= 1e-4 * np.abs(matrix).max())


def _padded(row: Sequence[int], length: int) -> NDArray[np.int32]:
    return np.array([*row, *[_PADDING] * (length - len(row))], dtype=np.int32)


class _DifferentPrograms(Exception):
    """The programs of two lengths are not the same graph with other sizes."""


def _add_between(model: Any, ends: tuple[int, int], lengths: Sequence[int]) -> None:
    """Add programs for `lengths` to a flatbuffer object that holds those of a shorter and a longer length.

    The converter takes seconds per length and gives the same graph each time; what differs is sizes. A size
    that is 12 at 12 tokens and 128 at 128 is the length. So every integer that differs is taken as a linear
    function of the length, and every constant that differs in shape as the first rows of the longer one.
    Raises _DifferentPrograms where that does not fit the two programs given.
    """
    from ai_edge_litert import schema_py_generated as schema

    class PackedOnce(schema.QuantizationParametersT):
        """Scales written once and referred to by the tensors of every length: 0.6 MB each for MiniLM."""

        def __init__(self, original: Any) -> None:
            self.__dict__.update(vars(original))
            self._packed: Any = None

        def Pack(self, builder: Any) -> Any:
            if self._packed is None:
                self._packed = super().Pack(builder)
            return self._packed

    by_name = {s.signatureKey.decode(): s for s in model.signatureDefs}
    short, long = (model.subgraphs[by_name[f"len_{n}"].subgraphIndex] for n in ends)
    for a, b in _pairs(short.tensors, long.tensors):
        if b.quantization is not None:
            b.quantization = PackedOnce(b.quantization)
            if a.buffer == b.buffer and model.buffers[a.buffer].data is not None:
                a.quantization = b.quantization
    for length in lengths:
        between = _Between(model, ends, length)
        program = copy.copy(long)
        program.tensors = [between.tensor(a, b) for a, b in _pairs(short.tensors, long.tensors)]
        program.operators = [between.operator(a, b) for a, b in _pairs(short.operators, long.operators)]
        signature = copy.copy(by_name[f"len_{ends[1]}"])
        signature.signatureKey, signature.subgraphIndex = f"len_{length}", len(model.subgraphs)
        model.subgraphs.append(program)
        model.signatureDefs.append(signature)


class _Between:
    """The parts of a program of `length` tokens, given the same part at a shorter and at a longer length."""

    def __init__(self, model: Any, ends: tuple[int, int], length: int) -> None:
        self._model, self._ends, self._length = model, ends, length

    def number(self, short: int, long: int) -> int:
        if short == long:
            return int(short)
        slope, rest = divmod(int(long) - int(short), self._ends[1] - self._ends[0])
        # a negative offset or slope would be a product of lengths that looks linear from two points
        if rest or slope < 0 or short < slope * self._ends[0]:
            raise _DifferentPrograms(f"{short} and {long}")
        return int(short) + slope * (self._length - self._ends[0])

    def numbers(self, short: Any, long: Any) -> list[int]:
        return [self.number(a, b) for a, b in _pairs(short, long)]

    def tensor(self, short: Any, long: Any) -> Any:
        if short.type != long.type or (short.shape is None) != (long.shape is None):
            raise _DifferentPrograms(long.name)
        tensor = copy.copy(long)
        tensor.name = b""  # for people only, and half of a program's size
        if long.shape is not None:
            tensor.shape = self.numbers(short.shape, long.shape)
        if short.buffer != long.buffer:
            tensor.buffer = self._buffer(short, long, tensor.shape)
        return tensor

    def _buffer(self, short: Any, long: Any, shape: Any) -> int:
        """Return the index of a new constant made from those of the two ends; 0, the empty one, for no constant."""
        from ai_edge_litert import schema_py_generated as schema

        a, b = self._model.buffers[short.buffer].data, self._model.buffers[long.buffer].data
        if a is None and b is None:
            return 0
        if a is None or b is None:
            raise _DifferentPrograms(long.name)
        a, b = _bytes(a), _bytes(b)
        if list(short.shape) != list(long.shape):
            rows = b.reshape(*long.shape, -1)
            if not np.array_equal(rows[tuple(slice(n) for n in short.shape)], a.reshape(*short.shape, -1)):
                raise _DifferentPrograms(long.name)
            data = rows[tuple(slice(n) for n in shape)]
        elif np.array_equal(a, b):
            return int(long.buffer)
        elif long.type == schema.TensorType.INT32:
            data = np.array(self.numbers(a.view(np.int32), b.view(np.int32)), dtype=np.int32)
        else:
            raise _DifferentPrograms(long.name)
        self._model.buffers.append(schema.BufferT(np.ascontiguousarray(data).reshape(-1).view(np.uint8)))
        return len(self._model.buffers) - 1

    def operator(self, short: Any, long: Any) -> Any:
        for key in ("opcodeIndex", "inputs", "outputs"):
            if not np.array_equal(getattr(short, key), getattr(long, key)):
                raise _DifferentPrograms(key)
        operator = copy.copy(long)
        if long.builtinOptions is not None:
            operator.builtinOptions = copy.copy(long.builtinOptions)
            for key, b in vars(long.builtinOptions).items():
                a = getattr(short.builtinOptions, key)
                if isinstance(b, list | np.ndarray):
                    setattr(operator.builtinOptions, key, self.numbers(a, b))
                elif isinstance(b, int):
                    setattr(operator.builtinOptions, key, self.number(a, b))
                elif a != b:
                    raise _DifferentPrograms(key)
        return operator


def _pairs(short: Any, long: Any) -> Iterator[tuple[Any, Any]]:
    if len(short) != len(long):
        raise _DifferentPrograms(f"{len(short)} and {len(long)} parts")
    return zip(short, long, strict=True)


def _bytes(data: Any) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)


def _write(model: Any, file: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    class Aligned(schema.BufferT):
        """The generated Python code leaves out the schema's force_align: 16."""

        def Pack(self, builder: Any) -> Any:
            if self.data is not None:
                builder.Prep(16, len(self.data))
            return super().Pack(builder)

    # as arrays: anything else is written byte by byte, 70 s for MiniLM
    model.buffers = [Aligned(None if b.data is None else _bytes(b.data)) for b in model.buffers]
    flatbuffer_utils.write_model(model, str(file))


def _same_answers(file: Path, lengths: Sequence[int], row: Sequence[int]) -> bool:
    """Return whether every program answers the start of a row as the longest, which was converted, does."""
    session = _LitertSession(file, threads=1)
    for length in lengths:
        own, padded = session.row(row[:length], length), session.row(row[:length], lengths[-1])
        # rounding to int8 may fall the other way where sums are added up in another order
        if np.abs(own - padded).max() > 0.02 * np.abs(padded).max():
            return False
    return True

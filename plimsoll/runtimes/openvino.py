"""OpenVINO: one model for inputs of any length, or one program for each of a few static lengths, on the CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from plimsoll.core import ragged
from plimsoll.core.errors import Unsupported
from plimsoll.core.operators import Operator, group_of, mean_of
from plimsoll.core.parts import Device, Runtime, Sample, Session
from plimsoll.core.profile import Number, OperatorGroup
from plimsoll.train.buckets import StaticLengths, for_runtime

MODEL = "model.xml"
LENGTHS = "lengths.json"
"""Static lengths to compile, or, for a model of any length, the lengths to run once when it is opened."""
LARGEST_DIFFERENCE = 1e-2
"""Between the logits of torch and of the fp32 model."""
CALIBRATION_ROWS = 300
WARM_LENGTHS = 64
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Without one of these OpenVINO computes bf16 in fp32, and only converts to and fro."""
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class Openvino(Runtime):
    """OpenVINO on the CPU in fp32, bf16 or int8. Rows are answered one by one, so none depends on its batch.

    By default one model takes any length and answers each unpadded; lengths common in training are run once when it
    opens, for the first input of a new length waits while kernels are made for it. With `bucket_count` there is one
    program per static length instead, and a row is padded to the shortest that holds it.

    Pays when: the CPU has VNNI or AMX, where int8 and bf16 pay most; as a second opinion in fp32 elsewhere.
        int8 also shrinks the file to a quarter, but for layers that the move quantize keeps in fp32.
    Costs: 20 to 80 s to calibrate int8. Without VNNI int8 is no faster than fp32. Each static length keeps its own
        packed weights: measured for MiniLM-L6, 145 MB of memory in fp32, 100 MB in int8.
    Source: https://docs.openvino.ai, precision and latency hints; NNCF post-training quantization,
        https://github.com/openvinotoolkit/nncf
    """

    requires: ClassVar[dict[str, str]] = {"openvino": "openvino"}
    build_requires: ClassVar[dict[str, str]] = {"onnx": "onnx"}

    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    """Arithmetic. int8 quantizes weights and activations, with ranges calibrated on training rows."""
    buckets: StaticLengths = ()
    """Static lengths in tokens, ascending. Empty: `bucket_count` of them are chosen."""
    bucket_count: NonNegativeInt = 0
    """How many static lengths to choose from the lengths of the training rows; 0 with no `buckets`: any length."""

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return each precision the CPU computes in, with any length and with six static ones.

        Raises Unsupported for any device but the CPU, and when what exports the graph is not installed.
        """
        if device != "cpu":
            raise Unsupported(f"the runtime openvino serves from the CPU only, not from {device}",
                              "use the runtime torch there, or set target.device to cpu")
        cls.check_buildable()
        precisions = ("fp32", "bf16", "int8") if _cpu_has_bf16() else ("fp32", "int8")
        return tuple(cls(threads=threads, precision=p, bucket_count=n) for p in precisions for n in (0, 6))

    @property
    def keeps_precise(self) -> bool:
        """In int8."""
        return self.precision.startswith("int8")

    @property
    def steps(self) -> int:
        """Return 1 for the export, and 1 more for bf16 or 2 more for int8 with its calibration."""
        return {"fp32": 1, "bf16": 2, "int8": 3}[self.precision]

    @property
    def number(self) -> Number:
        """As `precision` says."""
        return self.precision

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Write model.xml, model.bin and lengths.json.

        Raises Unsupported when the model cannot be exported, answers otherwise than in torch, or when `buckets` leave
        out the longest input.
        """
        import openvino

        from plimsoll.train import encoder, export, sensitivity

        lengths = self._lengths(sample)
        module = encoder.load(model)
        with tempfile.TemporaryDirectory() as scratch:
            export.onnx(module, Path(scratch) / "model.onnx")
            converted = openvino.Core().read_model(Path(scratch) / "model.onnx")
            probes = export.probes(sample.input_ids, sample.max_length)
            answers = _AnyLength(_compiled(converted, None, self.threads, "f32"), ()).logits(probes)
            answers = ragged.flat(answers, [len(row) for row in probes])
            off = float(np.abs(answers - export.logits(module, probes)).max())
            if not off <= LARGEST_DIFFERENCE:
                raise Unsupported(f"the logits of the OpenVINO model differ from torch's by {off:.3g}",
                                  "OpenVINO does not read this model rightly; use another runtime")
            if self.precision == "int8":
                converted = _int8(converted, sample, tuple(sensitivity.kept(model)))
            # bf16 keeps 8 bits of each number's 24, fp16 keeps 11: the smaller file loses nothing that would be used
            openvino.save_model(converted, out / MODEL, compress_to_fp16=self.precision == "bf16")
        (out / LENGTHS).write_text(json.dumps(lengths))

    def open(self, folder: Path) -> Session:
        """Compile the model, once or once per static length."""
        import openvino

        model = openvino.Core().read_model(folder / MODEL)
        lengths = tuple(json.loads((folder / LENGTHS).read_text()))
        hint = _HINTS[self.precision]
        if self._static:
            return _Buckets({n: _compiled(model, n, self.threads, hint) for n in lengths})
        return _AnyLength(_compiled(model, None, self.threads, hint), lengths)

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Return the nodes by the plugin's own counters: each a mean over all rows, in whole microseconds."""
        import openvino

        model = openvino.Core().read_model(folder / MODEL)
        lengths = tuple(json.loads((folder / LENGTHS).read_text()))
        found: list[Operator] = []
        # counters run from when a program is compiled, so nothing but the rows is put to it
        programs = {n: [r for r in rows if _shortest(lengths, len(r)) == n] for n in lengths} if self._static else {
            None: list(rows)}
        for length, own in programs.items():
            if own:
                request = _compiled(model, length, self.threads, _HINTS[self.precision], counted=True)
                session = _AnyLength(request, ()) if length is None else _Buckets({length: request}, warm=False)
                for row in own:
                    session.logits([row])
                found += _counted(request.get_profiling_info(), len(own))
        return mean_of(found, len(rows))

    @property
    def _static(self) -> bool:
        return bool(self.buckets or self.bucket_count)

    def _lengths(self, sample: Sample) -> tuple[int, ...]:
        if not self._static:
            common = Counter(len(row) for row in sample.input_ids).most_common(WARM_LENGTHS)
            return tuple(sorted(n for n, _ in common))
        return for_runtime("openvino", self.buckets, self.bucket_count, sample)


class _AnyLength(Session):
    """One model for any length; a length seen once keeps its tensors."""

    pads_apart: ClassVar[bool] = True

    def __init__(self, request: Any, lengths: Sequence[int]) -> None:
        self._request = request
        self._tensors: dict[int, tuple[NDArray[np.int64], Any, Any]] = {}
        for length in lengths:
            self.compute(self.prepare([0] * length))

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], or [rows, longest, labels]; rows run one after the other, unpadded."""
        if len(input_ids) == 1:
            return self.compute(self.prepare(input_ids[0]))
        return ragged.joined([self.compute(self.prepare(row)) for row in input_ids])

    def prepare(self, row: Sequence[int]) -> Any:
        """Return the request with the row in its tensors, which no other row may take before it is answered."""
        held = self._tensors.get(len(row))
        if held is None:
            held = self._tensors[len(row)] = _tensors(len(row))
        ids, ids_tensor, mask_tensor = held
        ids[0] = row
        self._request.set_input_tensor(0, ids_tensor)
        self._request.set_input_tensor(1, mask_tensor)
        return self._request

    def compute(self, prepared: Any) -> NDArray[np.float32]:
        """Return the model's answer to the row that was prepared last."""
        prepared.infer()
        return prepared.get_output_tensor(0).data.copy()


class _Program:
    """One static length: its arrays stay bound to the request."""

    def __init__(self, length: int, request: Any) -> None:
        import openvino

        self.ids, ids_tensor, _ = _tensors(length)
        self.mask = np.ones((1, length), dtype=np.int64)
        request.set_input_tensor(0, ids_tensor)
        request.set_input_tensor(1, openvino.Tensor(self.mask, shared_memory=True))
        self.infer = request.infer
        self.logits: NDArray[np.float32] = request.get_output_tensor(0).data


class _Buckets(Session):
    """One program per static length."""

    pads_apart: ClassVar[bool] = True

    def __init__(self, requests: dict[int, Any], warm: bool = True) -> None:
        programs = {length: _Program(length, request) for length, request in requests.items()}
        self._longest = max(programs)
        self._by_length = [programs[min(n for n in programs if n >= length)] for length in range(self._longest + 1)]
        for program in programs.values() if warm else ():
            program.infer()  # the first call allocates

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], or [rows, longest, labels]; rows run one after the other.

        Each runs in the shortest program that holds it.
        """
        if len(input_ids) == 1:
            return self.compute(self.prepare(input_ids[0]))
        return ragged.joined([self.compute(self.prepare(row)) for row in input_ids])

    def prepare(self, row: Sequence[int]) -> tuple[_Program, int]:
        """Return the shortest program that holds the row, with the row in it, and the row's tokens."""
        tokens = len(row)
        if tokens > self._longest:
            raise Unsupported(f"a row of {tokens} tokens, this artifact takes at most {self._longest}",
                              "cut the input, or build again with a larger max_length")
        program = self._by_length[tokens]
        program.ids[0, :tokens] = row
        program.ids[0, tokens:] = 0
        program.mask[0, :tokens] = 1
        program.mask[0, tokens:] = 0
        return program, tokens

    def padded(self, tokens: int) -> int:
        """Return the length of the program that a row of so many tokens runs in."""
        return self._by_length[tokens].ids.shape[1]

    def compute(self, prepared: tuple[_Program, int]) -> NDArray[np.float32]:
        """Return the program's answer to a prepared row."""
        program, tokens = prepared
        program.infer()
        return (program.logits if program.logits.ndim == 2 else program.logits[:, :tokens]).copy()


def _tensors(length: int) -> tuple[NDArray[np.int64], Any, Any]:
    """Return ids int64 [1, length], the tensor over their memory, and the tensor of a mask of ones."""
    import openvino

    ids = np.zeros((1, length), dtype=np.int64)
    mask = np.ones((1, length), dtype=np.int64)
    return ids, openvino.Tensor(ids, shared_memory=True), openvino.Tensor(mask, shared_memory=True)


def _shortest(lengths: Sequence[int], tokens: int) -> int:
    return min(n for n in lengths if n >= tokens)


def _counted(counters: Sequence[Any], requests: int) -> Iterator[Operator]:
    """Return the nodes that ran: each of `openvino.ProfilingInfo` is a mean over so many requests, here their sum."""
    ran = [one for one in counters if str(one.status).endswith("EXECUTED") and one.node_type not in _NO_WORK]
    groups = _groups([(one.node_name, one.node_type) for one in ran])
    for one, group in zip(ran, groups, strict=True):
        number = _number(one.exec_type) if one.node_type.startswith(_PRODUCTS) else None
        yield Operator(f"{one.node_name} {one.node_type}", group, one.real_time.total_seconds() * requests, requests,
                       number)


def _groups(nodes: Sequence[tuple[str, str]]) -> list[OperatorGroup]:
    """Return the groups of nodes, given as (name, kind) in the order they run.

    Some lose their names in a fusion. A product without one goes with what takes its answer, the next node that has a
    name; the scale and shift of a norm go with the norm before them.
    """
    groups: list[OperatorGroup] = [group_of(name, kind) for name, kind in nodes]
    after: OperatorGroup = "other"  # of the next node that has a name
    for i, (_, kind) in reversed(list(enumerate(nodes))):
        if groups[i] == "other" and kind == "MulAdd" and i and groups[i - 1] == "norm":
            groups[i] = "norm"
        elif groups[i] == "other" and kind.startswith(_PRODUCTS):
            groups[i] = after
        if groups[i] not in ("other", "quantize"):
            after = groups[i]
    return groups


_NO_WORK = frozenset({"Parameter", "Result", "Const", "Constant", "Input", "Output"})
_PRODUCTS = ("MatMul", "FullyConnected", "ScaledDotProductAttention", "MHA")
"""What the names of their kinds begin with."""


def _number(kernel: str) -> Number:
    """Return what a kernel multiplies in, from its name, such as brgemm_avx512_I8."""
    ending = kernel.upper().rpartition("_")[2]
    return "int8" if ending in ("I8", "U8") else "bf16" if ending in ("BF16", "F16", "FP16") else "fp32"


def _compiled(model: Any, length: int | None, threads: int, hint: str, counted: bool = False) -> Any:
    """Return an inference request for one row, of any length or of one; it counts its nodes' time where asked to."""
    import openvino

    shaped = model.clone()
    shaped.reshape({port: [1, -1 if length is None else length] for port in shaped.inputs})
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": counted}
    return openvino.Core().compile_model(shaped, "CPU", settings).create_infer_request()


def _int8(model: Any, sample: Sample, kept: Sequence[str] = ()) -> Any:
    """Return the model with int8 weights and activations where NNCF places them for a transformer on a CPU.

    kept: linear layers that stay in fp32, by their module's name.
    """
    if importlib.util.find_spec("nncf") is None:
        raise Unsupported("int8 for OpenVINO is calibrated by nncf, which is not installed here", "pip install nncf")
    rows = sample.input_ids[:CALIBRATION_ROWS]
    if not rows:
        raise Unsupported("int8 needs sample rows, and the sample is empty", "use fp32, or give train rows")
    with _quiet_nncf() as nncf:
        # an exported node is named after its module's path, with a slash between what torch calls one by one
        scope = nncf.IgnoredScope(patterns=[
            f"/{name.replace('.', '[./]')}/(MatMul|Gemm)" for name in kept]) if kept else None
        return nncf.quantize(
            model,
            nncf.Dataset(rows, lambda row: [np.array([row]), np.ones((1, len(row)), dtype=np.int64)]),
            model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED, subset_size=len(rows),
            ignored_scope=scope)


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """Import nncf without its telemetry, and keep its progress bars off the screen."""
    before = os.environ.get("NNCF_CI"), os.environ.get("CI")
    os.environ["NNCF_CI"], os.environ["CI"] = "1", "true"  # read once, at import: nothing is sent or written home
    try:
        import nncf
    finally:
        for name, value in zip(("NNCF_CI", "CI"), before, strict=True):
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield nncf


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not _BF16_FLAGS.isdisjoint(cpuinfo.read_text().split())

"""ONNX Runtime: the exported graph with fused attention, in fp32 or int8, on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from plimsoll.core.errors import Unsupported
from plimsoll.core.operators import Operator, group_of, mean_of
from plimsoll.core.parts import Device, Runtime, Sample, Session
from plimsoll.core.profile import Number

if TYPE_CHECKING:
    import onnx

MODEL = "model.onnx"
LARGEST_DIFFERENCE = 1e-2
"""Between the logits of torch and of the fused fp32 graph; fusions of a graph they do not fit differ by far more."""
ROWS_AT_ONCE = 64
_OUTSIDE = 1e-4
"""Share of the values that percentile calibration leaves out at either end."""
Calibration = Literal["minmax", "percentile", "entropy"]
Ranges = Mapping[str, tuple[float, float]]
"""Least and largest value of each quantized activation, by tensor name."""
_Bound = tuple[NDArray[np.int64], Any, NDArray[np.float32]]
"""Of one length: the array of ids, what binds both arrays to the session, and the array of the answer."""


class Onnxruntime(Runtime):
    """ONNX Runtime on the CPU: fused attention, fp32 or int8 arithmetic, one .onnx file.

    No row is ever padded: the mask is taken out of the graph, one row runs as it is, and rows of a batch run with
    those of their own length (one by one in int8_dynamic, whose activation scales span the batch). So an answer does
    not depend on who else is in the batch. A session answers one caller at a time.

    Pays when: requests come one at a time on a CPU. int8 roughly halves fp32 without VNNI and does better with it.

    Costs: about 5 s to export, 10 to 30 s more for int8. int8 also stores the word embeddings in 8 bits, so the file
        shrinks to a quarter; answers move a little, and differently on CPUs with and without VNNI. Layers that the
        move quantize keeps stay in fp32.

    Source: ONNX Runtime's transformers optimizer and its quantization guide
        (onnxruntime.ai/docs/performance/transformer-optimization.html, .../model-optimizations/quantization.html).
    """

    requires: ClassVar[dict[str, str]] = {"onnxruntime": "onnxruntime"}
    build_requires: ClassVar[dict[str, str]] = {"onnx": "onnx", "sympy": "sympy"}

    precision: Literal["fp32", "int8_dynamic", "int8_static"] = "fp32"
    """Arithmetic of the matrix products. Dynamic measures each input's range, static fixes it on training rows."""
    reduce_range: bool | None = None
    """Weights in 7 bits, which CPUs without VNNI cannot overflow. None: both are tried here, and the better is kept."""
    calibration: Calibration | None = None
    """How int8_static fixes a range: all values seen; all but 1 in 10,000 at either end; or the cut whose rounded
    values are distributed most like those seen, by KL divergence, which ruins encoders whose rare large values matter.
    None: each is tried here, and the best is kept."""

    @model_validator(mode="after")
    def _calibrated(self) -> Self:
        if self.calibration is not None and self.precision != "int8_static":
            raise ValueError(f"calibration fixes the ranges of int8_static, and {self.precision} has none")
        return self

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return fp32 and both int8 settings.

        Raises Unsupported for any device but the CPU, and when what exports and fuses the graph is not installed.
        """
        if device != "cpu":
            raise Unsupported(f"the runtime onnxruntime serves from the CPU only, not from {device}",
                              "use the runtime torch there, or set target.device to cpu")
        cls.check_buildable()
        return tuple(cls(threads=threads, precision=p) for p in ("fp32", "int8_dynamic", "int8_static"))

    @property
    def keeps_precise(self) -> bool:
        """In int8."""
        return self.precision.startswith("int8")

    @property
    def steps(self) -> int:
        """Return 1 for the export, 1 more for int8, 1 more for ranges taken from a sample."""
        return {"fp32": 1, "int8_dynamic": 2, "int8_static": 3}[self.precision]

    @property
    def number(self) -> Number:
        """As `precision` says."""
        return "fp32" if self.precision == "fp32" else "int8"

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Write model.onnx. Raises Unsupported when the model cannot be exported or its graph answers otherwise."""
        from plimsoll.train import encoder, export, sensitivity

        module = encoder.load(model)
        with tempfile.TemporaryDirectory() as scratch:
            export.onnx(module, Path(scratch) / MODEL)
            import onnx  # after the export, which says so when it is missing

            graph = _without_mask(_fused(onnx.load(Path(scratch) / MODEL), cast(Any, module.encoder).config))
        probes = export.probes(sample.input_ids, sample.max_length)
        off = float(np.abs(_answers(graph, probes) - export.logits(module, probes)).max())
        if not off <= LARGEST_DIFFERENCE:
            raise Unsupported(f"the logits of the ONNX graph differ from torch's by {off:.3g}",
                              "ONNX Runtime's fusions do not fit this model; use another runtime")
        if self.precision != "fp32":
            # the head is tiny, and stays as it is: a layer over each token would be rounded with the others
            head = {n: p.detach().numpy() for n, p in cast(Any, module.head).named_parameters() if p.ndim == 2}
            graph = self._int8(graph, sample, {**sensitivity.kept(model), **head})
        onnx.save(graph, out / MODEL)

    def open(self, folder: Path) -> Session:
        """Open model.onnx with this part's threads."""
        return OnnxSession(folder / MODEL, self.threads, alone=self.precision == "int8_dynamic")

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Return the nodes by ONNX Runtime's own profile, which counts in whole microseconds."""
        with tempfile.TemporaryDirectory() as scratch:
            session = OnnxSession(folder / MODEL, self.threads, alone=True, profile=str(Path(scratch) / "profile"))
            for row in [*rows, *rows]:
                session.logits([row])
            events = json.loads(Path(session.end_profile()).read_text())
        return mean_of(_nodes(events, skip=len(rows)), len(rows))

    def _int8(self, fp32: onnx.ModelProto, sample: Sample, kept: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
        """Return the graph in int8: of the settings left open, the one whose logits stay nearest to fp32 here."""
        rows = sample.input_ids
        if not rows:
            raise Unsupported("int8 needs sample rows, and the sample is empty", "use fp32, or give train rows")
        held_out = rows[:64]
        wanted = _answers(fp32, held_out)
        products = _products(fp32, kept)
        ranges: Sequence[Ranges | None] = (None,)
        if self.precision == "int8_static":
            methods = get_args(Calibration) if self.calibration is None else (self.calibration,)
            ranges = _ranges(fp32, products, rows[64:264] or rows, methods)
        reduced = (False, True) if self.reduce_range is None else (self.reduce_range,)
        candidates = (_Int8(fp32, products, r, fixed).model() for fixed in ranges for r in reduced)
        return min(candidates, key=lambda c: float(np.square(_answers(c, held_out) - wanted).mean()))


class OnnxSession(Session):
    """One model.onnx opened. A length seen once keeps its buffers, which halves the time around the call."""

    pads_apart: ClassVar[bool] = True

    def __init__(self, model: Path, threads: int, alone: bool, profile: str = "") -> None:
        self._session = _session(str(model), threads, profile)
        shape = self._session.get_outputs()[0].shape
        self._labels, self._per_token = int(shape[-1]), len(shape) == 3
        self._alone = alone
        self._bound: dict[int, _Bound] = {}
        self._run = self._session.run_with_iobinding

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], or [rows, longest, labels]; rows run with others of their own length only."""
        if len(input_ids) == 1:
            return self.compute(self.prepare(input_ids[0]))
        out = np.full((len(input_ids), *self._answer(max(map(len, input_ids)))), np.nan, dtype=np.float32)
        by_length: dict[int, list[int]] = defaultdict(list)
        for i, row in enumerate(input_ids):
            by_length[len(row)].append(i)
        step = 1 if self._alone else ROWS_AT_ONCE
        for places in by_length.values():
            for start in range(0, len(places), step):
                chosen = places[start : start + step]
                ids = np.array([input_ids[i] for i in chosen], dtype=np.int64)
                found = self._session.run(["logits"], {"input_ids": ids})[0]
                if self._per_token:
                    out[chosen, : ids.shape[1]] = found
                else:
                    out[chosen] = found
        return out

    def prepare(self, row: Sequence[int]) -> _Bound:
        """Return the arrays of the row's length, its ids in them; no row is padded."""
        bound = self._bound.get(len(row))
        if bound is None:
            bound = self._bound[len(row)] = self._bind(len(row))
        bound[0][0] = row
        return bound

    def compute(self, prepared: _Bound) -> NDArray[np.float32]:
        """Return the graph's answer to a prepared row."""
        _, binding, out = prepared
        self._run(binding)
        return out.copy()

    def end_profile(self) -> str:
        """Return the file of a session that was opened with a profile; it counts no further."""
        return self._session.end_profiling()

    def _bind(self, length: int) -> _Bound:
        ids = np.zeros((1, length), dtype=np.int64)
        out = np.zeros((1, *self._answer(length)), dtype=np.float32)
        binding = self._session.io_binding()
        binding.bind_input("input_ids", "cpu", 0, np.int64, ids.shape, ids.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        return ids, binding, out

    def _answer(self, length: int) -> tuple[int, ...]:
        """Return the shape of one row's answer."""
        return (length, self._labels) if self._per_token else (self._labels,)


def _session(model: str | bytes, threads: int, profile: str = "") -> Any:
    """Return a session; `profile`: the beginning of the path of its profile, where it is to keep one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings speak of the graph's spare initializers, which cost nothing
    # The fusions that pay are in the file. The further ones here would put back SkipLayerNormalization, whose
    # CPU kernel takes four times as long as Add and LayerNormalization (onnxruntime 1.32, 32 tokens: 73 against 17 us).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


_INT8 = frozenset({"MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QAttention", "QLinearMatMul",
                   "QGemm"})
_FP32 = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Attention", "MultiHeadAttention"})


def _nodes(events: Sequence[Mapping[str, Any]], skip: int) -> Iterator[Operator]:
    """Return the nodes that ran in each call of a profile's events, but for its first `skip` calls."""
    calls = sorted(e["ts"] for e in events if e.get("cat") == "Session" and e["name"] == "model_run")
    began = calls[skip] if skip < len(calls) else float("inf")
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= began:
            kind, name = event["args"]["op_name"], event["name"].removesuffix("_kernel_time")
            number: Number | None = "int8" if kind in _INT8 else "fp32" if kind in _FP32 else None
            yield Operator(f"{name} {kind}", group_of(name, kind), event["dur"] / 1e6, number=number)


def _answers(model: onnx.ModelProto, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return the logits of a graph without a mask, float32 [answers, labels], one row at a time: `export.logits`."""
    session = _session(model.SerializeToString(), threads=1)
    found = [session.run(["logits"], {"input_ids": np.array([row], np.int64)})[0] for row in rows]
    return np.concatenate([answer.reshape(-1, answer.shape[-1]) for answer in found])


def _fused(model: onnx.ModelProto, config: Any) -> onnx.ModelProto:
    """Return the graph with one node per attention and per Gelu, where the model is like BERT; else as it was."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    options = FusionOptions("bert")
    options.enable_skip_layer_norm = False  # slower on a CPU than what it stands for, see _session
    options.enable_embed_layer_norm = False  # likewise
    options.enable_bias_gelu = False  # the int8 products take the bias along
    options.enable_bias_skip_layer_norm = False
    fused = optimize_by_fusion(model, "bert", config.num_attention_heads, config.hidden_size, options).model
    # Where lengths are free the fusion writes the configuration's heads, also into layers that kept fewer of them.
    size = config.hidden_size // config.num_attention_heads
    widths = {i.name: i.dims[1] // 3 for i in fused.graph.initializer if len(i.dims) == 2}
    for node in fused.graph.node:
        if node.op_type == "Attention":
            next(a for a in node.attribute if a.name == "num_heads").i = widths[node.input[1]] // size
    return fused


def _without_mask(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with `input_ids` as its only input: every token counts, for no row is padded."""
    from onnx import TensorProto, helper
    from onnxruntime.transformers.onnx_model import OnnxModel

    graph = model.graph
    for node in graph.node:
        if node.op_type == "Attention" and len(node.input) > 3:
            node.input[3] = ""
    ones = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Shape", ["input_ids"], ["input_ids_shape"]),
             helper.make_node("ConstantOfShape", ["input_ids_shape"], ["attention_mask"], value=ones), *graph.node]
    inputs = [i for i in graph.input if i.name != "attention_mask"]
    _replace(graph.node, nodes)
    _replace(graph.input, inputs)
    wrapped = OnnxModel(model)
    wrapped.prune_graph()
    return wrapped.model


def _ranges(fp32: onnx.ModelProto, products: Sequence[onnx.NodeProto], rows: Iterable[Sequence[int]],
            methods: Sequence[Calibration]) -> list[Ranges]:
    """Return the range of each activation that goes into a product, once by each method."""
    import onnx
    from onnx import helper

    probe = onnx.ModelProto()
    probe.CopyFrom(fp32)
    names = sorted({node.input[0] for node in products})
    if not names:  # a model that has lost all its layers' products; asked for no names, a session gives every output
        return [{} for _ in methods]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = _session(probe.SerializeToString(), threads=1)
    generator = np.random.default_rng(0)
    seen: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for row in rows:
        for name, value in zip(names, session.run(names, {"input_ids": np.array([row], np.int64)}), strict=True):
            some = generator.choice(value.ravel(), size=min(value.size, 4096))
            seen[name].append(np.append(some, [value.min(), value.max()]))
    values = {name: np.concatenate(parts) for name, parts in seen.items()}
    return [{name: _range(v, method) for name, v in values.items()} for method in methods]


def _range(values: NDArray[np.float32], method: Calibration) -> tuple[float, float]:
    if method == "entropy":
        cut = _likest(np.abs(values))
        return max(float(values.min()), -cut), min(float(values.max()), cut)
    outside = _OUTSIDE if method == "percentile" else 0.0
    return float(np.quantile(values, outside)), float(np.quantile(values, 1 - outside))


def _likest(sizes: NDArray[np.float32], bins: int = 2048, levels: int = 128) -> float:
    """Return where to cut absolute values so that, rounded to `levels` steps, they are distributed most like all.

    Written out here because ONNX Runtime's own search (1.32) has by default as many bins as levels, so one cut to try.
    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017.
    """
    counts, edges = np.histogram(sizes, bins=bins, range=(0.0, float(sizes.max()) or 1.0))
    best, likest = np.inf, bins
    for end in range(levels, bins + 1, 16):
        own = counts[:end].astype(np.float64)
        starts = np.arange(levels) * end // levels
        filled = np.add.reduceat(own > 0, starts)
        step = np.add.reduceat(own, starts) / np.maximum(filled, 1)
        rounded = np.where(own > 0, np.repeat(step, np.diff(starts, append=end)), 0)
        own[-1] += counts[end:].sum()  # what lies beyond the cut is rounded to it
        own, rounded = own / own.sum(), np.maximum(rounded / max(rounded.sum(), 1), 1e-9)
        distance = float(np.sum(own[own > 0] * np.log(own[own > 0] / rounded[own > 0])))
        if distance < best:
            best, likest = distance, end
    return float(edges[likest])


def _products(model: onnx.ModelProto, kept: Mapping[str, NDArray[np.float32]]) -> list[onnx.NodeProto]:
    """Return the products to quantize: those with constant weights, attention's included, but for the kept layers'.

    kept: weights of linear layers, float32 [outputs, inputs].
    """
    from onnx import numpy_helper

    matrices = {i.name: i for i in model.graph.initializer if len(i.dims) == 2}
    return [node for node in model.graph.node
            if node.op_type in ("MatMul", "Attention") and node.input[1] in matrices
            and [a.name for a in node.attribute] in ([], ["num_heads"])  # QAttention knows no other of Attention's
            and not any(_holds(numpy_helper.to_array(matrices[node.input[1]]), w) for w in kept.values())]


def _holds(matrix: NDArray[np.float32], weight: NDArray[np.float32]) -> bool:
    """Return whether a product's matrix is a linear layer's weight, or query, key and value that include it."""
    outputs, inputs = weight.shape
    return matrix.shape[0] == inputs and any(
        np.array_equal(matrix[:, start:start + outputs], weight.T) for start in range(0, matrix.shape[1], outputs))


class _Int8:
    """The fp32 graph rewritten with int8 products and 8-bit word embeddings.

    Weights are symmetric int8, one scale per output; activations asymmetric uint8, one scale per tensor: measured at
    each call, or fixed to `ranges`. The operators are ONNX Runtime's own (DynamicQuantizeMatMul,
    MatMulIntegerToFloat, QAttention, GatherBlockQuantized): written here directly, for the runtime finds the first
    only behind Adds it recognises and the second not at all once the scales are constants.
    """

    def __init__(self, fp32: onnx.ModelProto, products: Sequence[onnx.NodeProto], reduce_range: bool,
                 ranges: Ranges | None) -> None:
        self._fp32 = fp32
        self._products = {node.output[0] for node in products}
        self._largest = 64 if reduce_range else 127  # 2 * 255 * 64 still fits the 16 bits AVX2 adds a pair in
        self._ranges = ranges
        self._constants = {i.name: i for i in fp32.graph.initializer}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in fp32.graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._nodes: list[onnx.NodeProto] = []
        self._done: set[str] = set()
        """Outputs a quantized node has taken over from an Add."""

    def model(self) -> onnx.ModelProto:
        """Return the int8 graph."""
        import onnx

        for node in self._fp32.graph.node:
            if node.output[0] in self._products:
                (self._attention if node.op_type == "Attention" else self._matmul)(node)
            elif node.op_type == "Gather" and node.input[1] == "input_ids" and node.input[0] in self._constants:
                self._embedding(node)
            elif node.op_type == "Gelu":  # its tanh form is a third faster and off by less than one step of 8 bits
                self._add("FastGelu", list(node.input), list(node.output))
            elif node.output[0] not in self._done:
                self._nodes.append(node)
        used = {name for node in self._nodes for name in node.input}
        model = onnx.ModelProto()
        model.CopyFrom(self._fp32)
        _replace(model.graph.node, self._nodes)
        _replace(model.graph.initializer, [i for name, i in self._constants.items() if name in used])
        if all(o.domain != "com.microsoft" for o in model.opset_import):
            model.opset_import.add(domain="com.microsoft", version=1)
        return model

    def _matmul(self, node: onnx.NodeProto) -> None:
        weight, scale = self._columns(node.input[1])
        bias, output = self._bias(node)
        if self._ranges is None:
            self._add("DynamicQuantizeMatMul", [node.input[0], weight, scale, "", bias], [output])
        else:
            a, a_scale, a_zero = self._activation(node.input[0])
            self._add("MatMulIntegerToFloat", [a, weight, a_scale, scale, a_zero, "", bias], [output])

    def _attention(self, node: onnx.NodeProto) -> None:
        weight, scale = self._columns(node.input[1])
        a, a_scale, a_zero = self._activation(node.input[0])
        self._add("QAttention", [a, weight, node.input[2], a_scale, scale, "", a_zero], list(node.output),
                  num_heads=node.attribute[0].i)

    def _embedding(self, node: onnx.NodeProto) -> None:
        from onnx import numpy_helper

        table = numpy_helper.to_array(self._constants[node.input[0]])
        rows, width = table.shape
        block = next((b for b in (128, 64, 32, 16) if width % b == 0), None)
        if block is None:  # the operator knows blocks of these sizes only
            self._nodes.append(node)
            return
        blocks = table.reshape(rows, width // block, block)
        scale = _scale(np.abs(blocks).max(axis=2), 127)
        values = (np.rint(blocks / scale[:, :, None]) + 128).astype(np.uint8).reshape(table.shape)
        self._add("GatherBlockQuantized",
                  [self._constant(f"{node.input[0]}_u8", values), node.input[1],
                   self._constant(f"{node.input[0]}_scale", scale)],
                  list(node.output), bits=8, block_size=block, gather_axis=0, quantize_axis=1)

    def _columns(self, name: str) -> tuple[str, str]:
        """Return the names of a weight in int8 and of its scales, one per column."""
        from onnx import numpy_helper

        weight = numpy_helper.to_array(self._constants[name])
        scale = _scale(np.abs(weight).max(axis=0), self._largest)
        return (self._constant(f"{name}_s8", np.rint(weight / scale).astype(np.int8)),
                self._constant(f"{name}_scale", scale))

    def _activation(self, name: str) -> tuple[str, str, str]:
        """Quantize an activation once; return the names of its values, scale and zero point."""
        out = (f"{name}_u8", f"{name}_u8_scale", f"{name}_u8_zero")
        if out[0] in self._done:
            return out
        self._done.add(out[0])
        if self._ranges is None:
            self._add("DynamicQuantizeLinear", [name], list(out))
            return out
        low, high = min(self._ranges[name][0], 0.0), max(self._ranges[name][1], 0.0)
        scale = _scale(np.array(high - low, dtype=np.float32), 255)
        self._constant(out[1], scale)
        self._constant(out[2], np.array(np.rint(-low / scale), dtype=np.uint8))
        self._add("QuantizeLinear", [name, *out[1:]], [out[0]])
        return out

    def _bias(self, node: onnx.NodeProto) -> tuple[str, str]:
        """Return the bias that is added to a product and nothing else, and the output it then has; else no bias."""
        readers = self._readers[node.output[0]]
        if len(readers) == 1 and readers[0].op_type == "Add":
            for name in readers[0].input:
                if name in self._constants and len(self._constants[name].dims) == 1:
                    self._done.add(readers[0].output[0])
                    return name, readers[0].output[0]
        return "", node.output[0]

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(value, name)
        return name

    def _add(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        from onnx import helper

        domain = "" if op in ("DynamicQuantizeLinear", "QuantizeLinear") else "com.microsoft"
        self._nodes.append(helper.make_node(op, inputs, outputs, outputs[0] + "_" + op, domain=domain, **attributes))


def _scale(extreme: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """Return the step that reaches `extreme` in `largest` steps; 1 where there is nothing to reach."""
    return np.where(extreme > 0, extreme / largest, 1).astype(np.float32)


def _replace(field: Any, values: Iterable[Any]) -> None:
    """Set a repeated protobuf field."""
    kept = list(values)
    del field[:]
    field.extend(kept)

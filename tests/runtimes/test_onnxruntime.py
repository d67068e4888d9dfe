"""ONNX Runtime: torch's answers at every length, alone or in a batch, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.errors import SpecError, Unsupported
from plimsoll.core.parts import Sample, Session
from plimsoll.runtimes import onnxruntime as part
from plimsoll.runtimes.onnxruntime import Onnxruntime
from plimsoll.train import encoder, export, sensitivity, shape

MAX_LENGTH = 48
PRECISIONS = ("fp32", "int8_dynamic", "int8_static")


@pytest.fixture(scope="module")
def built(model: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One artifact folder per precision."""
    folders = {}
    for precision in PRECISIONS:
        folders[precision] = tmp_path_factory.mktemp(precision)
        Onnxruntime(precision=precision).build(model, sample, folders[precision])
    return folders


@pytest.fixture(scope="module")
def sessions(built: dict[str, Path]) -> dict[str, Session]:
    return {p: Onnxruntime(precision=p).open(folder) for p, folder in built.items()}


def test_fp32_gives_torch_s_logits_at_every_length(model: Path, sessions: dict[str, Session]) -> None:
    rows = [[2 + (7 * n + i) % 100 for i in range(n)] for n in range(3, MAX_LENGTH + 1)]
    wanted = export.logits(encoder.load(model), rows)
    got = np.concatenate([sessions["fp32"].logits([row]) for row in rows])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_with_fewer_heads_than_the_rest_answer_as_torch_does(
    precision: str, model: Path, sample: Sample, tmp_path: Path
) -> None:
    narrow, out = tmp_path / "narrow", tmp_path / "out"
    module = encoder.load(model)
    shape.keep(shape.stack(module.encoder).layer[1], [1], list(range(64)))
    record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
    encoder.save(module, record, model, narrow)
    out.mkdir()
    runtime = Onnxruntime(precision=precision)
    runtime.build(narrow, sample, out)
    wanted = export.logits(module, sample.input_ids)
    got = np.concatenate([runtime.open(out).logits([row]) for row in sample.input_ids])
    np.testing.assert_allclose(got, wanted, atol=1e-4 if precision == "fp32" else 0.25)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_answers_keep_their_labels(
    precision: str, sessions: dict[str, Session], sample: Sample, expected: NDArray[np.float32]
) -> None:
    got = sessions[precision].logits(sample.input_ids)
    assert got.shape == expected.shape
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) >= 0.97


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 100), min_size=3, max_size=MAX_LENGTH), min_size=2, max_size=9))
def test_an_answer_does_not_depend_on_its_batch(
    precision: str, sessions: dict[str, Session], rows: list[list[int]]
) -> None:
    session = sessions[precision]
    alone = np.concatenate([session.logits([row]) for row in rows])
    np.testing.assert_allclose(session.logits(rows), alone, atol=1e-5)


def test_an_answer_is_the_caller_s_to_keep(sessions: dict[str, Session]) -> None:
    first = sessions["fp32"].logits([[2, 50, 3]])
    kept = first.copy()
    sessions["fp32"].logits([[2, 60, 3]])
    np.testing.assert_array_equal(first, kept)


def test_int8_is_a_fraction_of_the_size_in_one_file(built: dict[str, Path]) -> None:
    sizes = {p: sum(f.stat().st_size for f in folder.iterdir()) for p, folder in built.items()}
    assert [f.name for f in built["fp32"].iterdir()] == ["model.onnx"]
    assert sizes["int8_dynamic"] < 0.6 * sizes["fp32"]  # a tiny model is mostly node names
    assert sizes["int8_static"] < 0.6 * sizes["fp32"]


def test_attention_is_fused_and_no_mask_is_asked_for(built: dict[str, Path]) -> None:
    import onnx

    graphs = {p: onnx.load(folder / "model.onnx").graph for p, folder in built.items()}
    assert sum(n.op_type == "Attention" for n in graphs["fp32"].node) == 2
    assert sum(n.op_type == "QAttention" for n in graphs["int8_static"].node) == 2
    assert not any(n.op_type == "MatMul" for n in graphs["int8_dynamic"].node)
    assert all([i.name for i in graph.input] == ["input_ids"] for graph in graphs.values())


def test_reduced_range_keeps_weights_in_seven_bits(model: Path, sample: Sample, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    Onnxruntime(precision="int8_dynamic", reduce_range=True).build(model, sample, tmp_path)
    weights = [numpy_helper.to_array(i) for i in onnx.load(tmp_path / "model.onnx").graph.initializer
               if i.data_type == onnx.TensorProto.INT8]
    assert weights
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 64


@pytest.mark.parametrize("precision", ["int8_dynamic", "int8_static"])
def test_a_layer_to_keep_stays_in_fp32_and_saves_the_answers(
    precision: str, planted: Callable[[bool], Path], sample: Sample, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    import onnx

    setting = Onnxruntime.model_validate({"precision": precision})
    off = {}
    for keep in (False, True):
        out = tmp_path / str(keep)
        out.mkdir()
        setting.build(planted(keep), sample, out)
        floats = [n.name for n in onnx.load(out / "model.onnx").graph.node if n.op_type == "MatMul"]
        assert floats == ["/encoder/encoder/layer.1/attention/output/dense/MatMul"] * keep
        off[keep] = np.abs(setting.open(out).logits(sample.input_ids) - expected).mean()
    assert off[True] < 0.5 * off[False]


def test_attention_stays_in_fp32_for_any_of_its_three_layers(
    model: Path, sample: Sample, tmp_path: Path
) -> None:
    import onnx

    folder, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(model, folder)
    out.mkdir()
    names = tuple(f"encoder.encoder.layer.{n}" for n in ("0.attention.self.key", "1.output.dense"))
    record = sensitivity.Quantization(keep=(*names, "head.classifier"), kl=dict.fromkeys(names, 1.0))
    (folder / sensitivity.RECORD).write_text(record.to_json())
    Onnxruntime(precision="int8_static", calibration="minmax", reduce_range=False).build(folder, sample, out)
    found = [n.op_type for n in onnx.load(out / "model.onnx").graph.node]
    assert found.count("Attention") == found.count("QAttention") == found.count("MatMul") == 1


def test_calibration_is_a_choice_that_changes_the_scales(model: Path, sample: Sample, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    scales = {}
    for method in ("minmax", "percentile", "entropy"):
        setting = Onnxruntime(precision="int8_static", calibration=method, reduce_range=False)
        setting.build(model, sample, tmp_path)
        constants = onnx.load(tmp_path / "model.onnx").graph.initializer
        scales[method] = np.array([numpy_helper.to_array(i) for i in constants
                                   if i.name.endswith("_u8_scale") and not i.dims])
    assert len(scales["minmax"]) == 8
    for method in ("percentile", "entropy"):
        assert (scales[method] <= scales["minmax"] * 1.0001).all()
        assert not np.allclose(scales[method], scales["minmax"], rtol=1e-4)
    assert not np.allclose(scales["percentile"], scales["entropy"], rtol=1e-4)
    with pytest.raises(SpecError, match="int8_dynamic has none"):
        find.read("runtimes", {"runtime": "onnxruntime", "precision": "int8_dynamic", "calibration": "entropy"})


def test_entropy_cuts_a_few_outliers_off_and_nothing_of_an_even_spread() -> None:
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    low, high = part._range(np.append(values, [40.0, -30.0]).astype(np.float32), "entropy")
    assert 2.5 < high < 15
    assert -15 < low < -2.5
    even = np.linspace(-1, 1, 50_001, dtype=np.float32)
    assert part._range(even, "entropy") == pytest.approx((-1, 1), abs=0.02)
    assert part._range(np.zeros(9, np.float32), "entropy") == (0, 0)


def test_a_graph_that_answers_otherwise_is_refused(
    model: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = part._fused

    def wrong(model: object, config: object) -> object:
        graph = fused(model, config)  # type: ignore[arg-type]
        next(n for n in graph.graph.node if n.op_type == "Attention").attribute[0].i = 4
        return graph

    monkeypatch.setattr(part, "_fused", wrong)
    with pytest.raises(Unsupported, match="differ from torch's by"):
        Onnxruntime().build(model, sample, tmp_path)
    assert not list(tmp_path.iterdir())


def test_int8_without_rows_says_what_is_missing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="the sample is empty"):
        Onnxruntime(precision="int8_static").build(model, Sample((), MAX_LENGTH), tmp_path)


def test_variants_are_for_the_cpu() -> None:
    assert [v.precision for v in Onnxruntime.variants(2, "cpu")] == list(PRECISIONS)
    assert [v.steps for v in Onnxruntime.variants(2, "cpu")] == [1, 2, 3]
    with pytest.raises(Unsupported, match="CPU only"):
        Onnxruntime.variants(2, "cuda")


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(SpecError, match="precision"):
        find.read("runtimes", {"runtime": "onnxruntime", "precision": "int4"})


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Onnxruntime.missing() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Onnxruntime.missing() == "pip install onnxruntime"


def test_export_names_the_package_it_lacks(
    model: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="pip install onnx"):
        Onnxruntime().build(model, sample, tmp_path)


def test_the_record_brings_the_part_back() -> None:
    value = find.write(Onnxruntime(precision="int8_static", threads=2))
    assert find.read("runtimes", json.loads(json.dumps(value))) == Onnxruntime(precision="int8_static", threads=2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_profile_tells_the_nodes_of_each_part(precision: str, built: dict[str, Path], sample: Sample) -> None:
    runtime = Onnxruntime.model_validate({"precision": precision})
    found = runtime.operators(built[precision], sample.input_ids[:4])
    groups = {o.group for o in found}
    assert groups >= {"embedding", "attention", "feed-forward", "norm", "head"}
    assert ("quantize" in groups) == (precision != "fp32")
    products = [o for o in found if o.number is not None]
    # two layers: fused attention with its projections, output, up and down
    assert sum(o.number == runtime.number for o in products) >= 2 * 4
    assert all(o.calls == 1 for o in products)
    assert sum(o.seconds for o in found) > 0


def test_only_what_ran_after_the_warm_up_is_counted() -> None:
    def node(ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Node", "name": "/head/Gemm_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": "Gemm"}}

    events = [{"cat": "Session", "name": "model_loading_uri", "ts": 0, "dur": 9}, node(11, 500), node(31, 7),
              {"cat": "Session", "name": "model_run", "ts": 10, "dur": 9},
              {"cat": "Session", "name": "model_run", "ts": 30, "dur": 9}]
    (only,) = part._nodes(events, skip=1)
    assert (only.name, only.group, only.number) == ("/head/Gemm Gemm", "head", "fp32")
    assert only.seconds == pytest.approx(7e-6)


def test_the_profile_is_not_left_behind(
    built: dict[str, Path], sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Onnxruntime().operators(built["fp32"], sample.input_ids[:1])
    assert not list(tmp_path.iterdir())
    assert [p.name for p in built["fp32"].iterdir()] == ["model.onnx"]

"""OpenVINO: torch's answers at every length, alone or in a batch, for any length or static ones, and clear refusals."""

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
from plimsoll.runtimes import openvino as part
from plimsoll.runtimes.openvino import Openvino
from plimsoll.train import encoder, export

MAX_LENGTH = 48
SETTINGS = {
    "fp32": Openvino(),
    "fp32 static": Openvino(bucket_count=3),
    "int8": Openvino(precision="int8"),
    "int8 static": Openvino(precision="int8", buckets=(8, 20, MAX_LENGTH)),
}


@pytest.fixture(scope="module")
def built(model: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One artifact folder per setting; int8 is calibrated once, for its files are the same with static lengths."""
    folders = {name: tmp_path_factory.mktemp("built") / name for name in SETTINGS}
    for name in ("fp32", "fp32 static", "int8"):
        folders[name].mkdir()
        SETTINGS[name].build(model, sample, folders[name])
    shutil.copytree(folders["int8"], folders["int8 static"])
    (folders["int8 static"] / "lengths.json").write_text(json.dumps(SETTINGS["int8 static"].buckets))
    return folders


@pytest.fixture(scope="module")
def sessions(built: dict[str, Path]) -> dict[str, Session]:
    return {name: SETTINGS[name].open(folder) for name, folder in built.items()}


@pytest.mark.parametrize("name", ["fp32", "fp32 static"])
def test_fp32_gives_torch_s_logits_at_every_length(name: str, model: Path, sessions: dict[str, Session]) -> None:
    rows = [[2 + (7 * n + i) % 100 for i in range(n)] for n in range(3, MAX_LENGTH + 1, 5)]
    got = np.concatenate([sessions[name].logits([row]) for row in rows])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, export.logits(encoder.load(model), rows), atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_keep_their_labels(
    name: str, sessions: dict[str, Session], sample: Sample, expected: NDArray[np.float32]
) -> None:
    got = sessions[name].logits(sample.input_ids)
    assert got.shape == expected.shape
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) >= 0.97


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 100), min_size=3, max_size=MAX_LENGTH), min_size=2, max_size=5))
def test_an_answer_does_not_depend_on_its_batch(name: str, sessions: dict[str, Session], rows: list[list[int]]) -> None:
    session = sessions[name]
    alone = np.concatenate([session.logits([row]) for row in rows])
    np.testing.assert_allclose(session.logits(rows), alone, atol=1e-5)


def test_an_answer_is_the_caller_s_to_keep(sessions: dict[str, Session]) -> None:
    for session in sessions.values():
        first = session.logits([[2, 50, 3]])
        kept = first.copy()
        session.logits([[2, 60, 3]])
        np.testing.assert_array_equal(first, kept)


def test_static_lengths_are_chosen_from_the_sample_or_given(built: dict[str, Path], sample: Sample) -> None:
    chosen = json.loads((built["fp32 static"] / "lengths.json").read_text())
    assert len(chosen) == 3
    assert chosen[-1] == MAX_LENGTH
    assert set(chosen[:-1]) <= set(sample.lengths.tolist())
    assert SETTINGS["int8 static"]._lengths(sample) == (8, 20, MAX_LENGTH)


def test_buckets_must_ascend_and_hold_the_longest_input(model: Path, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=f"add {MAX_LENGTH} to the buckets"):
        Openvino(buckets=(8, 16)).build(model, sample, tmp_path)
    with pytest.raises(SpecError, match="ascend"):
        find.read("runtimes", {"runtime": "openvino", "buckets": [16, 8]})


def test_a_row_longer_than_the_longest_program_is_refused(sessions: dict[str, Session]) -> None:
    with pytest.raises(Unsupported, match=f"at most {MAX_LENGTH}"):
        sessions["fp32 static"].logits([[2] * (MAX_LENGTH + 1)])


def test_int8_weights_are_stored_in_eight_bits(built: dict[str, Path]) -> None:
    size = {name: (folder / "model.bin").stat().st_size for name, folder in built.items()}
    assert size["int8"] < 0.4 * size["fp32"]


def test_int8_without_rows_or_without_nncf_says_what_is_missing(
    model: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unsupported, match="the sample is empty"):
        Openvino(precision="int8").build(model, Sample((), MAX_LENGTH), tmp_path)
    monkeypatch.setattr(part.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="pip install nncf"):
        part._int8(None, sample)


def test_a_layer_to_keep_stays_in_fp32_and_saves_the_answers(
    planted: Callable[[bool], Path], sample: Sample, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    off, size = {}, {}
    for keep in (False, True):
        out = tmp_path / str(keep)
        out.mkdir()
        Openvino(precision="int8").build(planted(keep), sample, out)
        size[keep] = (out / "model.bin").stat().st_size
        off[keep] = np.abs(Openvino(precision="int8").open(out).logits(sample.input_ids) - expected).mean()
    assert size[True] - size[False] == pytest.approx(3 * 32 * 32, abs=300)  # four bytes a weight in place of one
    assert off[True] < 0.5 * off[False]


def test_calibration_is_silent(model: Path, sample: Sample, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Openvino(precision="int8").build(model, Sample(sample.input_ids[:5], MAX_LENGTH), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_bf16_is_offered_only_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "_cpu_has_bf16", lambda: False)
    assert {v.precision for v in Openvino.variants(2, "cpu")} == {"fp32", "int8"}
    monkeypatch.setattr(part, "_cpu_has_bf16", lambda: True)
    assert {v.precision: v.steps for v in Openvino.variants(2, "cpu")} == {"fp32": 1, "bf16": 2, "int8": 3}


def test_bf16_answers_nearly_as_torch(
    model: Path, sample: Sample, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    setting = Openvino(precision="bf16")  # computed in fp32 where the CPU has no bf16; the file is the same
    setting.build(model, sample, tmp_path)
    got = setting.open(tmp_path).logits(sample.input_ids)
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) >= 0.97


def test_gpus_and_unknown_precisions_are_refused() -> None:
    with pytest.raises(Unsupported, match="CPU only"):
        Openvino.variants(2, "cuda")
    with pytest.raises(SpecError, match="precision"):
        find.read("runtimes", {"runtime": "openvino", "precision": "int4"})


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Openvino.missing() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Openvino.missing() == "pip install openvino"


def test_the_record_brings_the_part_back() -> None:
    value = find.write(SETTINGS["int8 static"])
    assert find.read("runtimes", json.loads(json.dumps(value))) == SETTINGS["int8 static"]


@pytest.mark.parametrize("name", SETTINGS)
def test_its_counters_tell_the_nodes_of_each_part(name: str, built: dict[str, Path], sample: Sample) -> None:
    found = SETTINGS[name].operators(built[name], sample.input_ids[:6])
    # of a tiny model: what takes less than half a microsecond counts as nothing, such as its few embeddings
    assert {o.group for o in found} >= {"attention", "feed-forward"}
    assert sum(o.seconds for o in found) > 0
    products = [o for o in found if o.number is not None]
    assert any(o.number == SETTINGS[name].number for o in products)
    assert all(o.calls == pytest.approx(1) for o in products)


def test_nodes_that_lost_their_names_go_with_their_neighbours() -> None:
    layer = "/encoder/encoder/layer.0"
    nodes = {
        (f"{layer}/attention/self/Transpose_3", "Subgraph"): "attention",
        ("Multiply_13140", "FullyConnectedQuantizedLegacy"): "attention",
        (f"{layer}/attention/output/Add", "Add"): "attention",
        ("MVN_263", "MVN"): "norm",
        ("Multiply_270", "MulAdd"): "norm",
        ("Multiply_13354", "FullyConnectedQuantizedLegacy"): "feed-forward",
        (f"{layer}/output/dense/MatMul", "FullyConnected"): "feed-forward",
        ("Multiply_887", "MulAdd"): "other",
        ("logits", "FullyConnected"): "head",
        ("last", "FullyConnected"): "other",
    }
    assert part._groups(list(nodes)) == list(nodes.values())


@pytest.mark.parametrize(("kernel", "number"), [
    ("brgemm_avx512_I8", "int8"), ("brgemm_avx512_amx_BF16", "bf16"), ("gemm_mlas_FP32", "fp32"), ("ref_U8", "int8"),
    ("brgemm_avx512_FP16", "bf16")])
def test_a_kernel_says_what_it_multiplies_in(kernel: str, number: str) -> None:
    assert part._number(kernel) == number


def test_it_says_how_far_a_row_is_padded(sessions: dict[str, Session]) -> None:
    assert [sessions["int8 static"].padded(n) for n in (3, 8, 9, 48)] == [8, 8, 20, 48]
    assert [sessions["fp32"].padded(n) for n in (3, 8, 9, 48)] == [3, 8, 9, 48]

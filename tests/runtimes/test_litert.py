"""LiteRT: torch's answers at every length from programs of a few static ones, and clear refusals."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.errors import SpecError, Unsupported
from plimsoll.core.parts import Sample, Session
from plimsoll.runtimes import litert as part
from plimsoll.runtimes.litert import Litert
from plimsoll.train import encoder, export, sensitivity

LENGTHS = (6, 12, 24, 48)
PRECISIONS = ("fp32", "int8_dynamic")


@pytest.fixture(scope="module")
def built(model: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for precision in PRECISIONS:
        folders[precision] = tmp_path_factory.mktemp(precision)
        Litert(threads=1, precision=precision, buckets=LENGTHS).build(model, sample, folders[precision])
    return folders


@pytest.fixture(scope="module")
def sessions(built: dict[str, Path]) -> dict[str, Session]:
    return {p: Litert(threads=1, precision=p).open(folder) for p, folder in built.items()}


def test_fp32_gives_torch_s_logits_at_every_length(
    model: Path, sessions: dict[str, Session], all_lengths: list[list[int]]
) -> None:
    got = np.concatenate([sessions["fp32"].logits([row]) for row in all_lengths])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, export.logits(encoder.load(model), all_lengths), atol=1e-4)


def test_dynamic_int8_keeps_its_labels(
    sessions: dict[str, Session], sample: Sample, expected: NDArray[np.float32]
) -> None:
    got = sessions["int8_dynamic"].logits(sample.input_ids)
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) >= 0.97


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_answer_does_not_depend_on_its_batch(
    precision: str, sessions: dict[str, Session], sample: Sample
) -> None:
    rows = list(sample.input_ids)
    alone = np.concatenate([sessions[precision].logits([row]) for row in rows])
    np.testing.assert_array_equal(sessions[precision].logits(rows), alone)


def test_what_a_longer_request_left_behind_changes_nothing(sessions: dict[str, Session]) -> None:
    row = [2, 50, 60, 70, 3]
    first = sessions["fp32"].logits([row])
    sessions["fp32"].logits([[2, 80, 81, 82, 83, 3]])
    np.testing.assert_array_equal(sessions["fp32"].logits([row]), first)


@pytest.mark.parametrize("precision", ["int8_dynamic", "int8"])
def test_a_layer_to_keep_stays_in_fp32_and_saves_the_answers(
    precision: str, planted: Callable[[bool], Path], sample: Sample, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    setting = Litert.model_validate({"precision": precision, "buckets": LENGTHS})
    off = {}
    for keep in (False, True):
        out = tmp_path / str(keep)
        out.mkdir()
        setting.build(planted(keep), sample, out)
        content = flatbuffer_utils.read_model(str(out / "model.tflite"))
        (weight,) = sensitivity.kept(planted(True)).values()
        for program in content.subgraphs:
            weights = [program.tensors[o.inputs[1]] for o in program.operators
                       if content.operatorCodes[o.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED]
            floats = [content.buffers[w.buffer].data for w in weights if w.type == schema.TensorType.FLOAT32]
            assert [bytes(f) for f in floats] == [weight.tobytes()] * keep
        off[keep] = np.abs(setting.open(out).logits(sample.input_ids) - expected).mean()
    assert off[True] < 0.5 * off[False]


def test_every_layer_to_keep_is_found_and_one_that_is_not_there_is_refused(model: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter about itself
        content = part._convert(model, LENGTHS[:1])
    linears = {name: m.weight.detach().numpy() for name, m in encoder.load(model).named_modules()
               if isinstance(m, torch.nn.Linear)}
    assert len(part._scopes(content, linears)) == len(linears) == 13
    assert all(len(part._scopes(content, {name: weight})) == 1 for name, weight in linears.items())
    with pytest.raises(Unsupported, match="layer 9 should stay in fp32"):
        part._scopes(content, {"layer 9": np.zeros((2, 2), np.float32)})


def test_lengths_that_were_worked_out_are_those_that_were_converted(model: Path, sample: Sample) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    ends = (LENGTHS[0], LENGTHS[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter about itself
        found = flatbuffer_utils.read_model_from_bytearray(part._convert(model, ends))
        converted = flatbuffer_utils.read_model_from_bytearray(part._convert(model, LENGTHS))
    part._add_between(found, ends, LENGTHS[1:-1])

    def shapes(content: object, length: int) -> list[list[int]]:
        key = f"len_{length}"  # the reader gives bytes, what was added is text
        (signature,) = [s for s in content.signatureDefs if s.signatureKey in (key, key.encode())]  # type: ignore[attr-defined]
        program = content.subgraphs[signature.subgraphIndex]  # type: ignore[attr-defined]
        return [list(t.shape) if t.shape is not None else [] for t in program.tensors]

    for length in LENGTHS[1:-1]:
        assert shapes(found, length) == shapes(converted, length)


def test_buckets_must_ascend_and_hold_the_longest_input(model: Path, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="add 48 to the buckets"):
        Litert(buckets=(8, 16)).build(model, sample, tmp_path)
    with pytest.raises(SpecError, match="ascend"):
        find.read("runtimes", {"runtime": "litert", "buckets": [16, 8]})


def test_a_row_longer_than_the_longest_program_is_refused(sessions: dict[str, Session]) -> None:
    with pytest.raises(Unsupported, match="at most 48"):
        sessions["fp32"].logits([[2] * 49])


def test_one_file_holds_one_set_of_weights(built: dict[str, Path], model: Path) -> None:
    size = {p: (folder / "model.tflite").stat().st_size for p, folder in built.items()}
    assert [f.name for f in built["fp32"].iterdir()] == ["model.tflite"]
    assert size["int8_dynamic"] < size["fp32"]


def test_missing_converters_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unsupported) as refused:
        Litert.variants(2, "cpu")
    assert refused.value.hint == "pip install ai-edge-quantizer litert-torch"


def test_variants_are_for_the_cpu() -> None:
    assert [v.precision for v in Litert.variants(2, "cpu")] == ["fp32", "int8_dynamic", "int8"]
    with pytest.raises(Unsupported, match="on the CPU"):
        Litert.variants(2, "cuda")


def test_the_record_brings_the_part_back() -> None:
    value = find.write(Litert(precision="int8", buckets=LENGTHS))
    assert find.read("runtimes", json.loads(json.dumps(value))) == Litert(precision="int8", buckets=LENGTHS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_profiler_tells_the_operators_in_the_order_they_run(
    precision: str, built: dict[str, Path], sample: Sample
) -> None:
    runtime = Litert.model_validate({"precision": precision})
    found = runtime.operators(built[precision], sample.input_ids[:6])
    groups = {o.group for o in found}
    assert groups >= {"embedding", "attention", "feed-forward", "norm", "head"}
    assert {o.number for o in found if o.group == "feed-forward" and o.number} == {runtime.number}
    # two layers: query, key, value and context; up and down
    assert sum(o.calls for o in found if "Fully" in o.name and o.group == "attention") == 8
    assert sum(o.calls for o in found if "Fully" in o.name and o.group == "feed-forward") == 4
    assert sum(o.seconds for o in found) > 0


def test_it_says_how_far_a_row_is_padded(sessions: dict[str, Session]) -> None:
    assert [sessions["fp32"].padded(n) for n in (3, 6, 7, 48)] == [6, 6, 12, 48]

"""A profile: stages that add up, operators that fill the model stage, and a budget that says what is over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plimsoll.bench import profile as part
from plimsoll.bench.ceilings import Ceilings
from plimsoll.bench.profile import About, Effort, measure
from plimsoll.bench.stages import Stages
from plimsoll.core import find
from plimsoll.core.artifact import Artifact, load, seal
from plimsoll.core.errors import ChildError, RunError
from plimsoll.core.operators import Operator
from plimsoll.core.parts import Sample, Task
from plimsoll.core.profile import STAGES, Profile
from plimsoll.core.shape import LayerShape, ModelShape
from plimsoll.core.spec import Budget
from plimsoll.core.spelling import PAIR
from plimsoll.runtimes.null import Null

SHAPE = ModelShape(hidden=384, head_size=32, outputs=3, layers=(LayerShape(heads=12, neurons=1536),) * 2)
CEILINGS = Ceilings(device="cpu", threads=1, fp32_gflops=100, fp32_kernel="", bf16_gflops=100, bf16_kernel="",
                    int8_gops=400, int8_kernel="", memory_gb_s=50)
FEW = Effort(seconds=0.05, least=80, most=80)
OPERATORS = [Operator("x query", "attention", 3e-3, number="int8"), Operator("x value", "attention", 1e-3),
             Operator("x up", "feed-forward", 4e-3, number="int8"), Operator("x round", "quantize", 2e-3, calls=6.0)]


def sealed(null_folder: Path, kind: str = "text-classification", **fields: Any) -> Path:
    """Return an artifact of the null runtime for a task over the rows of `null_folder`."""
    runtime, out = Null(delay_ms=0.3), null_folder / kind
    out.mkdir()
    task = find.read("tasks", {"kind": kind, "train": str(null_folder / "train.jsonl"), **fields})
    assert isinstance(task, Task)
    runtime.build(null_folder / "model", Sample((), 16), out)
    shutil.copyfile(null_folder / "model" / "tokenizer.json", out / "tokenizer.json")
    labels = tuple(json.loads((null_folder / "model" / "labels.json").read_text()))
    seal(out, Artifact(runtime=runtime, task=task, labels=labels, max_length=16))
    return out


@pytest.fixture
def texts(null_folder: Path) -> Path:
    return null_folder / "test.jsonl"


def test_a_staged_request_gets_the_answer_of_a_whole_one(null_folder: Path) -> None:
    with load(sealed(null_folder)) as one:
        answer, clock = one.staged(b'{"text": "w1 w2 music"}')
        assert answer == one.predict(["w1 w2 music"])[0]
        assert list(clock) == sorted(clock)
        assert len(clock) == len(STAGES) + 1


def test_tagged_words_are_staged_too(null_folder: Path, tag_tables: dict[str, Any]) -> None:
    with load(sealed(null_folder, "token-classification")) as tagger:
        assert tagger.staged(b'{"text": " x  y light"}')[0] == tagger.predict(["x y light"])[0]


def test_pairs_are_staged_too(null_folder: Path) -> None:
    with load(sealed(null_folder, "sentence-similarity", label="label")) as pairs:
        body = json.dumps({"text": f"w1 light{PAIR}w2 light"}).encode()
        assert pairs.staged(body)[0] == pairs.predict([["w1 light", "w2 light"]])[0]
        assert pairs.staged(b'{"text": "w1 light"}')[0] == pairs.predict(["w1 light"])[0]


def test_an_artifact_is_measured_over_its_texts(null_folder: Path, texts: Path, tmp_path: Path) -> None:
    about = About("null", None, None, Budget(p95_ms=5000, split={"model": 0.9}), "abc")
    found = measure(sealed(null_folder), texts, about, tmp_path / "log", FEW, tmp_path / "trace.json")
    assert (found.artifact, found.requests, found.threads) == ("null", 80, 1)
    assert tuple(s.name for s in found.stages) == STAGES
    assert sum(s.share for s in found.stages) == pytest.approx(1)
    assert found.attack.startswith("model: every part is within its share")  # 0.3 ms of it are the runtime's
    assert set(found.end_to_end_ms) == {"p50", "p95", "p99"}
    assert found.tokens == {"p5": 5, "p50": 5, "p95": 5, "mean": 5}
    assert found.padding_waste == 0
    assert found.operators == ()
    assert found.operators_reason == "null has no profile of its operators"
    assert found.adds_up.unit == "x"
    assert found.adds_up.machine == found.stages[0].p50_ms.machine == "abc"
    assert found.stopwatch_us > 0
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(e["name"] == "request" for e in events) == 50
    assert Profile.model_validate_json(found.to_json()) == found


def test_it_runs_in_a_process_of_its_own(
    null_folder: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Null, "in_process", False)
    found = measure(sealed(null_folder), texts, About("null"), tmp_path / "log", FEW)
    assert found.requests == 80
    assert found.operators_reason == "null has no profile of its operators"
    (null_folder / "text-classification" / "null.json").unlink()
    with pytest.raises(RunError, match="missing from the artifact"):
        measure(null_folder / "text-classification", texts, About("null"), tmp_path / "log", FEW)


def test_a_profile_that_breaks_is_a_reason_and_no_error(
    null_folder: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> list[Operator]:
        raise ChildError("the process was killed by SIGSEGV")

    monkeypatch.setattr(Null, "operators", broken)
    found = measure(sealed(null_folder), texts, About("null"), tmp_path / "log", FEW)
    assert found.operators_reason == "the runtime's profile broke: the process was killed by SIGSEGV"
    assert len(found.stages) == 5


def timed(model_us: float = 800.0, whole_us: float = 1000.0) -> part._Timed:
    """Return 400 requests of 100 + 50 + 20 + model + 30 us each, in twenty blocks, and whole ones beside them."""
    taken = np.array([100, 50, 20, model_us, 30]) * 1000
    clocks = np.concatenate([[0], np.cumsum(taken)]).astype(np.int64)
    ids = [[[1] * 12]] * 400
    return part._Timed([np.full(20, whole_us / 1e3)] * 20, np.tile(clocks, (400, 1)), ids, 400 * 16, True, 0.2)


def profiled(about: About, seen: part._Timed, found: list[Operator], runtime: object = None) -> Profile:
    task = find.read("tasks", {"kind": "text-classification", "train": "x"})
    artifact = Artifact.model_validate({"runtime": runtime or Null(), "task": task, "labels": ("a",), "max_length": 16})
    return part._profile(artifact, about, seen, found, "")


def test_the_stages_add_up_against_whole_requests() -> None:
    assert profiled(About(""), timed(), []).adds_up.value == pytest.approx(1.0)
    found = profiled(About(""), timed(whole_us=900), [])
    assert found.adds_up.value == pytest.approx(1000 / 900)
    assert found.stages[3].p95_ms.value == pytest.approx(0.8)
    assert found.stages[3].share == pytest.approx(0.8)
    assert found.padding_waste == pytest.approx(0.25)


def test_operators_fill_the_model_stage_and_say_how_far_they_were_scaled() -> None:
    found = profiled(About("", SHAPE, CEILINGS), timed(), OPERATORS)
    assert [(o.group, round(o.share, 6)) for o in found.operators] == [
        ("attention", 0.4), ("feed-forward", 0.4), ("quantize", 0.2)]
    assert sum(o.mean_ms for o in found.operators) == pytest.approx(0.8)
    assert found.operators_factor == pytest.approx(10 / 0.8)
    attention, _, rounding = found.operators
    assert attention.heaviest == ("x query", "x value")
    assert attention.number == "int8"
    assert (rounding.flop, rounding.number, rounding.calls) == (None, None, 6)


def test_each_product_is_placed_under_its_roof() -> None:
    found = profiled(About("", SHAPE, CEILINGS), timed(), OPERATORS)
    attention = found.operators[0]
    assert attention.flop == 2 * 2 * (4 * 384 * 384 * 12 + 2 * 384 * 12 * 12)
    assert attention.gops == pytest.approx(attention.flop / 0.32 / 1e6)
    assert attention.intensity is not None
    assert attention.roof_gops == pytest.approx(min(400, attention.intensity * 50))
    assert attention.share_of_roof == pytest.approx(attention.gops / attention.roof_gops)
    flop = attention.flop + 2 * 4 * 384 * 1536 * 12 + 2 * 384 * 3
    assert found.share_of_ceiling == pytest.approx(flop / 0.8 / 1e6 / 100)  # the null runtime says it is fp32
    bare = profiled(About(""), timed(), OPERATORS)
    assert bare.share_of_ceiling is None
    assert bare.operators[0].flop is None
    assert any("what shape its model has" in note for note in bare.notes)


def test_what_is_over_its_share_is_attacked_first() -> None:
    budget = Budget(p95_ms=1.0, split={"preprocess": 0.1, "model": 0.85})
    found = profiled(About("", budget=budget), timed(), [])
    preprocess, model = found.budget
    assert preprocess.stages == ("decode", "tokenize", "pad")
    assert preprocess.p95_ms.value == pytest.approx(0.17)
    assert (preprocess.allowed_ms, preprocess.holds) == (pytest.approx(0.1), False)
    assert (model.allowed_ms, model.holds) == (pytest.approx(0.85), True)
    assert found.attack.startswith("preprocess: its p95 of 0.17 ms (at most 0.17) is over the 0.1 ms it may take, 10% "
                                   "of the limit p95_ms = 1")


def test_without_a_limit_the_shares_are_of_the_measured_p95() -> None:
    budget = Budget(min_speedup=2, split={"model": 0.5})
    found = profiled(About("", SHAPE, budget=budget), timed(), OPERATORS)
    assert found.budget[0].allowed_ms == pytest.approx(0.5)
    assert "50% of the measured p95" in found.attack
    assert "Most of the model stage, 40%, is attention." in found.attack


def test_without_a_split_the_heaviest_stage_is_named() -> None:
    assert profiled(About(""), timed(), []).attack == "model: it takes 80% of a request, 0.8 ms in the mean."


def test_texts_keep_their_line_separators_and_pairs_their_two_halves(null_folder: Path) -> None:
    file = null_folder / "odd.jsonl"
    file.write_text('{"text": "w1\\u2028w2 music"}\n{"text": "light' + "\\u001f" + 'w1 music"}\n')
    seen = Stages(sealed(null_folder, "sentence-similarity", label="label"), file)
    assert seen.about()["requests"] == 2
    assert [len(texts) for texts in seen.tokens([0, 1])] == [1, 2]
    seen.close()

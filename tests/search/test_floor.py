"""The floor: a limit below it is certified before anything is trained, one above it stops nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.record import Measurement
from plimsoll.core.spec import Budget, Spec
from plimsoll.report import log
from plimsoll.runtimes.null import Null
from plimsoll.search import floor
from plimsoll.search.floor import Floor, Rung
from plimsoll.search.tune import tune
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert


def rung(p95: float, speedup: float, what: str = "the smallest model there is") -> Rung:
    def around(value: float, unit: str) -> Measurement:
        return Measurement(value=value, low=value * 0.9, high=value * 1.1, n=400, unit=unit)

    return Rung(what=what, runtime=Null(), p95_ms=around(p95, "ms"), speedup_p95=around(speedup, "x"))


@pytest.fixture
def found() -> Floor:
    return Floor(
        least=(rung(0.04, 300), rung(0.06, 200)), more=(rung(0.2, 60, "one whole layer"),),
        baseline_p95_ms=rung(12.0, 1).p95_ms, unmeasured=("inductor",),
    )


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (Budget(p95_ms=0.035), "p95_ms"),
        (Budget(p95_ms=0.037), None),  # inside the bounds of the floor: cannot be ruled out
        (Budget(p95_ms=1.0), None),
        (Budget(min_speedup=400), "min_speedup"),
        (Budget(min_speedup=320), None),
        (Budget(quality_drop=0.01), None),
    ],
)
def test_a_limit_is_ruled_out_by_bounds_only(found: Floor, budget: Budget, limit: str | None) -> None:
    assert floor.broken(found, budget) == limit


def test_a_runtime_whose_smallest_model_is_too_slow_is_not_built(found: Floor) -> None:
    slow = found.model_copy(update={"least": (rung(0.06, 200),)})
    assert "the smallest model there is takes 0.06 ms" in str(floor.rules_out(slow, Null(), Budget(p95_ms=0.05)))
    assert "200 times as fast" in str(floor.rules_out(slow, Null(), Budget(min_speedup=250)))
    assert floor.rules_out(slow, Null(), Budget(p95_ms=0.055)) is None
    other = slow.model_copy(update={"least": ()})
    assert floor.rules_out(other, Null(), Budget(p95_ms=0.001)) is None


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    write_tiny_bert(tmp_path / "model")
    for split in ("train", "test"):
        rows = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TINY_ROWS)
        (tmp_path / f"{split}.jsonl").write_text(rows.replace(" please", " now please") if split == "test" else rows)
    return {
        "task": {"kind": "text-classification", "train": str(tmp_path / "train.jsonl"),
                 "test": str(tmp_path / "test.jsonl")},
        "model": {"name": str(tmp_path / "model")},
        "budget": {"p95_ms": 0.0001},
        "target": {"threads": 1, "runtimes": ["onnxruntime"]},
    }


def test_a_runtime_that_does_not_know_the_model_is_left_out_of_the_floor(
    tmp_path: Path, tables: dict[str, Any]
) -> None:
    write_tiny_bert(tmp_path / "model", hidden_size=24)
    tables["target"]["runtimes"] = ["native", "onnxruntime"]
    decision = tune(Spec.parse(tables), tmp_path / "runs" / "a")
    assert decision.binding is not None
    assert "onnxruntime" in decision.binding.floor_from
    assert any("native" in note for note in decision.notes)


def test_without_a_runtime_that_knows_the_model_nothing_is_certified(tmp_path: Path, tables: dict[str, Any]) -> None:
    write_tiny_bert(tmp_path / "model", hidden_size=24)
    tables["target"]["runtimes"] = ["native"]
    tables["search"] = {"moves": [{"move": "finetune", "epochs": 1, "precision": "fp32"}], "keep_layers": []}
    decision = tune(Spec.parse(tables), tmp_path / "runs" / "a")
    assert decision.verdict == "not-met"
    assert decision.baseline is not None  # it was trained and measured: the floor had nothing to say
    assert any("does not know" in r.reason for r in decision.rejected)


def test_a_limit_below_the_floor_is_answered_without_training(tmp_path: Path, tables: dict[str, Any]) -> None:
    out = tmp_path / "runs" / "a"
    decision = tune(Spec.parse(tables), out)
    assert decision.verdict == "not-met"
    assert decision.binding is not None
    assert decision.binding.limit == "p95_ms"
    assert decision.binding.floor.low > 0.0001
    assert "random weights" in decision.binding.floor_from
    # the least that would do, one layer, all of them: each with the number it takes
    assert [line.split(" ")[0] for line in decision.binding.relaxing] == ["p95_ms"] * 3
    assert decision.chosen is None
    assert decision.artifact == ""
    assert not (out / "trials").exists()
    assert not (tmp_path / "runs" / ".store" / "model").exists()
    assert any("arithmetic ceiling" in note for note in decision.notes)
    page = log.write(decision)
    assert "nothing was trained" in page
    assert "random weights" in page

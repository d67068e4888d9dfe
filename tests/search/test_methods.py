"""The comparison of methods: a plan that keeps to its time, a choice that the numbers bear out, a run that goes on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core import find
from plimsoll.core.comparison import Comparison, Probe
from plimsoll.core.errors import SpecError
from plimsoll.core.parts import Move
from plimsoll.core.spec import Spec
from plimsoll.moves.finetune import FineTune
from plimsoll.report import methods as report
from plimsoll.search import methods, verdicts
from plimsoll.search.tune import prepared
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert


@given(st.floats(60, 1e5), st.lists(st.floats(0.5, 1e4), min_size=1, max_size=7), st.integers(100, 10**6))
def test_the_probes_take_no_more_than_their_shares(budget_s: float, speeds: list[float], train_rows: int) -> None:
    named = {str(i): speed for i, speed in enumerate(speeds)}
    plan = methods.plan(budget_s, named, dict.fromkeys(named, 3), train_rows)
    assert 0 < plan.equal_rows <= 3 * train_rows
    assert plan.equal_s >= 6
    least = 3 * min(512, train_rows)
    if plan.equal_rows > least:
        spent = sum(3 * (plan.equal_rows / speed + 6) for speed in speeds)
        assert spent <= budget_s * 0.2 * 1.001


@given(st.floats(1, 1e4), st.integers(1, 10**6), st.floats(0.1, 1e4), st.integers(1, 10**6))
def test_a_method_gets_rows_by_its_speed(seconds: float, seen: int, took_s: float, train_rows: int) -> None:
    probe = Probe(move=FineTune(), stage="equal_rows", seed=0, rows_seen=seen, seconds=took_s, quality=0.5)
    rows, passes = methods.in_time(seconds, probe, train_rows)
    assert 1 <= rows <= train_rows
    asked = seconds * seen / took_s
    assert rows * passes <= max(asked, 1) * 1.001 or passes * train_rows - asked <= train_rows / 2
    assert rows * passes >= asked - max(passes, train_rows / 2)


def spec_of(tmp_path: Path, **search: Any) -> Spec:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in TINY_ROWS))
    return Spec.parse({
        "task": {"kind": "text-classification", "train": str(file)},
        "model": {"name": str(write_tiny_bert(tmp_path / "tiny"))},
        "budget": {"quality_drop": 0.5, "search_minutes": 1},
        "target": {"threads": 1, "baseline": {"runtime": "torch"}},
        "search": search,
    })  # fmt: skip


def test_a_name_that_is_no_method_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(SpecError, match='unknown method "loro"') as e:
        methods.chosen_of(["loro"], spec)
    assert 'did you mean "lora"?' in e.value.hint
    with pytest.raises(SpecError, match="distil does not tune") as e:
        methods.chosen_of(["distil"], spec)
    assert "linear_probe" in e.value.hint


def test_the_specs_own_fields_are_kept(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, moves=[{"move": "finetune", "batch_size": 8}])
    moves, absent = methods.chosen_of(["finetune", "lora"], spec)
    assert [m.says() for m in moves] == ["finetune batch_size=8", "lora"]
    assert absent == []


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, Path, Comparison]:
    folder = tmp_path_factory.mktemp("compared")
    spec = spec_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "_OVERHEAD_S", 0.5)
        patch.setattr(methods, "_FULL_EPOCHS", 2)
        patch.setattr(methods, "SEEDS", 2)
        with prepared(spec, folder / "runs" / "a", lambda event: None) as (bench, machine):
            return spec, folder / "runs" / "a", methods.compare(bench, machine, ["finetune", "linear_probe"], 1.0)


def test_every_method_has_its_numbers_and_one_is_chosen(compared: tuple[Spec, Path, Comparison]) -> None:
    _, folder, found = compared
    states = {m.move.name(): m.state for m in found.methods}
    assert set(states) == {"finetune", "linear_probe"}
    assert list(states.values()).count("chosen") == 1
    assert states[found.chosen] == "chosen"
    for method in found.methods:
        assert {"equal_rows", "equal_time"} <= set(method.qualities)
        assert method.trainable > 0
    assert (folder / found.model / "model.safetensors").exists()
    assert len(found.questions) == 1
    assert any(c.isdigit() for c in found.questions[0])


def test_the_same_call_on_the_same_folder_gives_what_is_there(compared: tuple[Spec, Path, Comparison]) -> None:
    spec, folder, found = compared
    with prepared(spec, folder, lambda event: None) as (bench, machine):
        assert methods.compare(bench, machine, ["finetune", "linear_probe"], 1.0) == found


def test_an_interrupted_comparison_goes_on_from_its_finished_probes(compared: tuple[Spec, Path, Comparison]) -> None:
    spec, folder, found = compared
    record = folder / "methods.json"
    kept = record.read_text()
    record.unlink()
    before = {p: p.stat().st_mtime_ns for p in (folder / "probes").iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "_FULL_EPOCHS", 2)
        patch.setattr(methods, "SEEDS", 2)
        with prepared(spec, folder, lambda event: None) as (bench, machine):
            again = methods.compare(bench, machine, ["finetune", "linear_probe"], 1.0)
    assert {p: p.stat().st_mtime_ns for p in (folder / "probes").iterdir()} == before
    assert _without_the_moment(again) == _without_the_moment(found)
    record.write_text(kept)


def _without_the_moment(compared: Comparison) -> dict[str, Any]:
    return compared.model_dump(exclude={"seconds", "machine"})  # free memory is part of a machine's description


def test_the_pages_answer_for_every_loser(compared: tuple[Spec, Path, Comparison]) -> None:
    from rich.console import Console

    found = compared[2]
    page = report.write(found)
    assert "# Chosen: " + found.chosen.replace("_", "\\_") in page
    for method in found.methods:
        assert method.move.name().replace("_", "\\_") in page
    assert "Why not" in page
    console = Console(width=220, record=True, file=io.StringIO())
    report.show(found, console)
    shown = console.export_text()
    assert found.questions[0][:40] in shown
    assert "on the test rows" in shown


def arm_of(name: str, right: float) -> methods.Arm:
    """A method that answered so many of 400 rows right in the same time as the others."""
    steps = {} if name == "linear_probe" else {"none": (1.0,)}
    costs = methods.Costs(trainable=1, parameters=1, rows=1, tokens=1, mean_tokens=1.0, precision="", step_s=steps,
                          peak_mb={}, recompute_direct=(), recompute_fitted=(), reason="")
    made = methods.Arm(cast(Move, find.read("moves", name)), costs)
    made.evidence["equal_time"] = [np.arange(400) < 400 * right] * made.draws
    made.probes = [Probe(move=made.move, stage="equal_time", seed=0, rows_seen=1, seconds=1, quality=right)]
    return made


def test_a_method_without_steps_stops_nobody_and_is_always_taken(compared: tuple[Spec, Path, Comparison]) -> None:
    spec, folder, _ = compared
    right = {"finetune": 0.5, "lora": 0.505, "dora": 0.2, "prompt_tuning": 0.1, "linear_probe": 0.9}
    with prepared(spec, folder, lambda event: None) as (bench, _):
        full = methods.survivors([arm_of(name, share) for name, share in right.items()], bench)
    assert {a.name for a in full} == {"finetune", "lora", "linear_probe"}


def test_a_stopped_method_is_told_who_led_in_the_same_time() -> None:
    leader = arm_of("finetune", 0.5)
    worse, level = arm_of("lora", 0.2), arm_of("dora", 0.495)
    task = TextClassification(train="x", test="x")
    told = verdicts.stopped(worse, leader, task.value, task.metric)
    assert told.startswith("in the same time it was certainly worse than finetune, -30.0 points")
    assert "in the worse half, led by finetune" in verdicts.stopped(level, leader, task.value, task.metric)


def test_the_quickest_policy_that_fits_in_memory_is_taken() -> None:
    step, peak = {"none": 1.0, "selective": 1.1, "full": 1.3}, {"none": 900.0, "selective": 700.0, "full": 400.0}
    assert [verdicts.policy(step, peak, memory) for memory in (2000, 1000, 600, 100)] == [
        "none", "selective", "full", "full"]


def test_what_training_may_take_is_the_memory_of_the_gpu_it_runs_on(compared: tuple[Spec, Path, Comparison]) -> None:
    spec, folder, _ = compared
    move = FineTune(learning_rate=7e-5)  # none that the comparison has measured
    kept = arm_of("finetune", 0.5).costs.model_copy(update={
        "precision": "fp32", "step_s": {"none": (1.0,), "full": (1.3,)}, "peak_mb": {"none": 900.0, "full": 400.0}})
    taken: dict[float | None, str] = {}
    with prepared(spec, folder, lambda event: None) as (bench, _):
        for device_mb in (600.0, None, 2000.0):
            file = bench.run.folder / "costs" / f"{methods._id(move)}.json"
            file.write_text(kept.model_copy(update={"device_mb": device_mb}).to_json())
            arm = methods.costed(move, bench, available_mb=1e6)
            assert isinstance(arm, methods.Arm)
            taken[device_mb] = cast(FineTune, arm.move).checkpointing
            file.unlink()
    assert taken == {600.0: "full", None: "none", 2000.0: "none"}

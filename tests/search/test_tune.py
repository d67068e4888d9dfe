"""The whole loop on the null runtime: a decision in a moment, whatever breaks on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import plimsoll
from plimsoll.core.errors import DataError, RunError, SpecError, StoreError
from plimsoll.core.spec import Spec
from plimsoll.core.trial import Trial
from plimsoll.search import choose
from plimsoll.search.tune import tune

Tables = dict[str, Any]


def test_the_right_and_fast_variant_wins_and_every_loser_has_its_reason(null_folder: Path, null_tables: Tables) -> None:
    decision = tune(Spec.parse(null_tables), null_folder / "runs" / "a")
    assert decision.verdict == "met"
    assert decision.chosen is not None
    assert decision.baseline is not None
    assert decision.three_numbers is not None
    assert decision.speedup_p95 is not None
    assert decision.chosen.recipe.says() == "null fast"
    assert decision.three_numbers.quality_delta.low >= -0.02
    assert decision.speedup_p95.low >= 2
    front = {f.trial: f for f in decision.front}
    assert not front[decision.chosen.trial].beaten_by
    assert front[decision.baseline.trial].beaten_by == decision.chosen.trial
    reasons = {r.recipe.says(): (r.state, r.reason) for r in decision.rejected}
    assert reasons["null broken"] == ("failed", "broke: RuntimeError: this variant always breaks")
    assert reasons["null absent"] == (
        "skipped",
        "the null runtime's absent variant is never installed pip install nothing",
    )
    assert reasons["null wrong"][0] == "measured"
    assert "on validation its quality changes by -" in reasons["null wrong"][1]
    for r in decision.rejected:
        assert (null_folder / "runs" / "a" / r.evidence).exists()


def test_the_run_folder_holds_what_a_reviewer_and_a_server_need(null_folder: Path, null_tables: Tables) -> None:
    run = null_folder / "runs" / "a"
    decision = plimsoll.tune(Spec.parse(null_tables), run)
    assert json.loads((run / "decision.json").read_text())["verdict"] == "met"
    assert "null wrong" in (run / "decisions.md").read_text()
    assert "null wrong" in (run / "report.html").read_text()
    assert plimsoll.show(run) == decision
    with plimsoll.load(decision.artifact) as model:
        assert [p.label for p in model.predict(["w1 light", "w2 weather"])] == ["light", "weather"]
        table = model.artifact.cost_table
    assert [c.tokens for c in table] == sorted(c.tokens for c in table)
    assert table[-1].p50_ms > 0
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert any("rows" in str(e.get("text")) for e in log)


def test_words_are_tagged_from_rows_to_artifact_and_the_entities_decide(null_folder: Path, tag_tables: Tables) -> None:
    run = null_folder / "runs" / "a"
    decision = plimsoll.tune(Spec.parse(tag_tables), run)
    assert decision.verdict == "met"
    assert decision.chosen is not None
    assert decision.baseline is not None
    assert decision.three_numbers is not None
    assert decision.chosen.recipe.says() == "null fast"
    assert (decision.baseline.quality.value, decision.baseline.quality.unit) == (1.0, "entity_f1")
    assert decision.chosen.scores["entity_recall"] == 1.0
    assert -0.02 <= decision.three_numbers.quality_delta.low < 0
    reasons = {r.recipe.says(): r.reason for r in decision.rejected}
    assert "on validation its quality changes by -" in reasons["null wrong"]
    wrong = next(t for t in map(Trial.from_file, (run / "trials").glob("*.json")) if t.recipe.says() == "null wrong")
    assert wrong.disagreement is not None
    assert 0 < wrong.disagreement < 1
    assert wrong.variance is not None
    assert wrong.invariance is not None
    assert wrong.invariance.flips == 0
    assert "entity\\_f1 on test" in (run / "decisions.md").read_text()
    with plimsoll.load(run) as model:
        (tagged,) = model.predict(["x y light"])
        assert tagged.tags == ("B-place", "I-place", "O")
        assert [e.text for e in tagged.entities] == ["x y"]
        assert model.artifact.outputs == ("logits: float32 [batch, length, labels]",)


def test_pairs_are_compared_from_rows_to_artifact(null_folder: Path, null_tables: Tables) -> None:
    null_tables["task"] |= {"kind": "sentence-similarity", "label": "label"}
    lines = (null_folder / "test.jsonl").read_text().splitlines(keepends=True)[:300]
    (null_folder / "test.jsonl").write_text("".join(lines))
    run = null_folder / "runs" / "a"
    decision = plimsoll.tune(Spec.parse(null_tables), run)
    assert decision.verdict == "met"
    assert decision.chosen is not None
    assert decision.baseline is not None
    assert decision.chosen.recipe.says() == "null fast"
    assert (decision.baseline.quality.value, decision.baseline.quality.unit) == (pytest.approx(1.0), "spearman")
    with plimsoll.load(run) as model:
        one, both, apart = model.predict(["w1 light", ["w1 light", "w2 light"], ["w1 light", "music"]])
        assert one.vector == (1.0, 0.0, 0.0)
        assert (both.score, apart.score) == (1.0, 0.0)
        with pytest.raises(TypeError, match="a list of 2"):
            model.predict([["one", "two", "three"]])


def test_any_number_of_labels_from_rows_to_artifact(null_folder: Path, null_tables: Tables) -> None:
    null_tables["task"] |= {"kind": "multi-label", "labels": "label"}
    decision = plimsoll.tune(Spec.parse(null_tables), null_folder / "runs" / "a")
    assert decision.chosen is not None
    assert decision.chosen.recipe.says() == "null fast"
    assert decision.chosen.quality.unit == "micro_f1"
    with plimsoll.load(decision.artifact) as model:
        assert [label.label for label in model.predict(["w1 light"])[0].labels] == ["light"]


def test_nothing_fits_delivers_the_nearest_miss_and_says_what_would(null_folder: Path, null_tables: Tables) -> None:
    null_tables["budget"] = {"p95_ms": 0.001, "quality_drop": 0.02}
    decision = tune(Spec.parse(null_tables), null_folder / "runs" / "a")
    assert decision.verdict == "not-met"
    assert decision.binding is not None
    assert decision.binding.limit == "p95_ms"
    assert decision.binding.floor.value > 0.001
    assert any(line.startswith("p95_ms = ") for line in decision.binding.relaxing)
    with plimsoll.load(null_folder / "runs" / "a") as model:
        assert model.predict(["w1 music"])[0].label == "music"


def test_too_few_test_rows_are_said_to_be_too_few(null_folder: Path, null_tables: Tables) -> None:
    lines = (null_folder / "test.jsonl").read_text().splitlines(keepends=True)[:30]
    (null_folder / "test.jsonl").write_text("".join(lines))
    null_tables["budget"] = {"quality_drop": 0.01, "min_speedup": 12}
    decision = tune(Spec.parse(null_tables), null_folder / "runs" / "a")
    assert decision.verdict == "not-met"
    assert decision.binding is not None
    assert decision.binding.limit == "quality_drop"
    assert any("too few to certify" in note for note in decision.notes)


def _tune(tables: Tables, out: Path) -> None:
    tune(Spec.parse(tables), out)


@pytest.mark.parametrize("after", ["trials", "timings", "scores", "artifact"])
def test_killed_anywhere_the_same_call_ends_with_the_same_decision(
    null_folder: Path, null_tables: Tables, after: str
) -> None:
    whole = tune(Spec.parse(null_tables), null_folder / "whole" / "a")
    out = null_folder / "runs" / "a"
    process = multiprocessing.get_context("spawn").Process(target=_tune, args=(null_tables, out))
    process.start()
    while not (out / after).exists() and process.is_alive():
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = {p.name: p.read_bytes() for p in (out / "trials").glob("null-*.json") if b'"failed"' in p.read_bytes()}
    again = tune(Spec.parse(null_tables), out)
    assert again.chosen is not None
    assert whole.chosen is not None
    assert again.three_numbers is not None
    assert whole.three_numbers is not None
    assert (again.verdict, again.chosen.trial) == (whole.verdict, whole.chosen.trial)
    assert again.three_numbers.quality_delta == whole.three_numbers.quality_delta
    assert {name: (out / "trials" / name).read_bytes() for name in kept} == kept


def test_an_interrupted_run_can_be_finished_from_what_it_has(null_folder: Path, null_tables: Tables) -> None:
    out = null_folder / "runs" / "a"
    process = multiprocessing.get_context("spawn").Process(target=_tune, args=(null_tables, out))
    process.start()
    while len(list((out / "trials").glob("*.json"))) < 2 and process.is_alive():
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    tried = {p.stem for p in (out / "trials").glob("*.json")}
    decision = tune(Spec.parse(null_tables), out, ending=True)
    assert decision.chosen is not None
    assert decision.chosen.trial in tried
    later = [r for r in decision.rejected if r.trial not in tried]
    assert all(r.state == "skipped" and "ended before its turn" in r.reason for r in later if "absent" not in r.reason)


def test_a_run_without_a_baseline_cannot_be_ended(null_folder: Path, null_tables: Tables) -> None:
    out = null_folder / "runs" / "a"
    with pytest.raises(RunError, match="no baseline yet"):
        tune(Spec.parse(null_tables), out, ending=True)
    assert tune(Spec.parse(null_tables), out).verdict == "met"


def test_a_text_may_hold_what_other_programs_take_for_the_end_of_a_line(
    null_folder: Path, null_tables: Tables
) -> None:
    for file in (null_folder / "train.jsonl", null_folder / "test.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [{**row, "text": row["text"].replace(" ", " \u2028 \x85", 1)} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tune(Spec.parse(null_tables), null_folder / "runs" / "a").verdict == "met"


def test_the_last_look_goes_to_the_surest_of_the_faster_ones_not_to_the_baseline(
    null_folder: Path, null_tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[bool]] = []
    looked_at = choose.looked_at

    def watched(order: Any, rows: int, count: int) -> Any:
        asked.append([t.baseline for t in order])
        return looked_at(order, rows, count)

    monkeypatch.setattr(choose, "looked_at", watched)
    null_tables["budget"] = {"quality_drop": 0.02}
    decision = tune(Spec.parse(null_tables), null_folder / "runs" / "a")
    assert decision.verdict == "met"
    assert not any(any(order) for order in asked)


def test_a_finished_run_is_not_run_again(null_folder: Path, null_tables: Tables) -> None:
    out = null_folder / "runs" / "a"
    first = tune(Spec.parse(null_tables), out)
    before = (out / "decision.json").stat().st_mtime_ns
    assert tune(Spec.parse(null_tables), out) == first
    assert (out / "decision.json").stat().st_mtime_ns == before


def test_another_specs_folder_is_refused_and_untouched(null_folder: Path, null_tables: Tables) -> None:
    out = null_folder / "runs" / "a"
    tune(Spec.parse(null_tables), out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    null_tables["budget"]["min_speedup"] = 3.0
    with pytest.raises(RunError, match=r"there budget.min_speedup is 2.0, here 3.0"):
        tune(Spec.parse(null_tables), out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    (null_folder / "other").mkdir()
    (null_folder / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        tune(Spec.parse(null_tables), null_folder / "other")


def test_changed_rows_are_another_run(null_folder: Path, null_tables: Tables) -> None:
    out = null_folder / "runs" / "a"
    tune(Spec.parse(null_tables), out)
    with (null_folder / "train.jsonl").open("a") as f:
        f.write('{"text": "w3 light", "label": "light"}\n')
    with pytest.raises(RunError, match="the data or the model changed"):
        tune(Spec.parse(null_tables), out)


def test_bad_rows_leave_no_run_folder(null_folder: Path, null_tables: Tables) -> None:
    (null_folder / "train.jsonl").write_bytes(b'{"text": "\xff", "label": "x"}\n')
    with pytest.raises(DataError, match="line 1"):
        tune(Spec.parse(null_tables), null_folder / "runs" / "a")
    assert not (null_folder / "runs" / "a").exists()


def test_more_threads_than_cores_are_refused(null_folder: Path, null_tables: Tables) -> None:
    null_tables["target"]["threads"] = 10_000
    with pytest.raises(SpecError, match="may run on"):
        tune(Spec.parse(null_tables), null_folder / "runs" / "a")


def test_cuda_is_refused_with_a_clear_word_where_there_is_none(null_folder: Path, null_tables: Tables) -> None:
    null_tables["target"]["device"] = "cuda"
    with pytest.raises(SpecError, match="CPU only"):
        tune(Spec.parse(null_tables), null_folder / "runs" / "a")


def test_a_full_disk_stops_the_run_and_the_same_call_goes_on(
    null_folder: Path, null_tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = null_folder / "runs" / "a"
    real, calls = os.fsync, iter(range(10**6))

    def full_after_a_while(handle: int) -> None:
        if next(calls) > 60:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full_after_a_while)
    with pytest.raises(StoreError, match="is full"):
        tune(Spec.parse(null_tables), out)
    monkeypatch.undo()
    assert tune(Spec.parse(null_tables), out).verdict == "met"

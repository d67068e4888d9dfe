"""Two runs side by side: what is no noise is called so, what cannot be told is not, and rows are paired if they can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plimsoll.bench.stats import proportion
from plimsoll.core.contrast import Compared, Contrast
from plimsoll.core.decision import Decision
from plimsoll.core.errors import RunError
from plimsoll.core.spec import Spec
from plimsoll.search import races
from plimsoll.search.compare import compared
from plimsoll.search.tune import tune

Tables = dict[str, Any]


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Folders of runs, each tuned once; tests get copies."""
    return {}


@pytest.fixture
def runs(null_folder: Path, null_tables: Tables, made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory,
         monkeypatch: pytest.MonkeyPatch) -> Path:
    """a, and b of the same spec; `seed`: another seed; `data`: other test rows; `worse`: b, had it lost a quarter."""
    if "runs" not in made:
        monkeypatch.setattr(races, "_LONG_REQUESTS", (200, 200))  # the times of a fake tell little anyway
        home = tmp_path_factory.mktemp("compared") / "runs"
        rows = (null_folder / "test.jsonl").read_text().splitlines(keepends=True)
        (null_folder / "test.jsonl").write_text("".join(rows[:300]))
        (null_folder / "others.jsonl").write_text("".join(rows[300:700]))
        others = null_tables["task"] | {"test": str(null_folder / "others.jsonl")}
        for name, changes in {
            "a": {}, "b": {}, "seed": {"search": {"moves": [], "seed": 1}}, "data": {"task": others},
        }.items():
            tune(Spec.parse(null_tables | changes), home / name)
        lose_a_quarter(Path(shutil.copytree(home / "b", home / "worse")))
        made["runs"] = home
    return Path(shutil.copytree(made["runs"], null_folder / "runs"))


def lose_a_quarter(run: Path) -> None:
    """Make of a run what it would have left had its artifact been wrong on every fourth test row, without a limit."""
    record = json.loads((run / "decision.json").read_text())
    file = run / "scores" / f"{record['chosen']['trial']}-test.npy"
    logits = np.load(file)
    logits[::4] = np.roll(logits[::4], 1, axis=1)
    np.save(file, logits)
    right = len(logits) - len(logits[::4])
    record["chosen"]["quality"] = proportion(right, len(logits)).model_dump(mode="json")
    record["spec"]["budget"]["quality_drop"] = None
    (run / "decision.json").write_text(json.dumps(record))


def number(found: Contrast, name: str) -> Compared:
    return next(c for c in found.numbers if c.name == name)


QUALITY = "quality of the chosen, test rows"


def test_two_runs_of_one_spec_are_the_same_but_for_noise(runs: Path) -> None:
    found = compared(runs / "a", runs / "b")
    assert not found.differs
    assert "Spec, data, model, machine and versions are the same." in found.verdict
    chosen = number(found, QUALITY)
    assert (chosen.how, chosen.finding) == ("paired", "cannot be told")
    assert chosen.change is not None
    assert chosen.change.value == 0
    assert chosen.change.low < 0 < chosen.change.high
    assert number(found, "size of the chosen").finding == "same"
    assert "same 300 test rows" in found.rows
    assert (found.only_first, found.only_second) == ((), ())
    assert {t.recipe for t in found.trials} >= {"null fast", "null wrong", "null broken"}
    assert not any(t.quality is not None and t.quality.finding != "cannot be told" for t in found.trials)


def test_what_one_run_lost_is_found_row_by_row(runs: Path) -> None:
    found = compared(runs / "a", runs / "worse")
    chosen = number(found, QUALITY)
    assert (chosen.how, chosen.finding) == ("paired", "less")
    assert chosen.change is not None
    assert chosen.change.value == -0.25
    assert number(found, "quality of the baseline, test rows").finding == "cannot be told"
    assert [(d.key, d.first, d.second) for d in found.differs] == [("budget.quality_drop", "0.02", "-")]
    assert "worse: quality of the chosen, test rows -25.00 points" in found.verdict
    assert "paired, beyond noise" in found.verdict
    assert "They differ in spec (1)." in found.verdict


def test_another_seed_keeps_the_test_rows_and_changes_the_validation_rows(runs: Path) -> None:
    found = compared(runs / "a", runs / "seed")
    assert number(found, QUALITY).how == "paired"
    assert {t.quality.how for t in found.trials if t.quality is not None} == {"independent"}
    assert all("validation rows are not the same" in t.quality.why for t in found.trials if t.quality is not None)
    assert ("spec", "search.seed", "0", "1") in [(d.where, d.key, d.first, d.second) for d in found.differs]


def test_other_rows_are_two_independent_intervals(runs: Path) -> None:
    found = compared(runs / "a", runs / "data")
    chosen = number(found, QUALITY)
    assert (chosen.how, chosen.finding) == ("independent", "cannot be told")
    assert "the test rows are not the same" in chosen.why
    assert "Not known to be judged on the same test rows" in found.rows
    assert {"digest", "rows.test"} <= {d.key for d in found.differs if d.where == "data"}


def test_answers_that_are_gone_or_not_the_recorded_ones_are_not_paired(runs: Path) -> None:
    kept = Decision.from_file(runs / "b" / "decision.json")
    assert kept.chosen is not None
    file = runs / "b" / "scores" / f"{kept.chosen.trial}-test.npy"
    file.unlink()
    assert "did not keep its answers" in number(compared(runs / "a", runs / "b"), QUALITY).why
    shutil.copy(runs / "worse" / "scores" / file.name, file)
    chosen = number(compared(runs / "a", runs / "b"), QUALITY)
    assert chosen.how == "independent"
    assert "do not give the quality that was recorded" in chosen.why


def test_a_run_from_elsewhere_finds_its_rows_beside_the_other_and_without_any_is_not_paired(
    runs: Path, tmp_path: Path
) -> None:
    away = tmp_path / "elsewhere" / "b"
    shutil.copytree(runs / "b", away)
    assert number(compared(runs / "b", away), QUALITY).how == "paired"
    assert number(compared(away, runs / "a"), QUALITY).how == "paired"
    shutil.rmtree(runs / ".store")
    found = compared(runs / "b", away)
    assert "no store here holds the rows" in number(found, QUALITY).why
    assert (found.first.name, found.second.name) == ("runs/b", "elsewhere/b")


def changed(run: Path, key: str, times: float, of: Path) -> None:
    """Write into a run's decision a measurement of another run's, times a factor."""
    whole, other = (json.loads((folder / "decision.json").read_text()) for folder in (run, of))
    place, (*path, last) = whole, key.split(".")
    for name in path:
        place, other = place[name], other[name]
    place[last] = other[last] | {k: other[last][k] * times for k in ("value", "low", "high")}
    (run / "decision.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(("times", "finding", "back"), [
    (1.2, "cannot be told", "cannot be told"), (50, "more", "less"),
])
def test_absolute_times_are_compared_only_beyond_drift(runs: Path, times: float, finding: str, back: str) -> None:
    changed(runs / "b", "baseline.latency_ms.p95", times, of=runs / "a")
    there, again = (number(compared(runs / x, runs / y), "p95 of the baseline") for x, y in ("ab", "ba"))
    assert (there.how, there.finding, again.finding) == ("drift", finding, back)
    assert "drift" in there.why


def test_speedups_are_compared_as_ratios_of_ratios(runs: Path) -> None:
    changed(runs / "b", "speedup_p95", 100, of=runs / "a")
    speed = number(compared(runs / "a", runs / "b"), "speed-up at p95")
    assert (speed.how, speed.finding) == ("independent", "more")
    assert speed.change is not None
    assert speed.change.low > 1
    assert speed.change.confidence == pytest.approx(1 - 0.025 / 4)


def test_a_decision_without_its_run_is_compared_as_far_as_it_goes(runs: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(runs / "worse" / "decision.json", alone)
    found = compared(runs / "a", alone)
    assert number(found, QUALITY).how == "independent"
    assert number(found, QUALITY).finding == "less"
    broken = next(t for t in found.trials if t.recipe == "null broken")
    assert (broken.first, broken.second, broken.differs) == ("failed", "failed", False)


def test_another_number_of_classes_is_another_question(runs: Path) -> None:
    record = json.loads((runs / "b" / "decision.json").read_text())
    record["data"]["classes"] = 77
    (runs / "b" / "decision.json").write_text(json.dumps(record))
    chosen = number(compared(runs / "a", runs / "b"), QUALITY)
    assert (chosen.finding, chosen.change) == ("shown only", None)
    assert chosen.why == "3 and 77 classes are two questions"


def test_a_limit_ruled_out_before_anything_was_made_has_no_numbers(runs: Path, tmp_path: Path) -> None:
    alone = tmp_path / "ruled-out"
    alone.mkdir()
    record = json.loads((runs / "a" / "decision.json").read_text())
    nothing = dict.fromkeys(("three_numbers", "speedup_p95", "speedup_p50", "baseline", "chosen"))
    (alone / "decision.json").write_text(json.dumps(record | nothing | {"verdict": "not-met", "front": [],
                                                                        "rejected": []}))
    found = compared(runs / "a", alone)
    assert {c.finding for c in found.numbers if c.name != "seconds of the search"} == {"shown only"}
    assert "ruled-out hands over nothing (not-met)" in found.verdict
    assert "null broken" in found.only_first


def test_what_is_no_finished_run_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no finished search"):
        compared(runs / "a", tmp_path)
    with pytest.raises(RunError, match="the same run"):
        compared(runs / "a", runs / ".." / "runs" / "a")


def test_nothing_is_written(runs: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*")}
    compared(runs / "a", runs / "seed")
    assert {p: p.stat().st_mtime_ns for p in runs.rglob("*")} == before

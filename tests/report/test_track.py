"""A run in a real MLflow store: every number with its bounds, every trial nested, nothing twice, nothing refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.decision import Decision, Rejected, Side, ThreeNumbers
from plimsoll.core.dossier import Dossier
from plimsoll.core.errors import UserError
from plimsoll.core.record import Measurement, exact
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import Latency, Trial
from plimsoll.report import track

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow's own tables, under SQLAlchemy 2.1
)

FAST = Recipe.model_validate([{"runtime": "null", "speed": "fast"}])
PLAIN = Recipe.model_validate([{"move": "quantize", "keep": 2}, {"move": "quantize"}, {"runtime": "null"}])


def m(value: float, unit: str, high: float | None = None) -> Measurement:
    reach = abs(value) / 10
    return Measurement(value=value, low=value - reach, high=value + reach if high is None else high, n=900, unit=unit)


LATENCY = Latency(p50=m(1.0, "ms"), p95=m(2.0, "ms"), p99=m(3.0, "ms", float("inf")))


def side(recipe: Recipe, artifact: str = "") -> Side:
    return Side(trial=recipe.id, recipe=recipe, latency_ms=LATENCY, quality=m(0.9, "accuracy"), size_mb=exact(20, "MB"),
                peak_memory_mb=exact(100, "MB"), cold_start_s=exact(0.3, "s"), artifact=artifact)


def made(folder: Path, **changes: Any) -> Dossier:
    """Write a finished run of two trials into a folder, and return what it left."""
    decision = Decision.model_validate({
        "verdict": "met", "why": "<b>fast</b> holds `every` limit", "budget": Budget(quality_drop=0.01),
        "three_numbers": ThreeNumbers(baseline_p95_ms=m(9.0, "ms"), optimized_p95_ms=m(2.0, "ms"),
                                      quality_delta=m(-0.001, "accuracy")),
        "speedup_p95": m(4.5, "x"), "speedup_p50": m(5.0, "x"), "baseline": side(PLAIN),
        "chosen": side(FAST, "artifact"),
        "rejected": (Rejected(trial=PLAIN.id, recipe=PLAIN, state="measured", reason="too slow", evidence=""),),
        "machine": {"digest": "f00"}, "spec_digest": "beef", "seconds": {"total": 60.0, "build": 2.5},
        "spec": {"task": {"train": "rows.jsonl"}, "search": {"moves": [{"move": "finetune", "epochs": 6}], "seed": 0}},
        **changes})
    (folder / "artifact").mkdir(parents=True)
    (folder / "artifact" / "weights.bin").write_bytes(b"12")
    (folder / "decision.json").write_text(decision.to_json())
    (folder / "decisions.md").write_text("# Verdict\n")
    trials = (Trial(id=PLAIN.id, recipe=PLAIN, state="measured", baseline=True, latency_ms=LATENCY,
                    validation=m(0.9, "accuracy"), seconds={"build": 2.5}),
              Trial(id=FAST.id, recipe=FAST, state="failed", reason="broke <i>here</i>", seconds={"build": 1.0}))
    return Dossier(folder=str(folder), decision=decision.model_copy(update={"run": str(folder)}), trials=trials)


@pytest.fixture(autouse=True)
def no_store_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing here writes to a store that the machine's user has set, or into the folder the tests run in."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: MLflow takes seconds to make its tables, and a copy takes none."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        client(f"sqlite:///{file}")
    return file


@pytest.fixture
def home(tmp_path: Path, empty: Path) -> Path:
    """A folder for runs with an empty store in it."""
    (tmp_path / "runs").mkdir()
    shutil.copy(empty, tmp_path / "runs")
    return tmp_path / "runs"


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str, experiment: str = "plimsoll") -> list[Any]:
    there = client(uri)
    return list(there.search_runs([there.get_experiment_by_name(experiment).experiment_id], max_results=1000))


def test_a_run_is_logged_beside_the_run_folders_with_numbers_bounds_and_pages(tmp_path: Path) -> None:
    tracked = track.log(made(tmp_path / "runs" / "one"))
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    assert (tracked.store, tracked.new, tracked.trials) == (uri, 3, 2)
    assert tracked.look == f"mlflow server --backend-store-uri {uri}"
    run = client(uri).get_run(tracked.run_id)
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")
    assert run.info.end_time - run.info.start_time == 60_000
    numbers = run.data.metrics
    assert (numbers["speedup_p95"], numbers["speedup_p95_low"], numbers["speedup_p95_high"]) == pytest.approx(
        (4.5, 4.05, 4.95))
    assert (numbers["chosen_size_mb"], numbers["seconds_build"], numbers["optimized_p95_ms"]) == (20, 2.5, 2)
    assert "chosen_size_mb_low" not in numbers  # counted
    assert "chosen_p99_ms_high" not in numbers  # unbounded
    assert "chosen_p99_ms_low" in numbers
    assert run.data.params["spec.search.moves.0.epochs"] == "6"
    assert run.data.params["recipe"] == FAST.says()
    tags = run.data.tags
    assert {k: tags[f"plimsoll.{k}"] for k in ("verdict", "machine", "spec")} == {
        "verdict": "met", "machine": "f00", "spec": "beef"}
    assert tags["mlflow.note.content"] == "&lt;b&gt;fast&lt;/b&gt; holds \\`every\\` limit"
    assert {f.path for f in client(uri).list_artifacts(tracked.run_id)} == {"decision.json", "decisions.md"}
    assert (tmp_path / "runs" / "mlflow-artifacts" / tracked.run_id / "artifacts" / "decision.json").exists()
    assert not (tmp_path / "mlruns").exists()


def test_every_trial_is_a_run_inside_with_its_recipe_and_what_became_of_it(home: Path) -> None:
    tracked = track.log(made(home / "one"))
    inside = {r.data.tags["plimsoll.trial"]: r for r in runs(tracked.store)
              if r.data.tags.get("mlflow.parentRunId") == tracked.run_id}
    assert set(inside) == {PLAIN.id, FAST.id}
    plain, fast = inside[PLAIN.id], inside[FAST.id]
    assert (plain.info.status, fast.info.status) == ("FINISHED", "FAILED")
    assert (plain.data.params["quantize.keep"], plain.data.params["quantize.2.keep"]) == ("2", "0")
    assert plain.data.metrics["p95_ms"] == 2
    assert plain.data.tags["mlflow.note.content"] == "too slow"
    assert fast.data.tags["mlflow.note.content"] == "broke &lt;i&gt;here&lt;/i&gt;"
    assert fast.info.end_time - fast.info.start_time == 1000


def test_logging_again_doubles_nothing_and_adds_what_came_later(home: Path) -> None:
    dossier = made(home / "one")
    first = track.log(dossier)
    (home / "one" / "report.html").write_text("<html></html>")
    (home / "one" / "decision.json").touch()
    again = track.log(dossier, artifact=True)
    assert (again.run_id, again.new) == (first.run_id, 0)
    assert len(runs(first.store)) == 3
    there = client(first.store)
    assert len(there.get_metric_history(first.run_id, "speedup_p95")) == 1
    assert {f.path for f in there.list_artifacts(first.run_id)} >= {"report.html", "artifact"}
    assert [f.path for f in there.list_artifacts(first.run_id, "artifact")] == ["artifact/weights.bin"]


def test_a_logging_that_was_cut_off_is_gone_on_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dossier, real = made(home / "one"), track._fill
    calls = iter(range(100))

    def cut_off(*args: Any) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(track, "_fill", cut_off)
    with pytest.raises(KeyboardInterrupt):
        track.log(dossier)
    monkeypatch.setattr(track, "_fill", real)
    tracked = track.log(dossier)
    assert tracked.new == 1
    logged = runs(tracked.store)
    assert len(logged) == 3
    assert {r.info.status for r in logged} == {"FINISHED", "FAILED"}
    assert all("recipe" in r.data.params for r in logged)


def test_another_run_of_the_same_spec_is_another_run_and_a_copy_is_not(home: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{home / 'mlflow.db'}"
    first = track.log(made(tmp_path / "one"), store)
    other = track.log(made(tmp_path / "two", speedup_p95=m(4.6, "x")), store)
    copy = track.log(made(tmp_path / "three" / "one"), store)
    assert (other.new, copy.new) == (3, 0)
    assert other.run_id != first.run_id == copy.run_id


def test_the_store_that_is_set_is_used_and_the_one_that_is_given_before_it(
    home: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mlflow.db").unlink()
    uri, given = (f"sqlite:///{shutil.copy(empty, home / f'{name}.db')}" for name in ("set", "given"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    dossier = made(home / "one")
    assert track.log(dossier, experiment="other").store == uri
    assert len(runs(uri, "other")) == 3
    assert not (home / "mlflow.db").exists()
    assert track.log(dossier, given).store == given


def test_whatever_text_a_record_holds_is_cut_to_what_the_store_takes(home: Path) -> None:
    spec = {"task": {"notes": "x" * 9000, 'odd "key": [1]/..//': 1, "k" * 400: 2},
            "many": {f"key{i}": i for i in range(250)}}
    tracked = track.log(made(home / ("n" * 251), spec=spec, why="w" * 9000))
    run = client(tracked.store).get_run(tracked.run_id)
    assert len(run.data.params["spec.task.notes"]) == 6000
    assert run.data.params["spec.task.odd _key__ _1__..__"] == "1"
    assert max(map(len, run.data.params)) == 250
    assert run.data.params["spec.many.key249"] == "249"
    assert len(run.data.tags["mlflow.note.content"]) == 5000
    assert len(run.info.run_name) == 250


def test_a_decision_without_numbers_is_logged_too(home: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("three_numbers", "speedup_p95", "speedup_p50", "baseline", "chosen"))
    dossier = made(home / "one", **nothing, verdict="not-met")
    run = client(track.log(dossier).store).get_run(track.log(dossier).run_id)
    assert run.data.metrics == {"seconds_total": 60.0, "seconds_build": 2.5}
    with pytest.raises(UserError, match="no artifact to log"):
        track.log(dossier, artifact=True)


def test_a_store_that_refuses_is_named_without_its_password(tmp_path: Path) -> None:
    dossier = made(tmp_path / "runs" / "one")
    with pytest.raises(UserError, match=r"MLflow at nostore://host/db refuses") as refused:
        track.log(dossier, "nostore://me:secret@host/db")
    assert "secret" not in str(refused.value)


def test_without_mlflow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r'pip install "plimsoll-ml\[track\]"') as missing:
        track.log(made(tmp_path / "runs" / "one"))
    assert missing.value.exit_code == 2


def test_an_address_is_given_to_look_at(tmp_path: Path) -> None:
    assert track._look("https://me:pw@track.example/", "4", "abc") == "https://track.example/#/experiments/4/runs/abc"

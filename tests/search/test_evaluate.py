"""An evaluation from run or artifact to record: what is lost is found, and what noise explains is left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.comparison import Comparison, Probe
from plimsoll.core.errors import DataError, RunError, Unsupported, UserError
from plimsoll.core.evaluation import Evaluation
from plimsoll.core.record import exact
from plimsoll.core.spec import Recipe, Spec
from plimsoll.core.trained import Trained
from plimsoll.moves.linear_probe import LinearProbe
from plimsoll.search import subject
from plimsoll.search.attempt import walk
from plimsoll.search.evaluate import _need_classification, evaluate
from plimsoll.search.run import asked
from plimsoll.search.tune import prepared, tune
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert

Tables = dict[str, Any]


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Runs by what they are, each tuned once; tests get copies, which find their store beside them."""
    return {}


@pytest.fixture
def tables(null_folder: Path, null_tables: Tables) -> Tables:
    """The null spec with a third of its test rows: an evaluation asks each four times, of two models."""
    rows = (null_folder / "test.jsonl").read_text().splitlines(keepends=True)
    (null_folder / "test.jsonl").write_text("".join(rows[:300]))
    return null_tables


@pytest.fixture
def good(null_folder: Path, tables: Tables, made: dict[str, Path]) -> Path:
    """A run whose artifact answers as the baseline does."""
    run = null_folder / "runs" / "a"
    if "good" in made:
        shutil.copytree(made["good"], run.parent)
    else:
        tune(Spec.parse(tables), run)
        made["good"] = shutil.copytree(run.parent, null_folder / "kept")
    return run


@pytest.fixture
def worse(null_folder: Path, tables: Tables) -> Path:
    """A run without a quality limit: the fastest variant ships, and is wrong on a quarter of the rows."""
    tables["budget"] = {"min_speedup": 2.0}
    decision = tune(Spec.parse(tables), null_folder / "runs" / "b")
    assert decision.chosen is not None
    assert decision.chosen.recipe.says() == "null wrong"
    return null_folder / "runs" / "b"


def test_nothing_is_flagged_where_nothing_was_lost(good: Path) -> None:
    found = evaluate(good)
    assert found.artifact == "null fast"
    assert [m.name for m in found.models] == ["artifact", "baseline"]
    assert found.rows == 300
    assert found.models[0].quality.value == 1.0
    assert found.flips is not None
    assert (found.flips.lost, found.flips.gained, found.flips.p) == (0, 0, 1.0)
    assert not any(g.flags for g in (*found.classes, *found.slices))
    assert not any(r.fragile for r in found.robustness)
    assert "No class of 3 is below the baseline beyond noise" in found.verdict


def test_the_record_is_in_the_run_and_reads_back(good: Path) -> None:
    found = evaluate(good)
    assert found.folder == str(good)
    assert Evaluation.from_file(good / "evaluation.json") == found.model_copy(update={"folder": ""})
    assert json.loads((good / "evaluation.json").read_text())["machine"]["digest"]


def test_what_an_artifact_lost_is_found_in_every_class(worse: Path) -> None:
    found = evaluate(worse)
    own, base = found.models
    assert own.quality.value == pytest.approx(0.75, abs=0.08)
    assert base.change is not None
    assert base.change.high < 0
    assert found.flips is not None
    assert found.flips.gained == 0
    assert found.flips.lost == round(300 * (1 - own.quality.value))
    assert found.flips.p < 1e-10
    assert len(found.flips.rows) == found.flips.lost
    one = found.flips.rows[0]
    assert one.label == one.baseline != one.artifact
    assert {g.name for g in found.classes if "below the baseline" in g.flags} == {"light", "music", "weather"}
    assert "more than chance explains" in found.verdict


def test_noise_is_the_same_for_both_and_its_cost_is_paired(good: Path) -> None:
    found = {r.noise: r for r in evaluate(good).robustness}
    assert set(found) == {"typos", "casing", "truncation"}
    # a word that is not in the vocabulary is read as the first label
    assert found["truncation"].change.value < -0.2
    assert found["truncation"].changed == 300
    for r in found.values():
        assert r.change.value == pytest.approx(r.quality.value - 1.0)
        assert r.beyond_baseline is not None
        assert r.beyond_baseline.low < r.beyond_baseline.value == 0


def test_probabilities_that_understate_are_called_so(good: Path) -> None:
    calibration = evaluate(good).models[0].calibration
    assert calibration.miscalibrated
    assert calibration.overconfidence.high < 0  # one-hot logits of 0 and 1 say 58 % and are always right


def test_other_rows_can_be_asked_and_unknown_labels_are_refused(good: Path, tmp_path: Path) -> None:
    file = tmp_path / "fresh.jsonl"
    file.write_text("".join(json.dumps({"text": f"w{i} music", "label": "music"}) + "\n" for i in range(30)))
    found = evaluate(good, rows=file, out=tmp_path / "out")
    assert (found.rows, found.source) == (30, str(file))
    assert [g.name for g in found.classes] == ["music"]
    assert (tmp_path / "out" / "evaluation.json").exists()
    file.write_text('{"text": "w1 musik", "label": "musik"}\n{"text": "w2", "label": "music"}\n')
    with pytest.raises(DataError, match='does not know: "musik"') as e:
        evaluate(good, rows=file)
    assert 'did you mean "music"?' in e.value.hint


def test_an_artifact_alone_is_evaluated_without_a_baseline(
        good: Path, null_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(null_folder)
    found = evaluate(good / "artifact")
    assert [m.name for m in found.models] == ["artifact"]
    assert found.flips is None
    assert all(r.beyond_baseline is None and not r.fragile for r in found.robustness)
    assert found.rows == 300
    assert (null_folder / "runs" / "artifact-evaluation" / "evaluation.json").exists()
    with pytest.raises(UserError, match="neither the base model"):
        evaluate(good / "artifact", other=null_folder / "test.jsonl")


def test_weights_that_are_gone_are_said_to_be_gone(good: Path, null_folder: Path) -> None:
    found = evaluate(good, other=null_folder / "test.jsonl")
    assert found.forgotten is None
    assert any("Forgetting was not measured" in note for note in found.notes)


def test_calls_that_cannot_be_answered_are_refused_before_anything_is_asked(good: Path, tmp_path: Path) -> None:
    for arguments, says in (({"against": (good,)}, "--against"), ({"other": tmp_path / "none.jsonl"}, "does not exist"),
                            ({"rows": tmp_path / "none.jsonl"}, "does not exist")):
        with pytest.raises(UserError, match=says):
            evaluate(good, **arguments)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="neither a run nor an artifact"):
        evaluate(tmp_path)
    (good / "decision.json").unlink()
    (good / "evaluation.json").unlink()  # what the search itself left
    with pytest.raises(RunError, match="has not come to an end"):
        evaluate(good)
    assert not (good / "evaluation.json").exists()


def test_another_kind_of_task_is_refused_in_plain_words(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextClassification, "name", classmethod(lambda cls: "token_classification"))
    with pytest.raises(Unsupported, match="does not know the task token-classification"):
        _need_classification(TextClassification(train="rows"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `plimsoll train` leaves on the tiny model: a linear probe, which leaves the encoder as it was."""
    folder = tmp_path_factory.mktemp("trained")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in TINY_ROWS))
    spec = Spec.parse({
        "task": {"kind": "text-classification", "train": str(rows)},
        "model": {"name": str(write_tiny_bert(folder / "tiny"))},
        "budget": {"quality_drop": 0.5, "search_minutes": 1},
        "target": {"threads": 1, "baseline": {"runtime": "torch"}},
    })  # fmt: skip
    run, move = folder / "runs" / "a", LinearProbe()
    with prepared(spec, run, lambda event: None) as (bench, _):
        model, _ = walk(Recipe(moves=(move,), runtime=spec.target.baseline), bench, lambda move: None, {})
        shutil.copytree(model, run / "model")
    quality = exact(1.0, "accuracy")
    probe = Probe(move=move, stage="full", seed=0, rows_seen=1, seconds=1.0, quality=1.0)
    record = Comparison(chosen="linear_probe", why="", metric="accuracy", seeds=1, rows={}, methods=(), quality=quality,
                        model="model", probes=(probe,))
    (run / "methods.json").write_text(record.to_json())
    return run


def test_models_of_plimsoll_train_are_evaluated_and_linear_probes_forget_nothing(trained: Path) -> None:
    other = trained.parent / "other.jsonl"
    other.write_text("".join(json.dumps({"text": f"{t} {i}", "label": label}) + "\n"
                             for i, (t, label) in enumerate(TINY_ROWS)))
    beside = shutil.copytree(trained, trained.parent / "b")
    (beside / "methods.json").unlink()
    record = Trained(move=LinearProbe(), processes=2, threads=1, metric="accuracy", quality=exact(1.0, "accuracy"),
                     seconds=1.0, model="model")
    (beside / "trained.json").write_text(record.to_json())
    found = evaluate(trained, other=other, against=(beside,))
    assert found.artifact == "linear_probe > torch"
    assert any("hands over weights and no artifact" in note for note in found.notes)
    assert found.forgotten is not None
    assert [m.name for m in found.forgotten.models] == ["artifact", "b"]
    for model in found.forgotten.models:
        assert model.change.value == 0
        assert not model.forgets
        assert model.neighbours.value == 1.0
    assert "artifact has forgotten nothing" in found.verdict
    assert "rows do not tell b and artifact apart" in found.verdict
    assert not found.forgotten.ordered
    weights = next(m for m in found.models if m.name == "weights")
    assert weights.change is not None
    assert weights.change.value == 0


def test_weights_are_found_in_the_store_by_the_moves_that_made_them(trained: Path) -> None:
    with prepared(asked(trained), trained, lambda event: None) as (bench, _):
        found = subject.weights((LinearProbe(),), bench)
        assert found is not None
        assert (found / "model.safetensors").exists()
        assert subject.weights((LinearProbe(max_length=9),), bench) is None
        assert subject.weights((), bench) is None


def test_a_run_of_another_base_model_is_not_put_beside_this_one(good: Path, trained: Path) -> None:
    with pytest.raises(RunError, match="began from another model"):
        evaluate(trained, other=trained.parents[1] / "rows.jsonl", against=(good,))

"""The verb's job: a run's two sides, an artifact, a spec; and the profiles that a search leaves without being asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plimsoll.bench.profile import Effort
from plimsoll.core.errors import ChildError, DataError, RunError, UserError
from plimsoll.core.profile import Profile
from plimsoll.core.spec import Spec
from plimsoll.search import sides
from plimsoll.search.dossier import gathered
from plimsoll.search.profile import profile
from plimsoll.search.tune import tune

Tables = dict[str, Any]
FILES = {f"profile-{who}{ending}" for who in ("baseline", "chosen") for ending in (".json", ".trace.json")}


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """The run, tuned once; tests get copies with their store beside them."""
    return {}


@pytest.fixture
def tables(null_folder: Path, null_tables: Tables) -> Tables:
    """The null spec with a fifth of its test rows, and its latency split."""
    rows = (null_folder / "test.jsonl").read_text().splitlines(keepends=True)
    (null_folder / "test.jsonl").write_text("".join(rows[:180]))
    null_tables["budget"] = {"min_speedup": 2.0, "split": {"preprocess": 0.3, "model": 0.5}}
    return null_tables


@pytest.fixture
def ended(null_folder: Path, tables: Tables, made: dict[str, Path]) -> Path:
    """A finished run."""
    out = null_folder / "runs" / "a"
    if "run" in made:
        shutil.copytree(made["run"], out.parent)
    else:
        tune(Spec.parse(tables), out)
        made["run"] = shutil.copytree(out.parent, null_folder / "kept")
    return out


def test_a_search_leaves_a_profile_and_a_trace_of_both_sides(ended: Path) -> None:
    assert {p.name for p in ended.glob("profile-*")} == FILES
    found = gathered(ended).profiles
    assert found["baseline"].artifact == "null delay_ms=1.5"
    assert found["chosen"].artifact == "null wrong"
    assert [a.name for a in found["chosen"].budget] == ["preprocess", "model"]
    assert found["chosen"].machine == gathered(ended).decision.machine["digest"]
    log = [json.loads(line) for line in (ended / "log.jsonl").read_text().splitlines()]
    assert [e["note"] for e in log if e["stage"] == "profile"] == ["baseline: null delay_ms=1.5", "chosen: null wrong"]


def test_a_profile_that_breaks_loses_no_search(
    null_folder: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> Profile:
        raise ChildError("the process was killed by SIGKILL")

    monkeypatch.setattr(sides, "measure", broken)
    out = null_folder / "runs" / "b"
    assert tune(Spec.parse(tables), out).verdict == "met"
    assert gathered(out).profiles == {}
    assert "no profile of the chosen: the process was killed by SIGKILL" in (out / "log.jsonl").read_text()


def test_a_run_is_profiled_again_on_demand_and_elsewhere_if_asked(ended: Path, tmp_path: Path) -> None:
    before = (ended / "profile-chosen.json").read_text()
    found = profile(ended, out=tmp_path / "out")
    assert list(found.profiles) == ["baseline", "chosen"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    assert Profile.from_file(tmp_path / "out" / "profile-chosen.json") == found.profiles["chosen"]
    assert (ended / "profile-chosen.json").read_text() == before
    assert profile(ended).folder == ended
    assert (ended / "profile-chosen.json").read_text() != before


def test_other_rows_can_be_asked(ended: Path, tmp_path: Path) -> None:
    rows = tmp_path / "long.jsonl"
    rows.write_text("".join(json.dumps({"text": "w1 " * 9 + "music", "label": "music"}) + "\n" for _ in range(3)))
    assert profile(ended, rows=rows, out=tmp_path / "out").profiles["chosen"].tokens["p50"] == 10
    with pytest.raises(DataError, match=r"none\.jsonl does not exist"):
        profile(ended, rows=tmp_path / "none.jsonl")


def test_an_artifact_alone_is_profiled_over_its_task_s_test_rows(
    ended: Path, null_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(null_folder)
    found = profile(ended / "artifact")
    assert list(found.profiles) == ["chosen"]
    assert found.folder == Path("runs/artifact-profile")
    assert (null_folder / "runs" / "artifact-profile" / "profile-chosen.json").exists()
    assert found.profiles["chosen"].budget == ()
    record = json.loads((ended / "artifact" / "artifact.json").read_text())
    record["task"]["test"] = None
    (ended / "artifact" / "artifact.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="names no test rows"):
        profile(ended / "artifact")


def test_a_spec_stands_for_its_run(
    null_folder: Path, ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(null_folder)
    spec = null_folder / "a.toml"
    spec.write_text(f"""
[task]
kind = "text-classification"
train = "train.jsonl"
test = "test.jsonl"
[model]
name = "{null_folder / "model"}"
[budget]
min_speedup = 2.0
split = {{preprocess = 0.3, model = 0.5}}
[target]
threads = 1
runtimes = ["null"]
baseline = {{runtime = "null", delay_ms = 1.5}}
[search]
moves = []
""")
    with pytest.raises(RunError, match="is of another spec"):  # it was made for rows that stood elsewhere
        profile(spec)
    shutil.rmtree(ended)
    tune(Spec.read(spec), Path("runs/a"))
    assert profile(spec).folder == Path("runs/a")
    with pytest.raises(RunError, match="has no run in runs/b") as e:
        profile(spec.rename(null_folder / "b.toml"))
    assert "plimsoll tune" in e.value.hint


def test_what_is_no_run_and_no_artifact_is_refused(ended: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="neither a run nor an artifact"):
        profile(tmp_path / "nowhere")
    (ended / "decision.json").unlink()
    with pytest.raises(RunError, match="has not come to an end"):
        profile(ended)


def test_a_real_artifact_gets_its_effort_and_a_fake_a_moment(ended: Path) -> None:
    assert gathered(ended).profiles["chosen"].requests == sides._FAKE.most < Effort().least

"""compare and track as a person meets them: what they print, what they write, and what they exit with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plimsoll import cli
from plimsoll.core.spec import Spec
from plimsoll.search.tune import tune

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def made() -> list[Path]:
    """The runs folder of a search, once there is one; tests get copies."""
    return []


@pytest.fixture
def run(null_folder: Path, null_tables: dict[str, Any], made: list[Path], tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(null_folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    rows = (null_folder / "test.jsonl").read_text().splitlines(keepends=True)
    (null_folder / "test.jsonl").write_text("".join(rows[:300]))
    if made:
        shutil.copytree(made[0], "runs")
    else:
        tune(Spec.parse(null_tables), Path("runs/one"))
        made.append(Path(shutil.copytree("runs", tmp_path_factory.mktemp("made") / "runs")))
    return Path("runs/one")


def test_two_runs_side_by_side_on_the_terminal_and_on_a_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(run, "runs/two")) / "decision.json"
    record = json.loads(other.read_text())
    record["spec"]["budget"]["min_speedup"] = 3.0
    other.write_text(json.dumps(record))
    assert cli.run(["compare", "runs/one", "runs/two", "--out", "compare.md"]) == 0
    printed = capsys.readouterr().out
    for words in ("Both chose", "quality of the chosen", "paired", "budget.min_speedup", "compare.md"):
        assert words in printed
    assert "# one and two" in Path("compare.md").read_text()
    assert json.loads(Path("compare.json").read_text())["first"]["name"] == "one"


def test_a_run_is_logged_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["track", str(run), "--experiment", "mine"]) == 0
    first = capsys.readouterr().out
    assert "experiment mine: 7 runs added" in first
    assert "mlflow server --backend-store-uri sqlite:///" in first
    assert Path("runs/mlflow.db").exists()
    assert cli.run(["track", str(run), "--experiment", "mine"]) == 0
    assert "no run added" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "says"), [
    (["compare", "nowhere"], "SECOND"),
    (["compare", "runs/one", "nowhere"], "nowhere holds no finished search"),
    (["compare", "runs/one", "runs/one"], "the same run"),
    (["compare", "runs/one", "runs/copy", "--out", "x.json"], "names the page, which is Markdown"),
    (["track", "nowhere"], "nowhere holds no finished search"),
    (["track", "runs/one", "--store", "nostore://host/db"], "refuses"),
    (["track", "runs/one", "--stor", "x"], "--stor"),
])
def test_what_cannot_be_done_exits_with_two_and_a_sentence(
    arguments: list[str], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path("runs/copy")
    copy.mkdir()
    (copy / "decision.json").write_bytes((run / "decision.json").read_bytes())
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert not any(Path(name).exists() for name in ("x.json", "x.md", "mlflow.db", "mlruns"))

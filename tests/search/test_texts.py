"""The texts of a run are its test rows, also where these were cut from its train rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.artifact import Artifact, seal
from plimsoll.core.errors import RunError
from plimsoll.core.spec import Spec
from plimsoll.search import texts
from plimsoll.search.tune import prepared


def rows(file: Path) -> tuple[str, ...]:
    return tuple(json.loads(line)["text"] for line in file.read_text().splitlines())


def begun(folder: Path, tables: dict[str, Any]) -> Path:
    """Begin a run, which prepares its rows, and put an artifact into it that was made from nothing."""
    spec, run = Spec.parse(tables), folder / "runs" / "one"
    with prepared(spec, run, lambda event: None):
        (run / "artifact").mkdir()
        seal(run / "artifact", Artifact(runtime="null", task=spec.task, labels=("a",), max_length=9))  # type: ignore[arg-type]
    return run


@pytest.fixture
def run(null_folder: Path, null_tables: dict[str, Any]) -> Path:
    """A run whose spec names no test rows."""
    del null_tables["task"]["test"]
    return begun(null_folder, null_tables)


def test_they_are_those_that_the_run_cut_from_its_train_rows(run: Path) -> None:
    found = texts.of(run)
    (kept,) = (run.parent / ".store" / "data").iterdir()
    assert found == rows(kept / "test.jsonl")
    assert not set(found) & set(rows(kept / "train.jsonl"))


def test_without_the_store_they_are_gone_and_that_is_said(run: Path) -> None:
    shutil.rmtree(run.parent / ".store")
    for folder in (run, run / "artifact"):
        with pytest.raises(RunError, match="were cut from its train rows") as refused:
            texts.of(folder)
        assert "jsonl" in refused.value.hint


def test_an_artifact_is_asked_what_its_task_names(null_folder: Path, null_tables: dict[str, Any]) -> None:
    run = begun(null_folder, null_tables)
    shutil.rmtree(run.parent / ".store")
    for folder in (run, run / "artifact"):
        assert texts.of(folder) == rows(null_folder / "test.jsonl")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="neither a run nor an artifact"):
        texts.of(tmp_path)

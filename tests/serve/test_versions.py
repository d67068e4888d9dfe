"""What serves is a verified copy: nothing that happens to the run folder later can touch it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from plimsoll.core.errors import RunError
from plimsoll.serve import versions
from plimsoll.testing.server import write_artifact


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "run" / "artifact")
    return tmp_path / "run"


def test_a_copy_outlives_its_run(run: Path) -> None:
    with versions.shelf() as shelf:
        version = versions.take(run, shelf)
        assert version.name == versions.offered(run)
        shutil.rmtree(run)
        assert (version.folder / "tokenizer.json").exists()
        assert os.stat(shelf).st_mode & 0o077 == 0
        version.remove()
        assert list(shelf.iterdir()) == []
    assert not shelf.exists()


def test_another_file_is_another_version(run: Path) -> None:
    before = versions.offered(run)
    write_artifact(run / "artifact", delay_ms=0.07)
    assert versions.offered(run) != before


@pytest.mark.parametrize("damage", ["changed", "missing", "outside"])
def test_what_is_not_whole_is_refused_and_leaves_nothing(run: Path, damage: str) -> None:
    folder = run / "artifact"
    if damage == "changed":
        (folder / "null.json").write_text("{}")
    elif damage == "missing":
        (folder / "null.json").unlink()
    else:
        (run / "secret").write_text("secret")
        record = json.loads((folder / "artifact.json").read_text())
        record["files"]["../secret"] = "0" * 64
        (folder / "artifact.json").write_text(json.dumps(record))
    with versions.shelf() as shelf:
        with pytest.raises(RunError):
            versions.take(run, shelf)
        assert list(shelf.iterdir()) == []


def test_the_shelf_of_a_dead_server_is_cleared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left, ours = tmp_path / f"plimsoll-serve-{int(gone.stdout)}-abc", tmp_path / f"plimsoll-serve-{os.getpid()}-abc"
    left.mkdir()
    ours.mkdir()
    with versions.shelf():
        assert not left.exists()
        assert ours.exists()

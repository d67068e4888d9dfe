"""The store keeps whole entries or nothing."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from plimsoll.core.errors import StoreError
from plimsoll.core.store import Store, write_atomic


def test_a_thing_is_made_once(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def make(out: Path) -> None:
        calls.append(1)
        (out / "x").write_text("hello")

    first, second = (store.once("thing", {"a": 1}, make) for _ in range(2))
    assert first == second
    assert (first / "x").read_text() == "hello"
    assert len(calls) == 1
    assert store.once("thing", {"a": 2}, make) != first


def test_an_entry_made_by_copying_another_is_whole(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    first = store.once("thing", {"a": 1}, lambda out: (out / "x").write_text("hello") and None)

    def copied(out: Path) -> None:
        calls.append(1)
        shutil.copytree(first, out, dirs_exist_ok=True)
        (out / "y").write_text("a file more, so that the record is a longer one")

    assert store.once("copy", {"a": 1}, copied) == store.once("copy", {"a": 1}, copied)
    assert len(calls) == 1


def test_what_raises_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(out: Path) -> None:
        (out / "half").write_text("...")
        raise ValueError("broke")

    with pytest.raises(ValueError, match="broke"):
        store.once("thing", {"a": 1}, make)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_entry_with_a_short_file_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.once("thing", {"a": 1}, lambda out: (out / "x").write_text("whole") and None)
    (folder / "x").write_text("who")
    again = store.once("thing", {"a": 1}, lambda out: (out / "x").write_text("whole") and None)
    assert (again / "x").read_text() == "whole"


def _make_slowly(root: Path, started: Path) -> None:
    def make(out: Path) -> None:
        (out / "x").write_text("half")
        started.touch()
        time.sleep(60)

    Store(root).once("thing", {"a": 1}, make)


def test_a_killed_writer_leaves_no_entry_and_its_rest_is_swept(tmp_path: Path) -> None:
    started = tmp_path / "started"
    process = multiprocessing.get_context("spawn").Process(target=_make_slowly, args=(tmp_path / "store", started))
    process.start()
    while not started.exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list((tmp_path / "store").rglob("half")) == []
    assert len(list((tmp_path / "store" / ".tmp").iterdir())) == 1
    folder = Store(tmp_path / "store").once("thing", {"a": 1}, lambda out: (out / "x").write_text("whole") and None)
    assert (folder / "x").read_text() == "whole"
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []


def test_two_writers_of_one_entry_agree(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(out: Path) -> None:
        (out / "x").write_text("same")
        if not (tmp_path / "thing").exists():  # another process is quicker
            store.once("thing", {"a": 1}, lambda other: (other / "x").write_text("same") and None)

    assert (store.once("thing", {"a": 1}, make) / "x").read_text() == "same"


def _full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_and_keeps_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "r.json", "old")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(StoreError, match="full") as e:
        write_atomic(tmp_path / "r.json", "new")
    assert "finished work is kept" in e.value.hint
    assert e.value.exit_code == 2
    assert (tmp_path / "r.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    with pytest.raises(StoreError, match="full"):
        Store(tmp_path / "store").once("thing", {}, lambda out: (out / "x").write_text("x") and None)

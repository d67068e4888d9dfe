"""A key is shown once and kept as a hash; who has none, or too much to ask, is turned away."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from plimsoll.core.errors import UserError
from plimsoll.serve.keys import Caller, Key, Keys, make, shared_out


def test_a_key_opens_and_is_not_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    first, second = make(file, "web"), make(file, "batch", 50.0)
    assert first not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = Keys.read(file)
    web, batch = keys.caller(first.encode()), keys.caller(second.encode())
    assert web is not None
    assert batch is not None
    assert (web.key.name, batch.key.name, batch.key.rows_per_s) == ("web", "batch", 50.0)
    for wrong in (b"", first[:-1].encode(), first.encode() + b"x", b"\xff\x00"):
        assert keys.caller(wrong) is None


def test_a_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    caller = Caller(Key(name="n", sha256="0" * 64, rows_per_s=10.0))
    now = caller.filled
    assert caller.wait_s(20, now) == 0
    assert caller.wait_s(5, now) == pytest.approx(0.5)
    assert caller.wait_s(5, now + 0.4) == pytest.approx(0.1)  # what was refused took nothing
    assert caller.wait_s(5, now + 0.5) == 0
    caller.give_back(5)
    assert caller.wait_s(5, now + 0.5) == 0
    caller.give_back(10**6)
    assert caller.level == caller.burst
    assert caller.wait_s(21, now + 100) == float("inf")
    assert Caller(Key(name="n", sha256="0" * 64)).wait_s(10**6, now) == 0


def test_one_of_many_servers_takes_as_much_at_once_and_its_share_in_the_long_run(tmp_path: Path) -> None:
    make(tmp_path / "keys", "web", 50.0)
    make(tmp_path / "keys", "free")
    web, free = (Caller(Key.model_validate_json(line)) for line in shared_out(tmp_path / "keys", 10))
    now = web.filled
    assert web.wait_s(100, now) == 0  # what a single server takes in one request
    assert web.wait_s(101, now) == float("inf")
    assert web.wait_s(10, now) == pytest.approx(2.0)
    assert free.wait_s(10**6, now) == 0


def test_a_key_is_added_to_a_file_whose_last_line_has_no_end(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    first = make(file, "web")
    file.write_text(file.read_text().rstrip("\n"))
    second = make(file, "batch", 5.0)
    third = make(file, "more")
    keys = Keys.read(file)
    assert all(keys.caller(key.encode()) is not None for key in (first, second, third))
    assert file.read_text().count("\n") == 3


def test_files_that_are_none_are_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(UserError, match="cannot be read"):
        Keys.read(file)
    file.write_text("\n")
    with pytest.raises(UserError, match="holds no keys"):
        Keys.read(file)
    make(file, "web")
    file.write_text(file.read_text() + '{"name": "x", "sha256": "secret"}\n')
    with pytest.raises(UserError, match="line 2: not a key"):
        Keys.read(file)


@pytest.mark.parametrize(("name", "rate"), [("", None), ("a b", None), ("x" * 65, None), ("web", None), ("n", 0.0)])
def test_names_and_rates_that_are_none(name: str, rate: float | None, tmp_path: Path) -> None:
    make(tmp_path / "keys", "web")
    with pytest.raises(UserError):
        make(tmp_path / "keys", name, rate)

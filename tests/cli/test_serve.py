"""Keys are made, and what is asked wrongly of a server is said in a sentence with the exit code of a wrong call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import plimsoll.serve
from plimsoll import cli
from plimsoll.serve.keys import Keys


def test_a_key_is_printed_and_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.jsonl"
    assert cli.run(["key", "web", "--keys", str(file), "--rows-per-s", "20"]) == 0
    printed = capsys.readouterr().out.strip()
    caller = Keys.read(file).caller(printed.encode())
    assert caller is not None
    assert (caller.key.name, caller.key.rows_per_s) == ("web", 20)
    assert cli.run(["key", "web", "--keys", str(file)]) == 2
    assert "has a key web already" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "says"), [
    ([], "holds no artifact.json"),
    (["--host", "0.0.0.0"], "anybody could ask"),
    (["--port", "70000"], "port"),
    (["--agreement", "2"], "agreement"),
    (["--keys", "missing.jsonl"], "cannot be read"),
    (["--on", "rai"], 'did you mean "ray"'),
    (["--on", "ray", "--replicas", "two"], "no number of replicas"),
    (["--replicas", "2"], "for --on ray"),
    (["--certificate", "c.pem"], "certificate and its private key"),
    (["--certificate", "c.pem", "--private-key", "k.pem"], "cannot be used"),
])
def test_what_is_asked_wrongly_is_said(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ports = [] if "--port" in arguments else ["--port", "0"]
    assert cli.run(["serve", "runs/none", *ports, *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_without_ray_one_sentence_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "plimsoll.serve.on_ray", raising=False)
    monkeypatch.delitem(sys.modules, "plimsoll.serve.ray_actors", raising=False)
    monkeypatch.delattr(plimsoll.serve, "on_ray", raising=False)  # what another test imported
    assert cli.run(["serve", str(tmp_path), "--on", "ray"]) == 2
    assert "Ray Serve is not installed here" in capsys.readouterr().err


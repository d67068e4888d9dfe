"""plimsoll load as a person meets it: what it prints, what it writes, and what it exits with."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from plimsoll import cli
from plimsoll.core.spec import Spec
from plimsoll.core.traffic import TrafficReport
from plimsoll.search.tune import prepared


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys: ClassVar[list[str]] = []
    sent: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["texts"]
        self.sent.extend(texts)
        self.keys.append(self.headers.get("Authorization", ""))
        answer = json.dumps({"predictions": [{"label": "a"}] * len(texts), "version": "v"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """A service that answers whatever it is asked."""
    _Answers.keys.clear()
    _Answers.sent.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLIMSOLL_API_KEY", raising=False)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(9)))
    return tmp_path


SHORT = ["--seconds", "1", "--warm-up-s", "0.1", "--connections", "4"]


def test_a_load_is_printed_and_kept(here: Path, url: str, capsys: pytest.CaptureFixture[str],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIMSOLL_API_KEY", "open-sesame")
    code = cli.run(["load", url, "--texts", "texts.jsonl", "--rate", "50", *SHORT])
    printed = capsys.readouterr().out
    found = TrafficReport.from_file(Path("runs/load/load.json"))
    assert code == 3  # fifty requests say nothing of a p99
    assert found.load is not None
    assert found.load.accepted == found.load.requests
    assert "does not stand" in printed
    assert "samples" in printed
    assert "latency p99" in printed
    assert Path("runs/load/load.md").exists()
    assert set(_Answers.keys) == {"Bearer open-sesame"}
    assert not any("open-sesame" in said for said in (printed, *(f.read_text() for f in Path("runs/load").glob("*.*"))))


def test_the_test_rows_of_a_run_are_sent(
    here: Path, url: str, null_folder: Path, null_tables: dict[str, Any]
) -> None:
    rows = (null_folder / "test.jsonl").read_text().splitlines(keepends=True)
    (null_folder / "test.jsonl").write_text("".join(rows[:300]))
    with prepared(Spec.parse(null_tables), Path("runs/one"), lambda event: None):
        pass
    assert cli.run(["load", url, "--texts", "runs/one", "--scenario", "single-stream", *SHORT[:4]]) in (0, 3)
    assert set(_Answers.sent) <= {json.loads(row)["text"] for row in rows[:300]}
    assert len(set(_Answers.sent)) > 20


@pytest.mark.parametrize(("arguments", "says"), [
    (["load", "http://127.0.0.1:1", "--rate", "5"], "--texts"),
    (["load", "http://127.0.0.1:1", "--texts", "texts.jsonl", "--rate", "5"], "nothing listens"),
    (["load", "127.0.0.1:1", "--texts", "texts.jsonl", "--rate", "5"], "not the URL of a service"),
    (["load", "http://127.0.0.1:1", "--texts", "absent.jsonl", "--rate", "5"], "cannot read absent.jsonl"),
    (["load", "http://127.0.0.1:1", "--texts", ".", "--rate", "5"], "neither a run nor an artifact"),
    (["load", "http://127.0.0.1:1", "--texts", "texts.jsonl"], "how many requests a second"),
    (["load", "http://127.0.0.1:1", "--texts", "texts.jsonl", "--rate", "5", "--trace", "none.csv"], "none.csv"),
    (["load", "http://127.0.0.1:1", "--texts", "texts.jsonl", "--scenario", "servr"], "servr"),
    (["load", "http://127.0.0.1:1", "--texts", "texts.jsonl", "--rate", "5", "--key", "x"], "--key"),
    (["load", "http://127.0.0.1:1", "--texts", "texts.jsonl", "--rate", "5", "--key-file", "none"], "API key"),
])
def test_what_cannot_be_done_exits_with_two_and_a_sentence(
    arguments: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert not (here / "runs").exists()

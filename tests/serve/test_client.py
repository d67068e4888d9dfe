"""The client gives what the artifact gives, and comes back when it was told to."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import plimsoll
from plimsoll.core.errors import UserError
from plimsoll.serve.client import Client, Refused, answer
from plimsoll.testing.server import Running, settings_of

Script = list[tuple[int, dict[str, str], object]]


@contextmanager
def scripted(script: Script) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers as it is told, one line of the script after the other, and notes the headers it saw."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(dict(self.headers))
            status, headers, said = script.pop(0)
            body = json.dumps(said).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = headers.get("X-Hang-Up") == "yes"

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


GOOD = (200, {}, {"predictions": [{"label": "music", "score": 0.9}], "version": "v1"})


def test_it_answers_as_the_artifact_does(served: Running, artifact: Path) -> None:
    texts = ["w1 music", "light"]
    with plimsoll.Client(served.url) as client, plimsoll.load(artifact) as predictor:
        expected = [plimsoll.Prediction(p.label, round(p.score, 6)) for p in predictor.predict(texts)]
        assert client.predict(texts) == expected
        assert client.predict([]) == []
        assert client.ready()
        assert len(client.version) == 16
        with pytest.raises(Refused, match="a text is empty") as refused:
            client.predict([" "])
        assert (refused.value.status, refused.value.code) == (400, "bad_text")


def test_it_comes_back_when_it_was_told_to() -> None:
    busy = {"error": {"code": "overloaded", "message": "later"}}
    script: Script = [(429, {"Retry-After": "1", "Retry-After-Ms": "80"}, busy), (503, {"Retry-After-Ms": "40"}, busy),
                      GOOD]
    with scripted(script) as (url, seen), Client(url, "secret", deadline_ms=250) as client:
        began = time.monotonic()
        assert client.predict(["x"])[0].label == "music"
        assert 0.12 <= time.monotonic() - began < 0.8
        assert client.version == "v1"
    assert len(seen) == 3
    assert {(s["Authorization"], s["Plimsoll-Deadline-Ms"]) for s in seen} == {("Bearer secret", "250")}


def test_its_patience_ends_and_what_would_not_help_is_not_tried() -> None:
    busy = {"error": {"code": "overloaded", "message": "later"}}
    with scripted([(429, {"Retry-After": "60"}, busy)]) as (url, _), Client(url, patience_s=1.0) as client:
        with pytest.raises(Refused, match="later") as refused:
            client.predict(["x"])
        assert refused.value.retry_after_s == 60
    late = {"error": {"code": "deadline", "message": "too short"}}
    with scripted([(429, {"Retry-After-Ms": "1"}, late)]) as (url, _), Client(url) as client, pytest.raises(
            Refused, match="too short"):
        client.predict(["x"])


def test_what_the_worker_died_of_is_asked_once_more_and_not_again() -> None:
    died: Script = [(503, {"Retry-After-Ms": "1"}, {"error": {"code": "worker_died", "message": "it died"}})]
    starting: Script = [(503, {"Retry-After-Ms": "1"}, {"error": {"code": "unavailable", "message": "not yet"}})]
    script = [*died, *starting, *starting, *died, *died, *starting, *starting, GOOD]
    with scripted(script) as (url, seen), Client(url) as client:
        with pytest.raises(Refused, match="it died") as refused:
            client.predict(["x"])
        assert refused.value.code == "worker_died"
        assert len(seen) == 4
        assert client.predict(["x"])[0].label == "music"  # another call has its own try


def test_it_waits_longer_each_time_where_the_server_names_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    busy = {"error": {"code": "overloaded", "message": "later"}}
    past, nonsense = {"Retry-After": formatdate(0, usegmt=True)}, {"Retry-After": "Mon, 1 Jan 9999999999999 00:00:00"}
    headers: list[dict[str, str]] = [{}, past, nonsense, {"Retry-After-Ms": "30"}, {}, {}, {}, {}]
    script: Script = [(429, one, busy) for one in headers]
    with scripted([*script, GOOD]) as (url, seen), Client(url) as client:
        assert client.predict(["x"])[0].label == "music"
    assert len(seen) == 9
    for wait, least in zip(waits, (0.1, 0.2, 0.4, 0.03, 0.8, 1.6, 2.0, 2.0), strict=True):
        assert least <= wait <= 1.1 * least


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_a_time_to_come_back_may_be_a_date(zone: str) -> None:
    busy = {"error": {"code": "overloaded", "message": "later"}}
    date = formatdate(time.time() + 3600, usegmt=True).replace("GMT", zone)
    with scripted([(503, {"Retry-After": date}, busy)]) as (url, _), Client(url) as client:
        with pytest.raises(Refused, match="later") as refused:
            client.predict(["x"])
        assert refused.value.retry_after_s == pytest.approx(3600, abs=60)


def test_what_a_proxy_lost_is_asked_again_and_what_a_server_failed_at_is_not() -> None:
    with scripted([(500, {}, "the replica died"), (502, {}, None), GOOD]) as (url, seen), Client(url) as client:
        assert client.predict(["x"])[0].label == "music"
        assert len(seen) == 3
    fault = {"error": {"code": "internal", "message": "a fault"}}
    with scripted([(500, {}, fault)]) as (url, _), Client(url) as client, pytest.raises(Refused, match="a fault"):
        client.predict(["x"])


def test_a_connection_that_was_closed_meanwhile_is_made_again() -> None:
    with scripted([(200, {"X-Hang-Up": "yes"}, GOOD[2]), GOOD]) as (url, _), Client(url) as client:
        for _ in range(2):
            assert client.predict(["x"])[0].score == 0.9


@pytest.mark.parametrize("said", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{",
    b"no status\r\n\r\n",
])
def test_a_server_that_dies_in_the_middle_of_an_answer_is_none(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_in_part() -> None:
            for _ in range(2):
                with listener.accept()[0] as line:
                    line.recv(65536)
                    line.sendall(said)
                    line.shutdown(socket.SHUT_WR)
                    while line.recv(65536):  # what is left unread when a line is closed would reset it
                        pass

        thread = threading.Thread(target=answer_in_part, daemon=True)
        thread.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with pytest.raises(ConnectionError, match="before its answer was whole"):
                client.predict(["x"])
            assert not client.ready()  # on a connection of its own: the broken one was closed
        thread.join(10)
        assert not thread.is_alive()


def test_where_nobody_listens_is_an_error_and_not_ready() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
    with Client(url) as client:
        assert not client.ready()
        with pytest.raises(ConnectionRefusedError):
            client.predict(["x"])
    with pytest.raises(UserError, match="no address"):
        Client("localhost:8000")


def test_it_speaks_tls_with_whom_it_trusts(artifact: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    with Running(settings_of(artifact, certificate=certificate, private_key=key)) as running:
        assert running.url.startswith("https://")
        with Client(running.url, certificates=str(certificate)) as client:
            assert client.predict(["light"])[0].label == "light"
        with Client(running.url) as stranger, pytest.raises(ssl.SSLCertVerificationError):
            stranger.predict(["light"])


@pytest.mark.parametrize("value", [
    plimsoll.Prediction("a", 0.5), plimsoll.Labelling((plimsoll.Prediction("a", 0.5),)), plimsoll.Labelling(()),
    plimsoll.Tagging(("x", "y"), ("B-p", "O"), (plimsoll.Entity("p", "x", 0, 1, 0.5),)),
    plimsoll.Embedding((0.5, 1.0)), plimsoll.Similarity(0.25)])
def test_every_kind_of_answer_comes_back_as_it_was(value: plimsoll.Prediction) -> None:
    assert answer(json.loads(json.dumps(value.record()))) == value

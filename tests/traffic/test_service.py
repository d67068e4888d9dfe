"""A service is found by its URL, asked with its key, and tried before anything counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.errors import UserError
from plimsoll.traffic.bodies import body
from plimsoll.traffic.service import KEY_VARIABLE, Service, key_of

Fakes = Callable[..., Any]


@pytest.mark.parametrize(("url", "found"), [
    ("http://127.0.0.1:8000", ("127.0.0.1", 8000, False, "/predict")),
    ("https://models.example/", ("models.example", 443, True, "/predict")),
    ("http://[::1]:9/v1/answer", ("::1", 9, False, "/v1/answer")),
])
def test_a_url_says_where_and_what(url: str, found: tuple[object, ...]) -> None:
    service = Service.at(url)
    assert (service.host, service.port, service.tls, service.path) == found


@pytest.mark.parametrize("url", [
    "127.0.0.1:8000", "localhost", "", "ftp://localhost", "http://", "http://localhost:port", "http://localhost:99999",
    "http://me:secret@localhost", "http://localhost?x=1", "http://localhost/a b", "http://localhost/\r\nX: y",
])
def test_what_is_no_url_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(UserError) as refused:
        Service.at(url)
    assert refused.value.exit_code == 2
    assert refused.value.hint
    assert "secret" not in str(refused.value)


def test_a_key_comes_from_the_environment_or_a_file_and_is_sent_and_never_shown(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert key_of(None) == ""
    monkeypatch.setenv(KEY_VARIABLE, "from-environment")
    assert key_of(None) == "from-environment"
    (tmp_path / "key").write_text("from-file\n")
    assert key_of(tmp_path / "key") == "from-file"
    running = fake()
    service = Service.at(running.url, "from-file")
    service.try_out(body(["a"]), 1)
    assert running.headers[0]["authorization"] == "Bearer from-file"
    assert "from-file" not in repr(service)


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "schlüssel"])
def test_what_cannot_be_a_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(UserError) as refused:
        key_of(tmp_path / "key")
    assert not text or text not in str(refused.value)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read an API key"):
        key_of(tmp_path / "absent")


@pytest.mark.parametrize(("says", "words"), [
    ({"status": 401}, KEY_VARIABLE), ({"status": 404}, "has no /predict"), ({"status": 429}, "busy"),
    ({"status": 500}, "answers 500"), ({"predictions": 3}, "with 2 of them"),
    ({"raw": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"}, "predictions"),
    ({"raw": b"SSH-2.0\r\n\r\n"}, "does not answer"), ({"drop": True}, "does not answer"),
])
def test_one_request_is_tried_before_any_counts(fake: Fakes, says: dict[str, Any], words: str) -> None:
    service = Service.at(fake(**says).url)
    with pytest.raises(UserError, match=words) as refused:
        service.try_out(body(["a", "b"]), 2)
    assert refused.value.hint


def test_a_service_that_is_not_there_is_named(fake: Fakes) -> None:
    gone = fake()
    gone.stop()
    with pytest.raises(UserError, match="nothing listens") as refused:
        Service.at(gone.url).try_out(body(["a"]), 1)
    assert "plimsoll serve" in refused.value.hint


def test_metrics_tell_of_restarts_where_there_are_any(fake: Fakes) -> None:
    page = ('# HELP x y\nprocess_start_time_seconds 1.7e9\nworker_restarts_total{version="a"} 2\n'
            "requests_total 9\n")
    assert Service.at(fake(metrics=page).url).started() == {
        "process_start_time_seconds": 1.7e9, 'worker_restarts_total{version="a"}': 2.0}
    assert Service.at(fake().url).started() is None
    assert Service.at(fake(metrics="requests_total 9\n").url).started() is None

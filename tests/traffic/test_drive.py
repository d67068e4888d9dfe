"""Requests go out when they are due, wait for no answer, and every way to fail is written down as what it was."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plimsoll.core.errors import UserError
from plimsoll.traffic import book, drive, wire
from plimsoll.traffic import lines as lines_module
from plimsoll.traffic.bodies import bodies, requests
from plimsoll.traffic.book import Book, Outcomes
from plimsoll.traffic.lines import Lines, clock
from plimsoll.traffic.service import Service

TEXTS = tuple(f"text number {i}" for i in range(10))

Fakes = Callable[..., Any]


@contextmanager
def lines(url: str, count: int = 4, timeout_s: float = 5.0) -> Iterator[Lines]:
    opened = Lines(Service.at(url), count, timeout_s)
    opened.open()
    try:
        yield opened
    finally:
        opened.close()


def sent(url: str, rows: int = 1) -> tuple[bytes, ...]:
    return requests(Service.at(url), bodies(TEXTS, rows, 0), None)


def replayed(url: str, times: list[float], count: int = 4, timeout_s: float = 5.0, rows: int = 1) -> Outcomes:
    with lines(url, count, timeout_s) as opened:
        return drive.open_loop(opened, Book(1), sent(url, rows), np.array(times), clock() + 0.01)


def test_every_request_is_sent_once_in_order_and_answered(fake: Fakes) -> None:
    service = fake()
    run = replayed(service.url, [0.0, 0.01, 0.02, 0.03, 0.04])
    assert run.accepted.all()
    assert (run.sent >= run.due).all()
    assert (run.done > run.sent).all()
    assert sorted(b["texts"][0] for b in service.bodies) == sorted({b["texts"][0] for b in service.bodies})
    assert len(service.bodies) == 5
    assert len(run.kept) == 5
    assert [name for _, name in run.versions] == ["v1"]


def test_a_stall_is_charged_to_all_that_were_due_meanwhile(fake: Fakes) -> None:
    service = fake(lambda number, body: {"wait_s": 0.4 if number == 0 else 0.0})
    run = replayed(service.url, [0.0, 0.05, 0.1, 0.15], count=1)
    assert run.accepted.all()
    assert run.waited.tolist() == [False, True, True, True]
    # they were sent only after the stall, and answered at once: their latency still has all of it
    assert (run.latency_ms[1:] >= [340, 290, 240]).all()
    assert (run.sent[1:] >= 0.39).all()


def test_requests_do_not_wait_for_answers_while_there_are_connections(fake: Fakes) -> None:
    service = fake(wait_s=0.3)
    run = replayed(service.url, [0.0, 0.01, 0.02, 0.03])
    assert service.most_in_flight == 4
    assert not run.waited.any()


def test_an_answer_in_pieces_is_there_with_its_last(fake: Fakes) -> None:
    service = fake(pause_s=0.1)
    run = replayed(service.url, [0.0, 0.0])
    assert run.accepted.all()
    assert (run.latency_ms >= 100).all()


def test_what_reading_an_answer_takes_is_not_charged_to_the_service(fake: Fakes, monkeypatch: pytest.MonkeyPatch
                                                                    ) -> None:
    begun: list[float] = []

    def take(data: bytes) -> wire.Answer | None:
        begun.append(clock())
        return wire.take(data)

    monkeypatch.setattr(lines_module, "take", take)
    written, service = Book(), fake()
    with lines(service.url, 1) as opened:
        drive.open_loop(opened, written, sent(service.url), np.array([0.0]), clock())
    assert written.done[0] <= begun[-1]


def test_a_second_answer_to_one_request_is_not_taken_for_that_to_the_next(fake: Fakes) -> None:
    twice = b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"version": "v1"}' * 2
    service = fake(lambda number, body: {"raw": twice} if number == 0 else {"version": "v2"})
    run = replayed(service.url, [0.0, 0.05], count=1)
    assert run.status.tolist() == [200, 200]
    assert [name for _, name in run.versions] == ["v1", "v2"]


@pytest.mark.skipif(not drive._SLACK.exists(), reason="Linux alone says how late it may be")
def test_the_system_is_told_to_be_on_time_for_as_long_as_a_schedule_runs(fake: Fakes) -> None:
    before, seen = drive._SLACK.read_text(), list[str]()

    def look(book: Book, now: float) -> bool:
        seen.append(drive._SLACK.read_text())
        return False

    service = fake()
    with lines(service.url) as opened:
        drive.open_loop(opened, Book(), sent(service.url), np.array([0.0, 0.3]), clock(), look)
    assert {text.strip() for text in seen} == {"1"}
    assert drive._SLACK.read_text() == before


@pytest.mark.parametrize(("says", "status"), [
    ({"drop": True}, book.CLOSED), ({"raw": b"SSH-2.0-x\r\n"}, book.GARBLED), ({"status": 503}, 503),
    ({"status": 429}, 429),
])
def test_one_bad_answer_is_written_down_and_the_others_go_on(fake: Fakes, says: dict[str, Any], status: int) -> None:
    service = fake(lambda number, body: says if number == 1 else {})
    run = replayed(service.url, [0.0, 0.05, 0.1, 0.15], count=1)
    assert run.status.tolist() == [200, status, 200, 200]
    assert np.isfinite(run.done).all()


def test_what_never_answers_is_given_up_and_so_is_what_waits_behind_it(fake: Fakes) -> None:
    service = fake(lambda number, body: {"wait_s": 30.0} if number == 0 else {})
    run = replayed(service.url, [0.0, 0.01], count=1, timeout_s=0.3)
    assert run.status[0] == book.TIMEOUT
    assert run.status[1] in (book.TIMEOUT, 200)
    assert run.latency_ms[0] >= 300


def test_a_service_that_goes_away_fails_requests_at_once(fake: Fakes) -> None:
    service = fake()
    with lines(service.url) as opened:
        first = drive.open_loop(opened, Book(), sent(service.url), np.array([0.0]), clock())
        service.stop()
        run = drive.open_loop(opened, Book(), sent(service.url), np.arange(20) * 0.002, clock() + 0.05)
    assert first.accepted.all()
    assert set(run.status.tolist()) <= {book.CLOSED, book.UNREACHABLE}
    assert run.status[-1] == book.UNREACHABLE


def test_a_service_that_comes_back_is_asked_again(fake: Fakes) -> None:
    service = fake(lambda number, body: {"drop": number % 2 == 0})
    run = replayed(service.url, [i * 0.03 for i in range(10)], count=1)
    assert run.status.tolist() == [book.CLOSED, 200] * 5


@pytest.mark.parametrize("says", [{"chunked": True}, {"close": True}])
def test_chunks_and_closed_connections_are_ordinary(fake: Fakes, says: dict[str, Any]) -> None:
    service = fake(**says)
    assert replayed(service.url, [i * 0.01 for i in range(8)], count=2).accepted.all()


def test_a_request_larger_than_what_the_kernel_takes_at_once_arrives_whole(fake: Fakes) -> None:
    service = fake()
    large = requests(Service.at(service.url), bodies(["x" * 1000] * 10, 8000, 0)[:1], None)
    assert len(large[0]) > 8_000_000
    with lines(service.url, 1) as opened:
        run = drive.open_loop(opened, Book(), large, np.array([0.0]), clock())
    assert run.accepted.all()
    assert len(service.bodies[0]["texts"]) == 8000


def test_a_look_ends_a_run_and_what_was_not_sent_is_not_counted(fake: Fakes) -> None:
    service = fake()
    with lines(service.url) as opened:
        run = drive.open_loop(opened, Book(), sent(service.url), np.arange(400) * 0.01, clock(),
                              lambda book, now: sum(s == 200 for s in book.status) >= 20)
    counted = run.between(0.0, 100.0)
    assert 20 <= counted.due.size < 400
    assert counted.accepted.all()
    assert len(service.bodies) == counted.due.size


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_closed_loop_keeps_so_many_in_flight_and_no_more(fake: Fakes, in_flight: int) -> None:
    service = fake(wait_s=0.01)
    with lines(service.url, in_flight) as opened:
        run = drive.closed_loop(opened, Book(), sent(service.url), in_flight, 0.4)
    assert service.most_in_flight == in_flight
    assert run.accepted.all()
    assert run.due.size > 2 * in_flight
    assert (run.due < 0.4).all()


def test_a_closed_loop_does_not_storm_a_service_that_fails_at_once(fake: Fakes) -> None:
    service = fake(drop=True)
    with lines(service.url, 2) as opened:
        run = drive.closed_loop(opened, Book(), sent(service.url), 2, 0.4)
    assert (run.status < 0).all()
    assert 2 <= run.due.size <= 2 * 0.4 / 0.01 + 4


def test_a_service_behind_tls_is_asked_through_it(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=fake", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    service = fake(lambda number, body: {"close": number % 3 == 0}, tls=context)
    with pytest.raises(UserError, match="certificate"):
        replayed(service.url, [0.0])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert replayed(service.url, [i * 0.05 for i in range(8)], count=1).accepted.all()

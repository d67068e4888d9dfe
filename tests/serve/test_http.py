"""What comes over the wire is answered in order, or refused at the border; nobody holds a connection by being slow."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plimsoll.serve.http import Connection, Front, Request
from plimsoll.testing.server import Reply, Running, everything, settings_of, until, write_artifact

BODY = b'{"texts": ["w1 music"]}'
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
LAST = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


@contextmanager
def connected(running: Running) -> Iterator[socket.socket]:
    with closing(socket.create_connection(running.address, timeout=5)) as s:
        yield s


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def test_a_connection_is_kept_and_its_requests_are_answered_in_order(served: Running) -> None:
    asked = [json.dumps({"texts": [f"w1 {word}"]}).encode() for word in ("music", "light", "weather")]
    stream = b"".join(HEAD + b"content-length: %d\r\n\r\n" % len(b) + b for b in asked[:2])
    stream += HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(asked[2]) + asked[2]
    answers = served.raw(stream)
    assert statuses(answers) == [200, 200, 200]
    assert [answers.index(word) for word in (b"music", b"light", b"weather")] == sorted(
        answers.index(word) for word in (b"music", b"light", b"weather"))


def test_many_requests_sent_at_once_are_all_answered(served: Running) -> None:
    assert statuses(served.raw(WHOLE * 50 + LAST)) == [200] * 51


def test_a_request_may_come_byte_by_byte(served: Running) -> None:
    with connected(served) as s:
        for byte in LAST:
            s.sendall(bytes([byte]))
        assert statuses(everything(s)) == [200]


def test_a_body_in_chunks_is_put_together(served: Running) -> None:
    half = len(BODY) // 2
    chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (half, BODY[:half], len(BODY) - half, BODY[half:])
    reply = Reply(served.raw(HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks))
    assert reply.json["predictions"][0]["label"] == "music"


def test_who_asks_first_is_told_to_go_on(served: Running) -> None:
    with connected(served) as s:
        s.sendall(HEAD + b"expect: 100-continue\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(BODY))
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(BODY)
        assert statuses(everything(s)) == [200]


def test_a_head_request_gets_the_headers_of_a_get(served: Running) -> None:
    reply = Reply(served.raw(b"HEAD /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


@pytest.mark.parametrize(("sent", "status"), [
    (b"nonsense\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
    (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcde", 400),
    (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
    (HEAD + b"content-length: 20001\r\n\r\n", 413),
    (HEAD + b"transfer-encoding: chunked\r\n\r\n4e21\r\n" + b"x" * 20_001, 413),
    (HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1;%s\r\nx\r\n" % (b"e" * 2000) * 600, 413),
    (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 70 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 5000 + b"\r\n\r\n", 431),
    (b"GET /" + b"a" * 9000, 431),
])
def test_what_is_wrong_on_the_wire_is_refused_and_the_connection_ends(
    served: Running, sent: bytes, status: int
) -> None:
    reply = Reply(served.raw(sent))
    assert reply.status == status
    assert reply.headers["connection"] == "close"
    assert reply.json["error"]["message"]


@pytest.mark.parametrize("sent", [
    b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\r\n",
    b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY,
])
@pytest.mark.parametrize("piece", [1, 100, 10_000])
def test_who_offers_another_protocol_is_answered_in_this_one(served: Running, sent: bytes, piece: int) -> None:
    with connected(served) as s:
        for at in range(0, len(sent), piece):
            s.sendall(sent[at : at + piece])
        reply = Reply(everything(s))
    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    assert served.do(lambda: served.server._front.bodies) == 0


def test_what_was_asked_before_something_wrong_is_answered(served: Running) -> None:
    assert statuses(served.raw(WHOLE * 3 + b"nonsense\r\n\r\n")) == [200] * 3


class Wire(asyncio.Transport):
    """A client that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answers += bytes(data).startswith(b"HTTP/1.1 200 ")

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


def test_of_a_flood_in_one_packet_one_request_is_answered_before_others_have_their_turn(served: Running) -> None:
    wire = Wire()

    connection = served.do(served.server._front.connection)

    def flood() -> int:
        connection.connection_made(wire)
        connection.data_received(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n" * 50)
        return wire.answers

    assert served.do(flood) == 1
    until(lambda: wire.answers == 50)
    served.do(lambda: connection.connection_lost(None))


def test_a_large_body_is_refused_before_it_is_sent_and_the_sender_sees_why(served: Running) -> None:
    with connected(served) as s:
        s.sendall(HEAD + b"content-length: 10000000\r\n\r\n")
        for _ in range(20):  # goes on sending, as clients do, and is not cut off before it has read the answer
            s.sendall(b"x" * 10_000)
        assert Reply(everything(s)).status == 413
    assert served.do(lambda: served.server._front.bodies) == 0


def test_a_client_that_dribbles_its_headers_or_its_body_is_cut_off(served: Running) -> None:
    began = time.monotonic()
    for start in (b"POST /pre", HEAD + b"content-length: 100\r\n\r\nabc"):
        with connected(served) as s:
            s.sendall(start)
            found = b""
            for _ in range(40):
                try:
                    s.sendall(b"a")
                    s.settimeout(0.05)
                    found += s.recv(1000)
                    if found:
                        break
                except TimeoutError:
                    continue
            assert Reply(found).status == 408
    assert time.monotonic() - began < 4


def test_nothing_is_left_of_clients_that_went_and_no_collector_is_needed_for_it(served: Running) -> None:
    def kept() -> int:
        # Not isinstance: that asks every object of every library for its __class__, and some answer with a warning.
        return sum(type(one) is Connection for one in gc.get_objects())

    gc.collect()
    before = kept()
    gc.disable()
    try:
        for _ in range(20):
            assert statuses(served.raw(LAST)) == [200]
        until(lambda: not served.do(lambda: len(served.server._front.connections)))
        assert kept() - before <= 1  # the loop may still hold the last
    finally:
        gc.enable()


def test_a_client_that_never_speaks_is_cut_off(served: Running) -> None:
    with connected(served) as s:
        assert everything(s) == b""
    assert served.do(lambda: len(served.server._front.connections)) == 0


def test_a_client_that_goes_away_takes_its_work_with_it(tmp_path: Path, artifact: Path) -> None:
    write_artifact(tmp_path / "slow" / "artifact", speed="slow", delay_ms=30)
    with Running(settings_of(tmp_path / "slow", deadline_ms=60_000, threads=1)) as running:
        engine = running.server.engine
        assert engine is not None
        with connected(running) as s:
            body = json.dumps({"texts": ["w1 music"] * 60}).encode()
            s.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            until(lambda: running.do(lambda: len(engine.queue)) > 20)
        until(lambda: running.do(lambda: len(engine.queue)) == 0)
        assert running.server.metrics.dropped == 1
        assert running.ask("POST", "/predict", {"texts": ["light"]}).status == 200


def test_more_clients_than_there_is_room_for_are_turned_away(artifact: Path) -> None:
    with Running(settings_of(artifact, connections=2)) as running, connected(running), connected(running):
        until(lambda: running.do(lambda: len(running.server._front.connections)) == 2)
        with connected(running) as third:
            assert everything(third) == b""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(min_size=1, max_size=300), at=st.integers(0, len(LAST)))
def test_bytes_that_make_no_sense_never_break_the_server(served: Running, junk: bytes, at: int) -> None:
    found = served.raw(LAST[:at] + junk + LAST[at:], wait_s=0.05)
    assert all(status in (200, 400, 404, 405, 408, 413, 431, 501) for status in statuses(found))
    assert statuses(served.raw(LAST)) == [200]



class Echo:
    """Answers with what it was asked, at once or in a later turn of the loop."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.later = False

    def headers(self, request: Request) -> None:
        if request.path == "/secret":
            request.respond(401, b"no")

    def request(self, request: Request) -> None:
        self.said.append((request.method, request.path, dict(request.headers), request.body, request.keep_alive))
        if self.later:
            asyncio.get_running_loop().call_soon(request.respond, 200, request.body)
        else:
            request.respond(200, request.body)

    def malformed(self, request: Request, status: int, code: str, message: str, retry_after_ms: float = 0) -> None:
        self.said.append((status, code))
        request.respond(status, b"")


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written, self.ended, self.busy = b"", False, False

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.ended

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.ended = True

    abort = write_eof = close

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def met(front: Front, app: Echo, parts: list[bytes]) -> tuple[list[Any], bytes, bool, bool]:
    """Return what an app was asked when a client sent this, what came back, whether that was its end, and busy then."""
    app.said, front.date = [], b""
    wire, connection = Written(), front.connection()

    async def send() -> None:
        connection.connection_made(wire)  # type: ignore[arg-type]
        for part in parts:
            if not wire.ended:
                connection.data_received(part)
            for _ in range(0 if app.later else 20):  # turns of requests that came together
                await asyncio.sleep(0)
        for _ in range(40):
            await asyncio.sleep(0)
        wire.busy = connection.busy()
        connection.connection_lost(None)

    asyncio.run(send())
    return app.said, wire.written, wire.ended, wire.busy


def message(head: bytes, body: bytes) -> bytes:
    return head.replace(b"N", b"%d" % len(body)) + body


messages = st.builds(
    message,
    st.sampled_from([
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: N\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHOST: x\r\nContent-Length:  N\r\n\r\n",
        b"\r\nPOST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: N\r\n\r\n",
        b"POST /secret HTTP/1.1\r\nhost: x\r\ncontent-length: N\r\n\r\n",
        b"POST /p HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: N\r\n\r\n",
        b"POST /p HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: N\r\n\r\n",
        b"POST /p HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: N\r\n\r\n",
        b"POST /p HTTP/1.0\r\ncontent-length: N\r\n\r\n",
        b"POST /p HTTP/1.1\r\ncontent-length: N\r\n\r\n",
        b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n",
        b"POST /p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"HEAD /v2 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nnothing\r\n\r\n",
    ]),
    st.sampled_from([b"", b"abcd", b"\r\n\r\n", b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n", b"x" * 60]),
)


@given(sent=st.lists(messages, min_size=1, max_size=5), cuts=st.lists(st.integers(0, 400), max_size=4),
       later=st.booleans())
def test_a_head_that_is_known_means_what_the_parser_makes_of_it(
    sent: list[bytes], cuts: list[int], later: bool
) -> None:
    app, front = Echo(), Front(settings_of(Path("run")), Echo())
    front.app = app
    for one in sent:
        met(front, app, [one])  # those that may be known are, from here on
    app.later = later
    stream = b"".join(sent)
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    for parts in (sent, [stream[a:b] for a, b in pairwise(places)]):
        known = met(front, app, parts)
        fresh_app = Echo()
        fresh_app.later = later
        fresh = Front(settings_of(Path("run")), fresh_app)
        fresh.learn = lambda data, head: None  # type: ignore[method-assign]
        assert known == met(fresh, fresh_app, parts)
        assert not (known[2] and known[3])  # what has ended holds up no shutdown
        assert (front.bodies, fresh.bodies) == (0, 0)


def test_known_heads_are_few_and_hold_no_secret() -> None:
    app = Echo()
    front = Front(settings_of(Path("run")), app)
    for name in (b"authorization", b"X-Api-Key", b"cookie", b"x-any", b"traceparent"):
        assert met(front, app, [b"GET / HTTP/1.1\r\nhost: x\r\n" + name + b": hunter2\r\n\r\n"])[0]
    assert met(front, app, [b"GET /?key=hunter2 HTTP/1.1\r\nhost: x\r\n\r\n"])[0]
    met(front, app, [b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"y" * 600 + b"\r\n\r\n"])
    assert not front.heads
    for i in range(2000):
        met(front, app, [b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % i])
    assert 0 < len(front.heads) <= 512


def test_what_follows_a_last_request_is_not_answered_though_its_head_is_known() -> None:
    app = Echo()
    front = Front(settings_of(Path("run")), app)
    plain, last = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    met(front, app, [plain])
    app.later = True
    said, written, ended, busy = met(front, app, [last, plain])
    assert [one[1] for one in said if one[0] == "GET"] == ["/b"]
    assert (statuses(written), ended, busy) == ([200], True, False)

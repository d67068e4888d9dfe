"""Answers are cut from what came wherever the network cut it, and what is no answer is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.traffic import wire

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 13\r\n\r\n{"a": [1, 2]}'
CHUNKED = b'HTTP/1.1 429 Busy\r\nTransfer-Encoding: chunked\r\n\r\n7;x=y\r\n{"a": [\r\n6\r\n1, 2]}\r\n0\r\n\r\n'
EARLY = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN


@given(whole=st.sampled_from([PLAIN, CHUNKED, EARLY]), share=st.floats(0, 1, exclude_max=True))
def test_a_part_is_not_yet_an_answer(whole: bytes, share: float) -> None:
    assert wire.take(whole[: int(len(whole) * share)]) is None


@pytest.mark.parametrize(("whole", "status"), [(PLAIN, 200), (CHUNKED, 429), (EARLY, 200)])
def test_a_whole_answer_is_taken_with_its_status_and_body(whole: bytes, status: int) -> None:
    answer = wire.take(whole)
    assert answer is not None
    assert (answer.status, answer.body, answer.closes) == (status, b'{"a": [1, 2]}', False)


def test_a_body_that_holds_an_empty_line_is_not_cut_there() -> None:
    answer = wire.take(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\na\r\n\r\nb")
    assert answer is not None
    assert answer.body == b"a\r\n\r\nb"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0",
                                  b"HTTP/1.0 200 OK\r\nContent-Length: 0"])
def test_a_service_that_closes_is_believed(head: bytes) -> None:
    answer = wire.take(head + b"\r\n\r\n")
    assert answer is not None
    assert answer.closes


@pytest.mark.parametrize("data", [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
])
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"answer|length|int"):
        wire.take(data)


def test_a_request_is_whole_http() -> None:
    made = wire.request("POST", "/predict", "localhost:80", "{ü}".encode(), {"Accept": "x"})
    head, _, body = made.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [b"POST /predict HTTP/1.1", b"Host: localhost:80", b"Content-Length: 4", b"Accept: x"]
    assert body == "{ü}".encode()

"""What is written of each request while they run is what the arrays hold afterwards."""

from __future__ import annotations

import math

import pytest

from plimsoll.traffic.book import TIMEOUT, Book, Outcomes
from plimsoll.traffic.wire import Answer


def body(version: str, score: float = 0.5) -> bytes:
    return b'{"predictions": [{"label": "a", "score": %.3f}], "version": "%s"}' % (score, version.encode())


def told(*bodies: bytes) -> list[tuple[float, str]]:
    """Return the versions that a book of these answers knows of, the first of them answered at 0 s."""
    book = Book()
    for i, said in enumerate(bodies):
        book.close(book.add(float(i)), 200, float(i), Answer(200, b"", said, False))
    return book.versions


@pytest.mark.parametrize(("bodies", "versions"), [
    ([body("v1"), body("v1", 0.25), body("v2"), body("v2"), body("v1")], [(0.0, "v1"), (2.0, "v2"), (4.0, "v1")]),
    ([body("v1"), body("v1").replace(b": ", b":"), body("v1")], [(0.0, "v1")]),
    ([body("v1"), body("v10"), body("v1")], [(0.0, "v1"), (1.0, "v10"), (2.0, "v1")]),
    ([b"{}", body("v1"), b"{}", body("v1")], [(1.0, "v1")]),
    ([body("v1"), b'{"version": "v2", "before": {"version": "v1"}}'], [(0.0, "v1"), (1.0, "v2")]),
])
def test_a_version_is_noted_when_it_is_another_than_the_one_before(
    bodies: list[bytes], versions: list[tuple[float, str]]
) -> None:
    assert told(*bodies) == versions


def test_requests_are_numbered_as_they_are_added() -> None:
    book = Book()
    book.expect([1.0, 2.0])
    assert [book.add(3.0), book.add(4.0)] == [2, 3]
    book.close(3, TIMEOUT, 5.0, None)
    run = Outcomes.of(book, 1.0)
    assert run.due.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert run.seen[2:].tolist() == [2.0, 3.0]
    assert run.done[3] == 4.0
    assert math.isnan(run.sent[2])
    assert run.status.tolist() == [0, 0, 0, TIMEOUT]
    assert not run.waited.any()

"""Texts become requests: each as often as the others, in new company, and what cannot be read is named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.errors import DataError, UserError
from plimsoll.core.spelling import PAIR
from plimsoll.traffic import bodies
from plimsoll.traffic.service import Service


@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True), rows=st.integers(1, 7))
def test_every_text_stands_in_as_many_requests_as_the_others(texts: list[str], rows: int) -> None:
    texts = [text.replace(PAIR, "") or "x" for text in texts]
    made = bodies.bodies(texts, rows, 0)
    sent = [json.loads(one)["texts"] for one in made]
    assert Counter(text for one in sent for text in one) == Counter({t: rows * n for t, n in Counter(texts).items()})
    assert all(len(one) == rows for one in sent)


def test_a_row_of_two_texts_is_sent_as_a_list() -> None:
    assert json.loads(bodies.body([f"a{PAIR}b"])) == {"texts": [["a", "b"]]}


def test_the_deadline_and_the_key_stand_in_every_request() -> None:
    made = bodies.requests(Service.at("http://localhost:1", "k"), [b"{}", b"{}"], 12.5)
    assert all(b"Plimsoll-Deadline-Ms: 12.5\r\n" in one and b"Authorization: Bearer k\r\n" in one for one in made)
    assert b"Deadline" not in bodies.requests(Service.at("http://localhost:1"), [b"{}"], None)[0]


def test_texts_are_read_from_jsonl(texts_file: Path) -> None:
    found = bodies.read(texts_file)
    assert len(found) == 20
    assert bodies.characters(found)["p50"] == len("text number 9") or bodies.characters(found)["p50"] >= 13


@pytest.mark.parametrize(("content", "says"), [
    ("", "has no texts"), ('{"text": "a"}\n{"label": "b"}\n', "texts.jsonl, line 2"), ("a\n", "line 1: not JSON"),
])
def test_what_is_no_text_is_named_with_its_file_and_line(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text(content)
    with pytest.raises(DataError, match=says):
        bodies.read(tmp_path / "texts.jsonl")


def test_a_missing_file_and_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        bodies.read(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="one text in a request"):
        bodies.bodies(["a"], 0, 0)

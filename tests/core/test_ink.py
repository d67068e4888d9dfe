"""A number in prose is written once, as the records have it, and can be followed back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.ink import NUMBER, Ink, Place, clipped

RECORDS: dict[str, Any] = {
    "decision.json": {
        "p95": {"value": 1.3269, "low": 1.2547, "high": 1.5089, "confidence": 0.95, "n": 2000, "unit": "ms"},
        "size": {"value": 23.54418, "low": 23.54418, "high": 23.54418, "confidence": 1.0, "n": 1, "unit": "MB"},
        "delta": {"value": -0.0004, "low": -0.0015, "high": 0.0007, "confidence": 0.95, "n": 5200, "unit": "accuracy"},
        "open": {"value": 1.0, "low": 0.0, "high": "Infinity", "confidence": 0.95, "n": 3, "unit": "ms"},
        "limit": 6.0, "rate": 0.0003, "few": [1, 2, 3],
        "why": "p95 1.28 ms, 0.96x (0.78 to 1.14) of native-3bda18cf on 3,080 rows",
        "recall": {"a/b~c 7": 0.5},
        "recipe": [{"runtime": "onnxruntime", "threads": 2, "precision": "int8_static"}],
    }
}
AT = Place("decision.json#")


@pytest.fixture
def ink() -> Ink:
    return Ink(RECORDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "decision.json").write_text(json.dumps(RECORDS["decision.json"]))
    return tmp_path


def test_each_kind_of_number_is_written_as_a_reader_wants_it_and_traced(ink: Ink, folder: Path, traced: Any) -> None:
    written = [
        ink.measured(AT / "p95"), ink.measured(AT / "size"), ink.points(AT / "delta"), ink.percent(AT / "delta"),
        ink.measured(AT / "open"), ink.number(AT / "limit", "x"), ink.whole(AT / "rate"), ink.quoted(AT / "why"),
        ink.count([AT / "few" / i for i in range(3)]), ink.difference(AT / "limit", AT / "p95" / "high", "ms"),
        ink.ratio(AT / "limit", AT / "p95" / "value"),
        ink.sum(AT / "rate", AT / "delta" / "low", "points", scale=100.0),
        ink.key(AT / "recall" / "a/b~c 7"), ink.percent(AT / "recall" / "a/b~c 7"), ink.recipe(AT / "recipe"),
    ]
    assert written == [
        "1.33 ms (1.25 to 1.51, n=2,000)", "23.5 MB", "-0.04 points (-0.15 to +0.07, n=5,200)",
        "-0.04% (-0.15% to 0.07%, n=5,200)", "1 ms (0 to unbounded, n=3)", "6x", "0.0003",
        RECORDS["decision.json"]["why"],
        "3", "4.49 ms", "4.52", "-0.12 points", "a/b~c 7", "50.00%", "onnxruntime int8_static"]
    assert traced(" ".join(written), ink.figures, folder) > 25


def test_a_number_that_no_record_has_is_found_out(ink: Ink, folder: Path, traced: Any) -> None:
    said = ink.measured(AT / "p95")
    with pytest.raises(AssertionError):
        traced(f"{said}, and 9.99 ms", ink.figures, folder)
    other = ink.figures[0].model_copy(update={"value": 7.0})
    with pytest.raises(AssertionError):
        traced(said, (*ink.figures, other), folder)


def test_names_hold_no_numbers() -> None:
    assert NUMBER.findall("p95 of int8 native-3bda18cf in MiniLM-L6-v2, fp32") == []
    assert NUMBER.findall("keep=3 -0.13 (1,234.5 to +2) 30%") == ["3", "-0.13", "1,234.5", "+2", "30"]


def test_what_is_not_there_is_none(ink: Ink) -> None:
    assert ink.at(AT / "few" / 9) is None
    assert ink.at(AT / "p95" / "value" / "more") is None
    assert ink.at(Place("trials/none.json#") / "id") is None


def test_a_long_text_is_cut_at_words_and_a_long_word_before_its_last_number() -> None:
    assert clipped("one two three", 2) == "one two…"
    assert clipped("x" * 58 + "12345", 9) == "x" * 58 + "…"
    assert clipped("short", 5) == "short"


def test_a_path_of_one_s_own_disk_is_named_by_its_end(ink: Ink) -> None:
    named = Ink({"decision.json": {"own": "/somebody/rows/test.jsonl", "hub": "owner/name"}})
    assert [named.file(AT / "own"), named.file(AT / "hub")] == ["test.jsonl", "owner/name"]

"""Rows with labels of every kind: their names, their numbers, and their way to a file and back."""

from __future__ import annotations

import json

import pytest

from plimsoll.data.rows import NO_TARGET, Label, Rows, from_json, targets, to_json

TAGGED = Rows(("a b", "c"), (("O", "B-x"), ("O",)), "test")
MANY = Rows(("a", "b", "c"), (frozenset({"red", "blue"}), frozenset({"red"}), frozenset()), "test")


def test_names_are_counted_by_the_rows_they_are_in() -> None:
    assert TAGGED.names() == {"O": 2, "B-x": 1}
    assert MANY.names() == {"red": 2, "blue": 1}
    assert Rows(("a", "b"), ("x", "x"), "test").names() == {"x": 2}


def test_a_row_counts_for_its_rarest_name() -> None:
    assert TAGGED.strata() == ("B-x", "O")
    assert MANY.strata() == ("blue", "red", "")
    assert Rows(("a", "b"), ("x", "y"), "test").strata() == ("x", "y")


def test_labels_as_numbers() -> None:
    assert targets(("b", "a"), ("a", "b")).tolist() == [1, 0]
    assert targets(TAGGED.labels, ("O", "B-x")).tolist() == [[0, 1], [0, NO_TARGET]]
    assert targets(MANY.labels, ("blue", "red")).tolist() == [[1, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("label", ["x", ("O", "B-x"), frozenset({"red", "blue"}), frozenset()])
def test_a_row_comes_back_from_json(label: Label) -> None:
    assert from_json(json.loads(json.dumps(to_json("a b", label)))) == ("a b", label)

"""Pairs made of labelled texts: as many alike as not, no text with itself, the same ones every time."""

from __future__ import annotations

import pytest

from plimsoll.core.errors import DataError
from plimsoll.data.pairs import derived
from plimsoll.data.rows import PAIR, Rows

ROWS = Rows((*(f"{label}{i}" for label in "abc" for i in range(4)), "lonely"), (*"aaaabbbbcccc", "d"), "test")


def test_each_text_has_a_partner_of_its_label_and_one_of_another() -> None:
    pairs = derived(ROWS)
    assert pairs == derived(ROWS)
    assert len(pairs) == 25
    for text, score in zip(pairs.texts, pairs.labels, strict=True):
        one, other = text.split(PAIR)
        assert one != other
        assert (one[0] == other[0]) == (score == 1.0)
    firsts = [text.split(PAIR)[0] for text in pairs.texts]
    assert sorted(set(firsts)) == sorted(ROWS.texts)
    assert firsts.count("lonely") == 1


def test_one_label_makes_no_pairs() -> None:
    with pytest.raises(DataError, match="fewer than two labels"):
        derived(Rows(("x", "y"), ("a", "a"), "test"))

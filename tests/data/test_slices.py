"""Slices: each row where its text belongs, and no slice that says nothing."""

from __future__ import annotations

import numpy as np

from plimsoll.data.slices import slices


def test_length_quarters_hold_every_row_once() -> None:
    lengths = np.arange(1, 101)
    found = slices(["x"] * 100, lengths)
    assert list(found) == ["up to 25 tokens", "26 to 50 tokens", "51 to 75 tokens", "over 75 tokens"]
    assert np.array_equal(np.sum(list(found.values()), axis=0), np.ones(100))


def test_rows_of_one_length_stay_together() -> None:
    found = slices(["x"] * 10, np.array([4] * 6 + [5] * 2 + [9] * 2))
    assert {name: int(rows.sum()) for name, rows in found.items()} == {
        "up to 4 tokens": 6, "5 tokens": 2, "over 5 tokens": 2}


def test_a_slice_of_no_row_or_of_all_rows_is_left_out() -> None:
    assert slices(["no digit", "none here"], np.array([3, 3])) == {}


def test_texts_are_sorted_by_what_they_look_like() -> None:
    texts = ["What is it", "it is", "is that so?", "ship it. now", "order 66", "é", "whatever you say"]
    found = slices(texts, np.full(7, 3))
    assert {name: np.flatnonzero(rows).tolist() for name, rows in found.items()} == {
        "with a digit": [4], "a question": [0, 2], "several sentences": [3], "not plain ASCII": [5]}

"""Answers of several tokens a row: what is real is kept, whatever is put beside it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core import ragged


def rows_of(lengths: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, 3)).astype(np.float32) for n in lengths]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_stacked_rows_come_back_flat_in_their_order(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    answers = ragged.stacked(rows)
    assert answers.shape == (len(rows), max(lengths), 3)
    np.testing.assert_array_equal(ragged.flat(answers, lengths), np.concatenate(rows))
    assert np.isnan(answers).sum() == 3 * sum(max(lengths) - n for n in lengths)


def test_batches_of_other_lengths_are_joined() -> None:
    rows = rows_of([2, 5, 1])
    parts = [ragged.stacked(rows[:1]), ragged.stacked(rows[1:])]
    np.testing.assert_array_equal(ragged.joined(parts), ragged.stacked(rows))


def test_padding_is_no_answer() -> None:
    answers = ragged.ended(np.ones((2, 3, 2), dtype=np.float32), [1, 3])
    assert np.isnan(answers[0, 1:]).all()
    assert not np.isnan(answers[0, :1]).any()
    assert not np.isnan(answers[1]).any()


def test_one_answer_a_row_is_left_as_it_is() -> None:
    whole = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert ragged.flat(whole, [5, 1, 2]) is whole
    assert ragged.ended(whole, [5, 1, 2]) is whole
    np.testing.assert_array_equal(ragged.joined([whole[:1], whole[1:]]), whole)
    np.testing.assert_array_equal(ragged.stacked(list(whole)), whole)


def test_words_take_the_answer_of_their_first_token_and_lost_ones_none() -> None:
    answers = ragged.stacked(rows_of([4, 2]))
    words = ragged.of_words(answers, [[1, 3], [-1, 1, -1]])
    assert words.shape == (2, 3, 3)
    np.testing.assert_array_equal(words[0, :2], answers[0, [1, 3]])
    np.testing.assert_array_equal(words[1, 1], answers[1, 1])
    assert np.isnan(words[[0, 1, 1], [2, 0, 2]]).all()

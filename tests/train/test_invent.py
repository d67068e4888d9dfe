"""Invented rows: made of training rows only, within the length, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.errors import DataError
from plimsoll.train import invent
from plimsoll.train.batches import Tokens

CLS, SEP = 1, 2


def tokens(rows: list[list[int]]) -> Tokens:
    whole = [[CLS, *row, SEP] for row in rows]
    return Tokens(np.array([i for row in whole for i in row]), np.cumsum([0, *map(len, whole)]), 0)


def as_rows(made: Tokens) -> list[list[int]]:
    return [made.ids[a:b].tolist() for a, b in zip(made.starts[:-1], made.starts[1:], strict=True)]


ROWS = st.lists(st.lists(st.integers(3, 19), min_size=1, max_size=8), min_size=1, max_size=6)


@given(rows=ROWS, copies=st.integers(0, 3), replace=st.floats(0, 0.99), leave_out=st.floats(0, 0.99),
       mix=st.floats(0, 1), seed=st.integers(0, 5))
def test_rows_are_whole_within_the_length_and_of_known_tokens(
        rows: list[list[int]], copies: int, replace: float, leave_out: float, mix: float, seed: int) -> None:
    table = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    train = tokens(rows)
    made = invent.rows(train, table, copies, replace, leave_out, mix, 6, seed)
    assert len(made) == copies * len(rows)
    for row in as_rows(made):
        assert row[0] == CLS
        assert row[-1] == SEP
        assert 3 <= len(row) <= 6
        assert set(row[1:-1]) <= {i for r in rows for i in r}
    again = invent.rows(train, table, copies, replace, leave_out, mix, 6, seed)
    assert np.array_equal(again.ids, made.ids)


def test_nothing_asked_for_is_the_rows_themselves() -> None:
    rows = [[5, 6, 7], [8]]
    made = invent.rows(tokens(rows), torch.eye(20), 1, 0.0, 0.0, 0.0, 9, 0)
    assert as_rows(made) == [[CLS, *row, SEP] for row in rows]


def test_tokens_are_replaced_by_those_nearest_to_them() -> None:
    table = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    table[20] = table[5] + 0.01
    rows = [[5] * 6, [20], *([i] for i in range(21, 40))]
    made = as_rows(invent.rows(tokens(rows), table, 200, 0.5, 0.0, 0.0, 9, 0))
    swapped = [i for row in made[::len(rows)] for i in row[1:-1] if i != 5]
    assert len(set(swapped)) == 8
    assert 20 in swapped


def test_unlabelled_text_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        invent.read(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="has 0 texts"):
        invent.read(tmp_path / "empty.txt")
    (tmp_path / "some.txt").write_text("one\n\n two \n")
    assert invent.read(tmp_path / "some.txt") == ["one", "two"]

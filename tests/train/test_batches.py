"""Batches: every row once an epoch, little padding, and the ids a tokenizer gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.testing.tiny import write_tiny_bert
from plimsoll.train.batches import Tokens, by_length, longest_input, shuffled, tokenize

lengths_of_rows = st.lists(st.integers(1, 60), min_size=1, max_size=300)


def _tokens(lengths: list[int]) -> Tokens:
    starts = np.cumsum([0, *lengths])
    return Tokens(np.arange(1, starts[-1] + 1), starts, pad_id=0)


@given(lengths_of_rows, st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = list(shuffled(np.array(lengths), batch_size, torch.Generator().manual_seed(seed)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(1 <= len(rows) <= batch_size for rows in batches)
    assert len(batches) == -(-len(lengths) // batch_size)


@given(lengths_of_rows, st.integers(1, 40))
def test_rows_by_length_are_every_row_once_and_ascend(lengths: list[int], batch_size: int) -> None:
    order = np.concatenate(list(by_length(np.array(lengths), batch_size)))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert np.all(np.diff(np.array(lengths)[order]) >= 0)


@given(lengths_of_rows)
def test_a_batch_holds_its_rows_and_pads_the_rest(lengths: list[int]) -> None:
    tokens = _tokens(lengths)
    rows = np.arange(len(lengths))[::-1].copy()
    batch = tokens.batch(rows)
    assert batch.input_ids.shape == (len(lengths), max(lengths))
    assert batch.attention_mask.sum(dim=1).tolist() == [lengths[r] for r in rows]
    for row, ids, mask in zip(rows, batch.input_ids, batch.attention_mask, strict=True):
        expected = tokens.ids[tokens.starts[row]:tokens.starts[row + 1]]
        assert ids[mask == 1].tolist() == expected.tolist()
        assert torch.all(ids[mask == 0] == 0)


@given(lengths_of_rows, st.data())
def test_a_subset_is_the_same_rows_renumbered(lengths: list[int], data: st.DataObject) -> None:
    tokens = _tokens(lengths)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=20)))
    assert torch.equal(tokens.subset(rows).batch(np.arange(len(rows))).input_ids, tokens.batch(rows).input_ids)


def test_bucketing_computes_few_tokens_that_are_padding() -> None:
    lengths = np.random.default_rng(0).geometric(1 / 16, size=8000)
    batches = list(shuffled(lengths, 32, torch.Generator().manual_seed(0)))
    assert sum(lengths[rows].max() * len(rows) for rows in batches) < 1.15 * lengths.sum()


def test_the_seed_decides_the_order_and_the_batches() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, size=500)
    first, same, other = (np.concatenate(list(shuffled(lengths, 8, torch.Generator().manual_seed(seed))))
                          for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_tokenizing_cuts_at_the_longest_input_and_keeps_the_last_token(tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path)
    tokens = tokenize(model, ["play the song", "a " * 100, "x"], max_length=8)
    assert tokens.lengths.tolist() == [5, 8, 3]
    starts, ends = tokens.starts[:-1], tokens.starts[1:] - 1
    assert len(set(tokens.ids[starts].tolist())) == 1
    assert len(set(tokens.ids[ends].tolist())) == 1
    assert tokenize(model, ["a " * 100]).lengths.tolist() == [64]  # what the model takes


@pytest.mark.parametrize(("config", "longest"), [
    ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
    ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
    ({"model_type": "roberta", "max_position_embeddings": 130, "pad_token_id": 1}, 128),
    ({"model_type": "bert", "max_position_embeddings": 8192}, 512),
    ({"model_type": "t5"}, 512),
])
def test_the_longest_input_is_what_the_positions_allow_and_at_most_512(config: dict[str, object], longest: int) -> None:
    assert longest_input(config) == longest


def test_words_are_where_their_first_tokens_are(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "tiny")
    # jazz takes four tokens, the second row's first word none
    texts = ["play jazz now", "\ufe0f song", "jazz jazz jazz jazz"]
    tokens = tokenize(folder, texts, max_length=10, words=True)
    assert tokens.words is not None
    rows = [tokens.words[a:b].tolist() for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)]
    assert rows == [[-1, 0, 1, -1, -1, -1, 2, -1], [-1, 1, -1], [-1, 0, -1, -1, -1, 1, -1, -1, -1, -1]]
    assert tokenize(folder, texts, max_length=10).words is None
    np.testing.assert_array_equal(tokens.ids, tokenize(folder, texts, max_length=10).ids)
    part = tokens.subset(np.array([2, 0]))
    assert part.words is not None
    assert part.words[part.starts[1]:].tolist() == rows[0]

    outputs = np.arange(3 * 10 * 2, dtype=np.float32).reshape(3, 10, 2)
    answers = tokens.answers(outputs)
    np.testing.assert_array_equal(answers[0], outputs[0, [1, 2, 6]])
    assert np.isnan(answers[1, [0, 2]]).all()
    np.testing.assert_array_equal(answers[1, 1], outputs[1, 1])
    of_tokens = tokens.of_tokens(np.array([[5, 6, 7, -100], [8, 9, -100, -100], [1, 2, 3, 4]]))
    assert of_tokens.tolist() == [-100, 5, 6, -100, -100, -100, 7, -100, -100, 9, -100,
                                  -100, 1, -100, -100, -100, 2, -100, -100, -100, -100]

"""The compact vocabulary: the same answers while it is in place, and every row back where it was afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder
from plimsoll.train.batches import Tokens, tokenize
from plimsoll.train.loop import predict
from plimsoll.train.vocabulary import compact_vocabulary


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return encoder.start(write_tiny_bert(tmp_path / "tiny"), TextClassification(train="rows"), 3).eval()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return tokenize(write_tiny_bert(tmp_path / "again"), [text for text, _ in TINY_ROWS])


def test_the_answers_are_the_same_with_the_small_table(model: Any, tokens: Tokens) -> None:
    expected = predict(model, tokens)
    with compact_vocabulary(model, (tokens,)) as (numbered,):
        assert model.encoder.get_input_embeddings().num_embeddings < 60
        np.testing.assert_array_equal(predict(model, numbered), expected)


def test_trained_rows_are_written_back_and_the_others_stay(model: Any, tokens: Tokens) -> None:
    before = model.encoder.get_input_embeddings().weight.detach().clone()
    with compact_vocabulary(model, (tokens,)), torch.no_grad():
        model.encoder.get_input_embeddings().weight += 1
    after = model.encoder.get_input_embeddings().weight
    seen = np.union1d(tokens.ids, [tokens.pad_id])
    unseen = np.setdiff1d(np.arange(len(before)), seen)
    assert torch.equal(after[seen], before[seen] + 1)
    assert torch.equal(after[unseen], before[unseen])


def test_padding_keeps_its_number(model: Any, tokens: Tokens) -> None:
    shifted = Tokens(tokens.ids + 1, tokens.starts, pad_id=1)  # as in RoBERTa, which tells padding by its id
    with compact_vocabulary(model, (shifted,)) as (numbered,):
        table = model.encoder.get_input_embeddings().weight
        batch = numbered.batch(np.arange(len(numbered)))
        assert torch.all(batch.input_ids[batch.attention_mask == 0] == 1)
    assert torch.equal(table[1], model.encoder.get_input_embeddings().weight[1])

"""The attention that trains faster computes the same, and the encoder gets its own back."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from plimsoll.train.attention import fastest_attention


@pytest.fixture
def encoder() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    return BertModel(config, add_pooling_layer=False).eval()


def answer(encoder: BertModel, length: int) -> torch.Tensor:
    ids = torch.arange(2 * length).reshape(2, length) % 50
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    with torch.no_grad():
        return encoder(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]


@pytest.mark.parametrize("length", [8, 300])
def test_answers_are_the_same_inside_and_outside(encoder: BertModel, length: int) -> None:
    before = answer(encoder, length)
    with fastest_attention(encoder, "cpu") as ready_for:
        ready_for(length)
        assert torch.allclose(answer(encoder, length), before, atol=1e-5)


def test_short_rows_leave_the_fused_kernel_and_long_ones_keep_it(encoder: BertModel) -> None:
    with fastest_attention(encoder, "cpu") as ready_for:
        ready_for(16)
        assert encoder.config._attn_implementation == "eager"
        ready_for(400)
        assert encoder.config._attn_implementation == "sdpa"
        ready_for(16)
    assert encoder.config._attn_implementation == "sdpa"


def test_a_gpu_keeps_its_own_kernel(encoder: BertModel) -> None:
    with fastest_attention(encoder, "cuda") as ready_for:
        ready_for(16)
        assert encoder.config._attn_implementation == "sdpa"

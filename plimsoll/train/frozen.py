"""The lowest layers frozen: what they give for each token of the rows is computed once; training starts above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.core.errors import Unsupported
from plimsoll.train import shape
from plimsoll.train.batches import Tokens, by_length

if TYPE_CHECKING:
    import torch

_LARGEST_MB = 4096
_ROWS = 64


@contextmanager
def below(model: torch.nn.Module, layers: int, splits: Sequence[Tokens], device: str) -> Iterator[tuple[Tokens, ...]]:
    """Freeze the embeddings and the lowest `layers` layers; yield the splits numbered for a table of what they give.

    Inside the block the model holds the layers above only, and reads a token as its place in the table. When it ends
    the frozen ones are back, as they were. Raises Unsupported when there are not so many layers, or the table would
    take more than 4 GB.
    """
    encoder: Any = model.encoder
    stack = shape.stack(encoder)
    whole, embeddings = stack.layer, encoder.embeddings
    if layers > len(whole):
        raise Unsupported(f"the model has {len(whole)} layers, so {layers} cannot be frozen",
                          f"set frozen_layers to at most {len(whole)}")
    needed = sum(len(tokens.ids) for tokens in splits) * encoder.config.hidden_size * 4 / 1e6
    if needed > _LARGEST_MB:
        raise Unsupported(f"what the frozen layers give would take {needed:,.0f} MB",
                          "set frozen_layers = 0, or give fewer or shorter rows")
    embeddings.requires_grad_(False)
    for layer in whole[:layers]:
        layer.requires_grad_(False)
    table = _states(encoder.to(device), stack, layers, splits, device)
    encoder.embeddings = _lookup(table, embeddings.word_embeddings)
    stack.layer = whole[layers:]
    counts = np.cumsum([1, *(len(tokens.ids) for tokens in splits)])
    try:
        yield tuple(replace(tokens, ids=np.arange(first, first + len(tokens.ids)), pad_id=0)
                    for first, tokens in zip(counts, splits, strict=False))
    finally:
        encoder.embeddings, stack.layer = embeddings, whole
        model.requires_grad_(True)


def _states(encoder: Any, stack: Any, layers: int, splits: Sequence[Tokens], device: str) -> torch.Tensor:
    """Return float32 [1 + tokens, hidden]: nothing for padding, then what the lowest layers give for each token."""
    import torch

    whole, training = stack.layer, encoder.training
    stack.layer = whole[:layers]
    encoder.eval()
    found = torch.zeros(1 + sum(len(tokens.ids) for tokens in splits), encoder.config.hidden_size, device=device)
    first = 1
    with torch.no_grad():
        for split in splits:
            tokens = replace(split, texts=1)
            for rows in by_length(tokens.lengths, _ROWS):
                batch = tokens.batch(rows, device)
                states = encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
                real = batch.attention_mask.bool()
                starts = torch.from_numpy(first + tokens.starts[rows]).to(device)
                places = starts[:, None] + torch.arange(real.shape[1], device=device)
                found[places[real]] = states[real].float()
            first += len(tokens.ids)
    stack.layer = whole
    encoder.train(training)
    return found


def _lookup(table: torch.Tensor, words: torch.nn.Embedding) -> torch.nn.Module:
    import torch

    class Lookup(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word_embeddings = words  # where encoders look for their table of words
            self.register_buffer("table", table, persistent=False)

        def forward(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
            return self.table[input_ids]  # type: ignore[index]

    return Lookup()

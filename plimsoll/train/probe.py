"""A model of any shape with random weights: how long it takes does not depend on what it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Task
from plimsoll.train import encoder, shape
from plimsoll.train.shape import LayerShape


def write(model: Path, task: Task, labels: Sequence[str], max_length: int, layers: Sequence[LayerShape],
          out: Path) -> None:
    """Write to `out` a fine-tuned-looking folder with the sizes of `model`, but with layers of the shapes given.

    Nothing is read of `model` but its config and tokenizer. Raises Unsupported for an encoder whose layers are not
    laid out like BERT's.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bare: Any = encoder.blank(model)
        stack = shape.stack(bare)
        if len(layers) > len(stack.layer):
            raise Unsupported(f"the model has {len(stack.layer)} layers, {len(layers)} were asked for",
                              "ask for no more layers than it has")
        stack.layer = stack.layer[:len(layers)]
        bare.config.num_hidden_layers = len(layers)
        shape.resize(bare, layers)
        record = encoder.ModelRecord(task=find.write(task), labels=tuple(labels), max_length=max_length)
        encoder.save(encoder.with_head(bare, task, len(labels)), record, model, out)


def whole(model: Path) -> tuple[LayerShape, ...]:
    """Return the shapes of the layers that a model folder's config gives it. Raises Unsupported, as `write` does."""
    return shape.shapes(encoder.blank(model))

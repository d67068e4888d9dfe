"""The shape of an encoder: what its operations and bytes follow from, without any of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from plimsoll.core.record import Record


class LayerShape(Record):
    """The width of one encoder layer's two modules; the hidden size between them is the model's own."""

    heads: NonNegativeInt
    """Attention heads; with 0 the module is gone and only its bias and norm stay."""
    neurons: NonNegativeInt
    """Feed-forward neurons; with 0 the module is gone and only its bias and norm stay."""
    pooled: bool = False
    """The layer asks for the mean of its input only, so it gives one vector a row in place of one a token."""


class ModelShape(Record):
    """A whole encoder with a head on it."""

    hidden: PositiveInt
    head_size: PositiveInt
    """Width of one attention head."""
    outputs: NonNegativeInt
    """Of the head's product; 0 where the head computes none."""
    layers: tuple[LayerShape, ...]


_NAMES = (
    ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"),
    ("dim", "n_heads", "n_layers", "hidden_dim"),  # DistilBERT's
)


def of_folder(model: Path) -> ModelShape | None:
    """Return the shape of a model folder from its config.json and its record of the head; None where they do not say.

    A model whose layers share their weights has no such shape: what is read once would be counted many times.
    """
    config, record = (_read(model / name) for name in ("config.json", "plimsoll_model.json"))
    names = next((n for n in _NAMES if all(isinstance(config.get(key), int) for key in n)), None)
    if names is None or not record or config.get("model_type") == "albert":
        return None
    hidden, heads, layers, neurons = (int(config[key]) for key in names)
    whole = LayerShape(heads=heads, neurons=neurons)
    kept = tuple(LayerShape.model_validate(layer) for layer in record.get("layers") or ())
    return ModelShape(hidden=hidden, head_size=hidden // heads, outputs=len(record.get("labels") or ()),
                      layers=kept or (whole,) * layers)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}

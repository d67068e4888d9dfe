"""The shape of an encoder: how many heads and neurons each layer has, and how to give a layer fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt

from plimsoll.core.errors import Unsupported
from plimsoll.core.record import Record

if TYPE_CHECKING:
    import torch


class LayerShape(Record):
    """The width of one encoder layer's two modules; the hidden size between them is the model's own."""

    heads: NonNegativeInt
    """Attention heads; with 0 the module is gone and only its bias and norm stay."""
    neurons: NonNegativeInt
    """Feed-forward neurons; with 0 the module is gone and only its bias and norm stay."""


def stack(encoder: Any) -> Any:
    """Return the module whose `layer` is the list of encoder layers. Raises Unsupported when there is none known."""
    from torch.nn import ModuleList

    for name in ("encoder", "transformer"):
        found = getattr(encoder, name, None)
        if isinstance(getattr(found, "layer", None), ModuleList):
            return found
    raise Unsupported(f"{type(encoder).__name__} keeps its layers where Plimsoll does not know them",
                      "use an encoder like BERT, MiniLM, RoBERTa, ELECTRA or DistilBERT, or leave this move out")


def shapes(encoder: Any) -> tuple[LayerShape, ...]:
    """Return the shape of each layer. Raises Unsupported for an encoder whose layers are not laid out like BERT's."""
    return tuple(_shape(layer) for layer in stack(encoder).layer)


def changed(encoder: Any) -> tuple[LayerShape, ...]:
    """Return the shapes when any layer's differs from what the encoder's config says, else nothing."""
    try:
        found = shapes(encoder)
    except Unsupported:  # what cannot be narrowed has not been
        return ()
    config = encoder.config
    whole = LayerShape(heads=config.num_attention_heads, neurons=config.intermediate_size)
    return () if all(shape == whole for shape in found) else found


def resize(encoder: Any, wanted: Sequence[LayerShape]) -> None:
    """Give each layer the modules of its wanted shape, in place, with weights that are still to be loaded."""
    for layer, shape in zip(stack(encoder).layer, wanted, strict=True):
        keep(layer, range(shape.heads), range(shape.neurons))


def keep(layer: Any, heads: Sequence[int], neurons: Sequence[int]) -> None:
    """Keep only these heads and neurons of a BERT layer, in place: the matrices get smaller, nothing is masked.

    heads, neurons: which ones, by their number in this layer. Raises Unsupported for a layer not laid out like BERT's.
    """
    import torch

    shape = _shape(layer)
    if shape.heads and not heads:
        layer.attention.output.dense = _bias(layer.attention.output.dense)
        layer.attention.self = _passing_on()
    elif shape.heads:
        attention = layer.attention.self
        size = attention.attention_head_size
        columns = (torch.tensor(list(heads))[:, None] * size + torch.arange(size)).flatten()
        for name in ("query", "key", "value"):
            setattr(attention, name, _linear(getattr(attention, name), rows=columns))
        layer.attention.output.dense = _linear(layer.attention.output.dense, columns=columns)
        attention.num_attention_heads, attention.all_head_size = len(heads), len(columns)
    if shape.neurons and not neurons:
        layer.output.dense = _bias(layer.output.dense)
        layer.intermediate = torch.nn.Identity()
    elif shape.neurons:
        kept = torch.tensor(list(neurons))
        layer.intermediate.dense = _linear(layer.intermediate.dense, rows=kept)
        layer.output.dense = _linear(layer.output.dense, columns=kept)


def _shape(layer: Any) -> LayerShape:
    """Return a layer's shape, read from its modules."""
    from torch.nn import Identity, Linear

    try:
        attention, intermediate = layer.attention, layer.intermediate
        gone = not isinstance(attention.output.dense, Linear)
        heads = 0 if gone else attention.self.num_attention_heads
        neurons = 0 if isinstance(intermediate, Identity) else intermediate.dense.out_features
    except AttributeError:
        raise Unsupported(f"{type(layer).__name__} keeps its heads and neurons where Plimsoll does not know them",
                          "use an encoder with layers like BERT's, or leave narrow out") from None
    return LayerShape(heads=heads, neurons=neurons)


def _linear(whole: torch.nn.Linear, rows: torch.Tensor | None = None,
            columns: torch.Tensor | None = None) -> torch.nn.Linear:
    """Return a linear layer with some of the outputs (rows of the weight) or inputs (columns) of another."""
    import torch

    weight, bias = whole.weight.detach(), whole.bias.detach()
    if rows is not None:
        weight, bias = weight[rows], bias[rows]
    if columns is not None:
        weight = weight[:, columns]
    part = torch.nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    part.weight.data.copy_(weight)
    part.bias.data.copy_(bias)
    return part


def _bias(whole: torch.nn.Linear) -> torch.nn.Module:
    """Return what is left of a linear layer without inputs: its bias, under the same name."""
    import torch

    class Bias(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(whole.bias.detach().clone())

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.bias

    return Bias()


def _passing_on() -> torch.nn.Module:
    """Return an attention without heads: it passes its input on to the output module, which ignores it."""
    import torch

    class PassingOn(torch.nn.Module):
        def forward(self, hidden: torch.Tensor, *args: object, **kwargs: object) -> tuple[torch.Tensor, None]:
            return hidden, None

    return PassingOn()

"""The shape of an encoder: how many heads and neurons each layer has, and how to give a layer fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plimsoll.core.errors import Unsupported
from plimsoll.core.shape import LayerShape

if TYPE_CHECKING:
    import torch

_PROJECTIONS = ("query", "key", "value")
PREFIXED = ("the model's attention has a learned prefix, which has no place here",
            "serve it with the runtime torch, or tune by another method than prefix_tuning")
"""Message and hint, for what rebuilds attention from its matrices alone."""


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
    if wanted and wanted[-1].pooled:
        pool(encoder)


def pooled(encoder: Any) -> bool:
    """Return whether the encoder's last layer gives one vector a row."""
    found: Any = getattr(encoder, "encoder", None)
    return bool(getattr(found, "layer", None)) and hasattr(found.layer[-1], "asks_for_the_mean")


def pool(encoder: Any) -> None:
    """Let the last layer ask for the mean of the real tokens only, in place, with the weights it has.

    What comes out of the encoder is then [batch, 1, hidden]. Raises Unsupported for a layer not laid out like BERT's.
    Source: Dai et al., Funnel-Transformer, NeurIPS 2020, section 2.2: pooling of the query only.
    """
    layers = stack(encoder).layer
    _shape(layers[-1])
    if not pooled(encoder):
        layers[-1] = _asking_for_the_mean(layers[-1])


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
        for name in _PROJECTIONS:
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
        if heads and not all(hasattr(attention.self, name) for name in _PROJECTIONS):
            raise AttributeError
        neurons = 0 if isinstance(intermediate, Identity) else intermediate.dense.out_features
    except AttributeError:
        raise Unsupported(f"{type(layer).__name__} keeps its heads and neurons where Plimsoll does not know them",
                          "use an encoder with layers like BERT's, or leave this move out") from None
    if heads and hasattr(attention.self, "prefix_key"):
        raise Unsupported(*PREFIXED)
    return LayerShape(heads=heads, neurons=neurons, pooled=hasattr(layer, "asks_for_the_mean"))


def _asking_for_the_mean(layer: Any) -> torch.nn.Module:
    """Return a BERT layer that answers one query a row, with the modules, and so the weight names, of a whole one."""
    import torch

    class MeanQuery(torch.nn.Module):
        asks_for_the_mean = True

        def __init__(self) -> None:
            super().__init__()
            self.attention, self.intermediate, self.output = layer.attention, layer.intermediate, layer.output

        def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None, *args: object,
                    **kwargs: object) -> torch.Tensor:
            bias = _as_bias(mask, hidden.dtype)
            if bias is None:
                mean = hidden.mean(dim=1, keepdim=True)
            else:
                real = (bias > -1).to(hidden.dtype).flatten(1, 2)  # [batch, 1, tokens]
                mean = real @ hidden / real.sum(dim=-1, keepdim=True)
            found = self.attention.output(self._attend(mean, hidden, bias), mean)
            return self.output(self.intermediate(found), found)

        def _attend(self, mean: torch.Tensor, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            own = self.attention.self
            if not hasattr(own, "query"):  # no heads are left
                return mean
            query, key, value = (linear(x).unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2)
                                 for linear, x in ((own.query, mean), (own.key, hidden), (own.value, hidden)))
            scores = query @ key.transpose(2, 3) * own.attention_head_size**-0.5
            weights = (scores if bias is None else scores + bias).softmax(dim=-1)
            return (weights @ value).transpose(1, 2).flatten(2)

    return MeanQuery()


def _as_bias(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return what is added to the scores of one query a row, [batch, 1, 1, tokens], from a mask or a bias of all."""
    import torch

    if mask is None:
        return None
    first = mask[:, :1, :1]
    return (1 - first.to(dtype)) * -1e4 if first.dtype == torch.bool else first.clamp(min=-1e4)


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

"""A learned prefix in every layer's attention: keys and values that stand before those of the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plimsoll.core.errors import Unsupported
from plimsoll.train import shape

if TYPE_CHECKING:
    import torch

_NAME = "plimsoll_prefix"


def attach(encoder: Any, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Give the attention of each layer its prefix, in place, as weights of its own.

    keys, values: one a layer, float [heads, tokens, head size]. Raises Unsupported for an encoder not like BERT.
    Source: Li and Liang, Prefix-Tuning, ACL 2021; in every layer as in Liu et al., P-Tuning v2, ACL 2022.
    """
    import torch
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    for layer, k, v in zip(shape.stack(encoder).layer, keys, values, strict=True):
        layer.attention.self.prefix_key = torch.nn.Parameter(k.clone())
        layer.attention.self.prefix_value = torch.nn.Parameter(v.clone())
    encoder.set_attn_implementation(_NAME)


def attach_blank(encoder: Any, tokens: int) -> None:
    """Make room for a prefix of so many tokens whose weights are still to be loaded."""
    import torch

    config = encoder.config
    size = config.hidden_size // config.num_attention_heads
    empty = [torch.zeros(config.num_attention_heads, tokens, size) for _ in shape.stack(encoder).layer]
    attach(encoder, empty, empty)


def tokens(encoder: Any) -> int:
    """Return how many tokens the encoder's prefix has; 0 without one."""
    layers: Any = getattr(getattr(encoder, "encoder", None), "layer", None)
    first: Any = getattr(getattr(layers[0], "attention", None), "self", None) if layers else None
    return int(first.prefix_key.shape[1]) if hasattr(first, "prefix_key") else 0


def refuse(encoder: Any) -> None:
    """Raise Unsupported when the encoder has a prefix: for what rebuilds its attention from the matrices alone."""
    if tokens(encoder):
        raise Unsupported(*shape.PREFIXED)


def _attention(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
               attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None, **_: Any
               ) -> tuple[torch.Tensor, None]:
    """Answer as transformers' attention functions do: [batch, length, heads, head size], and no weights."""
    import torch
    from torch.nn.functional import pad, scaled_dot_product_attention

    rows = len(query)
    key = torch.cat([module.prefix_key.to(key.dtype).expand(rows, -1, -1, -1), key], dim=2)
    value = torch.cat([module.prefix_value.to(value.dtype).expand(rows, -1, -1, -1), value], dim=2)
    if attention_mask is not None:  # the prefix is there for every row
        real = True if attention_mask.dtype == torch.bool else 0.0
        attention_mask = pad(attention_mask, (module.prefix_key.shape[1], 0), value=real)
    out = scaled_dot_product_attention(query, key, value, attention_mask, dropout_p=dropout, scale=scaling)
    return out.transpose(1, 2).contiguous(), None

"""What a request asks of a machine: the operations of each part of an encoder, and the bytes that must move."""

from __future__ import annotations

from dataclasses import dataclass

from plimsoll.bench.ceilings import Ceilings
from plimsoll.core.profile import Number, OperatorGroup
from plimsoll.core.shape import ModelShape

BYTES: dict[Number, int] = {"fp32": 4, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Demand:
    """Of one part, for one text."""

    flop: float
    """Multiplications and additions, each counted as one; 0 where no product is computed."""
    traffic_bytes: float
    """Weights, what comes in and what goes out, each moved once: what a part makes for itself may stay in a cache."""


def demands(shape: ModelShape, tokens: float, number: Number, per_token: bool = False) -> dict[OperatorGroup, Demand]:
    """Return what each part of an encoder asks for a text of so many tokens, weights in the format `number`.

    Activations between the parts, norms and head are in fp32, or in 16 bits where the weights are.
    """
    hidden, weight = shape.hidden, BYTES[number]
    value = 2 if number == "bf16" else 4
    rows = hidden * value  # bytes of a token between two parts
    products = bytes_ = feed_forward = feed_forward_bytes = 0.0
    normed = tokens  # the embeddings' own
    left = tokens
    for layer in shape.layers:
        asking = 1.0 if layer.pooled else tokens
        width = layer.heads * shape.head_size
        if width:
            # keys and values of all tokens, query and output of those that ask; scores, and what they weigh
            products += 2 * (2 * hidden * width * (tokens + asking) + 2 * width * tokens * asking)
            bytes_ += 4 * hidden * width * weight + (tokens + asking) * rows
        if layer.neurons:
            feed_forward += 2 * 2 * hidden * layer.neurons * asking
            feed_forward_bytes += 2 * hidden * layer.neurons * weight + 2 * asking * rows
        normed += 2 * asking
        left = asking
    answers = tokens if per_token else 1.0
    found: dict[OperatorGroup, Demand] = {
        "attention": Demand(products, bytes_),
        "feed-forward": Demand(feed_forward, feed_forward_bytes),
        "norm": Demand(0.0, 2 * normed * rows),
        # the rows of words and of positions, and their sum
        "embedding": Demand(0.0, tokens * (hidden * weight + 2 * rows)),
        "head": Demand(2 * answers * hidden * shape.outputs,
                       shape.outputs * (hidden * value + answers * value) + left * rows),
    }
    return {group: demand for group, demand in found.items() if demand.traffic_bytes}


def ceiling_gops(ceilings: Ceilings, number: Number) -> float | None:
    """Return the best rate measured in a number format, 10^9 operations a second; None where there was none."""
    rate = {"fp32": ceilings.fp32_gflops, "bf16": ceilings.bf16_gflops, "int8": ceilings.int8_gops}[number]
    return rate or None


def roof_gops(ceilings: Ceilings, number: Number, demand: Demand) -> float | None:
    """Return the most that this machine can do of a demand, 10^9 operations a second.

    Source: the roofline model, Williams, Waterman and Patterson, Communications of the ACM 52:65-76, 2009.
    """
    ceiling = ceiling_gops(ceilings, number)
    if ceiling is None or not demand.flop:
        return None
    return min(ceiling, demand.flop / demand.traffic_bytes * ceilings.memory_gb_s)

"""What each width of each module costs in quality, alone: the input of the search for the best widths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.core import ragged
from plimsoll.core.parts import Event, Work
from plimsoll.core.record import Record
from plimsoll.data.dataset import Dataset
from plimsoll.train import batches, encoder, loop, obs, shape
from plimsoll.train.batches import Tokens, by_length

if TYPE_CHECKING:
    import torch

_CALIBRATION_ROWS = 512
_JUDGED_ROWS = 128
_BATCH = 64


class LayerCosts(Record):
    """Mean KL divergence from the whole model's answers, by width, when only this module of this layer is narrowed."""

    heads: dict[int, float]
    neurons: dict[int, float]


def levels(count: int) -> tuple[int, ...]:
    """Return the widths worth considering of a module with `count` heads or neurons: quarters of it, 0 included."""
    return tuple(sorted({round(count * share / 4) for share in range(5)}))


def measure(model: Path, work: Work) -> list[LayerCosts]:
    """Return the costs of each layer of a fine-tuned model, on training rows that calibrate nothing.

    What is left of a module makes up for what is gone, as in the move narrow with obs. Raises Unsupported for a model
    whose layers are not laid out like BERT's.
    """
    import torch

    whole: Any = encoder.load(model).to(work.device)
    record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
    found = shape.shapes(whole.encoder)
    train = batches.tokenize(model, Dataset.load(work.data).train.texts, record.max_length)
    rows = np.random.default_rng(work.seed).permutation(len(train))
    sample = train.subset(rows[:_CALIBRATION_ROWS])
    judged = train.subset(rows[_CALIBRATION_ROWS:_CALIBRATION_ROWS + _JUDGED_ROWS]
                          if len(rows) > _CALIBRATION_ROWS else rows[:_JUDGED_ROWS])
    costs: list[LayerCosts] = []
    with loop.settings(work), torch.inference_mode():
        def answered() -> torch.Tensor:
            answers = ragged.flat(loop.predict(whole, judged, work.device), judged.lengths)
            return work.task.log_probabilities(torch.from_numpy(answers))

        target = answered()

        def divergence() -> float:
            return float((target.exp() * (target - answered())).sum(dim=1).mean())

        layers = shape.stack(whole.encoder).layer
        grams = _grams(whole, list(layers), sample, work.device)
        for i, have in enumerate(found):
            ways = [_one(layers, i, part, have, grams[i][part], divergence) for part in (0, 1)]
            costs.append(LayerCosts(heads=ways[0], neurons=ways[1]))
            event: Event = {"stage": "module costs", "done": i + 1, "total": len(found)}
            work.report(event)
    return costs


def _one(layers: Any, i: int, part: int, have: shape.LayerShape, gram: torch.Tensor,
         divergence: Callable[[], float]) -> dict[int, float]:
    """Return the divergence by width of one module; the layer is as it was when this returns."""
    layer = layers[i]
    linear = _output(layer, part)
    count = (have.heads, have.neurons)[part]
    if not count:
        return {0: 0.0}
    group = linear.in_features // count
    weight = linear.weight.detach().cpu()
    order = obs.removal_order(weight, gram, group)
    found = {count: 0.0}
    try:
        for level in levels(count)[:-1]:
            kept = sorted(set(range(count)) - set(order[:count - level]))
            layers[i] = narrow = copy.deepcopy(layer)
            heads, neurons = (kept, range(have.neurons)) if part == 0 else (range(have.heads), kept)
            shape.keep(narrow, heads, neurons)
            if kept:
                _output(narrow, part).weight.data.copy_(obs.compensated(weight, gram, kept, group))
            found[level] = divergence()
    finally:
        layers[i] = layer
    return dict(sorted(found.items()))


def _output(layer: Any, part: int) -> Any:
    return (layer.attention.output if part == 0 else layer.output).dense


def _grams(model: Any, layers: Sequence[Any], sample: Tokens, device: str) -> list[list[torch.Tensor]]:
    """Return the Gram matrices of what each layer's two output projections are given, in one pass over the sample."""
    import torch

    seen: dict[tuple[int, int], list[torch.Tensor]] = {}
    mask: list[torch.Tensor] = []

    def remember(key: tuple[int, int]) -> Callable[[Any, Any], None]:
        return lambda module, given: seen.setdefault(key, []).append(given[0][mask[0]].cpu())

    places = [(i, part) for i in range(len(layers)) for part in (0, 1)]
    hooks = [_output(layers[i], part).register_forward_pre_hook(remember((i, part))) for i, part in places
             if hasattr(_output(layers[i], part), "in_features")]
    try:
        for rows in by_length(sample.lengths, _BATCH):
            batch = sample.batch(rows, device)
            mask[:] = [batch.attention_mask.bool()]
            model(batch.input_ids, batch.attention_mask)
    finally:
        for hook in hooks:
            hook.remove()
    empty = torch.zeros(1, 1)
    return [[obs.gram(torch.cat(seen.get((i, part), [empty]))) for part in (0, 1)] for i in range(len(layers))]

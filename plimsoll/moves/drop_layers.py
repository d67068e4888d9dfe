"""Drop layers: keep the encoder layers the answers need most, and make a model that has only those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, model_validator

from plimsoll.core import ragged
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work

if TYPE_CHECKING:
    import torch

_SAMPLE_ROWS = 128


class DropLayers(Move):
    """Keep some of the encoder's layers, drop the others, and keep the whole model's answers for a student to learn.

    Which layers go is measured: again and again the one without which the answers on 128 training rows change least.

    Pays when: latency matters more than the last point of quality and `distil` follows; time falls with the layers.
    Costs: seconds to choose and one pass over the training rows; a large loss of quality until it is distilled.
    Source: Sajjad et al., On the effect of dropping layers of pre-trained transformer models, CSL 2023.
    """

    keep: PositiveInt
    """Encoder layers that stay."""
    layers: tuple[NonNegativeInt, ...] = ()
    """Which ones stay, counted from 0; empty: those that the answers need most."""

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if self.layers and (len(self.layers) != self.keep or list(self.layers) != sorted(set(self.layers))):
            raise ValueError(f"layers must ascend and be as many as keep, got {self.layers=}, {self.keep=}")
        return self

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the smaller model to `out`. Raises Unsupported when it has not more than `keep` layers of its own."""
        import torch
        from torch.nn import ModuleList

        from plimsoll.data.dataset import Dataset
        from plimsoll.train import batches, encoder, loop, shape, teacher

        whole: Any = encoder.load(model).to(work.device)
        record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
        if shape.pooled(whole.encoder):
            raise Unsupported("the last layer asks for the mean of all tokens", f"put {self.name()} before funnel")
        stack = shape.stack(whole.encoder)
        layers = list(stack.layer)
        if self.keep >= len(layers):
            raise Unsupported(f"the model has {len(layers)} layers, so keeping {self.keep} drops none",
                              f"set keep to at most {len(layers) - 1}")
        if self.layers and self.layers[-1] >= len(layers):
            raise Unsupported(f"the model has {len(layers)} layers, so there is no layer {self.layers[-1]}",
                              f"name layers from 0 to {len(layers) - 1}")
        train = batches.tokenize(model, Dataset.load(work.data).train.texts, record.max_length)
        with loop.settings(work):
            out.mkdir(parents=True, exist_ok=True)
            teacher.keep(model, whole, train, work, out)
            rows = np.random.default_rng(work.seed).permutation(len(train))[:_SAMPLE_ROWS]
            sample = train.subset(rows)

            def logits_of(kept: Sequence[int]) -> torch.Tensor:
                stack.layer = ModuleList(layers[i] for i in kept)
                answers = ragged.flat(loop.predict(whole, sample, work.device), sample.lengths)
                return work.task.log_probabilities(torch.from_numpy(answers))

            kept = self.layers or _most_needed(len(layers), self.keep, logits_of, work)
        note = f"kept layers {', '.join(map(str, kept))} of 0 to {len(layers) - 1}"
        work.report({"stage": self.name(), "note": note})
        stack.layer = ModuleList(layers[i] for i in kept)
        whole.encoder.config.num_hidden_layers = self.keep
        encoder.save(whole, record, model, out)


def _most_needed(layers: int, keep: int, log_probabilities: Callable[[Sequence[int]], torch.Tensor],
                 work: Work) -> tuple[int, ...]:
    """Return the `keep` layers left after dropping, one by one, the layer that is missed least.

    Missed is what the mean KL divergence from the whole model's answers says; among equals the later layer goes.
    """
    kept = tuple(range(layers))
    target = log_probabilities(kept)
    total = sum(range(keep + 1, layers + 1))
    done = 0
    while len(kept) > keep:
        missed: list[tuple[float, int]] = []
        for layer in kept:
            answers = log_probabilities([i for i in kept if i != layer])
            missed.append((float((target.exp() * (target - answers)).sum(dim=1).mean()), -layer))
            done += 1
            work.report({"stage": "drop_layers", "done": done, "total": total})
        least = -min(missed)[1]
        kept = tuple(i for i in kept if i != least)
    return kept

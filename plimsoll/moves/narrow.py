"""Narrow: give each encoder layer fewer attention heads and feed-forward neurons, and let the rest make up for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import NonNegativeInt, model_validator

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work

if TYPE_CHECKING:
    import torch

    from plimsoll.train.batches import Tokens
    from plimsoll.train.shape import LayerShape

_SAMPLE_ROWS = 1024
_BATCH = 64


class Narrow(Move):
    """Remove the heads and neurons that are missed least, and change the weights of the others to make up for them.

    The matrices that come out are smaller: nothing is masked. Layers are narrowed from the first to the last, each
    on what the narrowed layers before it give: what it will be given when the model is used.

    Pays when: a limit lies between two depths, or quality needs more layers than there is time for at full width.
    Costs: some seconds per layer; a loss of quality that `distil` mostly brings back.
    Source: Hassibi and Stork, NIPS 1992, and ZipLM, arXiv:2302.04089, for obs; Kwon et al., A Fast Post-Training
    Pruning Framework for Transformers, arXiv:2204.09656, for fisher.
    """

    heads: tuple[NonNegativeInt, ...]
    """Attention heads each layer keeps, from the first layer on; 0 removes the module, and a layer without either."""
    neurons: tuple[NonNegativeInt, ...]
    """Feed-forward neurons each layer keeps; 0 removes the module."""
    method: Literal["obs", "fisher"] = "obs"
    """How what is missed least is found. obs: by the change of the module's output after the rest made up for it;
    fisher: by the squared gradients of the loss, in one backward pass, cheaper and blind to what can be made up."""

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.heads) != len(self.neurons) or not self.heads:
            raise ValueError(f"need as many heads as neurons, one each per layer, got {self.heads=}, {self.neurons=}")
        return self

    def says(self) -> str:
        """Return `narrow heads=6,6 neurons=768,512`."""
        named = [f"{name}={','.join(map(str, getattr(self, name)))}" for name in ("heads", "neurons")]
        return " ".join(["narrow", *named, *(["fisher"] if self.method == "fisher" else [])])

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the narrower model to `out`.

        Raises Unsupported when a layer has fewer heads or neurons than are to be kept, when the model has another
        number of layers or ones not laid out like BERT's, and when nothing would go.
        """
        import torch
        from torch.nn import ModuleList

        from plimsoll.data.dataset import Dataset
        from plimsoll.train import batches, encoder, loop, shape, teacher

        whole: Any = encoder.load(model).to(work.device)
        record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
        if shape.pooled(whole.encoder):
            raise Unsupported("the last layer asks for the mean of all tokens", f"put {self.name()} before funnel")
        found = shape.shapes(whole.encoder)
        self._check(found)
        data = Dataset.load(work.data)
        train = batches.of_task(work.task, model, data.train.texts, record.max_length)
        rows = np.random.default_rng(work.seed).permutation(len(train))[:_SAMPLE_ROWS]
        with loop.settings(work):
            out.mkdir(parents=True, exist_ok=True)
            teacher.keep(model, whole, train, work, out)
            stack = shape.stack(whole.encoder)
            layers = list(stack.layer)
            masses = None
            if self.method == "fisher":
                masses = _fisher(whole, layers, train.subset(rows), data.targets("train")[rows], work)
            with torch.inference_mode():
                for i, layer in enumerate(layers):
                    if any(self._widths()[i]):
                        self._narrow(whole, layer, found[i], i, train.subset(rows), masses[i] if masses else None, work)
                    else:  # at once, since the layers after it are narrowed on what they will be given without it
                        stack.layer = ModuleList(other for other in stack.layer if other is not layer)
                    work.report({"stage": self.name(), "done": i + 1, "total": len(layers)})
        whole.encoder.config.num_hidden_layers = len(stack.layer)
        encoder.save(whole, record, model, out)

    def _widths(self) -> list[tuple[int, int]]:
        return list(zip(self.heads, self.neurons, strict=True))

    def _check(self, found: Any) -> None:
        if len(found) != len(self.heads):
            raise Unsupported(f"the model has {len(found)} layers, widths are given for {len(self.heads)}",
                              "give one number of heads and one of neurons for each layer")
        for i, (layer, heads, neurons) in enumerate(zip(found, self.heads, self.neurons, strict=True)):
            if heads > layer.heads or neurons > layer.neurons:
                raise Unsupported(f"layer {i} has {layer.heads} heads and {layer.neurons} neurons, fewer than the "
                                  f"{heads} and {neurons} to keep", "narrow can only remove")
        if not any(any(widths) for widths in self._widths()):
            raise Unsupported("no layer would be left", "keep a head or a neuron")
        if all((layer.heads, layer.neurons) == widths for layer, widths in zip(found, self._widths(), strict=True)):
            raise Unsupported("every layer has just these heads and neurons, so nothing would go",
                              "lower a number, or leave narrow out")

    def _narrow(self, model: Any, layer: Any, have: LayerShape, i: int, sample: Tokens,
                masses: tuple[torch.Tensor, torch.Tensor] | None, work: Work) -> None:
        from plimsoll.train import obs, shape

        for part, keep in ((0, self.heads[i]), (1, self.neurons[i])):
            count = (have.heads, have.neurons)[part]
            if keep == count:
                continue
            linear = (layer.attention.output if part == 0 else layer.output).dense
            group = linear.in_features // count
            gram = obs.gram(_inputs(model, linear, sample, work.device))
            weight = linear.weight.detach().cpu()
            order = (obs.removal_order(weight, gram, group) if masses is None
                     else _least_first(masses[part], count - keep))
            kept = sorted(set(range(count)) - set(order[:count - keep]))
            if part == 0:
                shape.keep(layer, kept, range(have.neurons))
            else:
                shape.keep(layer, range(self.heads[i]), kept)
            if kept:
                made_up = obs.compensated(weight, gram, kept, group)
                (layer.attention.output if part == 0 else layer.output).dense.weight.data.copy_(made_up)


def _inputs(model: Any, linear: Any, sample: Tokens, device: str) -> torch.Tensor:
    """Return what a linear layer is given on the real tokens of the sample, float32 [tokens, inputs]."""
    import torch

    from plimsoll.train.batches import by_length

    seen: list[torch.Tensor] = []
    hook = linear.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    found: list[torch.Tensor] = []
    try:
        for rows in by_length(sample.lengths, _BATCH):
            batch = sample.batch(rows, device)
            model(batch.input_ids, batch.attention_mask)
            found.append(seen.pop()[batch.attention_mask.bool()].cpu())
    finally:
        hook.remove()
    return torch.cat(found)


def _fisher(model: Any, layers: list[Any], sample: Tokens, targets: Any,
            work: Work) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return per layer the gradients of every row's loss by a mask on its heads and its neurons: [rows, heads], ...

    One backward pass of the summed loss gives them all, since each row has a mask of its own.
    """
    import torch

    from plimsoll.train import objective, shape
    from plimsoll.train.batches import by_length

    loss = objective.learned(work.task, targets, sample, 0.0, work.device)
    masks: list[tuple[torch.Tensor, torch.Tensor]] = []
    found: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in layers]
    counts = shape.shapes(model.encoder)

    def masked(mask: torch.Tensor, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        x = given[0]
        return ((x.unflatten(-1, (mask.shape[1], -1)) * mask[:, None, :, None]).flatten(-2),)

    hooks: list[Any] = []
    for i, layer in enumerate(layers):
        for part, module in enumerate((layer.attention.output.dense, layer.output.dense)):
            if (counts[i].heads, counts[i].neurons)[part]:
                hooks.append(module.register_forward_pre_hook(
                    lambda _, given, i=i, part=part: masked(masks[i][part], given)))
    try:
        for rows in by_length(sample.lengths, _BATCH):
            batch = sample.batch(rows, work.device)
            masks[:] = [tuple(torch.ones(len(rows), max(1, n), device=work.device, requires_grad=True)  # type: ignore[misc]
                              for n in (c.heads, c.neurons)) for c in counts]
            (loss(model, batch) * len(rows)).backward()  # a mean over rows, of which each has a mask of its own
            for into, pair in zip(found, masks, strict=True):
                into.append(tuple((m.grad if m.grad is not None else m.detach() * 0).cpu() for m in pair))  # type: ignore[arg-type]
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad()
    return [(torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])) for pairs in found]


def _least_first(gradients: torch.Tensor, remove: int) -> list[int]:
    """Return which to remove: those of least sum of squares, then exchanged while the whole set weighs less.

    gradients: [rows, things]. The set R weighs sum_i (sum_{j in R} g_ij)^2: two whose gradients cancel may go together.
    """
    import torch

    own = (gradients**2).sum(dim=0)
    fisher = gradients.T @ gradients
    removed = own.argsort()[:remove].tolist()
    for place in range(len(removed)):
        others = [j for k, j in enumerate(removed) if k != place]
        cross = 2 * fisher[:, others].sum(dim=1) if others else torch.zeros_like(own)
        cost = own + cross
        cost[others] = torch.inf
        removed[place] = int(cost.argmin())
    return removed

"""What an encoder makes of texts that it was not tuned for, layer by layer, and what can be read off that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.parts import Event
from plimsoll.train import batches, encoder, logistic, shape

if TYPE_CHECKING:
    import torch

_ROWS = 64


class States(NamedTuple):
    """The pooled states of texts: of each layer the mean over the real tokens."""

    last: NDArray[np.float32]
    """float32 [texts, hidden]: of the last layer."""
    layers: NDArray[np.float32]
    """float32 [layers + 1, layered, hidden]: what the embeddings give, then each layer, for the first texts only."""


def states(folder: Path, texts: Sequence[str], layered: int, device: str = "cpu",
           report: Callable[[Event], None] = lambda event: None) -> States:
    """Return the pooled states of texts from a pre-trained or a fine-tuned model folder, spelled by its own tokenizer.

    layered: how many of the texts, from the first on, are wanted layer by layer. Raises Unsupported for an encoder that
    keeps its layers where Plimsoll does not know them.
    """
    import torch

    model = encoder.bare(folder).to(device)
    tokens = batches.tokenize(folder, texts)
    found: list[NDArray[np.float32]] = []
    order: list[NDArray[np.int64]] = []
    with _kept(model) as kept, torch.inference_mode():
        for rows in batches.by_length(tokens.lengths, _ROWS):
            batch = tokens.batch(rows, device)
            kept.clear()
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            found.append(np.stack([_pooled(hidden, batch.attention_mask) for hidden in kept]))
            order.append(rows)
            report({"stage": "embed", "done": sum(map(len, order)), "total": len(texts)})
    whole = np.concatenate(found, axis=1)[:, np.argsort(np.concatenate(order))]
    return States(whole[-1], whole[:, :layered])


def write(folder: Path, texts: Sequence[str], layered: int, out: Path, device: str = "cpu",
          report: Callable[[Event], None] = lambda event: None) -> None:
    """Write the states of texts to `out`, a .npz file."""
    found = states(folder, texts, layered, device, report)
    with out.open("wb") as file:  # savez adds an ending to a name that has none
        np.savez(file, last=found.last, layers=found.layers)


def read(file: Path) -> States:
    """Read what `write` wrote."""
    with np.load(file) as found:
        return States(found["last"], found["layers"])


def probe(features: NDArray[np.float32], targets: NDArray[np.int64], labels: int, learn: int, choose: int
          ) -> NDArray[np.bool_]:
    """Return which held-out rows a linear probe has right, bool [rows - learn - choose].

    features: float32 [rows, hidden]; targets: int64 [rows]. The first `learn` rows are learned from, the next `choose`
    choose the penalty, the rest is held out.
    Source: Alain and Bengio, Understanding intermediate layers using linear classifier probes, ICLR workshop 2017.
    """
    chosen = slice(learn, learn + choose)

    def score(one: logistic.Linear) -> float:
        return float(np.mean(one.logits(features[chosen]).argmax(axis=1) == targets[chosen]))

    one, _, _ = logistic.best(features[:learn], targets[:learn], labels, score)
    return one.logits(features[learn + choose:]).argmax(axis=1) == targets[learn + choose:]


@contextmanager
def _kept(model: Any) -> Iterator[list[torch.Tensor]]:
    """Give a list that collects what the embeddings and each layer give, in the order in which they are asked."""
    found: list[torch.Tensor] = []

    def keep(module: Any, given: Any, out: Any) -> None:
        found.append(out[0] if isinstance(out, tuple) else out)

    hooks = [module.register_forward_hook(keep) for module in (model.embeddings, *shape.stack(model).layer)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _pooled(hidden: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32]:
    """Return the mean over the real tokens, float32 [batch, hidden]; a pooled last layer gives one vector a row."""
    if hidden.shape[1] == 1:
        return hidden[:, 0].float().cpu().numpy()
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return ((hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).float().cpu().numpy()

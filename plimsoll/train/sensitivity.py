"""Which linear layers int8 harms most, found by rounding one at a time, and the record that tells runtimes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import Unsupported
from plimsoll.core.record import Record
from plimsoll.train import shape
from plimsoll.train.batches import Tokens, by_length

if TYPE_CHECKING:
    import torch

RECORD = "quantization.json"
_BATCH = 64
_LARGEST = 127


class Quantization(Record):
    """What a model folder says of its own rounding, beside the weights that are all still there in fp32."""

    keep: tuple[str, ...]
    """Linear layers that an int8 runtime leaves in fp32, by their name in the module of `train.encoder.load`."""
    kl: dict[str, float]
    """Every linear layer, the most sensitive first: mean KL(whole || rounded) of the answers, in nats."""


def kept(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return the weights, float32 [outputs, inputs], of the layers a folder's record keeps in fp32; none without one.

    By value, since exporters merge and rename layers: a runtime finds them in its own file by comparing.
    """
    from safetensors import safe_open

    if not (folder / RECORD).exists():
        return {}
    names = Quantization.from_file(folder / RECORD).keep
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        return {name: weights.get_tensor(f"{name}.weight") for name in names}


def rank(model: torch.nn.Module, rows: Tokens, report: Callable[[int, int], None] = lambda done, total: None
         ) -> dict[str, float]:
    """Return the model's linear layers, the most sensitive first, and what rounding only that one does to the answers.

    It is the mean over the rows, or over their tokens where these are answered, of KL(answers || answers with this
    layer in int8), in nats. Weights are rounded symmetrically with one scale per output, activations with one per
    token as they come.
    model: that of `train.encoder.load`, on any device; it is as it was afterwards. report: called with layers done and
    all of them, over all batches.
    Source: Wu et al., Integer Quantization for Deep Learning Inference, 2020, section 5.2: one layer at a time.
    """
    import torch

    linears = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    device = str(next(model.parameters()).device)
    runs = _Runs(model)
    harm = dict.fromkeys(linears, 0.0)
    answered = 0
    batches = list(by_length(rows.lengths, _BATCH))
    with torch.no_grad():
        for i, chosen in enumerate(batches):
            batch = rows.batch(chosen, device)
            whole = runs.whole(batch)
            answered += len(whole)
            for j, (name, linear) in enumerate(linears.items()):
                with _rounded(linear):
                    answers = runs.again(batch, linear)
                harm[name] += float((whole.exp() * (whole - answers)).sum())
                report(i * len(linears) + j + 1, len(batches) * len(linears))
    return {name: harm[name] / answered for name in sorted(harm, key=lambda n: -harm[n])}


class _Runs:
    """Runs of one model that begin at the layer where they may differ: half the work of running all of it each time."""

    def __init__(self, model: Any) -> None:
        self._model = model
        try:
            self._stack: Any = shape.stack(model.encoder)
            self._layers: list[Any] = list(self._stack.layer)
        except Unsupported:  # every run is then one from the start
            self._layers = []
        inside = {id(m): i for i, layer in enumerate(self._layers) for m in layer.modules()}
        # the last layer runs again for the head too: how it is pooled is read from the layer itself
        head = {id(m): max(0, len(self._layers) - 1) for m in model.head.modules()}
        self._first = head | inside
        self._given: list[Any] = []
        """What each layer but the last gave in the run of the whole."""

    def whole(self, batch: Any) -> torch.Tensor:
        """Return a batch's log-probabilities, [rows or tokens, labels], and remember what the layers gave."""
        self._given = []
        hooks = [layer.register_forward_hook(lambda module, given, out: self._given.append(out))
                 for layer in self._layers[:-1]]
        try:
            return self._answers(batch)
        finally:
            for hook in hooks:
                hook.remove()

    def again(self, batch: Any, changed: torch.nn.Module) -> torch.Tensor:
        """Return the log-probabilities of the same batch, where only `changed` is other than it was."""
        from torch.nn import ModuleList

        first = self._first.get(id(changed), 0)
        if first == 0:
            return self._answers(batch)
        own = self._stack.layer
        self._stack.layer = ModuleList([_recalling(self._given[first - 1]), *self._layers[first:]])
        try:
            return self._answers(batch)
        finally:
            self._stack.layer = own

    def _answers(self, batch: Any) -> torch.Tensor:
        # twice the digits: the KL of answers that hardly differ is itself near the last digit of fp32
        outputs = self._model(batch.input_ids, batch.attention_mask).double()
        task = self._model.task
        return task.log_probabilities(outputs[batch.attention_mask.bool()] if task.per_token else outputs)


def _recalling(value: Any) -> torch.nn.Module:
    """Return a layer that gives what another one gave, whatever it is asked."""
    import torch

    class Recall(torch.nn.Module):
        def forward(self, *args: object, **kwargs: object) -> Any:
            return value

    return Recall()


@contextmanager
def _rounded(linear: torch.nn.Linear) -> Iterator[None]:
    """Let a linear layer compute with weights and activations in int8 inside the block."""
    whole = linear.weight.data
    linear.weight.data = _nearest(whole)
    hook = linear.register_forward_pre_hook(lambda module, given: (_nearest(given[0]),))
    try:
        yield
    finally:
        hook.remove()
        linear.weight.data = whole


def _nearest(x: torch.Tensor) -> torch.Tensor:
    """Return the values of `x` rounded to 255 steps, symmetric around zero, one scale for each row of the last axis."""
    scale = (x.abs().amax(dim=-1, keepdim=True) / _LARGEST).clamp(min=1e-30)  # a row of zeros stays one
    return (x / scale).round() * scale

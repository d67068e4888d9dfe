"""Activation checkpointing: which activations a backward pass finds kept and which it computes again, and its price."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import Unsupported
from plimsoll.train import shape

Policy = Literal["none", "selective", "full"]
"""none keeps every activation; full keeps a layer's input and computes the rest of it again; selective keeps the matrix
products too and computes what is cheap again."""


class Stopwatch:
    """A context that adds up the seconds spent in it."""

    def __init__(self, device: str) -> None:
        self.seconds = 0.0
        self._device = device
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = now_s(self._device)
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: TracebackType | None) -> None:
        # a recomputation ends with an exception as soon as it has what it needs. What it made beside that is held by
        # the frames the exception passed through: to let go of it is part of the work, some hundredths of a step
        traceback.clear_frames(trace)
        self.seconds += now_s(self._device) - self._began


@contextmanager
def checkpointed(encoder: Any, policy: Policy, layers: Sequence[int] | None = None,
                 stopwatch: Stopwatch | None = None) -> Iterator[None]:
    """Let the encoder's layers follow a policy while the block runs; answers and gradients stay what they are.

    layers: which ones, all by default. `stopwatch`: times exactly what is computed again. Raises Unsupported for an
    encoder whose layers are not where Plimsoll knows them, unless the policy is none.
    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
    """
    if policy == "none":
        yield
        return
    import torch

    every = shape.stack(encoder).layer
    chosen = [every[i] for i in (range(len(every)) if layers is None else layers)]
    for layer in chosen:
        draws = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in layer.modules())
        layer.forward = _forgetful(layer.forward, policy, draws, stopwatch)
    try:
        yield
    finally:
        for layer in chosen:
            del layer.forward  # the class's own is back


def _forgetful(own: Callable[..., Any], policy: Policy, draws: bool, stopwatch: Stopwatch | None
               ) -> Callable[..., Any]:
    import torch
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    kept = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default]

    def contexts() -> tuple[Any, Any]:
        first, again = create_selective_checkpoint_contexts(kept) if policy == "selective" else (nullcontext(),) * 2
        if stopwatch is None:
            return first, again
        return first, _both(stopwatch, again)

    def forward(*args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return own(*args, **named)
        # comparing shapes each time would take as long as computing a short batch again; the tests compare gradients
        return checkpoint(own, *args, use_reentrant=False, context_fn=contexts, preserve_rng_state=draws,
                          determinism_check="none", **named)

    return forward


@contextmanager
def _both(outer: Any, inner: Any) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(outer)
        stack.enter_context(inner)
        yield


class Timed(NamedTuple):
    """Seconds of whole training steps under each policy, and what of them was computing again; float64 [rounds]."""

    none_s: NDArray[np.float64]
    half_s: NDArray[np.float64]
    """Every second layer checkpointed in full."""
    full_s: NDArray[np.float64]
    again_s: NDArray[np.float64]
    """Of `full_s`, by a stopwatch around what is computed again."""
    selective_s: NDArray[np.float64]
    layers: int

    @property
    def direct(self) -> NDArray[np.float64]:
        """The share of a fully checkpointed step that computes again, by the stopwatch."""
        return self.again_s / self.full_s

    @property
    def fitted(self) -> NDArray[np.float64]:
        """The same share from the times alone: with T(n) = a + b n over n checkpointed layers of L, b L / (a + b L)."""
        n = np.array([0, self.layers // 2, self.layers], dtype=np.float64)
        slope, start = np.polyfit(n, np.stack([self.none_s, self.half_s, self.full_s]), 1)
        return slope * self.layers / (start + slope * self.layers)


def timed(step: Callable[[], object], encoder: Any, device: str, rounds: int) -> Timed:
    """Time one training step under each policy, `rounds` times.

    The policies take turns, forth and back, so that a drifting machine moves all of them. Raises Unsupported as
    `checkpointed` does, and for an encoder of fewer than two layers.
    """
    count = len(shape.stack(encoder).layer)
    if count < 2:
        raise Unsupported("one layer is too few to fit the cost of checkpointing by their number", "")
    half = list(range(0, count, 2))[: count // 2]
    settings: dict[str, tuple[Policy, list[int] | None]] = {
        "none": ("none", None), "half": ("full", half), "full": ("full", None), "selective": ("selective", None)}
    found: dict[str, list[float]] = {name: [] for name in (*settings, "again")}

    def one(name: str) -> tuple[float, float]:
        policy, layers = settings[name]
        stopwatch = Stopwatch(device)
        with checkpointed(encoder, policy, layers, stopwatch):
            began = now_s(device)
            step()
            return now_s(device) - began, stopwatch.seconds

    for name in settings:  # the first of each allocates
        one(name)
    for i in range(rounds):
        for name in list(settings)[:: 1 if i % 2 else -1]:
            whole_s, again_s = one(name)
            found[name].append(whole_s)
            if name == "full":
                found["again"].append(again_s)
    none_s, half_s, full_s, selective_s, again_s = (np.array(found[k]) for k in (*settings, "again"))
    return Timed(none_s, half_s, full_s, again_s, selective_s, count)


def now_s(device: str) -> float:
    """Return the clock in seconds, once a GPU has done what it was asked to."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()

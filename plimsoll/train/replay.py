"""A step taken again to find where it stopped being finite: in which module, at which rows, in which number format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plimsoll.train import precision
from plimsoll.train.batches import Batch
from plimsoll.train.incidents import Cause

if TYPE_CHECKING:
    import torch

THE_LOSS = "the loss"


class Origin(NamedTuple):
    """Where the first value that is not finite was made."""

    where: str
    """Name of the module or the parameter, or "the loss"."""
    backward: bool


class Finding(NamedTuple):
    """Why a step was not finite."""

    cause: Cause
    where: str = ""
    backward: bool = False
    rows: tuple[int, ...] = ()


def unsound(model: torch.nn.Module) -> list[str]:
    """Return the names of the parameters, frozen ones too, that hold a value that is not finite; of shards, here."""
    held = ((name, getattr(p, "to_local", lambda p=p: p)().detach()) for name, p in model.named_parameters())
    return [name for name, values in held if values.is_floating_point() and not _finite(values)]


def random_state(device: str) -> tuple[torch.Tensor, ...]:
    """Return the state of the random numbers that a step draws: some 5 KB, and no wait for a device."""
    import torch

    own = torch.random.get_rng_state()
    return (own, torch.cuda.get_rng_state()) if device == "cuda" else (own,)


@dataclass(frozen=True)
class Replay:
    """A step that can be taken again, as a whole or with some of its rows. The weights stay what they are."""

    model: torch.nn.Module
    loss: Callable[[torch.nn.Module, Batch], torch.Tensor]
    batch: Callable[[NDArray[np.int64]], Batch]
    """Rows to a batch."""
    rows: NDArray[np.int64]
    """int64 [batch]."""
    random: tuple[torch.Tensor, ...]
    """`random_state` from before the step."""
    number: precision.Precision
    scale: float
    device: str

    def diagnose(self, sound: Sequence[int]) -> Finding:
        """Return why the step is not finite. It takes time only here: about as much as ten steps.

        sound: rows of an earlier step that was finite, none where there was no such step. They tell rows that are
        all bad (of a batch of one, say) from a model that is. Gradients and random numbers are used up and restored.
        """
        import torch

        if names := unsound(self.model):
            return Finding("weights", names[0])
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if self.device == "cuda" else []):
            origin = self.origin()
            if origin is None:
                return Finding("passing")
            if self.number != "fp32" and self.finite(self.rows):
                return Finding("precision", *origin)
            bad = self.bad_rows(self.rows)
            some = 0 < len(bad) < len(self.rows)
            if some or (bad and len(sound) and self.finite(np.asarray(sound, dtype=np.int64))):
                return Finding("data", *origin, tuple(bad))
            return Finding("module", *origin)

    def finite(self, rows: NDArray[np.int64]) -> bool:
        """Return whether the loss of these rows and all gradients are finite in fp32."""
        value = self._forward(self.batch(rows), "fp32")
        if not _finite(value):
            return False
        value.backward()
        return not self._unsound_gradient()

    def bad_rows(self, rows: NDArray[np.int64]) -> list[int]:
        """Return the rows that are not finite in fp32 with no other row beside them, by halving what is not finite."""
        if self.finite(rows):
            return []
        if len(rows) == 1:
            return [int(rows[0])]
        middle = len(rows) // 2
        return self.bad_rows(rows[:middle]) + self.bad_rows(rows[middle:])

    def origin(self) -> Origin | None:
        """Return where the first value that is not finite is made, in the step's own format; None when none is."""
        seen = _Seen()
        with _watched(self.model, seen):
            value = self._forward(self.batch(self.rows), self.number)
            if not _finite(value):
                return Origin(seen.forward or THE_LOSS, backward=False)
            (value * self.scale).backward()
        if seen.backward is not None:
            return Origin(seen.backward, backward=True)
        name = self._unsound_gradient()
        return Origin(name, backward=True) if name else None

    def _forward(self, batch: Batch, number: precision.Precision) -> torch.Tensor:
        import torch

        torch.random.set_rng_state(self.random[0])
        if len(self.random) > 1:
            torch.cuda.set_rng_state(self.random[1])
        self.model.zero_grad()
        with precision.autocast(number, self.device):
            return self.loss(self.model, batch)

    def _unsound_gradient(self) -> str:
        return next((name for name, p in self.model.named_parameters()
                     if p.grad is not None and not _finite(p.grad)), "")


class _Seen:
    """What was met first in each pass."""

    def __init__(self) -> None:
        self.forward: str | None = None
        self.backward: str | None = None
        self.gradients = 0
        """So many were finite before the first that was not."""

    def gradient(self, name: str, inside: bool, gradient: torch.Tensor) -> None:
        """Take note of the gradient by what a module was given (`inside`), or by what it gave."""
        if self.backward is not None:
            return
        if _finite(gradient):
            self.gradients += 1
        elif inside:
            self.backward = name
        else:  # what it gave is used outside of any module: by what comes after it
            self.backward = f"what follows {name}" if self.gradients else THE_LOSS


@contextmanager
def _watched(model: torch.nn.Module, seen: _Seen) -> Iterator[None]:
    """Look at what goes into and out of every module while the block runs, in both passes.

    In the backward pass only at modules without others in them. Each reads its inputs through a view of its own, so
    that the gradient by them is its alone, and not that of all who read the same tensor. (A backward hook of the module
    would do that too, but forbids changes in place after it.)
    """
    def given(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_viewed(a, lambda g: seen.gradient(name, True, g)) for a in args)

    def gave(name: str, inputs: tuple[Any, ...], output: Any, leaf: bool) -> Any:
        if seen.forward is None and all(map(_finite, _tensors(inputs))) and not all(map(_finite, _tensors(output))):
            seen.forward = name
        if not leaf:
            return output
        if any(output is value for value in inputs):  # a dropout of nothing must not be blamed for what it hands on
            output = output.view_as(output)
        for t in _tensors(output):
            if t.requires_grad:
                t.register_hook(lambda g: seen.gradient(name, False, g))
        return output

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            leaf = next(module.children(), None) is None
            if leaf:
                before = module.register_forward_pre_hook(lambda _, args, name=name: given(name, args))
                hooks.callback(before.remove)
            after = module.register_forward_hook(
                lambda _, args, kwargs, output, name=name, leaf=leaf: gave(name, (*args, kwargs), output, leaf),
                with_kwargs=True)
            hooks.callback(after.remove)
        yield


def _viewed(value: Any, hook: Callable[[torch.Tensor], None]) -> Any:
    import torch

    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return value
    view = value.view_as(value)
    view.register_hook(hook)
    return view


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of floating-point numbers inside tuples, lists and mappings."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _finite(values: torch.Tensor) -> bool:
    import torch

    return bool(torch.isfinite(values).all())

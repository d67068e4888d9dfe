"""What a training step costs before any is taken: time, memory, and what activation checkpointing would change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from plimsoll.core import memory
from plimsoll.core.errors import Unsupported
from plimsoll.core.record import Record
from plimsoll.core.store import write_atomic
from plimsoll.train import precision, recompute

if TYPE_CHECKING:
    import torch

_SECONDS = 24.0
_FEWEST, _MOST = 9, 21
"""Rounds of all policies that are timed."""
_POLICIES: tuple[recompute.Policy, ...] = ("full", "selective", "none")


class StepCosts(Record):
    """What steps on real rows took, the same ones over and over; the model is left as it was."""

    trainable: int
    """Weights that are trained."""
    parameters: int
    """All weights of the model while it is trained, adapters included."""
    rows: int = 0
    """Of the batch whose steps were timed."""
    tokens: int = 0
    """Of that batch, padding included."""
    mean_tokens: float = 0.0
    """Of a training row."""
    precision: str = ""
    step_s: dict[str, tuple[float, ...]] = Field(default_factory=dict[str, tuple[float, ...]])
    """Seconds of a whole step by policy of activation checkpointing, round by round."""
    peak_mb: dict[str, float] = Field(default_factory=dict[str, float])
    """Peak memory of the process while it trains on its longest rows, by policy; on a GPU that of its tensors there."""
    device_mb: float | None = None
    """Memory of the GPU whose tensors the peak counts, in MB (10^6 bytes); None where it is that of the process."""
    recompute_direct: tuple[float, ...] = ()
    """Share of a fully checkpointed step that computes again, by a stopwatch around just that, round by round."""
    recompute_fitted: tuple[float, ...] = ()
    """The same share from the times of steps with none, half and all layers checkpointed."""
    reason: str = ""
    """Why a policy was not timed."""


def measure(model: torch.nn.Module, timed: Callable[[], torch.Tensor], largest: Callable[[], torch.Tensor],
            number: precision.Precision, device: str) -> StepCosts:
    """Take whole training steps, and return what they cost; the weights come out as they went in.

    timed: gives the loss of the batch whose steps are timed; `largest`: that of the batch which needs most memory. The
    peak is taken with the policy that needs least first, because freed memory is not always given back.
    """
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    # a rate of nothing: the optimizer does all its work, and moves no weight
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)

    def step(loss: Callable[[], torch.Tensor] = timed) -> None:
        with precision.autocast(number, device):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def large() -> None:
        step(largest)

    memory_mb = torch.cuda.mem_get_info()[1] / 1e6 if device == "cuda" else None
    known = {"trainable": sum(p.numel() for p in trained), "parameters": sum(_numbers(p) for p in model.parameters()),
             "precision": number, "device_mb": memory_mb}
    encoder = model.encoder
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []):
        try:
            peak_mb = {policy: _peak_mb(large, encoder, policy, device) for policy in _POLICIES}
        except Unsupported as e:
            peak_mb = {"none": _peak_mb(large, encoder, "none", device)}
            return StepCosts(**known, peak_mb=peak_mb, step_s={"none": _plain(step, device)}, reason=e.message)
        rounds = round(_SECONDS / sum(_plain(step, device, 1) * 5))
        found = recompute.timed(step, encoder, device, min(_MOST, max(_FEWEST, rounds)))
    step_s = {"none": found.none_s, "selective": found.selective_s, "full": found.full_s}
    return StepCosts(**known, peak_mb=peak_mb, step_s={k: tuple(v.tolist()) for k, v in step_s.items()},
                     recompute_direct=tuple(found.direct.tolist()), recompute_fitted=tuple(found.fitted.tolist()))


def write_without_steps(model: torch.nn.Module, trained: torch.nn.Module, file: Path) -> None:
    """Write the costs of a method that fits `trained`, a part of the model, without steps through the rest."""
    trainable, parameters = (sum(p.numel() for p in part.parameters()) for part in (trained, model))
    found = StepCosts(trainable=trainable, parameters=parameters, peak_mb={"none": memory.peak_mb()},
                      reason="nothing is computed again where no gradient passes the encoder")
    write_atomic(file, found.to_json())


def _numbers(parameter: torch.nn.Parameter) -> int:
    """Return how many numbers a parameter holds; in four bits two of them are packed into a byte."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else packed.shape.numel()


def _peak_mb(step: Callable[[], None], encoder: object, policy: recompute.Policy, device: str) -> float:
    import torch

    with recompute.checkpointed(encoder, policy):
        step()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            step()
            return torch.cuda.max_memory_allocated() / 1e6
        memory.reset_peak()
        step()
        return memory.peak_mb()


def _plain(step: Callable[[], None], device: str, rounds: int = _MOST) -> tuple[float, ...]:
    def one() -> float:
        began = recompute.now_s(device)
        step()
        return recompute.now_s(device) - began

    return tuple(one() for _ in range(rounds))

"""Which number format to train in: measured on this machine with the first real rows, not guessed from its name."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]

_WORTH = 1.05  # a smaller gain is within the noise of two steps, and fp32 is the safer format
_HOPELESS = 2.0


def autocast(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Return the context in which a forward pass runs in `precision`."""
    import torch

    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def choose(step: Callable[[AbstractContextManager[object]], object], device: str, width: int,
           slowest: Callable[[float], float] = lambda value: value) -> tuple[Precision, str]:
    """Return the faster of fp32 and bf16 autocast here, and the reason in words.

    step: runs one forward and backward pass under the context it is given. `width`: the model's hidden size.
    `slowest`: the largest of what the processes that train together measured, so that they all choose the same.
    """
    ratio = slowest(_matmul_ratio(device, width))
    if ratio > 2 * _HOPELESS:  # twice: a small product is noisy
        return "fp32", f"fp32: a small bf16 matrix product takes {ratio:.1f} times as long as fp32 here"
    seconds: dict[Precision, float] = {}
    formats: tuple[Precision, Precision] = ("fp32", "bf16")
    for precision in formats * 3:  # the first of each allocates; interleaved, so that a drifting machine moves both
        elapsed = slowest(_seconds(lambda p=precision: step(autocast(p, device)), device))
        if precision == "bf16" and elapsed > _HOPELESS * seconds["fp32"]:
            return "fp32", f"fp32: a bf16 step took {elapsed / seconds['fp32']:.1f} times as long"
        seconds[precision] = elapsed if precision not in seconds else min(seconds[precision], elapsed)
    gain = seconds["fp32"] / seconds["bf16"]
    words = f"a step takes {1e3 * seconds['fp32']:.0f} ms in fp32 and {1e3 * seconds['bf16']:.0f} ms in bf16"
    return ("bf16", f"bf16: {words}") if gain > _WORTH else ("fp32", f"fp32: {words}")


def _matmul_ratio(device: str, width: int) -> float:
    """Return time in bf16 over time in fp32 of one small matrix product, the best of three each.

    Where the processor has no bf16 instructions a whole training step can take minutes; this takes milliseconds.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator).to(device) for shape in ((64, width), (width, 4 * width)))

    def best_s(x: torch.Tensor, y: torch.Tensor) -> float:
        return min(_seconds(lambda: x @ y, device) for _ in range(3))

    return best_s(a.bfloat16(), b.bfloat16()) / best_s(a, b)


def _seconds(call: Callable[[], object], device: str) -> float:
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began

"""Measure what this machine can do at best: matrix products and memory reads, as JSON on stdout.

Run as `python -m plimsoll.train.calibrate matmul --threads N [--device cuda]`, in a process of its own, so that
no thread pool of the caller's is in the way. `plimsoll.bench.ceilings` is its one caller.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

Call = Callable[[], object]
Kernel = Callable[[int, str], Call]

_CPU_SIZES = (128, 256, 512, 1024, 2048)
_CUDA_SIZES = (1024, 2048, 4096, 8192)
_PER_SIZE_S = 0.12
_READ_S = 0.6
_TOO_SLOW_S = 0.05  # the next size takes eight times as long
_READ_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30}  # well past the last cache of either


def main() -> int:
    """Print {"device", "threads", "fp32_gflops", "fp32_kernel", ..., "memory_gb_s"} and return the exit code."""
    parser = argparse.ArgumentParser(prog="plimsoll.train.calibrate", description=__doc__)
    parser.add_argument("what", choices=["matmul"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f"--threads must be at least 1, got {args.threads}")
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"no CUDA device: torch {torch.__version__} sees none; use --device cpu", file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        print(json.dumps({"device": args.device, "threads": args.threads, **ceilings(args.device)}))
    return 0


def ceilings(device: str) -> dict[str, Any]:
    """Return the best rate of each precision, the kernel that gave it, and the memory's read rate.

    fp32 on CUDA is true fp32: torch leaves TF32 off unless asked.
    """
    fp32, fp32_kernel = _best({"torch.mm": _float_matmul(torch.float32)}, device)
    bf16, bf16_kernel = _best({"torch.mm": _float_matmul(torch.bfloat16)}, device)
    int8, int8_kernel = _best(_int8_kernels(device), device)
    return {
        "fp32_gflops": fp32, "fp32_kernel": fp32_kernel,
        "bf16_gflops": bf16, "bf16_kernel": bf16_kernel,
        "int8_gops": int8, "int8_kernel": int8_kernel,
        "memory_gb_s": _memory_read(device),
    }  # fmt: skip


def _best(kernels: dict[str, Kernel], device: str) -> tuple[float, str]:
    """Return (10^9 operations per second, "kernel, size") of the fastest; 0 and the reasons when none runs here."""
    rates: list[tuple[float, str]] = []
    refusals: list[str] = []
    for name, kernel in kernels.items():
        try:
            for n, seconds in _growing(kernel, device):
                rates.append((2 * n**3 / seconds / 1e9, f"{name}, {n} x {n}"))
        except (RuntimeError, AttributeError) as e:  # torch's two ways to say that a build lacks a kernel
            refusals.append(f"{name}: {str(e).splitlines()[0]}")
    return max(rates, default=(0.0, "none (" + "; ".join(refusals) + ")"))


def _growing(kernel: Kernel, device: str) -> Iterator[tuple[int, float]]:
    """Yield (size, seconds of the fastest call), from small to large, until a call takes too long.

    Where the processor lacks the instructions, torch falls back to a plain loop that is a hundred times slower.
    """
    for n in _CUDA_SIZES if device == "cuda" else _CPU_SIZES:
        call = kernel(n, device)
        call()  # the first call packs weights and starts threads
        seconds = _fastest(call, device, _PER_SIZE_S)
        yield n, seconds
        if seconds > _TOO_SLOW_S:
            return


def _fastest(call: Call, device: str, budget_s: float) -> float:
    best, end = float("inf"), time.perf_counter() + budget_s
    while time.perf_counter() < end:
        best = min(best, _device_seconds(call) if device == "cuda" else _seconds(call))
    return best


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _device_seconds(call: Call) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def _float_matmul(dtype: torch.dtype) -> Kernel:
    def kernel(n: int, device: str) -> Call:
        a, b = torch.randn(n, n, device=device).to(dtype), torch.randn(n, n, device=device).to(dtype)
        out = torch.empty(n, n, device=device, dtype=dtype)
        return lambda: torch.mm(a, b, out=out)

    return kernel


def _int8_kernels(device: str) -> dict[str, Kernel]:
    kernels: dict[str, Kernel] = {"torch._int_mm": _int_mm}
    if device == "cpu":
        kernels["onednn.qlinear_pointwise"] = _onednn_linear
        kernels[f"quantized.linear ({torch.backends.quantized.engine})"] = _quantized_linear
    return kernels


def _int_mm(n: int, device: str) -> Call:
    a, b = _random_int8(n, device), _random_int8(n, device).t()  # cuBLAS wants the second one column by column
    return lambda: torch._int_mm(a, b)


def _onednn_linear(n: int, device: str) -> Call:
    activations = _random_int8(n, device).to(torch.uint8)
    weights = torch.ops.onednn.qlinear_prepack(_random_int8(n, device), [n, n])
    scales, zero_points = torch.full((n,), 0.01), torch.zeros(n, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        activations, 0.01, 64, weights, scales, zero_points, None, 0.1, 64, torch.uint8, "none", [], ""
    )


def _quantized_linear(n: int, device: str) -> Call:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still the only int8 product of builds without oneDNN
        weights = torch.quantize_per_tensor(torch.randn(n, n), 0.02, 0, torch.qint8)
        activations = torch.quantize_per_tensor(torch.randn(n, n), 0.02, 64, torch.quint8)
    packed = torch.ops.quantized.linear_prepack(weights, None)
    return lambda: torch.ops.quantized.linear(activations, packed, 0.1, 64)


def _random_int8(n: int, device: str) -> torch.Tensor:
    return torch.randint(0, 64, (n, n), dtype=torch.int8, device=device)


def _memory_read(device: str) -> float:
    """Return GB/s (10^9 bytes) of summing a large fp32 tensor."""
    size = _READ_BYTES[device]
    numbers = torch.ones(size // 4, device=device)
    numbers.sum()  # the first touch maps the pages
    return size / _fastest(numbers.sum, device, _READ_S) / 1e9


if __name__ == "__main__":
    sys.exit(main())

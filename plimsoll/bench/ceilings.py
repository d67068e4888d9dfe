"""The ceilings: the most this machine does per second, to say how far a latency is from what is possible."""

from __future__ import annotations

import os
import subprocess
import sys

from pydantic import NonNegativeFloat, PositiveInt, ValidationError

from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.core.parts import Device
from plimsoll.core.record import Record

_TIMEOUT_S = 120  # some eight seconds are expected; a loaded machine may take many times that


class Ceilings(Record):
    """Best rates at one thread count, in 10^9 operations (a multiplication and an addition count as two) and bytes."""

    device: Device
    threads: PositiveInt
    fp32_gflops: NonNegativeFloat
    fp32_kernel: str
    """The call and the size of the square matrices that gave the best rate."""
    bf16_gflops: NonNegativeFloat
    bf16_kernel: str
    int8_gops: NonNegativeFloat
    """0 when torch has no int8 product here; the kernel then says why."""
    int8_kernel: str
    memory_gb_s: NonNegativeFloat


def measure(threads: int, device: Device = "cpu") -> Ceilings:
    """Measure the ceilings in a process of its own; takes some eight seconds.

    These are the best kernels that torch has here, a lower bound on what the silicon can do: another runtime's
    int8 kernels can be faster than torch's, and where the processor lacks bf16 the rate is a plain loop's.

    Raises Unsupported when the device is not there, ChildError when the measurement breaks.
    """
    wanted = ["matmul", "--threads", str(threads), "--device", device]
    command = [sys.executable, "-m", "plimsoll.train.calibrate", *wanted]
    # the libraries read their thread count when they are loaded
    limits = {k: str(threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, env={**os.environ, **limits}, check=False
        )
    except subprocess.TimeoutExpired:
        raise ChildError(
            f"measuring the ceilings took more than {_TIMEOUT_S} s", hint="is the machine busy with something else?"
        ) from None
    if child.returncode == 2:
        raise Unsupported(f"cannot measure ceilings on {device} with {threads} threads", hint=child.stderr.strip())
    if child.returncode:
        raise ChildError(f"measuring the ceilings ended with exit code {child.returncode}", traceback=child.stderr)
    try:
        return Ceilings.model_validate_json(child.stdout)
    except ValidationError as e:
        raise ChildError("measuring the ceilings printed something else", traceback=child.stdout) from e

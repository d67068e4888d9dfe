"""The fingerprint and the ceilings of a GPU."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from gpu.steps import Place, Steps


def run(place: Place, steps: Steps) -> None:
    """Measure, and let the command print it."""
    steps.do("ceilings", lambda: _ceilings(place))
    steps.do("plimsoll machine --device cuda", lambda: _command(place))


def _ceilings(place: Place) -> dict[str, Any]:
    from plimsoll.bench.ceilings import measure

    found = measure(place.threads, "cuda")
    assert found.device == "cuda"
    assert found.bf16_gflops > found.fp32_gflops > 0
    assert found.int8_gops > 0, found.int8_kernel
    assert found.memory_gb_s > 0
    return found.model_dump(mode="json")


def _command(place: Place) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "plimsoll.cli", "machine", "--device", "cuda", "--threads",
                           str(place.threads)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    gpu = next(line.split(maxsplit=1)[1].strip() for line in done.stdout.splitlines() if line.startswith("gpu "))
    return {"gpu": gpu, "lines": len(done.stdout.splitlines())}

"""Several processes and one GPU: torchrun with one, DDP and FSDP over NCCL in a world of one, two that share it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu.steps import Place, Steps, fresh, losses
from plimsoll.moves.finetune import FineTune
from plimsoll.train.launch import Job

_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
_CLOSE = 1e-4
"""By how much a loss may differ: orders of sums."""


def run(place: Place, steps: Steps) -> None:
    """Start each, and compare their losses with those of one process."""
    steps.do("torchrun with one process", lambda: _launched(place, 1))
    steps.do("torchrun with two processes on one GPU refuses", lambda: _refused(place))
    alone = steps.do("one process, step by step", lambda: _shared(place, "alone", 1, "nccl"))
    for way in ("ddp", "fsdp"):
        steps.do(f"{way} over NCCL, a world of one", lambda way=way: _held(place, way, 1, "nccl", alone))
    # two processes want a GPU each; what they would do is tried over gloo, with this one's tensors
    steps.do("ddp over gloo, two processes on one GPU", lambda: _held(place, "ddp", 2, "gloo", alone))


def _job(place: Place) -> Path:
    folder = fresh(place.folder / "launched")
    work = place.work(tiny=True)
    move = FineTune(epochs=4, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="bf16")
    file = folder / "job.json"
    file.write_text(Job(move=move, task=work.task, model=str(place.tiny()), data=str(work.data),
                        out=str(folder / "model"), threads=1, device="cuda",
                        checkpoint=str(folder / "checkpoint")).to_json())
    return file


def _launched(place: Place, processes: int) -> dict[str, Any]:
    file = _job(place)
    done = _torchrun(processes, ["-m", "plimsoll.train.launch", str(file)])
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = losses([json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])
    assert found[-1] < found[0]
    assert (file.parent / "model" / "model.safetensors").exists()
    return {"loss": [found[0], found[-1]]}


def _refused(place: Place) -> dict[str, Any]:
    import torch

    count = torch.cuda.device_count() + 1
    done = _torchrun(count, ["-m", "plimsoll.train.launch", str(_job(place))])
    assert done.returncode != 0
    said = [json.loads(line)["error"] for line in done.stdout.splitlines() if line.startswith('{"error"')]
    assert said, done.stdout[-2000:] + done.stderr[-2000:]
    return {"says": said[0]}


def _shared(place: Place, way: str, processes: int, backend: str) -> dict[str, Any]:
    out = place.folder / f"{way}-{processes}-{backend}.json"
    out.unlink(missing_ok=True)
    script = Path(__file__).with_name("shared.py")
    done = _torchrun(processes, [str(script), way, backend, str(place.tiny()), str(out)])
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return json.loads(out.read_text())


def _held(place: Place, way: str, processes: int, backend: str, alone: dict[str, Any] | None) -> dict[str, Any]:
    found = _shared(place, way, processes, backend)
    assert found["goes_on_the_same"], found
    assert alone is not None, "there is nothing to compare it with"
    apart = max(abs(a - b) for a, b in zip(found["losses"], alone["losses"], strict=True))
    assert apart < _CLOSE, f"a loss differs by {apart:.2g}"
    return {**found, "largest_difference": apart}


def _torchrun(processes: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_TORCHRUN, "--nproc-per-node", str(processes), *command], capture_output=True, text=True,
                          check=False, timeout=120)

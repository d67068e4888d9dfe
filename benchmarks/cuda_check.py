"""Whether everything that runs on a GPU does: measuring, training, every runtime that can, a search, a server, NCCL.

    python benchmarks/cuda_check.py
    python benchmarks/cuda_check.py --model MINILM --train banking77/train.jsonl --test banking77/test.jsonl

Each section is a process of its own and a list of steps; a step that breaks is recorded with its traceback, and the
next goes on. Without --model the larger of the two models has MiniLM's size and random weights; without rows both learn
the tiny ones. The result is benchmarks/results/cuda_check@<machine digest>@<date>.json; what a search left behind stays
in --work. Exit code 1 when a step broke.

The sections (--sections machine,train):
machine    the fingerprint and the ceilings
train      methods and formats, every move, what is not finite, a kill at a step, activation checkpointing
runtimes   torch and inductor in each of their formats, against the CPU's answers
tune       a whole search with target.device = "cuda", its log, and a profile
serve      that artifact as a service: answers, cost table, a hot swap, a killed worker
processes  torchrun with one process, DDP and FSDP over NCCL in a world of one, two processes that share the GPU
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from gpu import SECTIONS, section  # noqa: E402
from gpu.steps import Place, Steps  # noqa: E402

_VERSIONS = ("torch", "triton", "transformers", "tokenizers", "safetensors", "peft", "numpy", "scipy", "pydantic",
             "nvidia-nccl-cu13", "nvidia-nccl-cu12")


def main() -> int:
    """Run the sections one after the other, print what each step came to, and write the result."""
    args = _arguments()
    work = (args.work or Path(tempfile.mkdtemp(prefix="cuda_check_"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if args.section:
        mine = work / args.section
        mine.mkdir(exist_ok=True)
        place = Place(mine, args.model, args.train, args.test, args.threads, args.minutes, args.quick)
        section(args.section)(place, Steps(work / f"{args.section}.json", args.steps))
        return 0
    import torch

    from plimsoll.bench.machine import fingerprint

    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device here", file=sys.stderr)
        return 2
    machine, began, found = fingerprint(), time.monotonic(), {}
    path = args.results / f"cuda_check@{machine.digest}@{datetime.now(UTC):%Y-%m-%d}.json"
    known = {**_known(args), "machine": {**machine.model_dump(mode="json"), "digest": machine.digest}}
    for name in args.sections:
        found[name] = _section(name, work, args.limit_s)
        for step in found[name]["steps"]:
            print(_line(name, step), flush=True)
        if found[name]["ended"]:
            print(f"{name}: {found[name]['ended']}", flush=True)
        # after each section: a check that is cut off leaves what it came to
        path.write_text(json.dumps({**known, "sections": found, "seconds": round(time.monotonic() - began, 1)},
                                   indent=1) + "\n")
    oks = [step["ok"] for told in found.values() for step in told["steps"]]
    print(f"{sum(oks)} of {len(oks)} steps held; kept as {path}, what was made is in {work}")
    return 0 if all(oks) and not any(told["ended"] for told in found.values()) else 1


def _known(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is known before any section ran."""
    import torch

    return {
        "what": "what ran on a GPU, and what did not",
        "card": {"name": torch.cuda.get_device_name(), "memory_mb": torch.cuda.mem_get_info()[1] / 1e6,
                 "capability": torch.cuda.get_device_capability(), "cuda": torch.version.cuda, "driver": _driver()},
        "versions": {name: _version(name) for name in _VERSIONS if _version(name)},
        "model": "given" if args.model else "random weights", "rows": "given" if args.train else "tiny"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--model", type=lambda text: Path(text).resolve(), help="a pre-trained folder")
    parser.add_argument("--train", type=lambda text: Path(text).resolve(), help="jsonl rows with text and label")
    parser.add_argument("--test", type=lambda text: Path(text).resolve())
    parser.add_argument("--threads", type=int, default=min(8, len(os.sched_getaffinity(0))))
    parser.add_argument("--minutes", type=float, default=3.0, help="of the search")
    parser.add_argument("--limit-s", type=float, default=600.0, help="of each section, which is ended then")
    parser.add_argument("--steps", default="", metavar="REGEX", help="only steps whose name it is found in")
    parser.add_argument("--quick", action="store_true", help="fewer settings of each kind")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.sections = tuple(name for name in args.sections.split(",") if name)
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return args


def _section(name: str, work: Path, limit_s: float) -> dict[str, Any]:
    """Run a section in a process of its own: what breaks the device for one breaks no other."""
    began, file = time.monotonic(), work / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--work", str(work), "--section", name]
    ended, log = "", work / f"{name}.log"
    with log.open("wb") as sink:
        try:
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=limit_s,
                                  check=False).returncode
            if code:
                ended = f"ended with exit code {code}: {log.read_text(errors='replace')[-2000:]}"
        except subprocess.TimeoutExpired:
            ended = f"was ended after {limit_s:g} s"
    steps = json.loads(file.read_text()) if file.exists() else []
    return {"seconds": round(time.monotonic() - began, 1), "ended": ended, "steps": steps}


def _line(name: str, step: dict[str, Any]) -> str:
    told = json.dumps(step["told"], default=str)
    what = told if step["ok"] else step["traceback"].strip().splitlines()[-1]
    return f"{'ok    ' if step['ok'] else 'BROKEN'} {name}: {step['step']} ({step['seconds']:.1f} s) {what[:300]}"


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())

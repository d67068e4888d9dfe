"""The entry under torchrun: each process of a training starts here, with the job in a file.

    torchrun --standalone --nproc-per-node 2 -m plimsoll.train.launch JOB.json

Progress comes on stdout as JSON lines, from the first process. A job whose checkpoints are there goes on from them,
also with another number of processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plimsoll.core.errors import PlimsollError, Unsupported
from plimsoll.core.find import AnyMove, AnyTask
from plimsoll.core.parts import Device, Spreading, Work
from plimsoll.core.record import Record
from plimsoll.core.store import sync_folder
from plimsoll.train import ranks

SECONDS = "seconds.json"
"""In the model folder: how long the move took."""


class Job(Record):
    """A move to apply in several processes, and all that it needs; paths as each of them sees them."""

    move: AnyMove
    task: AnyTask
    model: str
    """Folder of the model to start from."""
    data: str
    """Folder of prepared rows."""
    out: str
    """Folder to write the new model to; it appears whole."""
    threads: int
    """Of each process."""
    device: Device = "cpu"
    seed: int = 0
    spreading: Spreading = "auto"
    deadline_s: float | None = None
    checkpoint: str | None = None
    """Folder for the state of an unfinished training, shared by all machines; removed when it has ended."""
    incidents: str | None = None
    """File to which steps that were not finite are added."""


def launch_lines(job: Path, processes: int) -> dict[str, list[str]]:
    """Return the command lines that run a job in so many processes on this machine, by the program that starts them.

    For several machines take --standalone out and give --nnodes and --rdzv-endpoint instead.
    """
    module = ["-m", "plimsoll.train.launch", str(job)]
    return {
        "torchrun": ["torchrun", "--standalone", "--nproc-per-node", str(processes), *module],
        # --multi_gpu is how accelerate is told to start torchrun's processes, with GPUs or without; what follows are
        # its defaults, of which it would warn
        "accelerate": ["accelerate", "launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
                       "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", *module],
    }


def run(job: Job) -> None:
    """Apply the job's move as one of its processes. Raises Unsupported for a move that several cannot share."""
    if not job.move.together:
        raise Unsupported(f"{job.move.name()} cannot be shared by several processes", "train it in one")
    with ranks.joined(job.device) as this:
        work = Work(task=job.task, data=Path(job.data), threads=job.threads, device=job.device, seed=job.seed,
                    deadline_s=job.deadline_s, checkpoint=Path(job.checkpoint) if job.checkpoint else None,
                    incidents=Path(job.incidents) if job.incidents else None,
                    report=_say if this.rank == 0 else lambda event: None,
                    rank=this.rank, ranks=this.world, spreading=job.spreading)
        with _appearing_whole(Path(job.out), this.rank) as out:
            began = time.monotonic()
            job.move.apply(Path(job.model), work, out)
            if this.rank == 0:
                (out / SECONDS).write_text(json.dumps(time.monotonic() - began))
        if this.rank == 0 and work.checkpoint is not None:
            shutil.rmtree(work.checkpoint, ignore_errors=True)


@contextlib.contextmanager
def _appearing_whole(out: Path, rank: int) -> Iterator[Path]:
    """Yield a folder beside `out` that takes its place when the block ends well; the first process's alone does."""
    temporary = out.with_name(f".{out.name}.{rank}.tmp")
    if rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        temporary.mkdir(parents=True)
    yield temporary
    if rank == 0:
        for path in temporary.iterdir():
            with path.open("rb") as f:
                os.fsync(f.fileno())
        sync_folder(temporary)
        shutil.rmtree(out, ignore_errors=True)
        os.rename(temporary, out)
        sync_folder(out.parent)


def _say(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the job of a file; an error of Plimsoll's own is told as a JSON line, and its exit code returned."""
    try:
        if len(arguments) != 1:
            raise Unsupported(f"need one argument, the file of a job, got {list(arguments)}",
                              "plimsoll train SPEC --processes N writes one")
        run(Job.from_file(Path(arguments[0])))
    except PlimsollError as e:
        _say({"error": e.message, "hint": e.hint})
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One move trained by several processes under torchrun, from the run's own spec to a model folder and its score."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from plimsoll.bench import seeds
from plimsoll.core import find
from plimsoll.core.errors import ChildError, SpecError
from plimsoll.core.parts import Event, Move, Spreading
from plimsoll.core.spec import Spec
from plimsoll.core.store import write_atomic
from plimsoll.core.trained import TRAINED, Trained
from plimsoll.search.attempt import Bench, work_request
from plimsoll.search.methods import chosen_of
from plimsoll.train.launch import SECONDS, Job, launch_lines

_MODEL, _JOB, _CHECKPOINT = "model", "job.json", "checkpoint"


def move_of(names: Sequence[str], spec: Spec, processes: int) -> Move:
    """Return the method to train, with the fields the spec gives it. Raises SpecError when several cannot share it."""
    if processes < 2:
        raise SpecError(f"--processes {processes} is no several processes", "give 2 or more, or leave it out")
    able = [name for name in find.methods() if cast(type[Move], find.part("moves", name)).together]
    wanted = list(names) or able[:1]
    if len(wanted) != 1 or wanted[0] not in able:
        raise SpecError(f"several processes train one method, and cannot share {', '.join(wanted)}",
                        f"give one of --methods {', '.join(able)}, or leave --processes out to compare")
    return chosen_of(wanted, spec)[0][0]


def train(bench: Bench, move: Move, processes: int, spreading: Spreading) -> Trained:
    """Train the move in so many processes on this machine, and return what came of it; a finished one is read instead.

    The lines that start the processes are reported, and the job they name stays in the run folder. A run that was
    killed goes on from its checkpoint, also with another number of processes. Raises ChildError when a process ends
    with an error.
    """
    run = bench.run
    record, out = run.folder / TRAINED, run.folder / _MODEL
    if not record.exists():
        threads = max(1, bench.threads // processes)
        if not (out / SECONDS).exists():
            job = _job(bench, move, threads, spreading)
            file = run.folder / _JOB
            write_atomic(file, job.to_json())
            lines = launch_lines(file, processes)
            run.report({"stage": "launch", "note": f"{processes} processes by the first of these lines; either does"})
            for line in lines.values():
                run.report({"stage": "launch", "text": f"OMP_NUM_THREADS={threads} {shlex.join(line)}"})
            _start(lines["torchrun"], threads, run.report, run.folder / "logs" / "processes.log")
        quality = _judged(out, bench)
        trained = Trained(move=move, processes=processes, threads=threads, metric=run.spec.task.metric, quality=quality,
                          seconds=json.loads((out / SECONDS).read_text()), model=_MODEL)
        write_atomic(record, trained.to_json())
    return Trained.from_file(record).model_copy(update={"run": str(run.folder)})


def _job(bench: Bench, move: Move, threads: int, spreading: Spreading) -> Job:
    spec, folder = bench.run.spec, bench.run.folder.resolve()
    return Job(move=move, task=spec.task, model=str(bench.pretrained.resolve()), data=str(bench.data.resolve()),
               out=str(folder / _MODEL), threads=threads, device=spec.target.device, seed=spec.search.seed,
               spreading=spreading, deadline_s=spec.budget.search_minutes * 60, checkpoint=str(folder / _CHECKPOINT),
               incidents=str(bench.run.incidents.resolve()))


def _judged(model: Path, bench: Bench) -> Any:
    """Let the model that was written answer the validation rows, in one process; return the metric with its bounds."""
    task, answers = bench.run.spec.task, bench.run.folder / "scores" / "processes.npy"
    answers.parent.mkdir(exist_ok=True)
    bench.maker().call({**work_request(bench, model), "do": "answers", "split": "validation", "out": str(answers)},
                       bench.run.report)
    evidence = task.evidence(np.load(answers), bench.dataset.targets("validation"))
    return seeds.quality([evidence], task.value, task.metric)


def _start(torchrun: Sequence[str], threads: int, report: Callable[[Event], None], log: Path) -> None:
    """Run a torchrun line until all its processes have ended; what is no event of ours goes to `log`.

    They do not outlive this process: the first's next word finds no reader, and torchrun ends them all with it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    errors: list[dict[str, str]] = []
    limits = {k: str(threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    # torchrun is the name of this module; by it, the one of this interpreter is run whatever the PATH says
    command = [sys.executable, "-m", "torch.distributed.run", *torchrun[1:]]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink,
                                   env={**os.environ, **limits, "TOKENIZERS_PARALLELISM": "false"})
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event = _event(line)
                if event is None:
                    sink.write(line)
                elif "error" in event:
                    errors.append(event)
                else:
                    report(event)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun passes it on to its processes
                process.wait()
            process.stdout.close()
    if errors:
        raise ChildError(errors[0]["error"], errors[0]["hint"])
    if code:
        raise ChildError(f"the processes ended with exit code {code}", f"their output is in {log}")


def _event(line: bytes) -> dict[str, Any] | None:
    """Return what a process said, or None for what its libraries print."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and ("stage" in found or "error" in found):
            return found
    return None

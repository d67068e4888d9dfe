"""Trainings that are killed at a step and go on, beside others that are left alone: run by the section `train`.

    python benchmarks/gpu/killed.py FOLDER tiny:bf16:MODEL small:fp32:MODEL

Each is a fork of this process, which has imported everything but has not touched the GPU. Says on stdout, as JSON by
job, whether two trainings that are left alone end with the same weights, and whether a killed one does that goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS
from plimsoll.train import encoder, loop, losses
from plimsoll.train.batches import Batch, tokenize

_KILLED_AT = 11
"""Steps: in the second epoch, so that there is a best one to keep."""


def main(folder: Path, jobs: list[str]) -> None:
    """Let all that are left alone and all that are killed run side by side, then those that go on."""
    asked = {f"{name}:{number}": (number, Path(model)) for name, number, model in (job.split(":", 2) for job in jobs)}
    wait([fork(folder, job, how, *asked[job]) for job in asked for how in ("alone", "twice", "killed")])
    wait([fork(folder, job, "on", *asked[job]) for job in asked])
    told: dict[str, Any] = {}
    for job in asked:
        alone, twice, on = (load_file(folder / f"{job}-{how}.safetensors") for how in ("alone", "twice", "on"))
        told[job] = {"same_twice": _same(alone, twice), "goes_on_the_same": _same(alone, on),
                     "differs_by": max(float((alone[n] - on[n]).abs().max()) for n in alone),
                     "note": (folder / f"{job}-on.txt").read_text()}
    print(json.dumps(told))


def fork(folder: Path, job: str, how: str, number: str, model: Path) -> tuple[int, bool]:
    """Begin a training in a fork; return its number, and whether it is to be killed."""
    child = os.fork()
    if not child:
        try:
            train(folder, job, how, number, model)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child, how == "killed"


def wait(children: list[tuple[int, bool]]) -> None:
    """Wait until all have ended. Exits when one did so in another way than it should."""
    ended = [(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), killed) for child, killed in children]
    if any(code != (-signal.SIGKILL if killed else 0) for code, killed in ended):
        sys.exit(f"they ended with {ended}")


def train(folder: Path, job: str, how: str, number: Any, model: Path) -> None:
    """Train with dropout and write the weights; with a checkpoint after every step where it is to be killed."""
    loop._CHECKPOINT_S, loop._CHECKPOINT_SHARE = 0.0 if how == "killed" else 1e9, 1e9
    names = sorted({label for _, label in TINY_ROWS})
    targets = np.array([names.index(label) for _, label in TINY_ROWS])
    notes: list[str] = []
    kept = folder / f"{job}-kept" if how in ("killed", "on") else None
    work = Work(task=TextClassification(train="rows"), data=model, threads=1, device="cuda", checkpoint=kept,
                report=lambda event: notes.append(event["note"]) if "note" in event else None)
    told = loop.Training(epochs=2, batch_size=16, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.01,
                         warmup=0.1, patience=9, precision=number)
    with loop.settings(work):
        tokens = tokenize(model, [text for text, _ in TINY_ROWS])
        own, seen = losses.hard(targets, 0.1, "cuda"), [0]

        def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            if how == "killed" and seen[0] == _KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1
            return own(model, batch)

        learner = encoder.start(model, work.task, len(names), dropout=0.1)
        loop.fit(learner, tokens, tokens, loss, lambda logits: float(np.mean(logits.argmax(axis=1) == targets)), told,
                 work, "test", began=0.0)
    (folder / f"{job}-{how}.txt").write_text("\n".join(notes))
    save_file({name: t.cpu().contiguous() for name, t in learner.state_dict().items()},
              folder / f"{job}-{how}.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

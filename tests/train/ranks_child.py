"""What two processes do in test_ranks.py: `torchrun ... ranks_child.py FOLDER`, one start for all that is asked."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from plimsoll.core.parts import Spreading, Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS
from plimsoll.train import encoder, loop, losses, ranks, spread
from plimsoll.train.batches import Batch, tokenize

ROWS = TINY_ROWS[:129]
"""Eight batches of 16 and one of a single row, of which the second process has none."""
HOW = loop.Training(epochs=6, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01, warmup=0.1,
                    patience=6, precision="fp32")
KILLED_AT = 11
"""Steps; in the second epoch, so that there is a best one to keep."""


class Killed(Exception):
    """Stands in for a kill: nothing in the loop catches it."""


def train(folder: Path, rank: int = 0, world: int = 1, spreading: Spreading = "auto", *, kept: Path | None = None,
          kill_at: int | None = None, poison_at: int | None = None, dropout: float = 0.0,
          deadline_s: float | None = None, how: loop.Training = HOW
          ) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], loop.Fitted]:
    """Train the tiny model in `folder`; return its weights, what was reported, and what came of it."""
    names = sorted({label for _, label in ROWS})
    targets = np.array([names.index(label) for _, label in ROWS])
    tokens = tokenize(folder, [text for text, _ in ROWS])
    hard = losses.hard(targets, 0.1)
    steps = [0]

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if steps[0] == kill_at:
            raise Killed
        steps[0] += 1
        poisoned = rank == 1 and steps[0] - 1 == poison_at
        return hard(model, batch) * (float("nan") if poisoned else 1.0)

    def likelihood(logits: np.ndarray) -> float:  # never 1, at which training would end
        return float(torch.from_numpy(logits).log_softmax(dim=1)[torch.arange(len(targets)), targets].mean())

    events: list[dict[str, Any]] = []
    work = Work(task=TextClassification(train="rows"), data=folder, threads=1, checkpoint=kept, report=events.append,
                deadline_s=deadline_s, rank=rank, ranks=world, spreading=spreading)
    with loop.settings(work):
        model = encoder.start(folder, work.task, 3)
        encoder.set_dropout(model, dropout)  # the head's too, which it has of its own
        fitted = loop.fit(model, tokens, tokens, loss, likelihood, how, work, "test", time.perf_counter())
    return dict(model.state_dict()), events, fitted


def unsound_in_one(folder: Path, rank: int, world: int) -> list[str]:
    """Return what a process is told of a weight that is not finite in the second one's part of the model."""
    work = Work(task=TextClassification(train="rows"), data=folder, threads=1, rank=rank, ranks=world, spreading="fsdp")
    with spread.over(encoder.start(folder, work.task, 3), losses.hard(np.array([0]), 0.1), work, "test") as sharded:
        if rank == 1:
            sharded.model.encoder.embeddings.LayerNorm.weight.to_local().data[0] = float("nan")  # type: ignore
        return sharded.unsound()


def every_step(checkpoints: bool) -> None:
    """Report after every step, and write a checkpoint after each or none."""
    loop._REPORT_S, loop._CHECKPOINT_S, loop._CHECKPOINT_SHARE = 0.0, 0.0 if checkpoints else 1e9, 1e9


def main(folder: Path) -> None:
    """Do all of it, and leave weights and reports in `folder`."""
    every_step(checkpoints=False)
    tiny = folder / "tiny"
    with ranks.joined("cpu") as this:

        def run(name: str, spreading: Spreading, **more: Any) -> None:
            weights, events, fitted = train(tiny, this.rank, this.world, spreading, **more)
            said = {"losses": [e["loss"] for e in events if "loss" in e], "epochs": fitted.epochs,
                    "notes": [e["note"] for e in events if "note" in e], "validation": fitted.validation}
            (folder / f"{name}.{this.rank}.json").write_text(json.dumps(said))
            if this.rank == 0:
                save_file(weights, folder / f"{name}.safetensors")

        def killed(spreading: Spreading, **more: Any) -> None:
            every_step(checkpoints=True)
            try:
                train(tiny, this.rank, this.world, spreading, kill_at=KILLED_AT, **more)
            except Killed:
                every_step(checkpoints=False)
                return
            raise AssertionError("it was not killed")

        few = replace(HOW, epochs=2)

        ways: tuple[Spreading, ...] = ("ddp", "fsdp")
        for way in ways:
            run(way, way)
            run(f"{way}_from_one", way, kept=folder / f"kept_one_for_{way}")
            killed(way, kept=folder / f"kept_{way}")
            run(f"{way}_dropout", way, dropout=0.2, how=few)
            killed(way, kept=folder / f"kept_{way}_dropout", dropout=0.2, how=few)
            run(f"{way}_dropout_goes_on", way, dropout=0.2, how=few, kept=folder / f"kept_{way}_dropout")
        # the second has all the time in the world, and must still stop when the first does
        run("deadline", "ddp", deadline_s=1e-3 if this.rank == 0 else 1e6)
        for way in ways:
            run(f"{way}_poisoned", way, how=few, poison_at=5)
        (folder / f"unsound.{this.rank}.json").write_text(json.dumps(unsound_in_one(tiny, this.rank, this.world)))
        run("auto", "auto", how=replace(HOW, epochs=1, precision="auto"))
        room, spread._ROOM = spread._ROOM, 0.0
        run("no_room", "auto", how=replace(HOW, epochs=1, checkpointing="full"))
        spread._ROOM = room


if __name__ == "__main__":
    main(Path(sys.argv[1]))

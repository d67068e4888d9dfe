"""What two processes do in test_ranks.py: `torchrun ... ranks_child.py FOLDER`, one start for all that is asked."""

from __future__ import annotations

import json
import sys
import time
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
KILLED_AT = 23


class Killed(Exception):
    """Stands in for a kill: nothing in the loop catches it."""


def train(folder: Path, rank: int = 0, world: int = 1, spreading: Spreading = "auto", *, kept: Path | None = None,
          kill_at: int | None = None, dropout: float = 0.0, deadline_s: float | None = None, how: loop.Training = HOW
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
        return hard(model, batch)

    def likelihood(logits: np.ndarray) -> float:  # never 1, at which training would end
        return float(torch.from_numpy(logits).log_softmax(dim=1)[torch.arange(len(targets)), targets].mean())

    events: list[dict[str, Any]] = []
    work = Work(task=TextClassification(train="rows"), data=folder, threads=1, checkpoint=kept, report=events.append,
                deadline_s=deadline_s, rank=rank, ranks=world, spreading=spreading)
    with loop.settings(work):
        model = encoder.start(folder, work.task, 3, dropout)
        fitted = loop.fit(model, tokens, tokens, loss, likelihood, how, work, "test", time.perf_counter())
    return dict(model.state_dict()), events, fitted


def every_step() -> None:
    """Report and write a checkpoint after every step."""
    loop._REPORT_S, loop._CHECKPOINT_S, loop._CHECKPOINT_SHARE = 0.0, 0.0, 1e9


def main(folder: Path) -> None:
    """Do all of it, and leave weights and reports in `folder`."""
    every_step()
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
            try:
                train(tiny, this.rank, this.world, spreading, kill_at=KILLED_AT, **more)
            except Killed:
                return
            raise AssertionError("it was not killed")

        ways: tuple[Spreading, ...] = ("ddp", "fsdp")
        for way in ways:
            run(way, way)
            run(f"{way}_from_one", way, kept=folder / f"kept_one_for_{way}")
            killed(way, kept=folder / f"kept_{way}")
            run(f"{way}_dropout", way, dropout=0.2)
            killed(way, kept=folder / f"kept_{way}_dropout", dropout=0.2)
            run(f"{way}_dropout_goes_on", way, dropout=0.2, kept=folder / f"kept_{way}_dropout")
        # the second has all the time in the world, and must still stop when the first does
        run("deadline", "ddp", deadline_s=1e-3 if this.rank == 0 else 1e6)
        run("auto", "auto", how=loop.Training(**{**vars(HOW), "epochs": 1, "precision": "auto"}))
        room, spread._ROOM = spread._ROOM, 0.0
        run("no_room", "auto", how=loop.Training(**{**vars(HOW), "epochs": 1, "checkpointing": "full"}))
        spread._ROOM = room


if __name__ == "__main__":
    main(Path(sys.argv[1]))

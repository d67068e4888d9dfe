"""What the processes of the section `processes` do: `torchrun ... shared.py WAY BACKEND MODEL OUT`.

A world of one has nobody to share with, so Plimsoll trains alone in it; here it is made to take the way of several, so
that DDP, FSDP and their checkpoints meet CUDA tensors and NCCL.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS
from plimsoll.train import encoder, loop, losses, ranks, spread
from plimsoll.train.batches import Batch, tokenize

_KILLED_AT = 11
ROWS = TINY_ROWS[:129]


class Killed(Exception):
    """Stands in for a kill: nothing in the loop catches it."""


def main(way: Any, backend: str, model: Path, out: Path) -> None:
    """Train without dropout, twice: the second time with a stop in the second epoch."""
    this = ranks.here()
    torch.cuda.set_device(0)
    dist.init_process_group("gloo" if backend == "gloo" else "cpu:gloo,cuda:nccl")

    @contextmanager
    def over(learner: torch.nn.Module, loss: Any, work: Work, stage: str) -> Iterator[Any]:
        together = spread.Together(learner, loss, work, way)
        yield together
        together.settle()

    if way != "alone":
        loop.over = over  # type: ignore[assignment]
    kept = out.with_suffix(".kept")
    if this.rank == 0:
        shutil.rmtree(kept, ignore_errors=True)
    dist.barrier()
    whole, found = train(model, this, None, None)
    try:
        train(model, this, kept, _KILLED_AT)
    except Killed:
        went_on, _ = train(model, this, kept, None)
    else:
        raise AssertionError("it was not stopped")
    same = all(torch.equal(whole[name], went_on[name]) for name in whole)
    if this.rank == 0:
        out.write_text(json.dumps({"losses": found, "goes_on_the_same": same, "world": this.world, "way": way,
                                   "backend": dist.get_backend_config()}))
    dist.destroy_process_group()


def train(model: Path, this: ranks.Rank, kept: Path | None, stop_at: int | None
          ) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return the trained weights and the loss of each step."""
    stops = stop_at is not None
    loop._REPORT_S, loop._CHECKPOINT_S, loop._CHECKPOINT_SHARE = 0.0, 0.0 if stops else 1e9, 1e9
    names = sorted({label for _, label in ROWS})
    targets = np.array([names.index(label) for _, label in ROWS])
    tokens = tokenize(model, [text for text, _ in ROWS])
    own, seen = losses.hard(targets, 0.1, "cuda"), [0]

    def loss(learner: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if seen[0] == stop_at:
            raise Killed
        seen[0] += 1
        return own(learner, batch)

    events: list[dict[str, Any]] = []
    work = Work(task=TextClassification(train="rows"), data=model, threads=1, device="cuda", checkpoint=kept,
                report=events.append, rank=this.rank, ranks=this.world)
    how = loop.Training(epochs=3, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01,
                        warmup=0.1, patience=6, precision="fp32")

    def likelihood(logits: np.ndarray) -> float:  # never 1, at which training would end
        return float(torch.from_numpy(logits).log_softmax(dim=1)[torch.arange(len(targets)), targets].mean())

    with loop.settings(work):
        learner = encoder.start(model, work.task, len(names))
        encoder.set_dropout(learner, 0.0)
        loop.fit(learner, tokens, tokens, loss, likelihood, how, work, "test", time.perf_counter())
    weights = {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in learner.state_dict().items()}
    return {name: p.detach().cpu().clone() for name, p in weights.items()}, [e["loss"] for e in events if "loss" in e]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))

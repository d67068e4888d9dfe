"""Trains the tiny model in processes that are there to be killed; run by test_kill.py, one line a training on stdin.

The argument is the model. A line holds two folders: one for checkpoints, one for what comes of it. Each training is a
fork of this process, which has imported everything already, so that it takes a second in place of six. Its number is
printed when it begins, and belongs to it until an empty line asks how it ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS
from plimsoll.train import encoder, loop, losses
from plimsoll.train.batches import tokenize

TASK = TextClassification(train="rows")
HOW = loop.Training(epochs=2, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01, warmup=0.1,
                    patience=9, precision="fp32")


def train(model: Path, kept: Path, out: Path) -> None:
    """Train with a checkpoint after every step, and write the weights and what was noted on the way."""
    loop._CHECKPOINT_S, loop._CHECKPOINT_SHARE = 0.0, 1e9
    names = sorted({label for _, label in TINY_ROWS})
    targets = np.array([names.index(label) for _, label in TINY_ROWS])
    notes: list[str] = []
    work = Work(task=TASK, data=model, threads=1, checkpoint=kept,
                report=lambda event: notes.append(event["note"]) if "note" in event else None)
    with loop.settings(work):
        tokens = tokenize(model, [text for text, _ in TINY_ROWS])
        learner = encoder.start(model, TASK, 3, dropout=0.1)
        loop.fit(learner, tokens, tokens, losses.hard(targets, 0.1),
                 lambda logits: float(np.mean(logits.argmax(axis=1) == targets)), HOW, work, "test", began=0.0)
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("\n".join(notes))
    save_file(dict(learner.state_dict()), out / "model.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)  # before any fork: a pool of threads would not come along
    # everything but a backward pass, after which no fork could make one: what is imported late takes seconds
    warm = torch.optim.AdamW(encoder.start(Path(sys.argv[1]), TASK, 3).parameters(), fused=True)
    warm.step()
    while line := sys.stdin.readline():
        folders = [Path(name) for name in line.rstrip("\n").split("\t")]
        child = os.fork()
        if not child:
            train(Path(sys.argv[1]), *folders)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

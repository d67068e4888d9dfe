"""`kill -9` at any moment of a training, the middle of a checkpoint included: it goes on to the same weights."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plimsoll.testing.tiny import write_tiny_bert

KILLS, IN_A_CHECKPOINT = 20, 8


class Trainer:
    """The process in tests/train/trainer_to_kill.py."""

    def __init__(self, model: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("trainer_to_kill.py"), model], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})

    def train(self, kept: Path, out: Path, kill: Callable[[int], None] = lambda pid: None) -> int:
        """Train to the end, or until `kill` has killed the process it is given; return its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kept}\t{out}\n")
        self.process.stdin.flush()
        kill(int(self.process.stdout.readline()))
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    made = Trainer(write_tiny_bert(tmp_path / "tiny"))
    with made.process:  # its end closes the pipes, and with them the process
        yield made


def _after(seconds: float) -> Callable[[int], None]:
    def kill(pid: int) -> None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)

    return kill


def _while_writing(kept: Path, out: Path, skipped: int) -> Callable[[int], None]:
    """Return what kills a process in the middle of a checkpoint, after it was let finish so many files of others.

    It is stopped first, to make sure that the file is still there under its temporary name.
    """
    def kill(pid: int) -> None:
        let_finish: set[str] = set()
        while not out.exists():
            half = _half_written(kept) - let_finish
            if not half:
                continue
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.001)
            if len(let_finish) >= skipped and half & _half_written(kept):
                os.kill(pid, signal.SIGKILL)
                return
            let_finish |= half
            os.kill(pid, signal.SIGCONT)

    return kill


def _half_written(kept: Path) -> set[str]:
    return {name for name in os.listdir(kept) if name.endswith(".tmp")} if kept.exists() else set()


def _newest_whole(kept: Path) -> int | None:
    """Return the step of the newest checkpoint whose tensors have the hash in its record, found without Plimsoll."""
    for record in sorted(kept.glob("step-*.json"), reverse=True) if kept.exists() else ():
        tensors = record.with_suffix(".safetensors")
        if hashlib.sha256(tensors.read_bytes()).hexdigest() == json.loads(record.read_text())["sha256"]:
            return int(record.stem.removeprefix("step-"))
    return None


def test_killed_at_twenty_moments_it_goes_on_and_ends_with_the_same_weights(trainer: Trainer, tmp_path: Path) -> None:
    began: list[float] = []  # without the time that the first of all needs to be ready
    assert trainer.train(tmp_path / "whole" / "kept", tmp_path / "whole" / "out", lambda pid: began.append(
        time.perf_counter())) == 0
    whole_s = time.perf_counter() - began[0]
    whole = (tmp_path / "whole" / "out" / "model.safetensors").read_bytes()
    drawn = random.Random(0)
    went_on = 0
    for n in range(KILLS):
        kept, out = tmp_path / str(n) / "kept", tmp_path / str(n) / "out"
        share = drawn.uniform(0.05, 0.9)
        while True:
            in_one = n < IN_A_CHECKPOINT
            kill = _while_writing(kept, out, round(30 * share)) if in_one else _after(whole_s * share)
            if trainer.train(kept, out, kill) == -signal.SIGKILL and not out.exists():
                break
            shutil.rmtree(tmp_path / str(n))  # training was over before: once more, and earlier
            share *= 0.7
        assert bool(_half_written(kept)) or not in_one
        newest = _newest_whole(kept)
        assert trainer.train(kept, out) == 0
        notes = (out / "notes.txt").read_text()
        assert notes == ("" if newest is None else f"goes on from step {newest} of an interrupted run")
        assert (out / "model.safetensors").read_bytes() == whole
        assert not _half_written(kept)
        went_on += newest is not None
    assert went_on > KILLS / 2  # not all from the beginning

"""Where a section works and with what, and the record of its steps."""

from __future__ import annotations

import json
import re
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.core.parts import Event, Work
from plimsoll.data.dataset import prepare
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert


class Steps:
    """What a section did, on disk after each step: a process that dies leaves what it came to."""

    def __init__(self, file: Path, wanted: str = "") -> None:
        """wanted: a regular expression; steps whose name it is not found in are left out."""
        self._file, self._wanted = file, re.compile(wanted)
        self._done: list[dict[str, Any]] = []

    def do(self, step: str, call: Callable[[], Any]) -> Any:
        """Take a step, and keep what it returns or how it broke; returns None when it did, or was left out."""
        if not self._wanted.search(step):
            return None
        began, told, broke = time.perf_counter(), None, ""
        try:
            told = call()
        except Exception:  # a step that breaks is a result of the check, and the next is to go on
            broke = traceback.format_exc()
        self._done.append({"step": step, "ok": not broke, "seconds": round(time.perf_counter() - began, 2),
                           "told": told, "traceback": broke})
        self._file.write_text(json.dumps(self._done, indent=1, default=str))
        return told


@dataclass(frozen=True)
class Place:
    """What all sections share; models and rows are made on first use."""

    folder: Path
    """Of this section alone: sections may run side by side, and what they make is theirs."""
    model: Path | None
    train: Path | None
    test: Path | None
    threads: int
    minutes: float
    quick: bool

    def tiny(self) -> Path:
        """Return the folder of a model with random weights of 32 dimensions."""
        return self._made("tiny", lambda folder: write_tiny_bert(folder))

    def small(self) -> Path:
        """Return the folder of the model that was given, or of one of MiniLM's width and depth with random weights."""
        return self.model or self._made("small", lambda folder: write_tiny_bert(folder, hidden_size=384, layers=6))

    def task(self, tiny: bool = False) -> TextClassification:
        """Return the task on the rows that were given, or on the tiny ones."""
        if self.train is not None and not tiny:
            return TextClassification(train=str(self.train), test=None if self.test is None else str(self.test))
        file = self.folder / "rows.jsonl"
        if not file.exists():
            file.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in TINY_ROWS))
        return TextClassification(train=str(file))

    def work(self, device: str = "cuda", tiny: bool = False, **more: Any) -> Work:
        """Return what a move may use on a device."""
        task = self.task(tiny)
        data = self._made("tiny_data" if tiny else "data", lambda folder: prepare(task, folder, seed=0))
        return Work(**{"task": task, "data": data, "threads": self.threads, "device": device, **more})

    def _made(self, name: str, make: Callable[[Path], Any]) -> Path:
        folder = self.folder / name
        if not folder.exists():
            make(folder)
        return folder


def fresh(folder: Path) -> Path:
    """Return an empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def losses(events: list[Event]) -> list[float]:
    """Return the losses that a training reported, oldest first."""
    return [event["loss"] for event in events if "loss" in event]


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance of two arrays of logits."""
    return float(np.abs(one - other).max())

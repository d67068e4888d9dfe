"""The fake beside the real: answers from keywords, with a cost and an error rate that tests choose."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat

from plimsoll.core import ragged
from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.core.parts import Device, Runtime, Sample, Session


class Null(Runtime):
    """Answers without a model, for tests of everything around one.

    Pays when: a test wants the whole loop in milliseconds, with artifacts whose speed and errors it controls.
    Costs: nothing; it is never proposed unless a spec names it.
    Source: none.
    """

    in_process: ClassVar[bool] = True

    speed: Literal["slow", "fast", "wrong", "broken", "absent"] = "slow"
    """slow: right. fast: right, less work. wrong: fastest, often wrong. broken: raises. absent: says not installed."""
    delay_ms: NonNegativeFloat = Field(default=0.4)
    """Busy time of a call of the slow variant; fast takes a fifth of it, wrong a tenth."""

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return one of each kind; refuses CUDA."""
        if device != "cpu":
            raise Unsupported("the null runtime runs on the CPU only", 'set target.device = "cpu"')
        return tuple(cls(threads=threads, speed=s) for s in ("slow", "fast", "wrong", "broken", "absent"))

    @property
    def steps(self) -> int:
        """0 for slow, 1 for fast, 2 for the rest."""
        return {"slow": 0, "fast": 1}.get(self.speed, 2)

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Write the number of labels that the folder's labels.json holds; tags, which have an O, are for tokens."""
        if self.speed == "broken":
            raise ChildError("RuntimeError: this variant always breaks")
        if self.speed == "absent":
            raise Unsupported("the null runtime's absent variant is never installed", "pip install nothing")
        labels = json.loads((model / "labels.json").read_text())
        (out / "null.json").write_text(json.dumps({"labels": len(labels), "per_token": "O" in labels}))

    def open(self, folder: Path) -> Session:
        """Open it."""
        share = {"slow": 1.0, "fast": 0.2}.get(self.speed, 0.1)
        built = json.loads((folder / "null.json").read_text())
        return _NullSession(**built, delay_s=self.delay_ms * share / 1e3, wrong=self.speed == "wrong")


class _NullSession(Session):
    """The last token names the label, or each its own: its id modulo the number of labels."""

    pads_apart: ClassVar[bool] = True

    def __init__(self, labels: int, per_token: bool, delay_s: float, wrong: bool) -> None:
        self._labels, self._per_token, self._delay_s, self._wrong = labels, per_token, delay_s, wrong

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], one-hot at the label the last word names, or [rows, longest, labels]."""
        end = time.perf_counter() + self._delay_s * len(input_ids)
        found: list[NDArray[np.float32]] = []
        for row in input_ids:
            ids = np.array(row, dtype=np.int64)
            # an error that depends on the row alone, one row in four
            if self._wrong and zlib.crc32(repr(list(row)).encode()) % 4 == 0:
                ids += 1
            answers = np.eye(self._labels, dtype=np.float32)[ids % self._labels]
            found.append(answers if self._per_token else answers[-1])
        out = ragged.stacked(found)
        while time.perf_counter() < end:
            pass
        return out

"""What is left of a run's races and answers: two of its artifacts beside each other, round by round and row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench.clock import Blocks
from plimsoll.bench.stats import ratio_of_quantiles
from plimsoll.core.record import Measurement

RACES = ("final", "all", "students", "short")
"""From the last race of a run to the first."""


@dataclass(frozen=True)
class Raced:
    """How long one takes over what another takes, in a race that both were in."""

    race: str
    ratio: Measurement
    """Its bounds hold one-sided at 99 % each, as those by which a tie is called."""
    of: tuple[str, str]
    """Places of both contestants' times."""


@dataclass(frozen=True)
class Apart:
    """Rows that two artifacts answer differently, of those of one split."""

    split: str
    rows: int
    n: int
    by_class: tuple[tuple[int, int], ...]
    """By the class that the second answers, the most first: its number, and how many rows."""
    of: tuple[str, str]
    """Files of both."""


class Kept:
    """Races and answers in a run folder. Whatever is absent was not kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._races: dict[str, Blocks] = {}
        self._ratios: dict[tuple[str, str, int], Raced | None] = {}

    def ratio(self, first: str, second: str, p: int = 95) -> Raced | None:
        """Return the p-th percentile of one trial's times over that of another, from the last race both were in."""
        asked = (first, second, p)
        if asked not in self._ratios:
            self._ratios[asked] = self._ratio(*asked)
        return self._ratios[asked]

    def apart(self, first: str, second: str) -> Apart | None:
        """Return on how many rows two trials answer with different classes: test rows where both answered them.

        None where a file is missing, or where an answer is no single class.
        """
        for split in ("test", "validation"):
            files = [self._folder / "scores" / f"{trial}-{split}.npy" for trial in (first, second)]
            if not all(file.exists() for file in files):
                continue
            one, other = (np.load(file) for file in files)
            if one.ndim != 2 or one.shape != other.shape:
                return None
            mine, its = one.argmax(axis=1), other.argmax(axis=1)
            classes, rows = np.unique(its[mine != its], return_counts=True)
            order = np.argsort(-rows, kind="stable")
            return Apart(split, int(np.count_nonzero(mine != its)), len(mine),
                         tuple((int(classes[i]), int(rows[i])) for i in order),
                         (f"scores/{files[0].name}", f"scores/{files[1].name}"))
        return None

    def _ratio(self, first: str, second: str, p: int) -> Raced | None:
        for race in RACES:
            blocks = self._blocks(race)
            if first in blocks and second in blocks:
                found = ratio_of_quantiles(blocks[first], blocks[second], p / 100, confidence=0.99)
                return Raced(race, found, (f"timings/{race}.jsonl#/{first}", f"timings/{race}.jsonl#/{second}"))
        return None

    def _blocks(self, race: str) -> Blocks:
        if race not in self._races:
            path = self._folder / "timings" / f"{race}.jsonl"
            lines = path.read_text().splitlines()[1:] if path.exists() else []
            # a line that was being written when the process was killed is no JSON
            rounds: list[Mapping[str, list[float]]] = [json.loads(x) for x in lines if x.endswith("}")]
            self._races[race] = {name: [_times(r[name]) for r in rounds] for name in (rounds[0] if rounds else ())}
        return self._races[race]


def _times(ms: list[float]) -> NDArray[np.float64]:
    return np.array(ms)

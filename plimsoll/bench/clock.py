"""Interleaved timing: contestants answer the same texts in turn, and only one of them runs at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench.worker import Bench
from plimsoll.core.artifact import Artifact
from plimsoll.core.child import Child
from plimsoll.core.memory import peak_mb
from plimsoll.core.parts import Event

_UNTIMED = 8
"""Requests before a round is timed: models of 16 to 350 us took 1.7 times as long for the first, 1.2 for the sixth."""

Blocks = dict[str, list[NDArray[np.float64]]]
"""Milliseconds per request by contestant: one array per round, row for row the same requests for everyone."""


class Contestant(Protocol):
    """An opened artifact that can be told to answer, paused and woken."""

    cold_start_s: float

    def call(self, request: Mapping[str, Any], report: Callable[[Event], None] = ...) -> Any:
        """Do one of open, time, warm, score, invariance, lengths, memory: see `plimsoll.bench.worker`."""
        ...

    def pause(self) -> None:
        """Stop using the processor."""

    def resume(self) -> None:
        """Go on."""

    def close(self) -> None:
        """End."""


def enter(folder: Path, texts: Mapping[str, Path], batch: int, log: Path) -> Contestant:
    """Open an artifact for timing, in a process of its own unless its runtime is a fake that needs none.

    `texts` maps split names to jsonl files. Its cold start is the time from here to the first answer.
    """
    runtime = Artifact.from_file(folder / "artifact.json").runtime
    if runtime.in_process:
        return _Inside(folder, texts, batch)
    return _Outside(folder, texts, batch, log, runtime.threads)


class _Outside:
    def __init__(self, folder: Path, texts: Mapping[str, Path], batch: int, log: Path, threads: int) -> None:
        start = time.perf_counter()
        self._child = Child("plimsoll.bench.worker", log, threads)
        try:
            self._child.call(
                {"do": "open", "folder": str(folder), "batch": batch, "texts": {k: str(v) for k, v in texts.items()}}
            )
        except BaseException:
            self._child.close()
            raise
        self.cold_start_s = time.perf_counter() - start
        self.call, self.pause, self.resume, self.close = (
            self._child.call,
            self._child.pause,
            self._child.resume,
            self._child.close,
        )


class _Inside:
    def __init__(self, folder: Path, texts: Mapping[str, Path], batch: int) -> None:
        start = time.perf_counter()
        self._bench = Bench(folder, batch)
        for split, file in texts.items():
            self._bench.read(split, file)
        self.cold_start_s = time.perf_counter() - start

    def call(self, request: Mapping[str, Any], report: Callable[[Event], None] = lambda event: None) -> Any:
        arguments = {k: v for k, v in request.items() if k != "do"}
        if request["do"] == "memory":
            return peak_mb()
        if request["do"] == "score":
            return self._bench.score(request["split"], Path(request["out"]), report)
        return getattr(self._bench, request["do"])(**arguments)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None:
        self._bench.predictor.close()


def schedule(rows: int, rounds: int, requests: int, batch: int, seed: int) -> list[list[int]]:
    """Return the rows of each round: a shuffled pass over the test rows, repeated while more are asked for.

    Every round is a random draw from the same mix of lengths, and no row comes twice before all came once.
    """
    generator = np.random.default_rng(seed)
    need = rounds * requests * batch
    order = np.concatenate([generator.permutation(rows) for _ in range(-(-need // rows))])[:need]
    return [part.tolist() for part in np.split(order, rounds)]


def race(
    contestants: Mapping[str, Contestant],
    plan: Sequence[Sequence[int]],
    split: str,
    *,
    kept: Sequence[Mapping[str, Sequence[float]]] = (),
    on_round: Callable[[dict[str, list[float]]], None] = lambda times: None,
) -> tuple[Blocks, dict[str, list[float]]]:
    """Time all contestants over the rounds of a plan, in the order A B C, C B A, A B C, ...

    All but the one that answers are stopped, and stay so in the end. `kept` holds the first rounds of the same plan
    from an
    interrupted run; `on_round` is given each new round as it ends. Returns ms per request by contestant and
    round, and device ms per request by contestant (empty where there is no device).
    """
    device: dict[str, list[float]] = {name: [] for name in contestants}
    rounds: list[Mapping[str, Sequence[float]]] = list(kept)
    for contestant in contestants.values():
        contestant.pause()
    for number in range(len(rounds), len(plan)):
        times: dict[str, list[float]] = {}
        order = list(contestants) if number % 2 == 0 else list(contestants)[::-1]
        for name in order:
            contestants[name].resume()
            # untimed requests, those that the round before ended with, bring caches back to where serving keeps them
            contestants[name].call({"do": "time", "split": split, "rows": list(plan[number - 1][-_UNTIMED:])})
            answer = contestants[name].call({"do": "time", "split": split, "rows": list(plan[number])})
            contestants[name].pause()
            times[name] = answer["ms"]
            device[name] += answer["device_ms"]
        rounds.append(times)
        on_round(times)
    return {name: [np.array(r[name]) for r in rounds] for name in contestants}, device

"""Who takes part: the bare session in a process of its own, Plimsoll's server, and each peer in its fastest way."""

from __future__ import annotations

import ast
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contest import HERE as PEERS
from contest import NotInstalled, environment
from serving.processes import Running, free_port

from plimsoll.bench import clock
from plimsoll.bench.clock import Contestant
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, seal
from plimsoll.core.errors import ChildError, RunError
from plimsoll.traffic.bodies import bodies, requests
from plimsoll.traffic.sender import Sender, Sending

ROOT = Path(__file__).resolve().parents[2]
BATCHES = (1, 4, 8, 16, 32)
_SORTED_OVER = 64
_TIMEOUT_S = 10.0
PATIENT_MS = 10_000.0
"""Deadline of requests that are to be answered however long it takes: throughput is not for refusing."""


@dataclass(frozen=True)
class Place:
    """What everything is done with."""

    artifact: Path
    texts: tuple[str, ...]
    texts_file: Path
    logs: Path
    cache: Path
    """Of the peers' environments."""
    limit_ms: float
    seed: int = 0
    note: Callable[[str], None] = print
    facts: dict[str, Any] = field(default_factory=dict)

    def sending(self, running: Running, rows: int, connections: int, deadline_ms: float | None = None) -> Sending:
        """Return the place's texts as requests to a service."""
        made = bodies(self.texts, rows, self.seed)
        return Sending(running.service, requests(running.service, made, deadline_ms), connections, _TIMEOUT_S)


def artifact_of(run: Path) -> Path:
    """Return the artifact folder of a run, or of itself. Raises RunError where there is none."""
    found = run if (run / ARTIFACT_RECORD).exists() else run / "artifact"
    if not (found / ARTIFACT_RECORD).exists():
        raise RunError(f"{run} has no artifact", "give a finished run, or an artifact folder")
    return found


def ours(place: Place, run: Path | None = None, *options: str) -> Running:
    """Start Plimsoll's server on the artifact, or on another folder."""
    port = free_port()
    command = [sys.executable, "-m", "plimsoll.cli", "serve", str(run or place.artifact), "--port", str(port), *options]
    return Running("plimsoll", command, port, place.logs / "plimsoll.log",
                   {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))})


def peer(tool: str, place: Place, in_flight: int) -> tuple[Running | None, dict[str, Any]]:
    """Start a peer in the way that answers most, and return it with what each way answered; or why there is none."""
    script = PEERS / tool / "service.py"
    try:
        python = environment(tool, place.cache)
    except NotInstalled as e:
        return None, {"refused": str(e)}
    found: dict[str, Any] = {}
    ways = {f"{way}, {threads} thread{'s' if threads > 1 else ''} a session": (way, folder)
            for way in _ways(script) for threads, folder in by_threads(place).items()}
    for name, (way, folder) in ways.items():
        try:
            with _started(tool, python, script, way, folder, place) as running:
                found[name] = rows_per_s(place, running, 1, in_flight, 3.0)
        except ChildError as e:
            found[name] = str(e)
        place.note(f"{tool} {name}: {found[name]}")
    working = {name: rate for name, rate in found.items() if isinstance(rate, float)}
    if not working:
        return None, {"refused": found}
    best = max(working, key=working.__getitem__)
    return _started(tool, python, script, *ways[best], place), {"way": best, "ways_requests_per_s": found}


def _ways(script: Path) -> tuple[str, ...]:
    """Return the ways that a peer's script names; it imports what is not installed here."""
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "WAYS":
            return tuple(ast.literal_eval(node.value))
    raise ValueError(f"{script} has no WAYS")


def _started(tool: str, python: Path, script: Path, way: str, artifact: Path, place: Place) -> Running:
    port = free_port()
    return Running(tool, [str(python), str(script), str(artifact), str(port), way], port,
                   place.logs / f"{tool}.log", {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"})


def rows_per_s(place: Place, running: Running, rows: int, in_flight: int, seconds: float) -> float:
    """Return the texts a second that a service accepts and answers when it always has something to do."""
    with Sender(place.sending(running, rows, in_flight, PATIENT_MS)) as sender:
        warm = seconds / 5
        run = sender.closed(in_flight, warm + seconds)
    counted = run.accepted & (run.done >= warm) & (run.done < warm + seconds)
    return float(rows * counted.sum() / seconds)


def by_threads(place: Place) -> dict[int, Path]:
    """Return the artifact by the threads of its sessions: its own, and one, where it need not be built again for it."""
    record = Artifact.from_file(place.artifact / ARTIFACT_RECORD)
    threads, alone = record.runtime.threads, record.runtime.model_copy(update={"threads": 1})
    found = {threads: place.artifact}
    if threads > 1 and alone.built_as == record.runtime.built_as:
        found[1] = place.logs / "one-thread"
        if not found[1].exists():
            shutil.copytree(place.artifact, found[1])
            seal(found[1], record.model_copy(update={"runtime": alone}))
    return found


class Bare:
    """Sessions without a service around them: the artifact's own, or as many of one thread as it has threads."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.one: Contestant = self._enter(place.artifact, 1, "bare")
        self._order = np.random.default_rng(place.seed).permutation(len(place.texts)).tolist()
        lengths = self.one.call({"do": "lengths", "split": "test"})
        self._sorted = [row for at in range(0, len(self._order), _SORTED_OVER)
                        for row in sorted(self._order[at : at + _SORTED_OVER], key=lengths.__getitem__)]
        self._batched: list[Contestant] = []
        self._rows: Sequence[int] = self._order
        self._batch = 1
        self.one.call({"do": "warm", "split": "test", "rows": self._order[:500]})
        self.one.pause()

    def _enter(self, folder: Path, batch: int, name: str) -> Contestant:
        return clock.enter(folder, {"test": self._place.texts_file}, batch, self._place.logs / f"{name}.log")

    def latencies_ms(self, n: int, turn: int) -> np.ndarray:
        """Return ms of so many requests, one after the other, of texts that differ from turn to turn."""
        rows = [self._order[(turn * n + i) % len(self._order)] for i in range(n)]
        self.one.resume()
        self.one.call({"do": "time", "split": "test", "rows": rows[:8]})
        found = np.array(self.one.call({"do": "time", "split": "test", "rows": rows})["ms"])
        self.one.pause()
        return found

    def choose(self) -> dict[str, float]:
        """Find the way to answer most texts a second, keep it for `per_s`, and return what each way answers."""
        found: dict[str, float] = {}
        best = 0.0
        folders = by_threads(self._place)
        for threads, folder in folders.items():
            lanes = max(folders) // threads
            for batch in BATCHES:
                opened = [self._enter(folder, batch, f"bare-{lanes}") for _ in range(lanes)]
                for way, rows in (("as they come", self._order), ("sorted by length", self._sorted)):
                    self._run(opened, rows, batch, 0.3)
                    rate = self._run(opened, rows, batch, 1.0)
                    name = f"{lanes} session{'s' if lanes > 1 else ''}, batch {batch}, {way}"
                    found[name] = rate
                    self._place.note(f"bare: {name}: {rate:,.0f} texts/s")
                    if rate > best:
                        best, kept = rate, opened
                        for other in self._batched:
                            if other not in kept:
                                other.close()
                        self._batched, self._rows, self._batch = kept, rows, batch
                for one in opened:
                    if one in self._batched:
                        one.pause()
                    else:
                        one.close()
        return found

    def per_s(self, seconds: float) -> float:
        """Return the texts a second of the way that was chosen, measured now."""
        for one in self._batched:
            one.resume()
        found = self._run(self._batched, self._rows, self._batch, seconds)
        for one in self._batched:
            one.pause()
        return found

    def _run(self, opened: Sequence[Contestant], rows: Sequence[int], batch: int, seconds: float) -> float:
        answered = [0] * len(opened)
        end = time.perf_counter() + seconds
        block = max(batch, 64 // batch * batch)  # texts of a call: a process answers one call after the other

        def ask(i: int) -> None:
            at = i * len(rows) // len(opened)
            while time.perf_counter() < end:
                take = [rows[(at + j) % len(rows)] for j in range(block)]
                opened[i].call({"do": "time", "split": "test", "rows": take})
                answered[i] += block
                at += block

        began = time.perf_counter()
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(opened))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(answered) / (time.perf_counter() - began)

    def close(self) -> None:
        """End all of its processes."""
        for one in (self.one, *self._batched):
            one.resume()
            one.close()

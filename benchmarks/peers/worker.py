"""A peer's process: builds what its pipeline offers, then answers texts under the stopwatch.

    <peer's environment>/bin/python worker.py onnxruntime-tools/pipeline.py

Requests and answers are JSON lines, as in plimsoll/core/child.py, whose other end starts this. A pipeline is a file of

    OFFERS                                          offer -> the ways it can be served, the fastest of which will race
    build(offer, given, out)                        write what serving needs to the folder `out`
    serve(offer, way, given, folder) -> answer      open it; `answer` takes a text and returns its label
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from given import Given


class Bench:
    """An opened offer and the texts to answer."""

    def __init__(self, answer: Callable[[str], str], texts: dict[str, str]) -> None:
        self._answer = answer
        self._texts = {split: _texts(Path(file)) for split, file in texts.items()}

    def time(self, split: str, rows: list[int]) -> dict[str, list[float]]:
        """Answer the rows one request after the other; return ms per request, text in, label out."""
        texts, answer = self._texts[split], self._answer
        wall: list[float] = []
        for row in rows:
            text = texts[row]
            start = time.perf_counter_ns()
            answer(text)
            wall.append((time.perf_counter_ns() - start) / 1e6)
        return {"ms": wall, "device_ms": []}

    def warm(self, split: str, rows: list[int]) -> int:
        """Answer until two blocks in a row agree within 5 % at the median (10 blocks at most); return the blocks."""
        self.time(split, rows)
        before = statistics.median(self.time(split, rows)["ms"])
        for block in range(2, 10):
            now = statistics.median(self.time(split, rows)["ms"])
            if abs(now - before) <= 0.05 * before:
                return block + 1
            before = now
        return 10

    def answers(self, split: str) -> list[str]:
        """Return the label of every row, answered as it is served."""
        return [self._answer(text) for text in self._texts[split]]


def main(script: Path) -> None:
    """Serve the pipeline over stdin and stdout."""
    opened: list[Bench] = []

    def pipeline() -> Any:
        spec = importlib.util.spec_from_file_location("pipeline", script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["pipeline"] = module  # what the pipeline defines may have to be found again, to be pickled
        spec.loader.exec_module(module)
        return module

    def build(q: dict[str, Any]) -> None:
        pipeline().build(q["offer"], Given(Path(q["given"])), Path(q["out"]))

    def open_(q: dict[str, Any]) -> None:
        answer = pipeline().serve(q["offer"], q["way"], Given(Path(q["given"])), Path(q["folder"]))
        opened.append(Bench(answer, q["texts"]))
        answer(opened[0]._texts["test"][0])

    _serve({
        "offers": lambda q: pipeline().OFFERS,
        "versions": lambda q: {name: importlib.metadata.version(name) for name in q["names"]},
        "build": build,
        "open": open_,
        "time": lambda q: opened[0].time(q["split"], q["rows"]),
        "warm": lambda q: opened[0].warm(q["split"], q["rows"]),
        "answers": lambda q: opened[0].answers(q["split"]),
        "memory": lambda q: _peak_memory_mb(),
    })  # fmt: skip


def _texts(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").split("\n") if line]


def _serve(handlers: dict[str, Callable[[dict[str, Any]], Any]]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the race
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # what libraries print must not be taken for an answer, and what they read must not be a request
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for line in requests:
        request = json.loads(line)
        try:
            reply = ["answer", handlers[request["do"]](request)]
        except Exception as e:  # the border of the process: whatever broke is told to the race as data
            text = traceback.format_exc()
            print(text, file=sys.stderr, flush=True)
            message = f"{type(e).__name__}: {str(e).strip()}"
            reply = ["error", {"class": "ChildError", "message": message, "hint": "", "traceback": text}]
        answers.write(json.dumps(reply).encode() + b"\n")
        answers.flush()


def _peak_memory_mb() -> float:
    """Return the peak resident memory of this process in MB (10^6 bytes), as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]))

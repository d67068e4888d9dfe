"""The process a profile looks into: opens one artifact, answers whole requests, and the same ones stage by stage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.core import artifact
from plimsoll.core.parts import Event
from plimsoll.core.spelling import PAIR

_READINGS = 4
"""Of the clock between the five stages: what a staged request has beyond a whole one."""


class Stages:
    """An opened artifact and its requests: JSON with one text each, as a server would get them."""

    def __init__(self, folder: Path, texts: Path) -> None:
        self.predictor, self._folder = artifact.load(folder), folder
        # not splitlines: it also cuts at U+2028 and U+0085, which JSON lets stand inside a text
        lines = texts.read_text(encoding="utf-8").split("\n")
        self._texts: list[str] = [json.loads(line)["text"] for line in lines if line]
        self._bodies = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in self._texts]

    def about(self) -> dict[str, Any]:
        """Return how many requests there are, whether padding is a stage, and what the stopwatch takes, in us."""
        clock = time.perf_counter_ns
        empty: list[int] = []
        for _ in range(2000):
            began = clock()
            for _ in range(_READINGS):
                clock()
            empty.append(clock() - began)
        apart = type(self.predictor.session).pads_apart
        return {"requests": len(self._bodies), "pads_apart": apart, "stopwatch_us": float(np.median(empty)) / 1e3}

    def warm(self, rows: list[int], seconds: float) -> float:
        """Answer requests for so many seconds, or each once; return the median ms of the last fifty."""
        end = time.perf_counter() + seconds
        taken: list[float] = []
        for row in rows:
            taken += self.whole([row])
            self.staged([row])
            if time.perf_counter() > end:
                break
        return float(np.median(taken[-50:]))

    def whole(self, rows: list[int]) -> list[float]:
        """Return the ms of each request, from its bytes to its answer, with nothing inside."""
        clock, predict = time.perf_counter_ns, self.predictor.predict
        taken: list[float] = []
        for body in [self._bodies[row] for row in rows]:
            began = clock()
            predict([json.loads(body)["text"]])
            taken.append((clock() - began) / 1e6)
        return taken

    def staged(self, rows: list[int]) -> list[list[int]]:
        """Return the six ns of the clock around the five stages of each request: `Predictor.staged`."""
        staged = self.predictor.staged
        return [list(staged(self._bodies[row])[1]) for row in rows]

    def tokens(self, rows: list[int]) -> list[list[list[int]]]:
        """Return the token ids of each text of each request."""
        per_token = self.predictor.artifact.task.per_token
        return [self.predictor.encode([" ".join(t.split()) if per_token else t for t in self._texts[row].split(PAIR)])
                for row in rows]

    def padded(self, lengths: list[int]) -> list[int]:
        """Return how many tokens are computed for rows of so many."""
        return [self.predictor.session.padded(n) for n in lengths]

    def operators(self, rows: list[list[int]]) -> list[list[Any]]:
        """Close the artifact, and return the operators of the mean of some token ids: `core.operators.Operator.plain`.

        The last thing that is asked: what a runtime's profiler leaves behind, or breaks, is of no matter then.
        """
        self.close()
        return [one.plain() for one in self.predictor.artifact.runtime.operators(self._folder, rows)]

    def close(self) -> None:
        """Close the artifact."""
        self.predictor.close()


def main() -> None:
    """Serve over stdin and stdout."""
    from plimsoll.core.child import serve

    opened: list[Stages] = []

    def open_(request: dict[str, Any], report: Callable[[Event], None]) -> None:
        opened.append(Stages(Path(request["folder"]), Path(request["texts"])))

    serve({
        "open": open_,
        "about": lambda q, report: opened[0].about(),
        "warm": lambda q, report: opened[0].warm(q["rows"], q["seconds"]),
        "whole": lambda q, report: opened[0].whole(q["rows"]),
        "staged": lambda q, report: opened[0].staged(q["rows"]),
        "tokens": lambda q, report: opened[0].tokens(q["rows"]),
        "padded": lambda q, report: opened[0].padded(q["lengths"]),
        "operators": lambda q, report: opened[0].operators(q["rows"]),
    })


if __name__ == "__main__":
    main()

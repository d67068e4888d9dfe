"""The process under the stopwatch: opens one artifact, answers texts, and tells what it cost.

It imports what serving needs and nothing else, so its peak memory and its start are those of a server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.core import artifact, ragged
from plimsoll.core.memory import peak_mb
from plimsoll.core.parts import Event


class Bench:
    """An opened artifact and the texts to answer; every answer's logits are kept by split and row."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.predictor = artifact.load(folder)
        self.batch = batch
        self._texts: dict[str, list[str]] = {}
        self._logits: dict[str, dict[int, Any]] = {}
        first = self.predictor.logits
        self._last: Any = None

        def remember(texts: Any) -> Any:  # one assignment beside the call, so the clock sees the real path
            self._last = out = first(texts)
            return out

        self.predictor.logits = remember  # type: ignore[method-assign]

    def read(self, split: str, file: Path) -> None:
        """Take the texts of a split from jsonl."""
        # not splitlines: it also cuts at U+2028 and U+0085, which JSON lets stand inside a text
        lines = file.read_text(encoding="utf-8").split("\n")
        self._texts[split] = [json.loads(line)["text"] for line in lines if line]
        self._logits[split] = {}

    def time(self, split: str, rows: list[int]) -> dict[str, list[float]]:
        """Answer the rows one request after the other; return ms per request, and device ms where there are any."""
        texts, logits, session = self._texts[split], self._logits[split], self.predictor.session
        requests = [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]
        wall: list[float] = []
        device: list[float] = []
        for request in requests:
            ask = [texts[r] for r in request]
            start = time.perf_counter_ns()
            self.predictor.predict(ask)
            wall.append((time.perf_counter_ns() - start) / 1e6)
            if session.device_ms is not None:
                device.append(session.device_ms)
            for row, one in zip(request, self._last, strict=True):
                logits[row] = one
        return {"ms": wall, "device_ms": device}

    def warm(self, split: str, rows: list[int]) -> int:
        """Answer until two blocks in a row agree within 5 % at the median (10 blocks at most); return the blocks."""
        self.time(split, rows)
        before = float(np.median(self.time(split, rows)["ms"]))
        for block in range(2, 10):
            now = float(np.median(self.time(split, rows)["ms"]))
            if abs(now - before) <= 0.05 * before:
                return block + 1
            before = now
        return 10

    def score(self, split: str, out: Path, report: Callable[[Event], None]) -> None:
        """Answer the rows not yet answered, as they are served, and write all logits as .npy.

        float32 [rows, labels], or [rows, most words, labels] where words are answered: `core.ragged`.
        """
        texts, logits = self._texts[split], self._logits[split]
        missing = [r for r in range(len(texts)) if r not in logits]
        for i in range(0, len(missing), 50 * self.batch):
            self.time(split, missing[i : i + 50 * self.batch])
            report({"stage": "score", "done": len(texts) - len(missing) + i, "total": len(texts)})
        np.save(out, ragged.stacked([logits[r] for r in range(len(texts))]))

    def invariance(self, split: str, rows: list[int]) -> dict[str, Any]:
        """Compare each row alone with the same row among others of mixed length (batches of 8)."""
        ids = self.predictor.encode([self._texts[split][r] for r in rows])
        session, lengths = self.predictor.session, [len(one) for one in ids]
        alone = ragged.joined([session.logits([one]) for one in ids])
        mixed = ragged.joined([session.logits(ids[i : i + 8]) for i in range(0, len(ids), 8)])
        decided = (self.predictor.artifact.task.decisions(answers) for answers in (alone, mixed))
        changed = np.not_equal(*decided).reshape(len(rows), -1)
        apart = ragged.flat(alone, lengths) - ragged.flat(mixed, lengths)
        return {
            "rows": len(rows),
            "flips": int(changed.any(axis=1).sum()),
            "largest_logit_difference": float(np.abs(apart).max()),
        }

    def lengths(self, split: str) -> list[int]:
        """Return the token count of each text."""
        return [len(ids) for ids in self.predictor.encode(self._texts[split])]


def main() -> None:
    """Serve the stopwatch over stdin and stdout."""
    from plimsoll.core.child import serve

    opened: list[Bench] = []

    def open_(request: dict[str, Any], report: Callable[[Event], None]) -> None:
        bench = Bench(Path(request["folder"]), request["batch"])
        for split, file in request["texts"].items():
            bench.read(split, Path(file))
        bench.predictor.predict([next(iter(bench._texts.values()))[0]])
        opened.append(bench)

    serve(
        {
            "open": open_,
            "time": lambda q, report: opened[0].time(q["split"], q["rows"]),
            "warm": lambda q, report: opened[0].warm(q["split"], q["rows"]),
            "score": lambda q, report: opened[0].score(q["split"], Path(q["out"]), report),
            "invariance": lambda q, report: opened[0].invariance(q["split"], q["rows"]),
            "lengths": lambda q, report: opened[0].lengths(q["split"]),
            "memory": lambda q, report: peak_mb(),
        }
    )


if __name__ == "__main__":
    main()

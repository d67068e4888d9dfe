"""How much of the machine's int8 ceiling a run's chosen model reaches at the median length.

    python benchmarks/ceiling_share.py RUN

For an artifact of the runtime native. Whole requests (text in, label out), the tokenizer alone and the session's call
alone are timed in turn on test rows of the median token count; the call's operations are those of its matrix products.
The ceiling is torch's best int8 product here, measured after them. The result is
benchmarks/results/ceiling_share@<machine digest>@<date>.json.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from plimsoll import load
from plimsoll.bench.ceilings import measure
from plimsoll.bench.machine import fingerprint
from plimsoll.core.decision import Decision
from plimsoll.data.read import read
from plimsoll.search.predict import operations
from plimsoll.train.shape import LayerShape

RESULTS = Path(__file__).parent / "results"
ROUNDS, ROWS = 60, 40
"""Each part is timed for `ROWS` calls in a round, and rounds alternate between parts."""


def main(run: Path) -> None:
    """Measure, print, and keep."""
    built = json.loads((run / "artifact" / "native.json").read_text())
    layers = tuple(LayerShape(**layer) for layer in built["layers"])
    heads = built["hidden"] // built["head_size"]
    task = Decision.from_file(run / "decision.json").spec["task"]
    texts = read(task["test"], split="test", text=task["text"], label=task["label"]).texts
    with load(run) as predictor:
        lengths = np.array([len(ids) for ids in predictor.encode(texts)])
        median = int(np.quantile(lengths, 0.5))
        texts = [t for t, n in zip(texts, lengths, strict=True) if n == median][:ROWS]
        rows = [predictor.encode([t]) for t in texts]
        parts: dict[str, Callable[[int], object]] = {
            "request": lambda i: predictor.predict([texts[i]]),
            "tokenizer": lambda i: predictor.encode([texts[i]]),
            "call": lambda i: predictor.session.logits(rows[i]),
        }
        us = timed(parts, len(texts))
        threads = predictor.artifact.runtime.threads
    asked = operations(layers, built["hidden"], heads, median)
    ceiling = measure(threads)
    machine = fingerprint().digest
    reached = asked / us["call"] / 1000
    result = {
        "run": run.name, "layers": built["layers"], "tokens": median, "operations": asked,
        "p50_us": us, "gops": reached, "ceiling_gops": ceiling.int8_gops, "share": reached / ceiling.int8_gops,
    }
    path = RESULTS / f"ceiling_share@{machine}@{datetime.datetime.now(datetime.UTC).date().isoformat()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"at {median} tokens: request {us['request']:.1f} us, tokenizer {us['tokenizer']:.1f}, "
          f"call {us['call']:.1f}\n"
          f"{asked / 1e6:.1f} M operations in the call: {reached:.0f} of {ceiling.int8_gops:.0f} GOP/s, "
          f"{result['share']:.0%}\nkept as {path}")


def timed(parts: dict[str, Callable[[int], object]], rows: int) -> dict[str, float]:
    """Return the median us of each part, over rounds that alternate between them."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(ROUNDS):
        for name, part in parts.items():
            for i in range(min(8, rows)):
                part(i)
            for i in range(rows):
                began = time.perf_counter()
                part(i)
                times[name].append(1e6 * (time.perf_counter() - began))
    return {name: float(np.median(t)) for name, t in times.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/ceiling_share.py RUN")
    main(Path(sys.argv[1]))

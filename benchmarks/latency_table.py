"""How well the latency table predicts models it has not seen, in the runtimes that students are built for.

    python benchmarks/latency_table.py benchmarks/specs/banking77.toml [runtime ...]

The models that a table is made from and random others (depth, heads and neurons of each layer, a pooled last layer or
not), all of random weights, are timed over the test texts in one race. A table is fitted to the first and predicts the
others: in one race, for the machine drifts by more than the table's error from one to the next. The result is
benchmarks/results/latency_table@<machine digest>@<date>.json.
"""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import cast

import numpy as np

from plimsoll.core import find
from plimsoll.core.parts import Runtime
from plimsoll.core.spec import Spec
from plimsoll.search import predict, tune
from plimsoll.search.predict import Probe, Shapes
from plimsoll.train.shape import LayerShape

RESULTS = Path(__file__).parent / "results"
MODELS, ROUNDS, REQUESTS = 20, 120, 25


def unseen(whole: Shapes, count: int, seen: set[Shapes], seed: int = 0) -> list[Shapes]:
    """Return random models of up to all layers, none of which the table was made from."""
    rng = np.random.default_rng(seed)
    full = whole[0]
    found: list[Shapes] = []
    while len(found) < count:
        depth = int(rng.integers(1, len(whole) + 1))
        layers = [
            LayerShape(heads=int(rng.integers(0, full.heads + 1)),
                       neurons=int(rng.integers(0, full.neurons // 32 + 1)) * 32)
            for _ in range(depth)
        ]
        layers[-1] = layers[-1].model_copy(update={"pooled": bool(rng.integers(2))})
        if tuple(layers) not in seen and tuple(layers) not in found:
            found.append(tuple(layers))
    return found


def main(spec: Path, *names: str) -> None:
    """Predict and time, print the errors, and keep them."""
    question = Spec.read(spec)
    records = []
    with tempfile.TemporaryDirectory() as folder, tune.prepared(question, Path(folder) / "run", print) as (bench, _):
        for name in names or ("native", "onnxruntime"):
            cls = cast(type[Runtime], find.part("runtimes", name))
            runtime = max((v for v in cls.variants(bench.threads, "cpu") if v.build_s <= 45), key=lambda v: v.steps)
            whole = predict.shapes(bench)
            known = predict.probes_of(whole)
            models = unseen(whole, MODELS, set(known))
            entries = {str(i): (cast(Runtime, runtime), m) for i, m in enumerate((*known, *models))}
            us = {k: np.concatenate(b) * 1000 for k, b in predict.timed(entries, bench, ROUNDS, REQUESTS).items()}
            p50, p95 = ([float(np.quantile(us[str(i)], q)) for i in range(len(entries))] for q in (0.5, 0.95))
            table = predict.fitted(runtime, bench.machine, [
                Probe(layers=m, p50_us=p50[i], p95_us=p95[i]) for i, m in enumerate(known)])
            for quantile, cost, times in ((0.5, table.p50, p50), (0.95, table.p95, p95)):
                measured = np.array(times[len(known):])
                predicted = np.array([cost.us(m) for m in models])
                off = np.abs(predicted / measured - 1)
                records.append({
                    "runtime": runtime.says(), "quantile": quantile, "margin": table.margin,
                    "median_error": float(np.median(off)), "worst_error": float(off.max()),
                    "models": [
                        {"layers": [s.model_dump() for s in m], "predicted_us": p, "measured_us": t}
                        for m, p, t in zip(models, predicted.tolist(), measured.tolist(), strict=True)
                    ],
                })
                print(f"{runtime.says()}, p{quantile * 100:.0f} of {MODELS} unseen models: "
                      f"off by {np.median(off):.1%} in the median, {off.max():.1%} at worst")
        machine = bench.machine
    path = RESULTS / f"latency_table@{machine}@{datetime.datetime.now(datetime.UTC).date().isoformat()}.json"
    path.write_text(json.dumps({"spec": spec.name, "runtimes": records}, indent=1) + "\n")
    print(f"kept as {path}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/latency_table.py SPEC [runtime ...]")
    main(Path(sys.argv[1]), *sys.argv[2:])

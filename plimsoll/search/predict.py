"""The latency table: what each module of a model costs in one runtime on this machine, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat
from scipy.optimize import nnls

from plimsoll.bench import clock
from plimsoll.bench.clock import Blocks
from plimsoll.core import find
from plimsoll.core.find import AnyRuntime
from plimsoll.core.parts import Runtime
from plimsoll.core.record import Record, digest
from plimsoll.search.attempt import Bench, built, sampled
from plimsoll.train.shape import LayerShape

_ROUNDS, _REQUESTS = 80, 25
_WARM_ROWS = 1000
_LEAST_MARGIN = 0.03
"""No table claims to be nearer than this: two races of the same artifacts differ by as much."""

_MIXTURES = (
    (False, ((1, 3), (3, 1))), (False, ((2, 1), (1, 4), (3, 2))), (False, ((1, 1), (4, 2), (2, 3))),
    (False, ((2, 3),)), (False, ((3, 2), (1, 1), (2, 4), (4, 1))), (False, ((1, 2), (2, 1), (3, 4), (1, 3), (2, 2))),
    (True, ((2, 2),)), (True, ((3, 1), (1, 3))), (True, ((2, 4), (3, 3), (1, 1))),
    (True, ((1, 1), (4, 2))), (True, ((3, 3), (1, 2), (2, 1), (3, 2))),
    (True, ((2, 1), (1, 4), (3, 2), (2, 3), (2, 2))),
)
"""Models of the table with layers of several widths: whether the last is pooled, and quarters of all heads and neurons
of each layer."""

Shapes = tuple[LayerShape, ...]


class Cost(Record):
    """One quantile of a request as a sum over a model's modules, in us. Empty modules cost nothing."""

    base: NonNegativeFloat
    """Tokenizer, embeddings, head and the call itself."""
    attention: NonNegativeFloat
    """Each attention module, whatever its heads."""
    head: NonNegativeFloat
    feed_forward: NonNegativeFloat
    """Each feed-forward module, whatever its neurons."""
    neuron: NonNegativeFloat
    query: NonNegativeFloat
    """The last layer, where it is pooled: what it costs whatever its heads and neurons."""
    query_head: NonNegativeFloat
    query_neuron: NonNegativeFloat

    def us(self, layers: Shapes) -> float:
        """Return the predicted latency of a model with these layers, in us."""
        return float(np.dot(_counts(layers), list(self.__dict__.values())))


class Probe(Record):
    """A model that was timed to make the table."""

    layers: Shapes
    p50_us: float
    p95_us: float


class LatencyTable(Record):
    """What one runtime takes for models of one architecture over one mix of lengths, on one machine."""

    runtime: AnyRuntime
    machine: str
    p50: Cost
    p95: Cost
    margin: NonNegativeFloat
    """Largest share by which a probe's p95 differs from its prediction, at least 3 %."""
    probes: tuple[Probe, ...]

    def scaled(self, layers: Shapes, p95_ms: float) -> LatencyTable:
        """Return the table of a machine on which these layers take `p95_ms`: the same one, faster or slower today."""
        times = p95_ms / self.p95_ms(layers)
        cost = {name: type(c)(**{k: v * times for k, v in c}) for name, c in (("p50", self.p50), ("p95", self.p95))}
        probes = tuple(Probe(layers=p.layers, p50_us=p.p50_us * times, p95_us=p.p95_us * times) for p in self.probes)
        return self.model_copy(update={**cost, "probes": probes})

    def p95_ms(self, layers: Shapes) -> float:
        """Return the predicted p95 in ms."""
        return self.p95.us(layers) / 1000

    def least_p95_ms(self, layers: Shapes) -> float:
        """Return the p95 in ms less the table's margin: what the model will hardly be faster than."""
        return self.p95_ms(layers) * (1 - self.margin)


def fitted(runtime: Runtime, machine: str, probes: Sequence[Probe]) -> LatencyTable:
    """Fit the costs of modules to whole models.

    All requests have the same lengths and every module takes longer for a longer one, so the quantiles of a sum of
    modules are the sums of their quantiles, and least squares with costs of at least 0 find them. Each probe counts
    by its relative error. Source: Lawson and Hanson, Solving Least Squares Problems, 1974, for the bounded fit.
    """
    counts = np.array([_counts(p.layers) for p in probes])

    def cost(values: NDArray[np.float64]) -> Cost:
        found, _ = nnls(counts / values[:, None], np.ones(len(values)))
        return Cost(**dict(zip(Cost.model_fields, found.tolist(), strict=True)))

    p50, p95 = (np.array([getattr(p, name) for p in probes]) for name in ("p50_us", "p95_us"))
    slow = cost(p95)
    off = max(abs(slow.us(p.layers) / p.p95_us - 1) for p in probes)
    return LatencyTable(
        runtime=runtime, machine=machine, p50=cost(p50), p95=slow, margin=max(off, _LEAST_MARGIN), probes=tuple(probes)
    )


def _counts(layers: Shapes) -> list[float]:
    """Return what the fields of Cost are multiplied by for a model with these layers."""
    whole, pooled = [s for s in layers if not s.pooled], [s for s in layers if s.pooled]
    heads, neurons = [s.heads for s in whole], [s.neurons for s in whole]
    return [
        1.0, sum(map(bool, heads)), sum(heads), sum(map(bool, neurons)), sum(neurons),
        len(pooled), sum(s.heads for s in pooled), sum(s.neurons for s in pooled),
    ]


def operations(layers: Shapes, hidden: int, heads: int, tokens: int) -> float:
    """Return the multiplications and additions of one request of so many tokens, each counted as one.

    hidden: the model's width; heads: of a whole layer, which says how wide one head is. Embeddings, norms and the
    head are left out: they are hundredths.
    """
    size = hidden // heads
    total = 0.0
    for layer in layers:
        asking = 1 if layer.pooled else tokens
        width = layer.heads * size
        total += 2 * hidden * width * tokens + 2 * hidden * width * asking  # key and value; query and output
        total += 2 * width * tokens * asking  # scores, and what they weigh
        total += 2 * hidden * layer.neurons * asking
    return 2 * total


def table(runtimes: Sequence[Runtime], bench: Bench, widths: bool = True) -> list[LatencyTable]:
    """Time a few models of random weights in these runtimes, in one race, and fit a table for each.

    Without `widths` fewer models are timed, and the table holds for layers of full width only. Measured once for a
    machine, a runtime, an architecture and a data set. Raises Unsupported for an architecture whose layers are not
    laid out like BERT's.
    """
    whole = shapes(bench)
    wanted = probes_of(whole, widths, pools(bench))

    def make(out: Path) -> None:
        entries = {f"{i}-{j}": (r, p) for i, r in enumerate(runtimes) for j, p in enumerate(wanted)}
        blocks = timed(entries, bench, _ROUNDS, _REQUESTS)
        for i, runtime in enumerate(runtimes):
            us = {j: np.concatenate(blocks[f"{i}-{j}"]) * 1000 for j in range(len(wanted))}
            probes = [
                Probe(layers=p, p50_us=float(np.quantile(us[j], 0.5)), p95_us=float(np.quantile(us[j], 0.95)))
                for j, p in enumerate(wanted)
            ]
            (out / f"{i}.json").write_text(fitted(runtime, bench.machine, probes).to_json())

    load = bench.run.spec.load.model_dump(mode="json")
    asked = {"runtimes": [find.write(r) for r in runtimes], "widths": widths, "load": load}
    folder = bench.run.store.once("latency", {**asked, **key(bench)}, make)
    return [LatencyTable.from_file(folder / f"{i}.json") for i in range(len(runtimes))]


def table_s(runtime: Runtime, whole: Shapes, widths: bool = True, pooled: bool = True) -> float:
    """Return roughly how many seconds a table takes: most are small models, built in half the time."""
    return len(probes_of(whole, widths, pooled)) * runtime.build_s / 2


def pools(bench: Bench) -> bool:
    """Return whether a model of this task may leave one answer a row: not where every token has its own."""
    return not bench.run.spec.task.per_token


def probes_of(whole: Shapes, widths: bool = True, pooled: bool = True) -> list[Shapes]:
    """Return models that tell costs apart: depths, modules that are gone, a pooled layer, and mixtures of widths.

    Without `pooled` none of them is.

    The mixtures keep the fit honest where students are: on MiniLM, probes of whole, half and no width alone put
    models between them 10 % too high.
    """
    full, nothing = whole[0], LayerShape(heads=0, neurons=0)
    asking = full.model_copy(update={"pooled": True})
    depth = min(2, len(whole))
    probes: list[Shapes] = [(nothing,), (full,), (full,) * depth, (asking,)]
    if len(whole) > 1:
        probes.append((full, asking))
    if widths:
        no_heads, no_neurons = (full.model_copy(update={name: 0}) for name in ("heads", "neurons"))
        probes += [(no_heads,) * depth, (no_neurons,) * depth, (full,) * len(whole)]
        for asks_once, quarters in _MIXTURES:
            layers = [
                LayerShape(heads=max(1, full.heads * h // 4), neurons=max(1, full.neurons * n // 4))
                for h, n in quarters
            ]
            layers[-1] = layers[-1].model_copy(update={"pooled": asks_once})
            probes.append(tuple(layers[-len(whole):]))
    return [p for p in dict.fromkeys(probes) if pooled or not p[-1].pooled]


def shapes(bench: Bench, model: Path | None = None) -> Shapes:
    """Return the shapes of a model's layers, by default the pre-trained one's.

    Raises Unsupported for a layout that is not known.
    """
    found: list[dict[str, Any]] = bench.maker().call({"do": "shapes", "model": str(model or bench.pretrained)})
    return tuple(LayerShape(**shape) for shape in found)


def timed(
    entries: dict[str, tuple[Runtime, Shapes]], bench: Bench, rounds: int, requests: int, warm_rows: int = _WARM_ROWS
) -> Blocks:
    """Build models of random weights, race them on the test texts, and return ms per request by entry.

    `warm_rows`: validation texts that each answers first.
    """
    spec = bench.run.spec
    artifacts = {name: probe(runtime, layers, bench) for name, (runtime, layers) in entries.items()}
    # the makers' memory is better used by those who race
    bench.retire_maker()
    contestants: dict[str, clock.Contestant] = {}
    rows = list(range(min(len(bench.dataset.validation), warm_rows)))
    try:
        for name, folder in artifacts.items():
            contestants[name] = bench.enter(name, folder)
            # a server has met the words of its texts, and so has an artifact that has answered the validation rows
            contestants[name].call({"do": "time", "split": "validation", "rows": rows})
            contestants[name].call({"do": "warm", "split": "test", "rows": bench.spread()})
            contestants[name].pause()
            bench.run.report({"stage": "table", "done": len(contestants), "total": len(artifacts), "note": "warm"})
        plan = clock.schedule(len(bench.dataset.test), rounds, requests, spec.load.batch, spec.search.seed + 4)
        return clock.race(contestants, plan, "test")[0]
    finally:
        for name in contestants:
            bench.leave(name)


def probe(runtime: Runtime, layers: Shapes, bench: Bench) -> Path:
    """Return the artifact of a model of random weights with these layers.

    Raises Unsupported or ChildError for a runtime that does not know such a model.
    """
    task = find.write(bench.run.spec.task)
    longest = bench.longest()
    asked = {"layers": [s.model_dump() for s in layers], "labels": list(bench.dataset.labels), "max_length": longest}

    def make(out: Path) -> None:
        bench.maker().call({"do": "probe", "model": str(bench.pretrained), "task": task, "out": str(out), **asked})

    made_of = {**asked, **key(bench)}
    model = bench.run.store.once("probe", made_of, make)
    sample, sample_file = sampled(model, bench)
    return built(runtime, model, digest(made_of), (), sample, sample_file, bench)


def key(bench: Bench) -> dict[str, Any]:
    """Return what a random model and its timing depend on, beside its layers."""
    config = json.loads((bench.pretrained / "config.json").read_text())
    return {
        "config": config, "data": bench.data_digest, "machine": bench.machine, "version": version("plimsoll-ml")
    }

"""The floor: what not even the smallest model gets below here, known before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from plimsoll.bench.ceilings import Ceilings
from plimsoll.bench.ceilings import measure as measure_ceilings
from plimsoll.bench.stats import quantile, ratio_of_quantiles
from plimsoll.core import find
from plimsoll.core.decision import Binding, Decision, Limit
from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.core.find import AnyRuntime
from plimsoll.core.parts import Runtime
from plimsoll.core.record import Measurement, Record
from plimsoll.core.spec import Budget
from plimsoll.data import dataset
from plimsoll.search import predict, space
from plimsoll.search.attempt import Bench
from plimsoll.search.predict import Shapes
from plimsoll.train.shape import LayerShape

_LONGEST_BUILD_S = 45.0
_ROUNDS, _REQUESTS, _WARM_ROWS = 4, 100, 100


class Rung(Record):
    """A model of random weights that was timed: how long it takes does not depend on what it learned."""

    what: str
    runtime: AnyRuntime
    p95_ms: Measurement
    speedup_p95: Measurement


class Floor(Record):
    """The quickest there is, by runtime, and what more model costs in the quickest of them."""

    least: tuple[Rung, ...]
    """The smallest model in each runtime, the quickest first."""
    more: tuple[Rung, ...]
    """One whole layer, and all of them, in the quickest runtime."""
    baseline_p95_ms: Measurement
    unmeasured: tuple[str, ...]
    """Runtimes that take too long to build to be asked here, or that do not know this architecture."""


def measured(bench: Bench) -> Floor | None:
    """Return the floor for a spec that limits speed, or None where nothing can be said before training.

    Nothing can be said of a model whose layers are not laid out like BERT's, or beside fakes. Kept for the machine.
    """
    budget = bench.run.spec.budget
    if budget.p95_ms is None and budget.min_speedup is None:
        return None
    ways, unmeasured = _ways(bench)
    if not ways:
        return None
    try:
        whole = predict.shapes(bench)
    except Unsupported:
        return None
    refused = [w for w in ways if not _knows(w, bench)]
    ways = [w for w in ways if w not in refused]
    unmeasured = (*unmeasured, *(w.name() for w in refused))
    if not ways:
        return None

    def make(out: Path) -> None:
        (out / "floor.json").write_text(_measure(ways, unmeasured, base, whole, bench).to_json())

    base = space.baseline(bench.run.spec, bench.threads).runtime
    load = bench.run.spec.load.model_dump(mode="json")
    key = {"ways": [find.write(w) for w in ways], "base": find.write(base), "load": load, **predict.key(bench)}
    return Floor.from_file(bench.run.store.once("floor", key, make) / "floor.json")


def _ways(bench: Bench) -> tuple[list[Runtime], tuple[str, ...]]:
    """Return for each runtime one setting that is built in seconds, and the names of those without one.

    The one of most steps: int8 where there is int8.
    """
    spec = bench.run.spec
    ways: list[Runtime] = []
    unmeasured: list[str] = []
    for name in spec.target.runtimes or tuple(n for n in find.names("runtimes") if n != "null"):
        cls = cast(type[Runtime], find.part("runtimes", name))
        if cls.in_process or cls.missing():
            continue
        try:
            variants = cls.variants(bench.threads, spec.target.device)
        except Unsupported:
            continue
        quick = [v for v in variants if v.build_s <= _LONGEST_BUILD_S]
        if quick:
            ways.append(max(quick, key=lambda v: v.steps))
        else:
            unmeasured.append(name)
    return ways, tuple(unmeasured)


def _measure(
    ways: Sequence[Runtime], unmeasured: Sequence[str], base: Runtime, whole: Shapes, bench: Bench
) -> Floor:
    entries: dict[str, tuple[Runtime, Shapes]] = {f"least {i}": (w, _least(bench)) for i, w in enumerate(ways)}
    blocks = predict.timed({"baseline": (base, whole), **entries}, bench, _ROUNDS, _REQUESTS, _WARM_ROWS)
    names = {f"least {i}": "the smallest model there is" for i in range(len(ways))}
    least = sorted(_rungs(names, entries, blocks), key=lambda r: r.p95_ms.value)
    more = {"one": (least[0].runtime, whole[:1]), "whole": (least[0].runtime, whole)}
    blocks = predict.timed({"baseline": (base, whole), **more}, bench, _ROUNDS, _REQUESTS, _WARM_ROWS)
    return Floor(
        least=tuple(least),
        more=tuple(_rungs({"one": "one whole layer", "whole": f"all {len(whole)} layers"}, more, blocks)),
        baseline_p95_ms=quantile(np.concatenate(blocks["baseline"]), 0.95),
        unmeasured=tuple(unmeasured),
    )


def _least(bench: Bench) -> Shapes:
    """Return the shape of tokenizer, embeddings, norms and head: what every recipe has."""
    return (LayerShape(heads=0, neurons=0, pooled=predict.pools(bench)),)


def _knows(runtime: Runtime, bench: Bench) -> bool:
    """Return whether a runtime can build the smallest model of this architecture; why not is said when it is tried."""
    try:
        predict.probe(runtime, _least(bench), bench)
    except Unsupported:
        return False
    except ChildError:
        bench.retire_maker()
        return False
    return True


def _rungs(
    names: Mapping[str, str], entries: Mapping[str, tuple[Runtime, Shapes]], blocks: Mapping[str, Any]
) -> list[Rung]:
    return [
        Rung(
            what=what,
            runtime=entries[name][0],
            p95_ms=quantile(np.concatenate(blocks[name]), 0.95),
            speedup_p95=ratio_of_quantiles(blocks["baseline"], blocks[name], 0.95),
        )
        for name, what in names.items()
    ]


def broken(floor: Floor, budget: Budget) -> Limit | None:
    """Return the speed limit that not even the smallest model holds in any runtime, by its bound, or None."""
    if budget.p95_ms is not None and all(r.p95_ms.low > budget.p95_ms for r in floor.least):
        return "p95_ms"
    if budget.min_speedup is not None and all(r.speedup_p95.high < budget.min_speedup for r in floor.least):
        return "min_speedup"
    return None


def rules_out(floor: Floor, runtime: Runtime, budget: Budget) -> str | None:
    """Return why nothing in this runtime can hold a speed limit, or None: it was not timed, or it may."""
    for rung in floor.least:
        if rung.runtime.name() != runtime.name():
            continue
        p95, most = rung.p95_ms, rung.speedup_p95
        if budget.p95_ms is not None and p95.low > budget.p95_ms:
            return (
                f"not built: in {rung.runtime.says()} even {rung.what} takes {p95.value:.3g} ms at p95 (at least "
                f"{p95.low:.3g}, n={p95.n}), over the limit of {budget.p95_ms:g} ms"
            )
        if budget.min_speedup is not None and most.high < budget.min_speedup:
            return (
                f"not built: in {rung.runtime.says()} even {rung.what} is {most.value:.3g} times as fast as the "
                f"baseline at p95 (at most {most.high:.3g}), under the {budget.min_speedup:g} asked for"
            )
    return None


def certificate(floor: Floor, limit: Limit, bench: Bench, machine: dict[str, Any]) -> Decision:
    """Return the decision that nothing can hold `limit` here, with the numbers that say so; nothing was trained."""
    spec = bench.run.spec
    best = floor.least[0]
    asked = getattr(spec.budget, limit)

    def shown(rung: Rung) -> Measurement:
        return rung.p95_ms if limit == "p95_ms" else rung.speedup_p95

    unit = " ms" if limit == "p95_ms" else "x"
    value, word = shown(best), "over" if limit == "p95_ms" else "under"
    bound = value.low if limit == "p95_ms" else value.high
    ceiling, note = _arithmetic(bench)
    others = [f"{r.runtime.says()} {shown(r).value:.3g}{unit}" for r in floor.least[1:]]
    relaxing = [
        f"{limit} = {shown(r).high if limit == 'p95_ms' else shown(r).low:.3g} leaves room for {r.what} in "
        f"{r.runtime.says()} ({shown(r).low:.3g} to {shown(r).high:.3g}{unit}, n={shown(r).n})"
        for r in (best, *floor.more)
    ]
    source = (
        f"measured: {best.what} (tokenizer, embeddings, norms and head, random weights) in {best.runtime.says()}, "
        f"over the test texts' own lengths"
    )
    return Decision(
        verdict="not-met",
        why=(
            f"nothing can hold {limit} = {asked:g} here, and nothing was trained: {best.what} in its quickest runtime, "
            f"{best.runtime.says()}, reaches {value.value:.3g}{unit} ({value.low:.3g} to {value.high:.3g}, "
            f"n={value.n}), and its bound of {bound:.3g}{unit} is {word} the limit."
        ),
        budget=spec.budget,
        binding=Binding(limit=limit, floor=value, floor_from=source, nearest_miss="", relaxing=tuple(relaxing)),
        notes=(
            *([f"The smallest model in the other runtimes: {', '.join(others)}."] if others else []),
            *([f"Not asked, for they take long to build or do not know this model: {', '.join(floor.unmeasured)}."]
              if floor.unmeasured else []),
            f"The baseline, eager with random weights, takes {floor.baseline_p95_ms.value:.3g} ms at p95.",
            note,
        ),
        data=json.loads((bench.data / "report.json").read_text()),
        machine={**machine, "ceilings": ceiling.model_dump(mode="json")},
        spec=spec.model_dump(mode="json"),
        spec_digest=spec.digest,
        seconds={"total": round(bench.run.elapsed_s, 1)},
    )


def _arithmetic(bench: Bench) -> tuple[Ceilings, str]:
    """Return the machine's ceilings, and what they say of the whole model at the p95 length."""
    found = ceilings(bench)
    lengths = dataset.measure_lengths(bench.dataset.test.texts, bench.tokenizer())
    tokens = int(np.quantile(lengths, 0.95, method="inverted_cdf"))
    whole = predict.shapes(bench)
    hidden = int(json.loads((bench.pretrained / "config.json").read_text())["hidden_size"])
    operations = predict.operations(whole, hidden, whole[0].heads, tokens)
    best = max(found.fp32_gflops, found.bf16_gflops, found.int8_gops)
    return found, (
        f"The arithmetic ceiling: all {len(whole)} layers at the p95 length of {tokens} tokens are "
        f"{operations / 1e9:.2f} GFLOP, at {best:.0f} x 10^9 a second at least {operations / best / 1e6:.2f} ms."
    )


def ceilings(bench: Bench) -> Ceilings:
    """Return the machine's measured ceilings, measured once for a machine, thread count and device."""

    def make(out: Path) -> None:
        bench.run.report({"stage": "ceilings", "note": "measuring what this machine can do at most"})
        (out / "ceilings.json").write_text(measure_ceilings(bench.threads, bench.run.spec.target.device).to_json())

    key = {"machine": bench.machine, "threads": bench.threads, "device": bench.run.spec.target.device}
    return Ceilings.from_file(bench.run.store.once("ceilings", key, make) / "ceilings.json")


"""Races of a run: who is timed against whom, for how long, and what their times say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.bench import clock
from plimsoll.bench.clock import Blocks
from plimsoll.bench.stats import quantile, ratio_of_quantiles
from plimsoll.core.record import digest
from plimsoll.core.spec import Spec
from plimsoll.core.trial import Latency, Trial
from plimsoll.search import choose
from plimsoll.search.attempt import Bench

_SHORT = (8, 50)
"""Rounds and requests of the short race, enough to tell 1.2x apart."""
OF_STUDENTS = (40, 25)
"""Of the race of students, which take a tenth of a millisecond each, so that a burst of something else is spread."""
_LONG_ROUNDS = 20
_LONG_REQUESTS = (1000, 2000)
"""Fewest and most requests of the final race; between them, as many as there are test rows."""
_FEWEST_REQUESTS = 10
"""In a round of the final race, however large the batch: 200 in all, for a bound on p95 needs 59."""
_FINALISTS = 3


def raced(trials: Sequence[Trial], bench: Bench) -> tuple[list[Trial], Blocks]:
    """Time everything in a short race, and the baseline with the few that can still win in a long one."""
    spec = bench.run.spec
    opened = [t for t in trials if t.artifact]
    base = next(t for t in opened if t.baseline)
    blocks, _ = _race(opened, "all", *_SHORT, bench)
    timed = {t.id: _timed(t, base, blocks, {}, bench) for t in opened}
    rows = len(bench.dataset.test)
    order = choose.ranked([timed[t.id] for t in opened], blocks, _without_speed(spec), rows)
    # when too few can hold the other limits, the fastest of the rest race too: one of them is the nearest miss
    rest = sorted((timed[t.id] for t in opened if timed[t.id] not in order), key=choose.p95_ms)
    within = [t for t in order if choose.quick_enough(t, spec.budget)]
    beyond = [t for t in order if t not in within]
    wanted = [*choose.looked_at([t for t in within if not t.baseline], rows, _FINALISTS), *beyond, *rest]
    finalists = [base, *[t for t in wanted if not t.baseline][:_FINALISTS]]
    requests = min(max(rows, _LONG_REQUESTS[0]), _LONG_REQUESTS[1]) // _LONG_ROUNDS
    blocks, device = _race(finalists, "final", _LONG_ROUNDS, max(_FEWEST_REQUESTS, requests // spec.load.batch), bench)
    for t in finalists:
        timed[t.id] = _timed(timed[t.id], base, blocks, device, bench)
    return [timed.get(t.id, t) for t in trials], blocks


def short_p95_ms(
    trials: Sequence[Trial], name: str, bench: Bench, size: tuple[int, int] = _SHORT
) -> dict[str, float]:
    """Return the p95 in ms of a short race, by trial."""
    blocks, _ = _race(trials, name, *size, bench)
    return {i: float(np.quantile(np.concatenate(b), 0.95)) for i, b in blocks.items()}


def _without_speed(spec: Spec) -> Any:
    """The budget without its speed limits: the short race is too short to refuse anyone by a bound."""
    return spec.budget.model_construct(**{**spec.budget.model_dump(), "p95_ms": None, "min_speedup": None})


def _race(
    trials: Sequence[Trial], name: str, rounds: int, requests: int, bench: Bench
) -> tuple[Blocks, dict[str, list[float]]]:
    """Time these trials against each other, going on where an interrupted race of the same plan stopped."""
    opened, spec = bench.run, bench.run.spec
    ids = [t.id for t in trials]
    # another seed for each race, so that the final one is not judged on the rows that picked its entrants
    seed = spec.search.seed + {"short": 1, "all": 2, "final": 3, "students": 4}[name]
    plan = clock.schedule(len(bench.dataset.test), rounds, requests, spec.load.batch, seed)
    key = digest({"ids": ids, "plan": plan, "machine": bench.machine})
    kept = opened.kept_rounds(name, key)
    if len(kept) == rounds:
        return {i: [np.array(r[i]) for r in kept] for i in ids}, {i: [] for i in ids}
    contestants: dict[str, clock.Contestant] = {}
    for t in trials:
        contestants[t.id] = bench.enter(t.id, Path(t.artifact))
        opened.report({"stage": "warm", "done": len(contestants), "total": len(trials), "note": t.recipe.says()})
        contestants[t.id].call({"do": "warm", "split": "test", "rows": bench.spread()})
        contestants[t.id].pause()
    done = len(kept)

    def on_round(times: dict[str, list[float]]) -> None:
        nonlocal done
        done += 1
        opened.keep_round(name, key, times)
        opened.report({"stage": f"race {name}", "done": done, "total": rounds, "note": f"{len(ids)} artifacts in turn"})

    return clock.race(contestants, plan, "test", kept=kept, on_round=on_round)


def _timed(trial: Trial, base: Trial, blocks: Blocks, device: Mapping[str, Sequence[float]], bench: Bench) -> Trial:
    """Return the trial with its quantiles, its speed-ups over the baseline, and its cost by length."""
    mine = np.concatenate(blocks[trial.id])
    machine = {"machine": bench.machine}
    latency = Latency(**{f"p{p}": quantile(mine, p / 100).model_copy(update=machine) for p in (50, 95, 99)})

    def speedup(p: float) -> Any:
        return ratio_of_quantiles(blocks[base.id], blocks[trial.id], p).model_copy(update=machine)

    on_device = device.get(trial.id) or None
    return bench.run.save(
        trial.model_copy(
            update={
                "state": "measured",
                "latency_ms": latency,
                "speedup_p50": speedup(0.5),
                "speedup_p95": speedup(0.95),
                "device_p50_ms": float(np.median(on_device)) if on_device else None,
            }
        )
    )

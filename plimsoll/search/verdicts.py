"""What a comparison of methods came to: who is chosen, and for every other why not, in a sentence with its numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plimsoll.bench import seeds
from plimsoll.bench.machine import Machine
from plimsoll.bench.seeds import Evidence
from plimsoll.bench.stats import quantile
from plimsoll.core.comparison import Comparison, Method, Recompute, Stage
from plimsoll.core.record import Measurement
from plimsoll.search.attempt import Bench, work_request

if TYPE_CHECKING:
    from plimsoll.search.methods import Arm

_STAGES: tuple[Stage, ...] = ("equal_rows", "equal_time", "full")
_APART = 0.03
"""By how much two ways to find the share of recomputation may differ."""
_OF_MEMORY = 0.8
"""The largest share of the memory that training may take at its peak."""


def judged(arms: Sequence[Arm], full: Sequence[Arm], others: Sequence[Method], bench: Bench, machine: Machine
           ) -> Comparison:
    """Return the comparison: the best in full whose lead the noise does not explain, or the cheapest of those level."""
    spec = bench.run.spec
    value, metric = spec.task.value, spec.task.metric
    best = max(full, key=lambda a: seeds.quality(a.evidence["full"], value, metric).value)
    level = [a for a in full
             if seeds.difference(a.evidence["full"], best.evidence["full"], value, metric).high >= 0]
    winner = min(level, key=cost)
    leader = max((a for a in arms if a.costs.step_s), key=lambda a: a.mean("equal_time"), default=winner)
    methods = [_method(a, winner, leader, level, full, bench) for a in arms]
    order = {"chosen": 0, "tied": 1, "lost": 2, "stopped": 3, "skipped": 4, "failed": 5}
    last = {name: -m.value for name, m in ((x.move.name(), _last(x)) for x in methods) if m is not None}
    methods = sorted((*methods, *others), key=lambda m: (order[m.state], last.get(m.move.name(), 0.0)))
    model, quality = _handed_over(winner, bench)
    whole = winner.at("full")
    notes = [f"{m.move.name()}: the two ways to find the share of recomputation differ by {m.recompute.apart:.1%} of "
             "the step" for m in methods if m.recompute is not None and m.recompute.apart > _APART]
    if len(level) > 1:
        names = ", ".join(a.name for a in level)
        notes.append(f"Level within the noise, so not ranked among each other: {names}.")
    notes.append(f"{winner.name} in full: seed by seed {', '.join(f'{p.quality:.2%}' for p in whole)}.")
    notes += bench.run.incident_notes()
    return Comparison(
        chosen=winner.name,
        why=_why(winner, best, level, bench),
        metric=metric,
        seeds=winner.draws if len(arms) == 1 else max(a.draws for a in arms),
        rows={stage: _given(arms, stage) for stage in _STAGES},
        methods=tuple(methods),
        questions=tuple(_question(m, winner.name) for m in methods if m.state != "chosen"),
        checkpointing=checkpointing(next(m for m in methods if m.state == "chosen"),
                                    winner.costs.device_mb or memory_mb(machine)),
        quality=quality,
        model=model,
        probes=tuple(p for a in arms for p in a.probes),
        notes=tuple(notes),
        machine={"fingerprint": machine.model_dump(mode="json"), "digest": machine.digest},
        spec_digest=spec.digest,
        seconds=round(bench.run.elapsed_s, 1),
    )


def cost(arm: Arm) -> float:
    """Return the seconds of a plain step, 0 for a method without steps: what decides between methods that are level."""
    return float(np.median(arm.costs.step_s["none"])) if arm.costs.step_s else 0.0


def checkpointing(method: Method, available_mb: float) -> str:
    """Return which policy of activation checkpointing the method was trained with, and the numbers that say so."""
    step, peak = method.step_ms, method.peak_memory_mb
    if len(step) < 2:
        return f"none: {method.recompute_reason or 'no other policy was timed'}"
    chosen = policy({p: m.value for p, m in step.items()}, peak, available_mb)
    rest = "; ".join(f"{p} takes {step[p].value / step[chosen].value:.2f} times as long and peaks at {peak[p]:,.0f} MB"
                     for p in step if p != chosen)
    return (f"{chosen}: a step takes {step[chosen].value:.0f} ms and the process peaks at {peak[chosen]:,.0f} of "
            f"{available_mb:,.0f} MB; {rest}")


def policy(step: Mapping[str, float], peak_mb: Mapping[str, float], available_mb: float) -> str:
    """Return the quickest policy of activation checkpointing whose peak leaves a fifth of the memory free.

    step: the time of one by policy, in any unit. Where no policy leaves so much, the one of the lowest peak.
    """
    if "none" in step and peak_mb["none"] <= _OF_MEMORY * available_mb:
        return "none"  # it does the least work: where another was timed as quicker, that is noise
    fitting = [p for p in step if peak_mb[p] <= _OF_MEMORY * available_mb] or [min(step, key=lambda p: peak_mb[p])]
    return min(fitting, key=lambda p: step[p])


def memory_mb(machine: Machine) -> float:
    """Return the memory this process may take, in MB (10^6 bytes)."""
    return (machine.memory_limit_mb or machine.memory_mb) * 1024**2 / 1e6


def _method(arm: Arm, winner: Arm, leader: Arm, level: Sequence[Arm], full: Sequence[Arm], bench: Bench) -> Method:
    value, metric = bench.run.spec.task.value, bench.run.spec.task.metric
    costs = arm.costs
    state = ("chosen" if arm is winner else "tied" if arm in level else "lost" if arm in full else "stopped")
    had: list[Stage] = [s for s in _STAGES if s in arm.evidence]
    deltas = {s: seeds.difference(arm.evidence[s], winner.evidence[s], value, metric) for s in had
              if arm is not winner and s in winner.evidence}
    found = Method(
        move=arm.move, state=state, trainable=costs.trainable, parameters=costs.parameters, precision=costs.precision,
        step_ms={p: quantile(np.array(s) * 1e3, 0.5) for p, s in costs.step_s.items()},
        peak_memory_mb=costs.peak_mb, recompute_reason=costs.reason, recompute=recomputed(arm),
        rates={f"{rate:g}": q for rate, q in arm.rates.items()},
        qualities={s: seeds.quality(arm.evidence[s], value, metric) for s in had}, deltas=deltas,
        seconds={s: float(np.mean([p.seconds for p in arm.at(s)])) for s in had})
    told = stopped(arm, leader, value, metric) if state == "stopped" and leader is not winner else ""
    return found.model_copy(update={"reason": "; ".join(filter(None, (told, _reason(found, arm, winner))))})


def stopped(arm: Arm, leader: Arm, value: Callable[[Evidence], float], metric: str) -> str:
    """Return why a method was not trained in full, which the one that led in the same time decided."""
    behind = seeds.difference(arm.evidence["equal_time"], leader.evidence["equal_time"], value, metric)
    sure = "certainly worse than" if behind.high < 0 else "in the worse half, led by"
    return f"in the same time it was {sure} {leader.name}, {_points(behind)}"


def recomputed(arm: Arm) -> Recompute | None:
    """Return the share of a step that full checkpointing would compute again, or None where it was not timed."""
    if not arm.costs.recompute_direct:
        return None
    ways = (arm.costs.recompute_direct, arm.costs.recompute_fitted)
    direct, fitted = (quantile(np.clip(x, 0.0, None), 0.5, unit="") for x in ways)
    return Recompute(direct=direct, fitted=fitted)


def _last(method: Method) -> Measurement | None:
    return next((method.qualities[s] for s in reversed(_STAGES) if s in method.qualities), None)


def _given(arms: Sequence[Arm], stage: Stage) -> int:
    """Return how many rows a training of a stage saw at most."""
    return max((p.rows_seen for a in arms for p in a.at(stage)), default=0)


def _reason(method: Method, arm: Arm, winner: Arm) -> str:
    """Return why a method is where it is, in one sentence."""
    if method.state == "chosen":
        return "chosen"
    parts: list[str] = []
    if "full" in method.deltas:
        m = method.deltas["full"]
        verb = "level with" if method.state == "tied" else "behind"
        parts.append(f"in full {_percent(method.qualities['full'])}, {verb} {winner.name}: {_points(m)}")
    else:
        named = {"equal_rows": "after the same rows", "equal_time": "in the same time"}
        parts += [f"{words} {_percent(method.qualities[s])}, {_points(method.deltas[s])} against {winner.name}"
                  for s, words in named.items() if s in method.deltas]
    if cost(arm) and cost(winner):
        parts.append(f"its step takes {cost(arm) / cost(winner):.2f} times as long as {winner.name}'s")
    peak, theirs = method.peak_memory_mb.get("none"), winner.costs.peak_mb.get("none")
    if peak and theirs:
        parts.append(f"training peaks at {peak:,.0f} MB against {theirs:,.0f}")
    return "; ".join(parts)


def _question(method: Method, winner: str) -> str:
    asked = {"finetune": "full fine-tuning"}.get(method.move.name(), method.move.name().replace("_", " "))
    ends = {"tied": f"It is level within the noise; {winner} is the cheaper.", "lost": "It lost.",
            "stopped": "It was not trained in full.", "skipped": "It was not tried.", "failed": "It broke."}
    return f"Why not {asked}? {ends[method.state]} {method.reason[:1].upper()}{method.reason[1:]}."


def _why(winner: Arm, best: Arm, level: Sequence[Arm], bench: Bench) -> str:
    value, metric = bench.run.spec.task.value, bench.run.spec.task.metric
    own = seeds.quality(winner.evidence["full"], value, metric)
    if len(level) == 1:
        return f"{winner.name} is the best in full, {metric} {_percent(own)}, and no other that was is level with it."
    m = seeds.difference(winner.evidence["full"], best.evidence["full"], value, metric)
    behind = "" if winner is best else f", {_points(m)} against the best mean, {best.name}"
    return (f"{winner.name} reaches {metric} {_percent(own)}{behind}; the noise does not tell {len(level)} methods "
            "apart, and of these its step is the cheapest.")


def _handed_over(winner: Arm, bench: Bench) -> tuple[str, Measurement]:
    """Copy the chosen model into the run, and answer the test rows with it: its first seed, not the luckiest."""
    spec, run = bench.run.spec, bench.run
    source, target = Path(winner.at("full")[0].model), run.folder / "model"
    if not target.exists():
        new = run.folder / ".model.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(source, new)
        new.rename(target)
    answers = run.folder / "scores" / "chosen-test.npy"
    bench.maker().call({**work_request(bench, target), "do": "answers", "split": "test", "out": str(answers)},
                       run.report)
    evidence = spec.task.evidence(np.load(answers), bench.dataset.targets("test"))
    return target.name, seeds.quality([evidence], spec.task.value, spec.task.metric)


def _percent(m: Measurement) -> str:
    return f"{m.value:.1%} ({m.low:.1%} to {m.high:.1%})"


def _points(m: Measurement) -> str:
    return f"{m.value * 100:+.1f} points ({m.low * 100:+.1f} to {m.high * 100:+.1f})"


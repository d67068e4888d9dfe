"""Where the time of one artifact goes: a stopwatch between the stages of requests, and the runtime's own profile."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench import arithmetic, stages
from plimsoll.bench.ceilings import Ceilings
from plimsoll.bench.clock import schedule
from plimsoll.bench.stages import Stages
from plimsoll.bench.stats import quantile, ratio_of_quantiles
from plimsoll.bench.trace import trace
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact
from plimsoll.core.child import Child
from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.core.operators import Operator
from plimsoll.core.profile import PARTS, STAGES, Allotted, Number, OperatorGroup, Operators, Profile, Stage
from plimsoll.core.record import Measurement
from plimsoll.core.shape import ModelShape
from plimsoll.core.spec import Budget

_BLOCK = 20
"""Requests of a block; whole and staged ones take turns with the same rows, A B, B A, A B, ..."""
_LEAST = 60
"""Requests: an upper bound on p95 takes 59."""
_WARM_SHARE = 0.25
_OPERATOR_ROWS, _LEAST_OPERATOR_ROWS = 32, 4
_OPERATOR_S = 2.0
"""What the requests of the runtime's own profile may take, were it free."""
_TRACED = 50
_HEAVIEST = 3


@dataclass(frozen=True)
class Effort:
    """How long to look: as many requests of each kind as fit, but at most so many, and enough for a bound on p95."""

    seconds: float = 12.0
    most: int = 4000


@dataclass(frozen=True)
class About:
    """What is known of an artifact beside its folder; whatever is missing is missing in its profile."""

    says: str
    """The recipe, in words."""
    shape: ModelShape | None = None
    ceilings: Ceilings | None = None
    budget: Budget | None = None
    machine: str = ""
    """Digest."""


def measure(
    folder: Path, texts: Path, about: About, log: Path, effort: Effort | None = None, trace_to: Path | None = None
) -> Profile:
    """Profile an artifact over the texts of a jsonl file, in a process of its own.

    Whole requests and staged ones are timed in turns. `trace_to`: where to write a trace of some of them. Raises
    ChildError when the process breaks; a runtime without a profile of its operators is no error.
    """
    began = time.monotonic()
    effort = effort or Effort()
    artifact = Artifact.from_file(folder / ARTIFACT_RECORD)
    process = _enter(folder, texts, artifact, log)
    try:
        timed = _timed(process, effort)
        found, reason = _operators(process, timed.ids[:timed.profiled])
    finally:
        process.close()
    profile = _profile(artifact, about, timed, found, reason)
    if trace_to is not None:
        tokens = [sum(map(len, ids)) for ids in timed.ids[:_TRACED]]
        content = trace(about.says, timed.clocks[:_TRACED].tolist(), tokens, found)
        trace_to.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return profile.model_copy(update={"seconds": round(time.monotonic() - began, 1)})


@dataclass(frozen=True)
class _Timed:
    """What was seen of requests; staged request i has `clocks[i]` and `ids[i]`."""

    whole_ms: list[NDArray[np.float64]]
    """By block."""
    clocks: NDArray[np.int64]
    """[requests, 6]: ns around the five stages."""
    ids: list[list[list[int]]]
    """Token ids of each text of each request."""
    padded: int
    """Tokens computed for all of them."""
    pads_apart: bool
    stopwatch_us: float

    @property
    def stages_ms(self) -> NDArray[np.float64]:
        """[requests, 5]."""
        return np.diff(self.clocks, axis=1) / 1e6

    @property
    def profiled(self) -> int:
        """How many of the first requests are put to the runtime's own profile."""
        affordable = int(_OPERATOR_S * 1e3 / self.stages_ms[:, STAGES.index("model")].mean())
        return min(max(affordable, _LEAST_OPERATOR_ROWS), _OPERATOR_ROWS)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """[requests]: of all texts of each."""
        return np.array([sum(map(len, ids)) for ids in self.ids])


def _enter(folder: Path, texts: Path, artifact: Artifact, log: Path) -> _Inside | _Outside:
    if artifact.runtime.in_process:
        return _Inside(folder, texts)
    return _Outside(folder, texts, log, artifact.runtime.threads)


class _Inside:
    """A fake, in this process."""

    def __init__(self, folder: Path, texts: Path) -> None:
        self._stages = Stages(folder, texts)

    def call(self, do: str, **arguments: Any) -> Any:
        return getattr(self._stages, do)(**arguments)

    def close(self) -> None:
        self._stages.close()


class _Outside:
    def __init__(self, folder: Path, texts: Path, log: Path, threads: int) -> None:
        self._child = Child(stages.__name__, log, threads)
        self.close = self._child.close
        try:
            self.call("open", folder=str(folder), texts=str(texts))
        except BaseException:
            self._child.close()
            raise

    def call(self, do: str, **arguments: Any) -> Any:
        return self._child.call({"do": do, **arguments})


def _timed(process: _Inside | _Outside, effort: Effort) -> _Timed:
    end = time.monotonic() + effort.seconds
    said: Mapping[str, Any] = process.call("about")
    rows = said["requests"]
    order = [row for part in schedule(rows, 1, effort.most, 1, 0) for row in part]
    typical_ms = process.call("warm", rows=order, seconds=effort.seconds * _WARM_SHARE)
    fitting = int(effort.seconds * (1 - _WARM_SHARE) * 1e3 / max(typical_ms, 1e-3) / 2)
    blocks = min(max(fitting, _LEAST), effort.most) // _BLOCK
    whole: list[NDArray[np.float64]] = []
    clocks: list[list[int]] = []
    plan = schedule(rows, blocks, _BLOCK, 1, 1)
    asked: list[int] = []
    for number, block in enumerate(plan):
        if len(asked) >= _LEAST and time.monotonic() > end:  # the machine got slower than it was
            break
        asked += block
        for do in ("whole", "staged") if number % 2 == 0 else ("staged", "whole"):
            taken = process.call(do, rows=block)
            if do == "whole":
                whole.append(np.array(taken))
            else:
                clocks += taken
    ids: list[list[list[int]]] = process.call("tokens", rows=asked)
    padded = process.call("padded", lengths=[len(one) for texts in ids for one in texts])
    return _Timed(whole, np.array(clocks), ids, sum(padded), said["pads_apart"], said["stopwatch_us"])


def _operators(
    process: _Inside | _Outside, ids: Sequence[Sequence[Sequence[int]]]
) -> tuple[list[Operator], str]:
    """Return the operators of these requests' mean, or the reason why there are none; nothing can be asked after it."""
    try:
        found = process.call("operators", rows=[one for texts in ids for one in texts])
        return [Operator.read(one) for one in found], ""
    except Unsupported as e:
        return [], e.message
    except ChildError as e:
        return [], f"the runtime's profile broke: {e.message}"


def _profile(artifact: Artifact, about: About, timed: _Timed, found: Sequence[Operator], reason: str) -> Profile:
    def measured(taken_ms: NDArray[np.float64], p: float) -> Measurement:
        return quantile(taken_ms, p).model_copy(update={"machine": about.machine})

    taken = timed.stages_ms
    whole = np.concatenate(timed.whole_ms)
    sums = np.split(taken.sum(axis=1), len(timed.whole_ms))
    means = taken.mean(axis=0)
    seen = tuple(
        Stage(name=name, p50_ms=measured(taken[:, i], 0.5), p95_ms=measured(taken[:, i], 0.95),
              mean_ms=float(means[i]), share=float(means[i] / means.sum()))
        for i, name in enumerate(STAGES))
    adds_up = ratio_of_quantiles(sums, timed.whole_ms, 0.5).model_copy(update={"machine": about.machine})
    end_to_end = {f"p{p * 100:g}": measured(whole, p) for p in (0.5, 0.95, 0.99)}
    tokens = timed.tokens
    texts = len(timed.ids[0])
    model_ms = float(means[STAGES.index("model")])
    of_text = arithmetic.demands(about.shape, float(tokens.mean()) / texts, artifact.runtime.number,
                                 artifact.task.per_token) if about.shape else {}
    demands: dict[OperatorGroup, arithmetic.Demand] = {
        group: arithmetic.Demand(d.flop * texts, d.traffic_bytes * texts) for group, d in of_text.items()}
    groups = _grouped(found, model_ms, demands, artifact.runtime.number, about.ceilings)
    ceiling = arithmetic.ceiling_gops(about.ceilings, artifact.runtime.number) if about.ceilings else None
    flop = sum(d.flop for d in demands.values())
    budget = _budget(about.budget, taken, end_to_end["p95"], about.machine)
    factor = None
    if found:
        profiled = taken[:timed.profiled, STAGES.index("model")].mean() / texts
        factor = float(sum(o.seconds for o in found) * 1e3 / profiled)
    return Profile(
        artifact=about.says,
        runtime=artifact.runtime.says(),
        threads=artifact.runtime.threads,
        requests=len(taken),
        tokens={**{f"p{p}": float(np.quantile(tokens, p / 100)) for p in (5, 50, 95)}, "mean": float(tokens.mean())},
        end_to_end_ms=end_to_end,
        stages=seen,
        adds_up=adds_up,
        padding_waste=float(1 - tokens.sum() / timed.padded),
        operators=groups,
        operators_reason=reason,
        operators_factor=factor,
        stopwatch_us=timed.stopwatch_us,
        pads_apart=timed.pads_apart,
        ceilings=about.ceilings.model_dump(mode="json") if about.ceilings else {},
        share_of_ceiling=flop / model_ms / 1e6 / ceiling if ceiling and flop else None,
        budget=budget,
        attack=_attack(seen, budget, groups, about.budget),
        notes=tuple(_notes(timed, about, artifact, groups)),
        machine=about.machine,
    )


def _grouped(
    found: Sequence[Operator], model_ms: float, demands: Mapping[OperatorGroup, arithmetic.Demand],
    number: Number, ceilings: Ceilings | None
) -> tuple[Operators, ...]:
    """Return the operators by group, the heaviest first, scaled to add up to the model stage."""
    total = sum(o.seconds for o in found)
    if not total:
        return ()
    by_group: dict[OperatorGroup, list[Operator]] = {}
    for o in sorted(found, key=lambda o: -o.seconds):
        by_group.setdefault(o.group, []).append(o)
    groups: list[Operators] = []
    for group, own in by_group.items():
        share = sum(o.seconds for o in own) / total
        demand = demands.get(group)
        # of the products, the format that most of the time goes to; a runtime may not say which are products
        spent: dict[Number, float] = {}
        for o in own:
            if o.number is not None:
                spent[o.number] = spent.get(o.number, 0.0) + o.seconds
        own_number = max(spent, key=lambda n: spent[n]) if spent else number
        flop = demand.flop if demand and demand.flop else None
        roof = arithmetic.roof_gops(ceilings, own_number, demand) if ceilings and demand else None
        mean_ms = share * model_ms
        groups.append(Operators(
            group=group, mean_ms=mean_ms, share=share, flop=flop,
            traffic_bytes=demand.traffic_bytes if demand else None, number=own_number if flop or spent else None,
            roof_gops=roof, share_of_roof=flop / mean_ms / 1e6 / roof if flop and roof and mean_ms else None,
            calls=sum(o.calls for o in own), heaviest=tuple(o.name for o in own[:_HEAVIEST])))
    return tuple(sorted(groups, key=lambda g: -g.share))


def _budget(
    budget: Budget | None, taken_ms: NDArray[np.float64], p95: Measurement, machine: str
) -> tuple[Allotted, ...]:
    """Return each part of the split beside what it takes; a part of several stages has the p95 of their sums."""
    allotted: list[Allotted] = []
    for name, share in budget.split.items() if budget else ():
        own = taken_ms[:, [STAGES.index(stage) for stage in PARTS[name]]].sum(axis=1)
        takes = quantile(own, 0.95).model_copy(update={"machine": machine})
        allowed_ms = share * ((budget.p95_ms if budget else None) or p95.value)
        allotted.append(Allotted(name=name, stages=PARTS[name], allowed=share, allowed_ms=allowed_ms, p95_ms=takes,
                                 holds=takes.high <= allowed_ms))
    return tuple(allotted)


def _attack(
    seen: Sequence[Stage], budget: Sequence[Allotted], groups: Sequence[Operators], asked: Budget | None
) -> str:
    """Return which stage to attack first: what is furthest over its share, else what takes most."""
    over = [a for a in budget if not a.holds]
    heaviest = max(seen, key=lambda s: s.share)
    inside = (f" Most of the model stage, {groups[0].share:.0%}, is {groups[0].group}."
              if groups and (heaviest.name == "model" or any("model" in a.stages for a in over)) else "")
    if over:
        worst = max(over, key=lambda a: a.p95_ms.high / a.allowed_ms)
        of = (f"the limit p95_ms = {asked.p95_ms:g}" if asked and asked.p95_ms
              else "the measured p95")
        return (f"{worst.name}: its p95 of {worst.p95_ms.value:.3g} ms (at most {worst.p95_ms.high:.3g}) is over the "
                f"{worst.allowed_ms:.3g} ms it may take, {worst.allowed:.0%} of {of}.{inside}")
    within = "every part is within its share of the latency budget, and " if budget else ""
    return (f"{heaviest.name}: {within}it takes {heaviest.share:.0%} of a request, "
            f"{heaviest.mean_ms:.3g} ms in the mean.{inside}")


def _notes(timed: _Timed, about: About, artifact: Artifact, groups: Sequence[Operators]) -> list[str]:
    notes: list[str] = []
    if not timed.pads_apart or len(timed.ids[0]) > 1:
        notes.append("Padding is part of the model stage here: it cannot be told apart from outside.")
    if about.shape is None:
        notes.append("No operations are counted: the artifact does not say what shape its model has.")
    above = [o.group for o in groups if o.share_of_roof and o.share_of_roof > 1]
    if above:
        notes.append(f"Above its roof: {', '.join(above)}. The roof is that of main memory, and weights that stay in a "
                     "cache come faster.")
    if artifact.runtime.number != "fp32":
        notes.append(f"Products count against the machine's {artifact.runtime.number} ceiling, whose kernels are "
                     "torch's: another runtime's may be faster than it.")
    return notes

"""The choice, as arithmetic on trials: which limits hold, who is fastest, who ties, and why each other lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from plimsoll.bench.clock import Blocks
from plimsoll.bench.stats import ratio_of_quantiles
from plimsoll.core.decision import Binding, Front, Limit
from plimsoll.core.record import Measurement, exact
from plimsoll.core.spec import Budget
from plimsoll.core.trial import Trial

_SEEN, _BIAS = 0.5, 0.003
"""Of a loss that the baseline's probabilities expect, what is counted, and how far that share is off. They see no
good in disagreeing, and a student that disagrees is often right: on 3,080 rows of BANKING77 five students of one and
two layers lost 0.36 to 0.53 of what was expected, 0.9 to 1.7 points."""


@dataclass(frozen=True)
class Check:
    """One limit against one trial. `excess` is how far beyond it the bound lies, as a share of it (<= 0: holds)."""

    limit: Limit
    measured: Measurement
    bound: float
    allowed: float
    excess: float

    @property
    def holds(self) -> bool:
        return self.excess <= 0


def checks(trial: Trial, budget: Budget) -> list[Check]:
    """Return every limit of the budget that this trial has a measurement for, judged by its bound.

    An upper limit is judged by the upper bound, a lower one by the lower bound. Quality is judged on the
    test rows, so a trial that was not certified there has no quality check.
    """
    found: list[Check] = []

    def below(limit: Limit, measured: Measurement | None, allowed: float | None) -> None:
        if measured is not None and allowed is not None:
            found.append(Check(limit, measured, measured.high, allowed, measured.high / allowed - 1))

    below("p95_ms", trial.latency_ms.p95 if trial.latency_ms else None, budget.p95_ms)
    below("size_mb", trial.size_mb, budget.size_mb)
    below("memory_mb", trial.peak_memory_mb, budget.memory_mb)
    if budget.min_speedup is not None and trial.speedup_p95 is not None:
        low = trial.speedup_p95.low
        found.append(
            Check(
                "min_speedup",
                trial.speedup_p95,
                low,
                budget.min_speedup,
                budget.min_speedup / low - 1 if low > 0 else math.inf,
            )
        )
    if budget.quality_drop is not None and trial.quality_delta is not None:
        loss, allowed = -trial.quality_delta.low, budget.quality_drop
        # a hundredth of a point stands in for a limit of zero, so that the excess stays a finite share
        found.append(Check("quality_drop", trial.quality_delta, loss, allowed, (loss - allowed) / max(allowed, 1e-4)))
    return found


def allowed_share(p95_ms: float, baseline_p95_ms: float, budget: Budget) -> float | None:
    """Return the share of its present latency that the speed limits leave a recipe: under 1, it is too slow.

    None when the budget has no speed limit.
    """
    shares: list[float] = []
    if budget.p95_ms is not None:
        shares.append(budget.p95_ms / p95_ms)
    if budget.min_speedup is not None:
        shares.append(baseline_p95_ms / p95_ms / budget.min_speedup)
    return min(shares, default=None)


def predicted_low(trial: Trial, test_rows: int, confidence: float = 0.95, still_lost: float = 1.0) -> float:
    """Return the lower bound of the quality delta that the test rows will probably show, from validation alone.

    The difference estimated on validation, less the sampling error that `test_rows` rows have at the disagreement
    seen. One disagreement is added, since none among few rows does not mean there are none. `still_lost` is the share
    of a loss that will be left once the student has been taught in full.
    """
    if trial.baseline:
        return 0.0
    if trial.validation_delta is None or trial.disagreement is None:
        return -1.0
    rows = trial.validation_delta.n
    # of right and wrong answers, the variance of a row's part in the difference is the share that disagrees
    share = ((trial.disagreement if trial.variance is None else trial.variance) * rows + 1) / (rows + 2)
    value = estimated_delta(trial)
    if value < 0:
        value, share = value * still_lost, share * still_lost
    z = NormalDist().inv_cdf(confidence)
    return value - z * math.sqrt(share / max(test_rows, 1))


def estimated_delta(trial: Trial) -> float:
    """Return the quality delta that validation says, from what was counted and from what was expected of it.

    Each counts by its precision. The rows of a validation split are few: 1,000 at 4 % disagreement leave an error of
    0.6 points to what is counted, and of 0.2 to what is expected.
    """
    counted, expected = trial.validation_delta, trial.expected_delta
    assert counted is not None
    if expected is None or trial.disagreement is None:
        return counted.value
    variance = max(trial.disagreement, 1 / counted.n) / counted.n
    spread = _SEEN * (expected.high - expected.low) / 2 / NormalDist().inv_cdf(expected.confidence)
    weight = variance / (variance + spread**2 + _BIAS**2)
    return (1 - weight) * counted.value + weight * _SEEN * expected.value


def promising(trial: Trial, budget: Budget, test_rows: int) -> bool:
    """Return whether validation says that the quality limit can be certified on the test rows."""
    return budget.quality_drop is None or predicted_low(trial, test_rows) >= -budget.quality_drop


def ranked(trials: Sequence[Trial], blocks: Blocks, budget: Budget, test_rows: int) -> list[Trial]:
    """Return the order in which trials are put to the test rows, the best first; no test answer takes part in it.

    Trials whose other limits hold and whose quality looks certifiable, by p95, a tie with the fastest
    going to the simpler recipe; then those that validation doubts, the most hopeful first.
    """
    sound = [
        t
        for t in trials
        if t.latency_ms is not None and all(c.holds for c in checks(t, budget) if c.limit != "quality_drop")
    ]
    hopeful = sorted((t for t in sound if promising(t, budget, test_rows)), key=p95_ms)
    order: list[Trial] = []
    while hopeful:
        fastest = hopeful[0]
        ties = [t for t in hopeful if t is fastest or tied(t, fastest, blocks)]
        best = min(ties, key=lambda t: (t.recipe.steps, p95_ms(t)))
        order.append(best)
        hopeful.remove(best)
    doubted = [t for t in sound if t not in order]
    return order + sorted(doubted, key=lambda t: -predicted_low(t, test_rows))


def looked_at(order: Sequence[Trial], test_rows: int, count: int) -> list[Trial]:
    """Return the `count` trials to look at more closely: the first of a ranking, and last the surest of the others.

    A ranking goes by speed, and validation may flatter the fastest; the surest one is there for when it does.
    """
    if len(order) <= count:
        return list(order)
    first = list(order[: count - 1])
    return [*first, max(order[count - 1 :], key=lambda t: predicted_low(t, test_rows))]


def quick_enough(trial: Trial, budget: Budget) -> bool:
    """Return whether the speed limits hold by point estimates: what a short race is long enough to say."""
    p95, speedup = trial.latency_ms, trial.speedup_p95
    if budget.p95_ms is not None and p95 is not None and p95.p95.value > budget.p95_ms:
        return False
    return budget.min_speedup is None or speedup is None or speedup.value >= budget.min_speedup


def tied(a: Trial, b: Trial, blocks: Blocks) -> bool:
    """Return whether the noise cannot tell the p95 of two trials apart: 1 lies within both 99 % bounds of their ratio.

    99 % because a simpler recipe should only lose to a difference that another run would show again.
    """
    if a.id not in blocks or b.id not in blocks:
        return False
    ratio = ratio_of_quantiles(blocks[a.id], blocks[b.id], 0.95, confidence=0.99)
    return ratio.low <= 1 <= ratio.high


def look_confidence(look: int, confidence: float = 0.95) -> float:
    """Return the confidence of the n-th look (from 0) at the test rows: 95 %, then 97.5, 98.75, ...

    Each further try on the same rows is another chance to be lucky; halving alpha each time keeps the chance
    that any artifact is passed wrongly below twice the first alpha.
    """
    return 1 - (1 - confidence) / 2**look


def reason(trial: Trial, chosen: Trial, budget: Budget, blocks: Blocks, test_rows: int, met: bool) -> str:
    """Return the one plain sentence, with numbers, why a measured trial is not the chosen one."""
    broken = [c for c in checks(trial, budget) if not c.holds]
    if broken:
        return _broken(max(broken, key=lambda c: c.excess))
    if not promising(trial, budget, test_rows):
        assert trial.validation_delta is not None
        return (
            f"on validation its quality changes by {points(estimated_delta(trial))}, and with "
            f"{trial.disagreement:.1%} disagreement {test_rows} test rows could not certify a drop of at most "
            f"{points(budget.quality_drop or 0, sign=False)} "
            f"(predicted bound {points(predicted_low(trial, test_rows))})"
        )
    if not met:
        return "holds no more limits than the nearest miss"
    if trial.id in blocks and chosen.id in blocks:
        ratio = ratio_of_quantiles(blocks[trial.id], blocks[chosen.id], 0.95, confidence=0.99)
        p95 = f"p95 {p95_ms(trial):.2f} ms against {p95_ms(chosen):.2f} ms"
        times = f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"
        if ratio.low <= 1 <= ratio.high:
            return f"as fast within the noise ({p95}: {times}), and not simpler or later in the order"
        return f"slower: {p95}, {times} the chosen one's"
    if trial.speedup_p95 is not None and chosen.speedup_p95 is not None:
        mine, its = trial.speedup_p95.value, chosen.speedup_p95.value
        if mine < its:
            return (
                f"slower: {mine:.2f}x the baseline's speed at p95 in the short race, the chosen one {its:.2f}x in the "
                "final one"
            )
        return (
            f"not among the few that were raced to the end: {mine:.2f}x the baseline's speed at p95 in the short race, "
            f"and on validation a predicted bound of {points(predicted_low(trial, test_rows))}"
        )
    return "not among the few that were raced to the end"


def _broken(c: Check) -> str:
    m = c.measured
    if c.limit == "quality_drop":
        return (
            f"loses {points(-m.value, sign=False)} on the test rows (bound {points(m.low)}, n={m.n}), "
            f"more than the {points(c.allowed, sign=False)} allowed"
        )
    name = {"p95_ms": "p95", "size_mb": "size", "memory_mb": "peak memory", "min_speedup": "speed-up"}[c.limit]
    unit = {"p95_ms": " ms", "size_mb": " MB", "memory_mb": " MB", "min_speedup": "x"}[c.limit]
    side = "under the least asked for" if c.limit == "min_speedup" else "over the limit of"
    if m.low == m.high:
        return f"{name} {m.value:.1f}{unit} is {side} {c.allowed:g}{unit}"
    return f"{name} {m.value:.2f}{unit} (bounds {m.low:.2f} to {m.high:.2f}, n={m.n}) is {side} {c.allowed:g}{unit}"


def nearest_miss(trials: Sequence[Trial], budget: Budget, test_rows: int) -> Trial:
    """Return the trial whose worst limit is exceeded by the smallest share; validation stands in for an unseen test."""

    def worst(trial: Trial) -> float:
        excess = [c.excess for c in checks(trial, budget)]
        if budget.quality_drop is not None and trial.quality_delta is None:
            excess.append((-predicted_low(trial, test_rows) - budget.quality_drop) / max(budget.quality_drop, 1e-4))
        return max(excess, default=0.0)

    return min((t for t in trials if t.latency_ms is not None), key=lambda t: (worst(t), p95_ms(t)))


def binding(miss: Trial, trials: Sequence[Trial], budget: Budget, test_rows: int) -> Binding:
    """Return the limit the nearest miss breaks most, the best value that was measured, and what relaxing buys."""
    broken = [c for c in checks(miss, budget) if not c.holds]
    worst = max(broken, key=lambda c: c.excess) if broken else None
    limit: Limit = worst.limit if worst else "quality_drop"
    measured = [t for t in trials if t.latency_ms is not None]
    # what breaks another limit says nothing of how far this one can be held, unless everything does
    others = [t for t in measured if all(c.holds for c in checks(t, budget) if c.limit != limit)] or measured
    floors = [(v, t) for t in others if (v := _value(t, limit)) is not None]
    best = max if limit in ("quality_drop", "min_speedup") else min
    floor, reached = best(floors, key=lambda pair: pair[0].value) if floors else (exact(0.0, ""), miss)
    on = " on validation" if limit == "quality_drop" and reached.quality_delta is None else ""
    those = (
        f"the {len(others)} measured that hold the other limits"
        if len(others) < len(measured)
        else f"{len(measured)} that were measured"
    )
    return Binding(
        limit=limit,
        floor=floor,
        floor_from=f"the best{on} of {those}: {reached.recipe.says()}",
        nearest_miss=miss.id,
        relaxing=tuple(_relaxing(measured, budget, test_rows)),
    )


def _relaxing(trials: Sequence[Trial], budget: Budget, test_rows: int) -> list[str]:
    """For each limit alone: the least relaxed value at which something that was measured would pass all the others."""
    lines: list[str] = []
    limits: dict[Limit, tuple[str, Callable[[float], float]]] = {
        "p95_ms": ("p95_ms", _ceil3),
        "size_mb": ("size_mb", _ceil3),
        "memory_mb": ("memory_mb", _ceil3),
        "min_speedup": ("min_speedup", _floor3),
        "quality_drop": ("quality_drop", _ceil3),
    }
    for limit, (name, rounded) in limits.items():
        if getattr(budget, limit) is None:
            continue
        others = [
            t
            for t in trials
            if all(c.holds for c in checks(t, budget) if c.limit != limit)
            and (limit == "quality_drop" or promising(t, budget, test_rows))
        ]
        needed = [(_needs(t, limit, budget, test_rows), t) for t in others]
        if not needed:
            lines.append(f"relaxing {name} alone would not do: every trial breaks another limit too")
            continue
        value, trial = (max if limit == "min_speedup" else min)(needed, key=lambda pair: pair[0])
        lines.append(f"{name} = {rounded(value):g} would let {trial.recipe.says()} pass")
    return lines


def _needs(trial: Trial, limit: Limit, budget: Budget, test_rows: int) -> float:
    for c in checks(trial, budget):
        if c.limit == limit:
            return c.bound
    return -predicted_low(trial, test_rows)


def _value(trial: Trial, limit: Limit) -> Measurement | None:
    return {
        "p95_ms": trial.latency_ms.p95 if trial.latency_ms else None,
        "size_mb": trial.size_mb,
        "memory_mb": trial.peak_memory_mb,
        "min_speedup": trial.speedup_p95,
        "quality_drop": trial.quality_delta or trial.validation_delta,
    }[limit]


def front(trials: Sequence[Trial]) -> tuple[Front, ...]:
    """Return every trial that was timed and judged, the fastest first, each with the one that beats it, if any.

    Beaten is who has another at least as fast and as good that is better in one of the two, by point estimates.
    """
    known: list[Front] = []
    for t in trials:
        judged = t.quality_delta or t.validation_delta
        if t.latency_ms is not None and judged is not None:
            on = "test" if t.quality_delta is not None else "validation"
            known.append(Front(trial=t.id, p95_ms=p95_ms(t), quality_delta=judged.value, on=on))
    known.sort(key=lambda f: (f.p95_ms, -f.quality_delta))
    best: Front | None = None
    found: list[Front] = []
    for f in known:
        beaten = best is not None and best.quality_delta >= f.quality_delta
        found.append(f.model_copy(update={"beaten_by": best.trial}) if beaten and best else f)
        best = best if beaten else f
    return tuple(found)


def margins(trial: Trial, budget: Budget) -> dict[str, Measurement]:
    """Return what each limit was judged by, for the artifact's record."""
    return {c.limit: c.measured for c in checks(trial, budget)}


def points(share: float, sign: bool = True) -> str:
    """Return a share as percentage points: -0.0123 -> `-1.23 points`."""
    return f"{share * 100:+.2f} points" if sign else f"{share * 100:.2f} points"


def p95_ms(trial: Trial) -> float:
    """Return the point estimate of a trial's p95 in ms, infinite when it was not timed."""
    return trial.latency_ms.p95.value if trial.latency_ms else math.inf


def _ceil3(x: float) -> float:
    """Round up to three significant digits, so that the printed limit is really enough."""
    if x <= 0 or not math.isfinite(x):
        return max(x, 0.0)
    scale = 10 ** (math.floor(math.log10(x)) - 2)
    return math.ceil(x / scale - 1e-9) * scale


def _floor3(x: float) -> float:
    if x <= 0 or not math.isfinite(x):
        return max(x, 0.0)
    scale = 10 ** (math.floor(math.log10(x)) - 2)
    return math.floor(x / scale + 1e-9) * scale

"""The choice, on trials made by hand: limits hold by their bounds, ties go to the simpler, losers get their numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.record import Measurement, exact
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import Latency, Trial
from plimsoll.search import choose

ROWS = 3000


def trial(
    name: str,
    p95: float,
    *,
    spread: float = 0.02,
    delta: float = 0.0,
    disagreement: float = 0.01,
    size: float = 20,
    memory: float = 100,
    speed: str = "fast",
    test_delta: tuple[float, float] | None = None,
    baseline: bool = False,
) -> Trial:
    def around(value: float) -> Measurement:
        return Measurement(value=value, low=value * (1 - spread), high=value * (1 + spread), n=ROWS, unit="ms")

    recipe = Recipe.model_validate([{"runtime": "null", "speed": speed}])
    return Trial(
        id=name,
        recipe=recipe,
        state="measured",
        baseline=baseline,
        disagreement=disagreement,
        validation_delta=Measurement(value=delta, low=delta - 0.01, high=delta + 0.01, n=1000, unit="accuracy"),
        quality_delta=None
        if test_delta is None
        else Measurement(value=test_delta[0], low=test_delta[1], high=0.0, n=ROWS, unit="accuracy"),
        latency_ms=Latency(p50=around(p95 / 2), p95=around(p95), p99=around(p95 * 1.5)),
        speedup_p95=around(10 / p95),
        speedup_p50=around(10 / p95),
        size_mb=exact(size, "MB"),
        peak_memory_mb=exact(memory, "MB"),
    )


def blocks(rng_seed: int = 0, **p95: float) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(rng_seed)
    return {name: [np.abs(rng.normal(v, 0.05 * v, 100)) for _ in range(12)] for name, v in p95.items()}


def order(trials: list[Trial], budget: Budget, **p95: float) -> list[str]:
    return [t.id for t in choose.ranked(trials, blocks(**p95), budget, ROWS)]


def test_the_fastest_whose_limits_hold_comes_first() -> None:
    trials = [trial("a", 5), trial("b", 2), trial("c", 1, size=99)]
    assert order(trials, Budget(quality_drop=0.01, size_mb=50), a=5, b=2, c=1) == ["b", "a"]


def test_a_limit_holds_by_its_bound_and_not_by_its_estimate() -> None:
    close = trial("a", 1.99, spread=0.02)
    assert not choose.checks(close, Budget(p95_ms=2.0))[0].holds
    assert choose.checks(close, Budget(p95_ms=2.03))[0].holds
    assert not choose.checks(trial("b", 1.0), Budget(min_speedup=10))[0].holds
    assert choose.checks(trial("b", 1.0), Budget(min_speedup=9.7))[0].holds


def test_a_tie_goes_to_the_simpler_recipe() -> None:
    trials = [trial("lossy", 2.0, speed="wrong"), trial("plain", 2.01, speed="slow")]
    assert order(trials, Budget(quality_drop=0.01), lossy=2.0, plain=2.0) == ["plain", "lossy"]
    assert order(trials, Budget(quality_drop=0.01), lossy=2.0, plain=3.0) == ["lossy", "plain"]


def test_who_cannot_certify_on_test_comes_last_however_fast() -> None:
    trials = [trial("good", 2), trial("bad", 1, delta=-0.02, disagreement=0.05)]
    assert order(trials, Budget(quality_drop=0.01), good=2, bad=1) == ["good", "bad"]


def test_the_baseline_loses_nothing_against_itself() -> None:
    assert choose.predicted_low(trial("base", 10, baseline=True, delta=-1.0), ROWS) == 0.0


@given(delta=st.floats(-0.1, 0.1), disagreement=st.floats(0, 0.3), rows=st.integers(50, 20_000))
def test_the_predicted_bound_is_below_the_estimate_and_rises_with_rows(
    delta: float, disagreement: float, rows: int
) -> None:
    t = trial("a", 1, delta=delta, disagreement=disagreement)
    assert choose.predicted_low(t, rows) < delta
    assert choose.predicted_low(t, 4 * rows) > choose.predicted_low(t, rows)


def test_looks_at_the_test_rows_never_cost_more_than_twice_alpha() -> None:
    spent = [1 - choose.look_confidence(look) for look in range(30)]
    assert spent[0] == pytest.approx(0.05)
    assert sum(spent) < 0.1 + 1e-9


def test_every_reason_carries_its_numbers() -> None:
    budget = Budget(p95_ms=3, quality_drop=0.01, size_mb=50, memory_mb=200, min_speedup=2)
    chosen = trial("chosen", 1, test_delta=(0.0, -0.005))
    times = blocks(chosen=1, slow=2, same=1.0)
    cases = {
        "p95 8.00 ms (bounds 7.84 to 8.16, n=3000) is over the limit of 3 ms": trial("late", 8),
        "size 99.0 MB is over the limit of 50 MB": trial("big", 1, size=99),
        "peak memory 300.0 MB is over the limit of 200 MB": trial("fat", 1, memory=300),
        "loses 1.50 points on the test rows (bound -2.00 points, n=3000), more than the 1.00 points allowed": trial(
            "wrong", 1, test_delta=(-0.015, -0.02)
        ),
        "on validation its quality changes by -3.00 points": trial("doubted", 1, delta=-0.03),
        "slower: p95 2.00 ms against 1.00 ms": trial("slow", 2),
        "as fast within the noise": trial("same", 1.0),
        "slower: 4.00x the baseline's speed at p95 in the short race, the chosen one 10.00x": trial("untimed", 2.5),
        "not among the few that were raced to the end: 12.50x": trial("quicker, but doubted", 0.8),
    }
    for says, loser in cases.items():
        assert says in choose.reason(loser, chosen, budget, times, ROWS, met=True)


def test_nothing_fits_names_the_limit_its_floor_and_what_relaxing_buys() -> None:
    budget = Budget(p95_ms=0.5, quality_drop=0.01)
    trials = [
        trial("base", 10, baseline=True, test_delta=(0.0, 0.0)),
        trial("fast", 1.0, test_delta=(0.0, -0.004)),
        trial("wrong", 0.4, delta=-0.05, test_delta=(-0.05, -0.06)),
    ]
    miss = choose.nearest_miss(trials, budget, ROWS)
    found = choose.binding(miss, trials, budget, ROWS)
    assert miss.id == "fast"
    assert found.limit == "p95_ms"
    assert found.floor.value == 1.0  # what is faster breaks the other limit
    assert "that hold the other limits" in found.floor_from
    assert "p95_ms = 1.02 would let null fast pass" in found.relaxing
    assert any(line.startswith("quality_drop = 0.06 would let null") for line in found.relaxing)


@given(st.floats(1e-6, 1e6))
def test_a_relaxed_limit_is_rounded_to_the_safe_side(x: float) -> None:
    assert choose._ceil3(x) >= x * (1 - 1e-9)
    assert choose._floor3(x) <= x * (1 + 1e-9)
    assert choose._ceil3(x) <= 1.0101 * x


def test_the_front_holds_what_nothing_beats_and_names_who_beats_the_rest() -> None:
    found = choose.front([
        trial("quick", 1.0, delta=-0.03), trial("good", 4.0, delta=0.0), trial("slow", 5.0, delta=-0.01),
        trial("between", 2.0, delta=-0.01), trial("worse", 2.5, delta=-0.02),
    ])
    assert [(f.trial, f.beaten_by) for f in found] == [
        ("quick", ""), ("between", ""), ("worse", "between"), ("good", ""), ("slow", "good")]
    assert {f.on for f in found} == {"validation"}


def test_what_was_counted_and_what_was_expected_count_by_their_precision() -> None:
    counted = trial("a", 1.0, delta=0.01, disagreement=0.05)
    sure = counted.model_copy(update={"expected_delta": Measurement(value=-0.01, low=-0.0105, high=-0.0095, n=1000,
                                                                    unit="accuracy")})
    assert choose.estimated_delta(counted) == 0.01
    assert -0.005 < choose.estimated_delta(sure) < 0  # of what is expected, half is counted
    assert choose.predicted_low(sure, ROWS) < choose.predicted_low(counted, ROWS)


def test_a_lesson_that_goes_on_is_given_credit_for_it() -> None:
    lost = trial("a", 1.0, delta=-0.02, disagreement=0.05)
    assert choose.predicted_low(lost, ROWS, still_lost=0.5) > choose.predicted_low(lost, ROWS) + 0.009


def test_the_surest_is_looked_at_last_however_slow() -> None:
    order_ = [trial(f"t{i}", 1.0 + i, delta=-0.012 + 0.001 * i) for i in range(5)]
    assert [t.id for t in choose.looked_at(order_, ROWS, 3)] == ["t0", "t1", "t4"]
    assert [t.id for t in choose.looked_at(order_[:3], ROWS, 3)] == ["t0", "t1", "t2"]


def test_a_short_race_rules_out_by_point_estimates_only() -> None:
    near = trial("near", 1.0, spread=0.5)
    assert choose.quick_enough(near, Budget(p95_ms=1.1))
    assert not choose.quick_enough(near, Budget(p95_ms=0.9))
    assert not choose.quick_enough(near, Budget(min_speedup=11))
    assert choose.quick_enough(near, Budget(quality_drop=0.1))


def test_the_spread_of_a_metric_that_is_no_mean_is_its_own_and_not_the_disagreement() -> None:
    counted = trial("a", 1.0, disagreement=0.05)
    quiet, noisy = (counted.model_copy(update={"variance": v}) for v in (0.01, 0.4))
    assert choose.predicted_low(noisy, ROWS) < choose.predicted_low(counted, ROWS) < choose.predicted_low(quiet, ROWS)
    same = counted.model_copy(update={"variance": 0.05})
    assert choose.predicted_low(same, ROWS) == choose.predicted_low(counted, ROWS)

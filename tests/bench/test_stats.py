"""Bounds must hold as often as they say, agree with published examples, and admit when the data are too few."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plimsoll.bench import stats

durations = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=100)
levels = st.floats(0.05, 0.95)
answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
confidences = st.floats(0.5, 0.999)


# the first call imports scipy, and nothing here asserts on elapsed time
unhurried = settings(deadline=None)


def at_least(nominal: float, trials: int) -> float:
    """The share of hits that a bound of exactly `nominal` coverage still reaches in 999 of 1000 simulations."""
    return nominal - 3.1 * math.sqrt(nominal * (1 - nominal) / trials)


def answers_of(both: int, gained: int, lost: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    counts = [both, gained, lost, neither]
    return np.repeat([True, False, True, False], counts), np.repeat([True, True, False, False], counts)


# quantile


@pytest.mark.parametrize(("p", "enough"), [(0.95, 59), (0.99, 299)])
def test_the_maximum_bounds_a_tail_quantile_once_there_are_enough_samples(p: float, enough: int) -> None:
    assert stats.quantile(np.arange(enough), p).high == enough - 1
    assert stats.quantile(np.arange(enough - 1), p).high == math.inf


def test_the_median_of_five_is_bounded_by_the_extremes() -> None:
    # 0.5^5 = 1/32 is below 5 %, and one rank further in 6/32 is not
    median = stats.quantile([5, 1, 4, 2, 3], 0.5)
    assert (median.low, median.value, median.high) == (1, 3, 5)
    assert median.n == 5
    assert median.unit == "ms"


def test_four_samples_bound_no_median() -> None:
    median = stats.quantile([1, 2, 3, 4], 0.5)
    assert (median.low, median.high) == (0, math.inf)


@pytest.mark.parametrize(("p", "n"), [(0.5, 20), (0.95, 59), (0.95, 400), (0.99, 1000)])
def test_quantile_bounds_hold_each_one_sided(p: float, n: int) -> None:
    rng = np.random.default_rng(7)
    trials, truth = 2000, float(-np.log1p(-p))
    found = [stats.quantile(rng.exponential(size=n), p) for _ in range(trials)]
    assert np.mean([m.high >= truth for m in found]) >= at_least(0.95, trials)
    assert np.mean([m.low <= truth for m in found]) >= at_least(0.95, trials)


@unhurried
@given(durations, levels, confidences, confidences)
def test_a_quantile_lies_in_bounds_that_widen_with_confidence(x: list[float], p: float, c: float, d: float) -> None:
    loose, strict = stats.quantile(x, p, min(c, d)), stats.quantile(x, p, max(c, d))
    assert strict.low <= loose.low <= loose.value <= loose.high <= strict.high


@unhurried
@given(durations, levels, st.sampled_from([0.25, 2.0, 1024.0]))
def test_a_quantile_scales_with_its_unit(x: list[float], p: float, factor: float) -> None:
    one, other = stats.quantile(x, p), stats.quantile(np.array(x) * factor, p)
    assert (other.low, other.value, other.high) == (one.low * factor, one.value * factor, one.high * factor)


@pytest.mark.parametrize("samples", [[], [1, math.nan], [1, math.inf], [-1, 2], [[1, 2]]])
def test_samples_that_are_no_durations_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite samples >= 0"):
        stats.quantile(samples, 0.95)


def test_levels_out_of_range_are_refused_with_their_value() -> None:
    with pytest.raises(ValueError, match=r"p=95"):
        stats.quantile([1, 2], 95)
    with pytest.raises(ValueError, match=r"confidence=95"):
        stats.quantile([1, 2], 0.95, confidence=95)


# proportion


def test_proportion_of_all_right_and_all_wrong_by_hand() -> None:
    assert stats.proportion(59, 59).low == pytest.approx(0.05 ** (1 / 59))
    assert stats.proportion(59, 59).high == 1
    assert stats.proportion(0, 59).high == pytest.approx(1 - 0.05 ** (1 / 59))
    assert stats.proportion(0, 59).low == 0


@pytest.mark.parametrize("p", [0.02, 0.5, 0.92])
@pytest.mark.parametrize("n", [10, 300])
def test_proportion_bounds_cover_in_exact_enumeration(p: float, n: int) -> None:
    chance = np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
    found = [stats.proportion(k, n) for k in range(n + 1)]
    assert chance @ np.array([m.low <= p for m in found]) >= 0.95
    assert chance @ np.array([m.high >= p for m in found]) >= 0.95


@unhurried
@given(st.integers(1, 5000), st.data(), confidences, confidences)
def test_a_proportion_lies_in_bounds_that_widen_with_confidence(
    n: int, data: st.DataObject, c: float, d: float
) -> None:
    k = data.draw(st.integers(0, n))
    loose, strict = stats.proportion(k, n, min(c, d)), stats.proportion(k, n, max(c, d))
    assert 0 <= strict.low <= loose.low <= k / n <= loose.high <= strict.high <= 1


# paired_difference


@pytest.mark.parametrize(("table", "low", "high"), [
    ((1, 1, 7, 12), -0.517, -0.026),  # Bentur et al. 2009, in Fagerland et al., Stat. Med. 33:2850-2875, 2014
    ((59, 6, 16, 80), -0.124, -0.0054),  # Cavo et al. 2012, in the tests of R's contingencytables
])  # fmt: skip
def test_paired_bounds_agree_with_published_two_sided_95_percent_intervals(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    found = stats.paired_difference(*answers_of(*table), confidence=0.975)
    assert found.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert found.low == pytest.approx(low, abs=5e-4)
    assert found.high == pytest.approx(high, abs=5e-4)
    assert found.n == sum(table)


def test_paired_bounds_are_where_the_score_test_turns() -> None:
    # an independent route: maximise the trinomial likelihood under the supposed difference on a fine grid
    both, gained, lost, neither = 150, 12, 5, 33
    n = both + gained + lost + neither
    found = stats.paired_difference(*answers_of(both, gained, lost, neither))
    for bound, sign in ((found.low, 1), (found.high, -1)):
        rates = np.linspace(max(0, -bound), (1 - bound) / 2, 2_000_001)[1:-1]
        likelihood = gained * np.log(rates + bound) + lost * np.log(rates)
        likelihood += (both + neither) * np.log(1 - 2 * rates - bound)
        rate = rates[np.argmax(likelihood)]
        score = (gained - lost - n * bound) / math.sqrt(n * (2 * rate + bound - bound**2))
        assert score == pytest.approx(sign * 1.6449, abs=1e-3)


@pytest.mark.parametrize("n", [1, 10, 3000])
def test_agreement_on_every_row_still_leaves_room_for_a_difference(n: int) -> None:
    found = stats.paired_difference(*answers_of(n, 0, 0, 0))
    z2 = 1.6448536**2
    assert (found.low, found.value, found.high) == pytest.approx((-z2 / (n + z2), 0, z2 / (n + z2)))


@pytest.mark.parametrize("n", [3, 10, 3000])
def test_disagreement_on_every_row_by_hand(n: int) -> None:
    found = stats.paired_difference(*answers_of(0, n, 0, 0))
    z2 = 1.6448536**2
    assert (found.low, found.value, found.high) == pytest.approx(((n - z2) / (n + z2), 1, 1))


@unhurried
@given(answers, confidences)
def test_swapping_the_two_mirrors_the_difference(rows: list[tuple[bool, bool]], c: float) -> None:
    baseline, candidate = zip(*rows, strict=True)
    one, other = stats.paired_difference(baseline, candidate, c), stats.paired_difference(candidate, baseline, c)
    assert (other.low, other.value, other.high) == (-one.high, -one.value, -one.low)


@unhurried
@given(answers, confidences, confidences)
def test_a_difference_lies_in_bounds_that_widen_with_confidence(
    rows: list[tuple[bool, bool]], c: float, d: float
) -> None:
    baseline, candidate = zip(*rows, strict=True)
    loose = stats.paired_difference(baseline, candidate, min(c, d))
    strict = stats.paired_difference(baseline, candidate, max(c, d))
    assert -1 <= strict.low <= loose.low <= loose.value <= loose.high <= strict.high <= 1


@cache
def bounds(gained: int, lost: int, n: int) -> tuple[float, float]:
    found = stats.paired_difference(*answers_of(n - gained - lost, gained, lost, 0))
    return found.low, found.high


@pytest.mark.parametrize(("n", "disagreement", "difference"), [
    (50, 0.1, 0), (200, 0.1, -0.02), (500, 0.05, -0.01), (3000, 0.05, -0.01), (3080, 0.03, 0), (1000, 0.01, -0.01),
])  # fmt: skip
def test_paired_bounds_hold_each_one_sided(n: int, disagreement: float, difference: float) -> None:
    gained, lost = (disagreement + difference) / 2, (disagreement - difference) / 2
    trials = 4000
    tables = np.random.default_rng(3).multinomial(n, [gained, lost, 1 - disagreement], size=trials)
    low, high = np.array([bounds(int(b), int(c), n) for b, c, _ in tables]).T
    # a score bound is approximate: 20,000 tables of each of these gave between 94.5 % and 97.1 %
    assert np.mean(low <= difference + 1e-12) >= at_least(0.945, trials)
    assert np.mean(high >= difference - 1e-12) >= at_least(0.945, trials)


def test_rows_of_different_tests_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        stats.paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="equally long"):
        stats.paired_difference([], [])


# rows_to_certify


@pytest.mark.parametrize(("disagreement", "margin", "rule"), [(0.05, 0.01, 3092), (0.1, 0.01, 6183), (0.1, 0.02, 1546)])
def test_rows_follow_the_rule_of_thumb_where_disagreement_exceeds_the_margin(
    disagreement: float, margin: float, rule: int
) -> None:
    rows = stats.rows_to_certify(disagreement, margin)
    assert rows is not None
    assert rule <= rows <= 1.03 * rule


def test_a_flawless_run_needs_rows_all_the_same() -> None:
    rows = stats.rows_to_certify(0, 0.01)
    assert rows == 268
    assert stats.paired_difference(*answers_of(rows, 0, 0, 0)).low >= -0.01
    assert stats.paired_difference(*answers_of(rows - 1, 0, 0, 0)).low < -0.01


@pytest.mark.parametrize(("disagreement", "margin", "difference"), [
    (0.05, 0.01, 0), (0.03, 0.01, 0), (0.01, 0.01, 0), (0.1, 0.02, 0), (0.05, 0.02, -0.01), (0.05, 0.01, 0.01),
])  # fmt: skip
def test_so_many_rows_certify_as_often_as_promised(disagreement: float, margin: float, difference: float) -> None:
    n = stats.rows_to_certify(disagreement, margin, difference=difference)
    assert n is not None
    gained, lost = (disagreement + difference) / 2, (disagreement - difference) / 2
    tables = np.random.default_rng(5).multinomial(n, [gained, lost, 1 - disagreement], size=2000)
    certified = np.mean([bounds(int(b), int(c), n)[0] >= -margin for b, c, _ in tables])
    assert 0.77 <= certified <= 0.86


def test_rows_stay_exact_where_nearly_all_disagreement_is_loss() -> None:
    # here the variances differ most between the drop allowed and the drop expected
    n = stats.rows_to_certify(0.4, 0.4, difference=-0.35)
    assert n is not None
    tables = np.random.default_rng(8).multinomial(n, [0.025, 0.375, 0.6], size=4000)
    assert 0.775 <= np.mean([bounds(int(b), int(c), n)[0] >= -0.4 for b, c, _ in tables]) <= 0.825


def test_no_number_of_rows_certifies_a_drop_as_large_as_the_margin() -> None:
    assert stats.rows_to_certify(0.05, 0.01, difference=-0.01) is None
    assert stats.rows_to_certify(0.05, 0.01, difference=-0.02) is None


def test_impossible_expectations_are_refused() -> None:
    with pytest.raises(ValueError, match="disagreement"):
        stats.rows_to_certify(0.01, 0.01, difference=0.02)


# bootstrap_difference


def macro_f1(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    hits = np.bincount(labels[labels == predicted], minlength=77)
    seen = np.bincount(labels, minlength=77) + np.bincount(predicted, minlength=77)
    return float(np.mean(2 * hits / np.maximum(seen, 1)))


def accuracy(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    return float(np.mean(labels == predicted))


def predictions(seed: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 77, n)
    baseline = np.where(rng.random(n) < 0.08, rng.integers(0, 77, n), labels)
    return labels, baseline, np.where(rng.random(n) < 0.03, rng.integers(0, 77, n), baseline)


def test_bootstrap_of_macro_f1_brackets_the_difference_and_repeats() -> None:
    labels, baseline, candidate = predictions(0, 3000)
    found = stats.bootstrap_difference(macro_f1, labels, baseline, candidate, seed=1)
    assert found.value == macro_f1(labels, candidate) - macro_f1(labels, baseline)
    assert -0.05 < found.low < found.value < found.high < 0
    assert found.n == 3000
    assert found == stats.bootstrap_difference(macro_f1, labels, baseline, candidate, seed=1)


def test_bootstrap_agrees_with_the_score_bounds_on_accuracy() -> None:
    labels, baseline, candidate = predictions(1, 3000)
    drawn = stats.bootstrap_difference(accuracy, labels, baseline, candidate)
    score = stats.paired_difference(labels == baseline, labels == candidate)
    assert drawn.value == pytest.approx(score.value)
    assert drawn.low == pytest.approx(score.low, abs=1.5e-3)
    assert drawn.high == pytest.approx(score.high, abs=1.5e-3)


def test_bootstrap_bounds_hold_each_one_sided() -> None:
    trials, rng = 200, np.random.default_rng(11)
    labels = np.zeros(300, dtype=np.int64)
    found = []
    for seed in range(trials):
        baseline = (rng.random(300) < 0.1).astype(np.int64)
        candidate = np.where(rng.random(300) < 0.1, 1 - baseline, baseline)
        found.append(stats.bootstrap_difference(accuracy, labels, baseline, candidate, resamples=300, seed=seed))
    truth = -0.1 * 0.9 + 0.1 * 0.1
    assert np.mean([m.low <= truth for m in found]) >= at_least(0.945, trials)
    assert np.mean([m.high >= truth for m in found]) >= at_least(0.945, trials)


# ratio_of_quantiles


def rounds_of(rng: np.random.Generator, rounds: int, apart: float, shared: float = 0.2) -> list[NDArray[np.float64]]:
    """Timed rounds of a candidate and, twice as slow, of the baseline; a slow spell is in both."""
    spell = rng.normal(0, shared, rounds)
    both = [np.exp(spell + rng.normal(0, apart, rounds))[:, None] * rng.lognormal(0, 0.2, (rounds, 60)) for _ in "ab"]
    return [2 * both[0], both[1]]


@pytest.mark.parametrize("rounds", [2, 3, 4, 12])
@pytest.mark.parametrize("apart", [0.0, 0.1])
def test_ratio_bounds_hold_each_one_sided(rounds: int, apart: float) -> None:
    rng, trials = np.random.default_rng(rounds), 150
    found = [
        stats.ratio_of_quantiles(*rounds_of(rng, rounds, apart), 0.95, resamples=300, seed=seed)
        for seed in range(trials)
    ]
    assert np.mean([m.low <= 2 for m in found]) >= at_least(0.94, trials)
    assert np.mean([m.high >= 2 for m in found]) >= at_least(0.94, trials)


def test_pairing_removes_a_slow_spell_that_both_sides_shared() -> None:
    calm, stormy = [
        stats.ratio_of_quantiles(*rounds_of(np.random.default_rng(2), 20, 0.01, shared), 0.5) for shared in (0, 0.5)
    ]
    assert 1.9 < stormy.low < stormy.high < 2.1
    assert calm.n == stormy.n == 20
    assert calm.unit == "x"


def test_the_bootstrap_draws_whole_rounds() -> None:
    rng = np.random.default_rng(4)
    blocks = [rng.exponential(size=size) for size in (3, 40, 7, 12, 25)]
    times_drawn = rng.multinomial(5, np.full(5, 0.2), size=50)
    spelled_out = [
        np.quantile(np.concatenate([np.tile(b, k) for b, k in zip(blocks, times, strict=True)]), 0.95)
        for times in times_drawn
    ]
    np.testing.assert_allclose(stats._redrawn_quantile(blocks, times_drawn, 0.95), spelled_out)


def test_one_round_is_bounded_by_the_order_statistics_of_both_sides() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.exponential(size=500), rng.exponential(size=500)
    found = stats.ratio_of_quantiles([a], [b], 0.95)
    top, bottom = stats.quantile(a, 0.95, 0.975), stats.quantile(b, 0.95, 0.975)
    assert (found.low, found.high) == (top.low / bottom.high, top.high / bottom.low)


def test_too_few_samples_leave_a_ratio_unbounded() -> None:
    found = stats.ratio_of_quantiles([[2.0, 2.1]], [[1.0, 1.1]], 0.95)
    assert found.low == 0
    assert found.high == math.inf


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_swapping_the_sides_inverts_the_ratio(rounds: int, seed: int) -> None:
    a, b = rounds_of(np.random.default_rng(seed), rounds, 0.1)
    one, other = stats.ratio_of_quantiles(a, b, 0.9, resamples=500), stats.ratio_of_quantiles(b, a, 0.9, resamples=500)
    assert one.low <= one.value <= one.high
    assert other.value == pytest.approx(1 / one.value)
    assert other.low == pytest.approx(1 / one.high if one.high < math.inf else 0, rel=0.02)
    assert other.high == pytest.approx(1 / one.low if one.low > 0 else math.inf, rel=0.02)


def test_rounds_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="as many rounds of both"):
        stats.ratio_of_quantiles([[1.0]], [[1.0], [1.0]], 0.5)
    with pytest.raises(ValueError, match="above zero"):
        stats.ratio_of_quantiles([[1.0]], [[0.0]], 0.5)


# drift


def test_drift_is_the_slowest_round_over_the_fastest() -> None:
    assert stats.drift([[1, 1, 9], [2, 2, 2], [1.5]]) == 2
    assert stats.drift([[2, 2, 2], [8.0], [1, 1, 9]]) == 8
    assert stats.drift([[3.0, 3.0]]) == 1
    with pytest.raises(ValueError, match="at least one round"):
        stats.drift([])


def test_a_mean_s_bounds_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    draws = [stats.mean(rng.exponential(size=200)) for _ in range(2000)]
    assert np.mean([m.low <= 1 for m in draws]) == pytest.approx(0.95, abs=0.025)
    assert np.mean([m.high >= 1 for m in draws]) == pytest.approx(0.95, abs=0.025)


def test_one_sample_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        stats.mean([1.0])


# the metric of evidence


def f1(evidence: NDArray[np.float64]) -> float:
    right, claimed, there = evidence.sum(axis=0)
    return float(2 * right / max(claimed + there, 1))


def tagged(rng: np.random.Generator, rows: int, found: float, gold: NDArray[np.int64] | None = None
           ) -> NDArray[np.float64]:
    """Evidence of a tagger that finds a share of 0 to 2 entities a row, and claims as many as there are."""
    gold = rng.integers(0, 3, rows) if gold is None else gold
    return np.stack([rng.binomial(gold, found), gold, gold], axis=1).astype(np.float64)


def test_right_and_wrong_answers_keep_their_exact_bounds() -> None:
    before, after = answers_of(60, 5, 9, 26)
    assert stats.quality(after, np.mean, "accuracy") == stats.proportion(65, 100)
    assert stats.quality_difference(before, after, np.mean, "accuracy") == stats.paired_difference(before, after)


@unhurried
@given(st.integers(0, 1000))
def test_a_metric_of_sums_has_the_value_of_their_total_within_its_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = tagged(rng, 50, 0.6)
    b = tagged(rng, 50, 0.5, a[:, 2].astype(np.int64))
    one, apart = stats.quality(a, f1, "f1"), stats.quality_difference(b, a, f1, "f1")
    assert one.value == f1(a)
    assert one.low <= one.value <= one.high
    assert apart.value == pytest.approx(f1(a) - f1(b))
    assert apart.low <= apart.value <= apart.high
    back = stats.quality_difference(a, b, f1, "f1")
    assert (back.low, back.high) == (pytest.approx(-apart.high), pytest.approx(-apart.low))


def test_the_bounds_of_a_metric_of_sums_hold_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_RESAMPLES", 300)
    rng, trials = np.random.default_rng(0), 300
    held = 0
    for _ in range(trials):
        gold = rng.integers(0, 3, 150)
        a, b = tagged(rng, 150, 0.6, gold), tagged(rng, 150, 0.5, gold)
        held += stats.quality_difference(a, b, f1, "f1").low <= -0.1
    assert 0.9 <= held / trials <= 0.99


def test_agreement_on_few_rows_proves_little_of_a_metric_of_sums_either() -> None:
    same = tagged(np.random.default_rng(0), 40, 0.6)
    found, exact = stats.quality_difference(same, same, f1, "f1"), stats.paired_difference([True] * 40, [True] * 40)
    assert found.value == 0
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    flawless = stats.quality(np.ones((40, 3)), f1, "f1")
    assert (flawless.value, flawless.low, flawless.high) == (1.0, pytest.approx(1 + exact.low), 1.0)


def test_the_variance_of_a_row_s_part_is_the_disagreement_of_right_and_wrong_answers() -> None:
    before, after = answers_of(800, 40, 60, 100)
    assert stats.row_variance(stats.paired_difference(before, after)) == pytest.approx(0.1, rel=0.05)


def test_evidence_of_other_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="of the same rows"):
        stats.quality_difference(np.ones((3, 3)), np.ones((4, 3)), f1, "f1")
    with pytest.raises(ValueError, match="at least two rows"):
        stats.quality(np.ones((1, 3)), f1, "f1")

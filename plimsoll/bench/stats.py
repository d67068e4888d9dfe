"""Statistics for choosing and gating: every number with a lower and an upper bound, each one-sided at `confidence`.

All functions are pure: the same samples and seed give the same Measurement. scipy.special is imported
inside the functions that use it, so that a process that only times does not pay for it at start.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plimsoll.core.record import Measurement

Floats = NDArray[np.float64]

_FEWEST_ROUNDS = 4
_RESAMPLES = 2000
_ELEMENTS_AT_ONCE = 4_000_000  # bounds the bootstrap's working memory to some tens of MB


def quantile(samples: ArrayLike, p: float, confidence: float = 0.95, unit: str = "ms") -> Measurement:
    """Return quantile `p` of nonnegative samples with distribution-free bounds.

    samples: float [n], independent draws >= 0 (durations, sizes), n >= 1. 0 < p < 1.
    `low` and `high` are order statistics, and EACH is a one-sided bound at `confidence`: the k-th smallest
    sample is an upper bound when P(Binomial(n, p) >= k) <= 1 - confidence, and a lower bound when
    P(Binomial(n, p) < k) <= 1 - confidence. With too few samples no order statistic qualifies: `high` is
    then infinite and `low` zero. An upper bound on p95 at 95 % needs 59 samples, on p99 299.

    Raises ValueError for samples that are empty, negative or not finite.
    Source: David & Nagaraja, Order Statistics, 3rd ed., section 7.1.
    """
    from scipy.special import bdtr, bdtrc

    _check_confidence(confidence)
    if not 0 < p < 1:
        raise ValueError(f"need 0 < p < 1, got {p=}")
    ordered = np.sort(_durations(samples))
    n, alpha = len(ordered), 1 - confidence
    ranks = range(1, n + 1)
    lows = bisect.bisect_left(ranks, True, key=lambda k: bool(bdtr(k - 1, n, p) > alpha))
    highs = bisect.bisect_left(ranks, True, key=lambda k: bool(bdtrc(k - 1, n, p) <= alpha))
    value = float(np.quantile(ordered, p))
    low = float(ordered[lows - 1]) if lows > 0 else 0.0
    high = float(ordered[highs]) if highs < n else math.inf
    return _measurement(value, low, high, confidence, n, unit)


def proportion(successes: int, n: int, confidence: float = 0.95, unit: str = "accuracy") -> Measurement:
    """Return `successes / n` with exact binomial bounds, each one-sided at `confidence`.

    Raises ValueError unless 0 <= successes <= n and n >= 1. Source: Clopper & Pearson, Biometrika 1934.
    """
    from scipy.special import betaincinv

    _check_confidence(confidence)
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, got {successes=}, {n=}")
    alpha = 1 - confidence
    low = float(betaincinv(successes, n - successes + 1, alpha)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, n - successes, confidence)) if successes < n else 1.0
    return _measurement(successes / n, low, high, confidence, n, unit)


def mean(samples: ArrayLike, confidence: float = 0.95, unit: str = "accuracy") -> Measurement:
    """Return the mean of independent samples with bounds from their own spread, EACH one-sided at `confidence`.

    samples: float [n], n >= 2. Student's t; with the hundreds of rows it is used on, the spread's shape hardly counts.
    Raises ValueError for fewer samples.
    """
    from scipy.special import stdtrit

    _check_confidence(confidence)
    values = np.asarray(samples, dtype=np.float64)
    if values.size < 2:
        raise ValueError(f"need at least 2 samples to see their spread, got {values.size}")
    value = float(values.mean())
    reach = float(stdtrit(values.size - 1, confidence) * values.std(ddof=1) / math.sqrt(values.size))
    return _measurement(value, value - reach, value + reach, confidence, values.size, unit)


def paired_difference(
    baseline_correct: ArrayLike, candidate_correct: ArrayLike, confidence: float = 0.95
) -> Measurement:
    """Return accuracy of the candidate minus accuracy of the baseline on the same rows.

    baseline_correct, candidate_correct: bool [rows], in the same order, at least one row.
    `low` and `high` are score bounds, EACH one-sided at `confidence`. Rows where both are right or both
    wrong count only through their number; with no disagreement at all the bounds are -/+ z^2 / (rows + z^2),
    not zero: agreement on few rows proves little.

    Raises ValueError for arrays that differ in length or are empty.
    Source: Tango, Statistics in Medicine 17:891-908, 1998.
    """
    _check_confidence(confidence)
    baseline, candidate = np.asarray(baseline_correct, dtype=bool), np.asarray(candidate_correct, dtype=bool)
    if baseline.ndim != 1 or baseline.shape != candidate.shape or not baseline.size:
        raise ValueError(f"need two equally long rows of answers, got {baseline.shape=}, {candidate.shape=}")
    n = baseline.size
    gained = int(np.count_nonzero(candidate & ~baseline))
    lost = int(np.count_nonzero(baseline & ~candidate))
    z = NormalDist().inv_cdf(confidence)
    # the lower bound is the upper bound of the swapped comparison, which makes swapping exactly antisymmetric
    low, high = -_score_bound(lost, gained, n, z), _score_bound(gained, lost, n, z)
    return _measurement((gained - lost) / n, low, high, confidence, n, "accuracy")


def quality(evidence: NDArray[Any], value: Callable[[NDArray[Any]], float], unit: str, confidence: float = 0.95
            ) -> Measurement:
    """Return a task's metric of rows with bounds EACH one-sided at `confidence`.

    evidence: bool [rows], and then this is `proportion`; or float64 [rows, sums], resampled row by row (as in
    `bootstrap_difference`) and mapped to the metric by `value`: `core.parts.Task.evidence`. At least two rows.
    Resampling cannot show rows that are not there, so no bound is nearer than those of `paired_difference` for as many
    rows without a disagreement: no fault in few rows proves little.
    """
    if evidence.dtype == bool:
        return proportion(int(evidence.sum()), len(evidence), confidence, unit)
    n = len(evidence)
    low, high = _expanded_percentiles(_resampled(evidence, value), confidence, n)
    found, reach = value(evidence), _unseen(n, confidence)
    return _measurement(found, min(low, found - reach), max(high, min(found + reach, 1.0)), confidence, n, unit)


def quality_difference(baseline: NDArray[Any], candidate: NDArray[Any], value: Callable[[NDArray[Any]], float],
                       unit: str, confidence: float = 0.95) -> Measurement:
    """Return a task's metric of the candidate minus that of the baseline, paired by row, bounds as in `quality`.

    baseline, candidate: evidence of the same rows. Of bool rows it is `paired_difference`.

    Raises ValueError for evidence of other shapes.
    """
    if baseline.shape != candidate.shape:
        raise ValueError(f"need evidence of the same rows, got {baseline.shape=}, {candidate.shape=}")
    if baseline.dtype == bool:
        return paired_difference(baseline, candidate, confidence).model_copy(update={"unit": unit})
    n = len(baseline)
    draws = _resampled(candidate, value) - _resampled(baseline, value)  # the same rows are drawn for both
    low, high = _expanded_percentiles(draws, confidence, n)
    found, reach = value(candidate) - value(baseline), _unseen(n, confidence)
    return _measurement(found, min(low, found - reach), max(high, found + reach), confidence, n, unit)


def row_variance(difference: Measurement) -> float:
    """Return the variance of one row's part in a difference, from its bounds: what is left of it among n rows is 1 / n.

    Of right and wrong answers this is about the share of rows on which exactly one of the two is right.
    """
    spread = (difference.high - difference.low) / 2 / NormalDist().inv_cdf(difference.confidence)
    return difference.n * spread**2


def rows_to_certify(
    disagreement: float, margin: float, confidence: float = 0.95, power: float = 0.8, difference: float = 0.0
) -> int | None:
    """Return how many test rows `paired_difference` needs for `low >= -margin`, or None when no number will do.

    disagreement: expected share of rows on which exactly one of the two is right. margin: largest drop
    allowed, absolute. difference: expected true difference, candidate minus baseline (negative: a real
    drop). power: chance that so many rows certify. None when the expected drop eats the whole margin.

    n = (z_confidence * s0 + z_power * s1)^2 / (margin + difference)^2, where s1^2 = disagreement - difference^2
    is the variance of one paired difference and s0^2 the same under a true drop of `margin`. For a
    disagreement well above the margin this is the rule of thumb 6.2 * disagreement / margin^2; with no
    disagreement it is the z^2 (1 - margin) / margin rows that a flawless run needs all the same.

    Raises ValueError for shares outside their range.
    Source: Nam, Biometrics 53:1422-1430, 1997 (the sample size of the score test that Tango inverts).
    """
    _check_confidence(confidence)
    if not (0 <= margin < 1 and abs(difference) <= disagreement <= 1 and 0 < power < 1):
        raise ValueError(
            f"need 0 <= margin < 1, |difference| <= disagreement <= 1 and 0 < power < 1, "
            f"got {margin=}, {difference=}, {disagreement=}, {power=}"
        )
    if margin + difference <= 0:
        return None
    normal = NormalDist()
    gained, lost = (disagreement + difference) / 2, (disagreement - difference) / 2
    spread = normal.inv_cdf(confidence) * math.sqrt(_difference_variance(gained, lost, -margin))
    spread += normal.inv_cdf(power) * math.sqrt(disagreement - difference**2)
    return max(1, math.ceil((spread / (margin + difference)) ** 2))


def bootstrap_difference(
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
    labels: ArrayLike,
    baseline_pred: ArrayLike,
    candidate_pred: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    unit: str = "score",
) -> Measurement:
    """Return metric of the candidate minus metric of the baseline, with paired bootstrap bounds over rows.

    metric: (labels, predictions) -> number, for metrics that are not a mean over rows, such as macro-F1;
    for accuracy use `paired_difference`, which knows that no disagreement on few
    rows proves little (here it gives a zero width). labels, baseline_pred, candidate_pred: [rows, ...],
    in the same order. `low` and `high` are EACH one-sided at `confidence`, by the expanded percentile.

    Raises ValueError for arrays that differ in length or have fewer than two rows.
    Source: Efron & Tibshirani 1993, chapter 13; expansion: Hesterberg, The American Statistician 69:371-386, 2015.
    """
    _check_confidence(confidence)
    truth, before, after = np.asarray(labels), np.asarray(baseline_pred), np.asarray(candidate_pred)
    n = len(truth)
    if n < 2 or not n == len(before) == len(after):
        raise ValueError(f"need at least two rows, equally many of each, got {n}, {len(before)}, {len(after)}")
    rng = np.random.default_rng(seed)
    differences = np.empty(resamples)
    for i in range(resamples):
        rows = rng.integers(0, n, n)
        drawn = truth[rows]
        differences[i] = metric(drawn, after[rows]) - metric(drawn, before[rows])
    value = float(metric(truth, after) - metric(truth, before))
    low, high = _expanded_percentiles(differences, confidence, n)
    return _measurement(value, low, high, confidence, n, unit)


def ratio_of_quantiles(
    baseline_blocks: Sequence[ArrayLike],
    candidate_blocks: Sequence[ArrayLike],
    p: float,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Measurement:
    """Return quantile `p` of the baseline over quantile `p` of the candidate, from interleaved rounds: the speedup.

    baseline_blocks, candidate_blocks: float [samples] for each round, > 0; round r of both was timed next
    to each other on the same texts, so a slow spell of the machine is in both. `n` counts rounds, the unit
    that is resampled: both sides are drawn with the same rounds. `low` and `high` are EACH one-sided at
    `confidence`: the bootstrap percentile, expanded for few rounds and never inside the t interval of the
    rounds' own log ratios (when rounds differ more than their samples, a pooled p95 hangs on one or two
    rounds and the percentile alone held 92 % instead of 95 % in simulation).

    With fewer than 4 rounds a bootstrap has too little to draw from. The bounds are then conservative: the
    order-statistic bounds of both pooled quantiles, each at half the error (Bonferroni), one over the other
    at their worst, and again never inside the t interval. One round alone cannot show how rounds differ, so
    its bounds hold for samples that are independent.

    Raises ValueError for unequal or zero numbers of rounds, and for samples that are not positive and finite.
    Source: Hesterberg, The American Statistician 69:371-386, 2015 (expanded percentile interval, and why).
    """
    _check_confidence(confidence)
    baseline, candidate = [_durations(b) for b in baseline_blocks], [_durations(b) for b in candidate_blocks]
    rounds = len(baseline)
    if rounds != len(candidate) or not rounds:
        raise ValueError(f"need as many rounds of both, at least one, got {rounds} and {len(candidate)}")
    if min(float(block.min()) for block in (*baseline, *candidate)) <= 0:
        raise ValueError("need durations above zero to form a ratio")
    value = float(np.quantile(np.concatenate(baseline), p) / np.quantile(np.concatenate(candidate), p))
    if rounds < _FEWEST_ROUNDS:
        low, high = _worst_ratio(baseline, candidate, p, confidence)
    else:
        times_drawn = np.random.default_rng(seed).multinomial(rounds, np.full(rounds, 1 / rounds), size=resamples)
        ratios = _redrawn_quantile(baseline, times_drawn, p) / _redrawn_quantile(candidate, times_drawn, p)
        low, high = _expanded_percentiles(ratios, confidence, rounds)
    if rounds > 1:
        low_apart, high_apart = _ratio_by_round(baseline, candidate, p, confidence)
        low, high = min(low, low_apart), max(high, high_apart)
    return _measurement(value, low, high, confidence, rounds, "x")


def drift(blocks: Sequence[ArrayLike]) -> float:
    """Return the slowest round's median over the fastest's, for rounds of the same work: 1.0 is a calm machine.

    blocks: float [samples] for each round, > 0. Raises ValueError when there is no round or a median is not positive.
    """
    medians = [float(np.median(_durations(block))) for block in blocks]
    if not medians or min(medians) <= 0:
        raise ValueError(f"need at least one round with a median above zero, got {medians}")
    return max(medians) / min(medians)


def _unseen(n: int, confidence: float) -> float:
    """Return what `paired_difference` leaves to rows that were not seen, when all `n` that were agree."""
    squared = NormalDist().inv_cdf(confidence) ** 2
    return squared / (n + squared)


def _resampled(evidence: NDArray[Any], value: Callable[[NDArray[Any]], float]) -> Floats:
    """Return the metric of as many rows drawn with replacement, again and again; always the same rows."""
    rng, n = np.random.default_rng(0), len(evidence)
    if n < 2:
        raise ValueError(f"need at least two rows to draw from, got {n}")
    return np.array([value(evidence[rng.integers(0, n, n)]) for _ in range(_RESAMPLES)])


def _measurement(value: float, low: float, high: float, confidence: float, n: int, unit: str) -> Measurement:
    # at a confidence near 0.5 a bound can fall on the wrong side of the point estimate; widening keeps it valid
    return Measurement(value=value, low=min(low, value), high=max(high, value), confidence=confidence, n=n, unit=unit)


def _check_confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise ValueError(f"need 0.5 <= confidence < 1, got {confidence=}")


def _durations(samples: ArrayLike) -> Floats:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"need a flat, non-empty array of finite samples >= 0, got shape {values.shape}")
    return values


def _score_bound(gained: int, lost: int, n: int, z: float) -> float:
    """Return the largest difference that the one-sided score test does not reject."""
    estimate = (gained - lost) / n
    inside, outside = estimate, 1.0
    for _ in range(60):  # halving 60 times reaches the last bit of a double
        middle = (inside + outside) / 2
        reach = z * math.sqrt(_difference_variance(gained / n, lost / n, middle) / n)
        inside, outside = (inside, middle) if middle - estimate >= reach else (middle, outside)
    return outside


def _difference_variance(gained: float, lost: float, difference: float) -> float:
    """Return the variance of one paired difference, given observed rates and a supposed true difference.

    The rate of losses is its maximum-likelihood estimate under that difference (Tango 1998).
    """
    b = (2 - gained + lost) * difference - gained - lost
    discriminant = b * b + 8 * lost * difference * (1 - difference)
    lost_then = (math.sqrt(max(0.0, discriminant)) - b) / 4
    return max(0.0, 2 * lost_then + difference * (1 - difference))


def _expanded_percentiles(draws: Floats, confidence: float, n: int) -> tuple[float, float]:
    """Return percentiles of bootstrap draws, moved outwards by the factor that a t interval has over a z one."""
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, confidence)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _worst_ratio(
    baseline: Sequence[Floats], candidate: Sequence[Floats], p: float, confidence: float
) -> tuple[float, float]:
    each = (1 + confidence) / 2
    top, bottom = quantile(np.concatenate(baseline), p, each), quantile(np.concatenate(candidate), p, each)
    return top.low / bottom.high, top.high / bottom.low if bottom.low > 0 else math.inf


def _ratio_by_round(
    baseline: Sequence[Floats], candidate: Sequence[Floats], p: float, confidence: float
) -> tuple[float, float]:
    from scipy.special import stdtrit

    logs = np.log([np.quantile(a, p) / np.quantile(b, p) for a, b in zip(baseline, candidate, strict=True)])
    reach = float(stdtrit(len(logs) - 1, confidence)) * logs.std(ddof=1) / math.sqrt(len(logs))
    return float(np.exp(logs.mean() - reach)), float(np.exp(logs.mean() + reach))


def _redrawn_quantile(blocks: Sequence[Floats], times_drawn: NDArray[np.int64], p: float) -> Floats:
    """Return the linear quantile of each redrawn pool: float [resamples] for times_drawn [resamples, rounds].

    Sorting once and counting how often each sample is drawn replaces a sort per resample.
    """
    samples = np.concatenate(blocks)
    order = np.argsort(samples)
    samples = samples[order]
    round_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])[order]
    result = np.empty(len(times_drawn))
    step = max(1, _ELEMENTS_AT_ONCE // len(samples))
    for start in range(0, len(times_drawn), step):
        reached = np.cumsum(times_drawn[start : start + step, round_of], axis=1, dtype=np.int64)
        position = (reached[:, -1] - 1) * p
        before = np.floor(position).astype(np.int64)
        left = samples[(reached <= before[:, None]).sum(axis=1)]
        right = samples[np.minimum((reached <= before[:, None] + 1).sum(axis=1), len(samples) - 1)]
        result[start : start + step] = left + (position - before) * (right - left)
    return result

"""Whether a share of requests is within a limit: decided once at the end, or looked at again and again on the way."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.99
"""Of every such decision; that of MLPerf's LoadGen."""

_MOST_ALIKE = 0.9

Decided = Literal["held", "broken"]


def fewest_on_time(late: int, p: float, confidence: float = CONFIDENCE) -> int:
    """Return how many requests must be on time beside `late` ones for quantile `p` to be within the limit.

    The smallest h with I_p(h, late + 1) <= 1 - confidence, where I is the regularised incomplete beta function: were
    the share on time no more than p, so few late ones would be rarer than that. None late and p = 0.99 need 459.

    Raises ValueError for a share outside 0 to 1. Source: MLPerf LoadGen, early_stopping.cc, with a tolerance of 0.
    """
    if not (0 < p < 1 and 0 < confidence < 1) or late < 0:
        raise ValueError(f"need 0 < p < 1, 0 < confidence < 1 and late >= 0, got {p=}, {confidence=}, {late=}")
    low, high = 0, 1
    while not on_time(high, late, p, confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if on_time(middle, late, p, confidence) else (middle, high)
    return high


def on_time(punctual: float, late: float, p: float, confidence: float = CONFIDENCE) -> bool:
    """Return whether so many on time and so many late show that quantile `p` is within the limit; asked once.

    The counts may be fractions: see `design_effect`.
    """
    from scipy.special import betainc

    return punctual > 0 and bool(betainc(punctual, late + 1, p) <= 1 - confidence)


def design_effect(late: ArrayLike, total: ArrayLike) -> float:
    """Return by how much lateness that comes in clusters makes a count worth less than one of independent requests.

    late, total: counts of consecutive blocks of time, [blocks]. A queue that is full makes a whole block late, and a
    hundred late requests of one block are no hundred proofs. The variance of the share over blocks, as a multiple of
    that of as many independent requests; counts divided by it stand for independent ones. It is 1 at least, and 1 where
    nothing, or everything, is late. An estimate: of few blocks it is rough, and clusters that reach over the ends of
    blocks are taken for several (see `clustering`).

    Source: Rao & Scott, Biometrics 48:577-585, 1992.
    """
    t, n = np.asarray(late, dtype=np.float64), np.asarray(total, dtype=np.float64)
    blocks, all_, share = len(t), float(n.sum()), float(t.sum() / max(n.sum(), 1))
    if blocks < 2 or share in (0.0, 1.0):
        return 1.0
    variance = blocks / (blocks - 1) * float(((t - n * share) ** 2).sum()) / all_**2
    return max(1.0, variance / (share * (1 - share) / all_))


def clustering(over: ArrayLike, total: ArrayLike) -> float:
    """Return by how much less the requests of a run are worth than independent ones, to show that few are late.

    over: how many were later than the limit, and than each of some lower levels, [levels, blocks]; total: all of them,
    [blocks]; blocks are consecutive and of equal time. The largest design effect of all levels: lateness that was not
    seen yet would come in clusters like those of the nearly late that were, and a run without one late request is no
    proof if it met the three moments in which a queue built up. (How the clusters of a high level are read from those
    of lower ones is the subject of Ferro & Segers, Journal of the Royal Statistical Society B 65:545-556, 2003; that
    they are no longer than these is an assumption here.) Where the blocks of a level are like their neighbours they are
    too short to hold a whole cluster each, and are worth fewer: by (1 + r) / (1 - r), the variance of a mean of a
    series in which each point pulls on the next, with r the correlation of neighbours, freed of bias (Marriott & Pope,
    Biometrika 41:390-402, 1954). Levels that most exceed say nothing of a tail and are passed over.

    To show that many are late, the `design_effect` of the late ones alone is right: that half of a run was late all the
    time is no reason to doubt it, and under an overload that grows, neighbours are always alike.
    """
    totals = np.asarray(total, dtype=np.float64)
    rows = [row for row in np.asarray(over, dtype=np.float64) if row.sum() <= totals.sum() / 2]
    return max((design_effect(row, totals) * _alike(row / np.maximum(totals, 1)) for row in rows), default=1.0)


def _alike(shares: NDArray[np.float64]) -> float:
    """Return how many blocks are worth one, for their likeness to their neighbours."""
    n, apart = len(shares), shares - shares.mean()
    whole = float((apart**2).sum())
    if n < 5 or whole == 0:
        return 1.0
    r = (float((apart[:-1] * apart[1:]).sum()) / whole + 1 / n) / (1 - 3 / n)
    r = min(_MOST_ALIKE, max(0.0, r))
    return (1 + r) / (1 - r)


def decide(punctual: float, late: float, p: float, confidence: float = CONFIDENCE) -> Decided | None:
    """Return whether the share on time is shown to be above `p` (held) or below it (broken), or None for not yet.

    May be asked after every request, for as long as one likes. Each side is an e-process, the likelihood of shares of
    late requests beyond 1 - p, mixed over a Beta distribution with that mean, over the likelihood of 1 - p itself.

    What is guaranteed: while every request, whatever came before it, is late with a chance of at least 1 - p, "held"
    is said with a chance of at most 1 - confidence over all looks together, and "broken" likewise where that chance is
    never above 1 - p (Ville's inequality: each side is then a supermartingale that starts at 1). Dividing both counts
    by a number of 1 or more, even one that was found in the same run, makes either rarer still: with d for it, the
    mixture of likelihood ratios to the power of 1 / d is at most the mixture to that power (Jensen), so that it is
    over the bar only where the mixture is.

    What is approximated: in a queue the chance of being late hangs on what came before, and all that is known is its
    mean. Divided by the design effect, a count has the variance of independent requests, and over spans much longer
    than the queue remembers the two behave alike (both become Brownian motion), so the bound is as good as the
    design effect and as the run is long. How good is measured: benchmarks/load_rates.py. Bets on whole blocks of time
    (Waudby-Smith & Ramdas, Journal of the Royal Statistical Society B 86:1-27, 2024) would need no design effect, but
    as a block may be late as a whole, "held" would take 459 of them without one late request, each longer than the
    queue remembers.

    Source: Robbins, Annals of Mathematical Statistics 41:1397-1409, 1970 (mixtures); Ville, Etude critique de la notion
    de collectif, 1939.
    """
    bar = -math.log(1 - confidence)
    fewer, more = _evidence(punctual, late, 1 - p)
    return "held" if fewer >= bar else "broken" if more >= bar else None


def _evidence(punctual: float, late: float, share: float) -> tuple[float, float]:
    """Return the logs of the two e-processes: for fewer late ones than `share`, and for more."""
    from scipy.special import betainc, betaincc, betaln

    a, b = 1.0, 1 / share - 1
    mixed = float(betaln(a + late, b + punctual) - betaln(a, b))
    mixed -= late * math.log(share) + punctual * math.log1p(-share)
    # the mixture is cut at the share itself, and scaled so that what is left of it weighs one
    below = float(betainc(a + late, b + punctual, share)) / float(betainc(a, b, share))
    above = float(betaincc(a + late, b + punctual, share)) / float(betaincc(a, b, share))
    return mixed + _log(below), mixed + _log(above)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf

"""Whether a load test measured the service, or itself: what must be so for its numbers to mean anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plimsoll.bench.sequential import fewest_on_time
from plimsoll.bench.trend import Trend, trend
from plimsoll.core.traffic import Asked, Check, UnderLoad
from plimsoll.traffic.service import predictions
from plimsoll.traffic.weigh import P99

_MAY_BE_LATE = 0.1
"""Share of the limit, or of the median, that the client may be late to 1 % of its requests: it is in their latency."""
_MAY_WAIT = 0.01
_MUST_BE_SENT = 0.99
_SURELY_A_TREND = 0.01
_A_TREND_THAT_COUNTS = 0.1
"""Share of the median: with many requests the faintest drift is certain."""
_A_STRETCH = 5
"""Accepted requests that its median needs."""


@dataclass(frozen=True)
class Seen:
    """What was seen of the service beside the requests' times."""

    kept: Sequence[tuple[bytes, bytes]]
    """Head and body of some accepted answers."""
    before: Mapping[str, float] | None
    """Start times and counts of restarts from its metrics before the run; None where it tells none."""
    after: Mapping[str, float] | None


def checked(load: UnderLoad, asked: Asked, seen: Seen) -> UnderLoad:
    """Return a load with the checks that its numbers hang on."""
    open_loop = asked.scenario == "server"
    found = [_client(load, asked), _connections(load, asked), _rate(load)] if open_loop else []
    found += [_steady(load), _samples(load), _service(load, seen), _answers(asked.rows, seen)]
    return load.model_copy(update={"checks": tuple(found)})


def rising(load: UnderLoad) -> bool:
    """Return whether latency rose over the run, beyond chance and beyond what one would overlook."""
    found = _trend_of(load)
    return found is not None and counts_as_trend(found) and found.slope > 0


def _client(load: UnderLoad, asked: Asked) -> Check:
    p50 = load.latency_ms.get("p50")
    whole, what = (asked.p99_ms, "the limit") if asked.p99_ms is not None else (
        p50.value if p50 else math.inf, "the median")
    allowed, late = _MAY_BE_LATE * whole, load.lag_ms.get("p99", math.inf)
    return Check(name="client", holds=late <= allowed, says=(
        f"the client got to 99 of 100 requests within {late:.3f} ms of when they were due; "
        f"{allowed:.3f} ms is a tenth of {what}"))


def _connections(load: UnderLoad, asked: Asked) -> Check:
    return Check(name="connections", holds=load.waited_share <= _MAY_WAIT, says=(
        f"{load.waited_share:.2%} of the requests were due while all {asked.connections} connections were busy: the "
        f"service saw {asked.connections} at once at most, though all were timed from when they were due"))


def _rate(load: UnderLoad) -> Check:
    due = load.requests / load.seconds
    return Check(name="rate", holds=load.achieved_per_s >= _MUST_BE_SENT * due, says=(
        f"{load.achieved_per_s:.1f} requests a second were sent while {due:.1f} were due"))


def _steady(load: UnderLoad) -> Check:
    found = _trend_of(load)
    if found is None or found.n < 2:
        return Check(name="steady", holds=False, says="too little was answered to see whether latency has a trend")
    if not math.isfinite(found.change):
        return Check(name="steady", holds=True, says="the median latency is 0")
    way = "rose" if found.slope > 0 else "fell"
    sure = f"p = {found.p:.2g} of {found.n} medians"
    if counts_as_trend(found):
        return Check(name="steady", holds=False, says=(
            f"the median latency {way} by {abs(found.change):.0%} over the run ({sure}): it was not what it would be"))
    return Check(name="steady", holds=True, says=(
        f"the median latency has no trend that is sure and large enough to count ({found.change:+.1%}, {sure})"))


def _trend_of(load: UnderLoad) -> Trend | None:
    medians = [s.p50_ms for s in load.stretches if s.p50_ms is not None and s.accepted >= _A_STRETCH]
    return trend(medians) if len(medians) >= 2 else None


def counts_as_trend(found: Trend) -> bool:
    """Return whether a trend of medians is beyond chance, and large enough to matter."""
    return found.p <= _SURELY_A_TREND and abs(found.change) > _A_TREND_THAT_COUNTS


def _samples(load: UnderLoad) -> Check:
    needed = fewest_on_time(0, P99)
    return Check(name="samples", holds=load.accepted >= needed, says=(
        f"{load.accepted:,} requests were accepted, and it takes {needed} to say anything of p99"))


def _service(load: UnderLoad, seen: Seen) -> Check:
    if len(load.versions) > 1:
        return Check(name="service", holds=False, says=(
            f"answers named {len(load.versions)} versions, so the numbers are of none of them"))
    if seen.before is None or seen.after is None:
        return Check(name="service", holds=True, says="the service does not tell when it was started")
    again = sorted(name for name, value in seen.after.items() if seen.before.get(name) != value)
    if again:
        return Check(name="service", holds=False, says=f"the service was started again meanwhile ({', '.join(again)})")
    return Check(name="service", holds=True, says="nothing of the service was started again meanwhile")


def _answers(rows: int, seen: Seen) -> Check:
    odd = sum(predictions(body) != rows for _, body in seen.kept)
    return Check(name="answers", holds=not odd, says=(
        f"of {len(seen.kept):,} accepted answers that were looked into, {odd or 'none'} had other than {rows} "
        f"prediction{'s' if rows > 1 else ''}"))

"""What became of requests, as numbers: quantiles with their bounds, rates, refusals, stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench.sequential import clustering, design_effect, on_time
from plimsoll.bench.stats import quantile
from plimsoll.core.record import Measurement
from plimsoll.core.traffic import Stretch, UnderLoad
from plimsoll.traffic.book import FAULTS, Floats, Outcomes

P99 = 0.99
LEVELS = (0.5, 0.25)
"""How far from the median to the limit the levels lie at which it is looked at how the slow ones come. By
benchmarks/load_rates.py: with lower ones too, a queue that remembers long is not held at seven tenths of its limit."""
BLOCKS = 16
"""Of a run, to see that: few, so that each is longer than a queue takes to empty."""
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": P99}
_STRETCHES = 30
_STAGES = b"\r\nserver-timing:"


@dataclass(frozen=True)
class Window:
    """What of a run counts: requests that were due from `low` to `high`, in seconds from its start."""

    low: float
    high: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.high - self.low


def weighed(run: Outcomes, window: Window, *, rate_per_s: float | None = None, limit_ms: float | None = None,
            client_cores: float | None = None, machine: str = "") -> UnderLoad:
    """Return what a service did within a window of a run; its checks are added by `checks.checked`."""
    counted = run.between(window.low, window.high)
    latency = counted.latency_ms[counted.accepted]
    from_sent = (counted.done - counted.sent)[counted.accepted] * 1e3
    refusal = (counted.done - counted.sent)[counted.refused] * 1e3
    lag = (counted.seen - counted.due)[np.isfinite(counted.seen)] * 1e3
    late = None if limit_ms is None else late_ones(counted, limit_ms)
    answered = run.accepted & (run.done >= window.low) & (run.done < window.high)
    sent = (run.sent >= window.low) & (run.sent < window.high)
    load = UnderLoad(
        rate_per_s=rate_per_s,
        seconds=window.seconds,
        requests=counted.due.size,
        accepted=int(counted.accepted.sum()),
        refused=int(counted.refused.sum()),
        errors=errors(counted),
        latency_ms=_measured(latency, machine),
        from_sent_ms=_measured(from_sent, machine),
        refusal_ms={k: v for k, v in _measured(refusal, machine).items() if k != "p95"},
        stages_ms=stages(run.kept),
        achieved_per_s=int(sent.sum()) / window.seconds,
        answered_per_s=int(answered.sum()) / window.seconds,
        lag_ms={} if not lag.size else {
            "p50": float(np.quantile(lag, 0.5)), "p99": float(np.quantile(lag, P99)), "max": float(lag.max())},
        client_cores=client_cores,
        waited_share=float(counted.waited.mean()) if counted.waited.size else 0.0,
        versions=tuple(dict.fromkeys(name for _, name in run.versions)),
        stretches=stretches(counted, window),
    )
    if late is None or limit_ms is None:
        return load
    in_time = answered & (run.latency_ms <= limit_ms)
    took_ms = np.where(counted.accepted, counted.latency_ms, np.inf)
    worth, late_worth = clustered(counted.due - window.low, took_ms, limit_ms, window.seconds)
    return load.model_copy(update={
        "late": int(late.sum()), "clustering": worth, "late_clustering": late_worth, "holds": holds(late, worth),
        "goodput_per_s": int(in_time.sum()) / window.seconds})


def late_ones(counted: Outcomes, limit_ms: float) -> NDArray[np.bool_]:
    """Return which requests were not accepted within the limit; one that was refused is as late as one can be."""
    return ~(counted.accepted & (counted.latency_ms <= limit_ms))


def holds(late: NDArray[np.bool_], worth: float) -> bool:
    """Return whether it is shown that 99 of 100 requests are within the limit, where so many are worth one."""
    t = int(late.sum())
    return on_time((late.size - t) / worth, t / worth, P99)


def clustered(at_s: Floats, took: Floats, limit: float, seconds: float) -> tuple[float, float]:
    """Return how many requests are worth one to the proof that they are on time, and to that they are late.

    at_s: when each was due, from 0 to `seconds`, [requests]; took: how long it took, infinite for one that was not
    accepted, in the unit of the limit. `bench.sequential.clustering`, and `design_effect`, over sixteen equal parts of
    the time. The levels of the nearly late lie between the median, which says what a request takes by itself, and the
    limit: as shares of the limit alone they would all be exceeded where that is near it.
    """
    if not at_s.size:
        return 1.0, 1.0
    place = np.minimum(at_s * (BLOCKS / seconds), BLOCKS - 1).astype(np.intp)

    def by_block(which: NDArray[np.bool_]) -> Floats:
        return np.bincount(place[which], minlength=BLOCKS).astype(np.float64)

    total, late, middle = by_block(np.ones(at_s.size, dtype=np.bool_)), by_block(took > limit), float(np.median(took))
    levels = LEVELS if middle < limit else ()
    slower = [by_block(took > middle + level * (limit - middle)) for level in levels]
    return clustering([late, *slower], total), design_effect(late, total)


def errors(counted: Outcomes) -> dict[str, int]:
    """Return how many requests failed, by kind, the most frequent first."""
    kinds = Counter(counted.status[counted.failed].tolist())
    return {FAULTS.get(status, f"status {status}"): n for status, n in kinds.most_common()}


def stretches(counted: Outcomes, window: Window) -> tuple[Stretch, ...]:
    """Return the window cut into equal parts."""
    place = _places(counted, window, _STRETCHES)
    found: list[Stretch] = []
    for i in range(_STRETCHES):
        inside = place == i
        accepted = counted.accepted & inside
        latency = counted.latency_ms[accepted]
        p50, p99 = np.quantile(latency, [0.5, P99]).tolist() if latency.size else (None, None)
        found.append(Stretch(
            start_s=round(window.low + i * window.seconds / _STRETCHES, 6), requests=int(inside.sum()), p50_ms=p50,
            p99_ms=p99, accepted=int(accepted.sum()), refused=int((counted.refused & inside).sum()),
            failed=int((counted.failed & inside).sum())))
    return tuple(found)


def stages(kept: Sequence[tuple[bytes, bytes]]) -> dict[str, dict[str, float]]:
    """Return p50, p95, mean and n of every stage that the header Server-Timing of these answers names, in its order."""
    found: dict[str, list[float]] = {}
    for head, _ in kept:
        line = head.partition(_STAGES)[2].partition(b"\r\n")[0].decode("ascii", "replace")
        for part in filter(None, (p.strip() for p in line.split(","))):
            name, *parameters = (p.strip() for p in part.split(";"))
            took = next((p[4:].strip('"') for p in parameters if p.startswith("dur=")), "")
            try:
                ms = float(took)
            except ValueError:
                continue
            found.setdefault(name, []).append(ms)
    return {name: {"p50": float(np.quantile(ms, 0.5)), "p95": float(np.quantile(ms, 0.95)),
                   "mean": float(np.mean(ms)), "n": float(len(ms))} for name, ms in found.items()}


def _measured(ms: Floats, machine: str) -> dict[str, Measurement]:
    if not ms.size:
        return {}
    return {name: quantile(ms, p).model_copy(update={"machine": machine}) for name, p in _QUANTILES.items()}


def _places(counted: Outcomes, window: Window, parts: int) -> NDArray[np.intp]:
    return np.minimum((counted.due - window.low) * (parts / window.seconds), parts - 1).astype(np.intp)

"""Limits: which of them the chosen artifact holds, by which bound, and with how much to spare."""

from __future__ import annotations

import math
from dataclasses import dataclass

from plimsoll.core.decision import Decision, Limit
from plimsoll.core.record import Measurement
from plimsoll.report.words import delta, number

_SAYS: dict[Limit, str] = {
    "p95_ms": "p95 at most", "min_speedup": "p95 speed-up at least", "quality_drop": "quality drop at most",
    "size_mb": "size on disk at most", "memory_mb": "peak memory at most",
}
_UNIT: dict[Limit, str] = {"p95_ms": " ms", "min_speedup": "x", "size_mb": " MB", "memory_mb": " MB"}


@dataclass(frozen=True)
class Held:
    """One limit beside the measurement it is judged by. Each is arithmetic on the decision's own numbers."""

    limit: Limit
    says: str
    """The limit in words, with its value."""
    measured: str
    """The measurement in words; empty where nothing was measured for it."""
    holds: bool | None
    """None where nothing was measured."""
    used: float | None
    """Share of the limit that the bound takes up: over 1, it is broken. None where a limit of zero has no shares."""
    spare: str
    """What is left between the bound and the limit, or how far beyond it the bound lies, in the limit's unit."""


def held(decision: Decision) -> list[Held]:
    """Return every limit of the budget in its order, judged by the bound that decides.

    An upper limit is judged by the upper bound, a lower one by the lower bound, as the search itself does.
    """
    found: list[Held] = []
    for limit, says in _SAYS.items():
        allowed: float | None = getattr(decision.budget, limit)
        if allowed is None:
            continue
        measured = _measured(limit, decision)
        words = f"{says} {amount(limit, allowed)}"
        if measured is None:
            found.append(Held(limit, words, "", None, None, ""))
            continue
        left, used = _left(limit, measured, allowed)
        side = "to spare" if left >= 0 else "too much" if limit != "min_speedup" else "too little"
        found.append(Held(limit, words, delta(measured) if limit == "quality_drop" else number(measured), left >= 0,
                          used, f"{amount(limit, abs(left))} {side}"))
    return found


def _measured(limit: Limit, decision: Decision) -> Measurement | None:
    three, chosen = decision.three_numbers, decision.chosen
    if three is None or chosen is None:
        return None
    return {
        "p95_ms": three.optimized_p95_ms,
        "min_speedup": decision.speedup_p95,
        "quality_drop": three.quality_delta,
        "size_mb": chosen.size_mb,
        "memory_mb": chosen.peak_memory_mb,
    }[limit]


def _left(limit: Limit, measured: Measurement, allowed: float) -> tuple[float, float | None]:
    """Return what is left of a limit in its unit, negative when it is broken, and the share of it that is used."""
    if limit == "min_speedup":
        return measured.low - allowed, allowed / measured.low if measured.low > 0 else math.inf
    bound = max(-measured.low, 0.0) if limit == "quality_drop" else measured.high
    return allowed - bound, bound / allowed if allowed > 0 else None


def amount(limit: Limit, value: float) -> str:
    """Return a value of a limit with its unit, to three digits."""
    if math.isinf(value):
        return "unbounded"
    if limit == "quality_drop":
        return f"{value * 100:.3g} point{'' if f'{value * 100:.3g}' == '1' else 's'}"
    return f"{value:.3g}{_UNIT[limit]}"

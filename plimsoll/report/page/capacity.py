"""Capacity: requests per core from measured latencies, and the traffic and prices they are put against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll.core.decision import Side
from plimsoll.core.dossier import Dossier
from plimsoll.core.errors import UserError


@dataclass(frozen=True)
class Traffic:
    """What a reader plans for: the page starts from these, and they can be changed on it.

    Raises UserError for a number that is not finite and above 0.
    """

    requests_per_s: float | None = None
    price_per_hour: float | None = None
    """Of one machine, in any currency."""
    cores_per_machine: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"--{name.replace('_', '-')} needs a number above 0, got {value:g}",
                                "leave it out to fill it in on the page")


@dataclass(frozen=True)
class Rate:
    """What one artifact serves, from the requests of the last race it took part in."""

    mean_ms: float
    threads: int
    per_core: float
    """Requests a second and core: 1,000 / mean_ms / threads."""


def rate(side: Side | None, dossier: Dossier) -> Rate | None:
    """Return what a side serves, or None where its requests were not kept.

    Requests came one at a time, the next one when the last was answered, so this is what one stream of requests gets
    out of the cores it was given: an upper bound without a queue, and no promise of how it scales.
    """
    quantiles = dossier.latencies_ms.get(side.trial) if side is not None else None
    if side is None or quantiles is None:
        return None
    mean, threads = mean_ms(quantiles), side.recipe.runtime.threads
    return Rate(mean, threads, 1000 / mean / threads) if mean > 0 else None


def mean_ms(quantiles: Sequence[float]) -> float:
    """Return the mean of a distribution from its quantiles at equal steps from 0 to 100 % (the trapezoidal rule)."""
    inner = math.fsum(quantiles) - (quantiles[0] + quantiles[-1]) / 2
    return inner / (len(quantiles) - 1)

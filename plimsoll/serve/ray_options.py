"""What Ray Serve is told about a deployment, each with its reason; worked out without Ray."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from plimsoll.core.errors import UserError
from plimsoll.serve.costs import Forecast
from plimsoll.serve.settings import Settings

_CHECKS = 3
"""Failed health checks in a row after which Ray replaces a replica."""
_WORKER_BACK_S = 10.0
"""Beyond the time that a stuck worker is given, for a replica to start its worker again by itself."""
_SHARE_OF_DEADLINE = 0.5
_LEAST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas there are, at least and at most."""

    least: int
    most: int

    @classmethod
    def parse(cls, said: str) -> Replicas:
        """Read `2`, or `1:4` for as many as the load asks for. Raises UserError for anything else."""
        parts = said.split(":")
        if len(parts) > 2 or not all(part.isdecimal() and part.isascii() for part in parts):
            raise UserError(f"{said!r:.40} is no number of replicas", "give one such as 2, or a range such as 1:4")
        least, most = int(parts[0]), int(parts[-1])
        if not 1 <= least <= most:
            raise UserError(f"need 1 <= least <= most, got {least} and {most} replicas",
                            "give one such as 2, or a range such as 1:4")
        return cls(least, most)


def threads_of(replicas: Replicas, cores: float, largest: float, told: int | None) -> int:
    """Return the threads of a replica, which are the cores it asks Ray for.

    cores: of the cluster; largest: of the machine that has most. Replicas share the cores out, unless it was told how
    many a replica has. Raises UserError when the least number of replicas cannot be placed.
    """
    threads = told or max(1, int(min(cores // replicas.most, largest)))
    if threads > largest or threads * replicas.least > cores:
        raise UserError(f"{replicas.least} replicas of {threads} cores each do not fit: there are {cores:g} cores, "
                        f"{largest:g} on the largest machine", "give fewer --replicas, or --threads of each")
    return threads


def options(settings: Settings, replicas: Replicas, threads: int, cores: float, forecast: Forecast) -> dict[str, Any]:
    """Return the options of the deployment.

    threads: of each replica. cores: of the cluster. forecast: of what batches cost there.
    """
    ongoing = settings.queue_rows + 2 * forecast.lanes * forecast.most_rows
    found: dict[str, Any] = {
        # a replica's own admission knows what its work costs and says when to come back: what Ray would hold back
        # before it, by number alone, would wait where no deadline is kept
        "max_ongoing_requests": ongoing,
        # of each proxy, for the time in which no replica can take anything: beyond it the proxy refuses (503)
        "max_queued_requests": ongoing,
        "ray_actor_options": {"num_cpus": threads},
        # a replica starts its own worker again; Ray replaces it only when that did not help
        "health_check_period_s": (settings.stuck_s + _WORKER_BACK_S) / _CHECKS,
        "health_check_timeout_s": settings.stuck_s,
        # it opened where it is deployed from: one replica that cannot may be chance, a second one is not
        "max_constructor_retry_count": 2,
        "graceful_shutdown_timeout_s": settings.drain_s,
        # proxies hear within milliseconds that a replica ends, and ask another when it turns them away
        "graceful_shutdown_wait_loop_s": 0.5,
    }
    if threads * (replicas.most + 1) <= cores:
        # a new replica starts before an old one ends; without the room for it Ray would wait for room for ever
        found["max_surge_percent"] = math.ceil(100 / replicas.most)
    if replicas.least == replicas.most:
        return found | {"num_replicas": replicas.least}
    return found | {"autoscaling_config": {
        "min_replicas": replicas.least, "max_replicas": replicas.most,
        "target_ongoing_requests": target_ongoing(forecast, settings.deadline_ms)}}


def target_ongoing(forecast: Forecast, deadline_ms: float) -> float:
    """Return the requests of one text in flight at which a replica does all it can and none of them waits for a batch.

    Each lane has a batch of the size that costs least per row, of a middling length; fewer where those would take more
    than half the deadline. Above it requests wait for those before them, below it cores are idle.
    """
    busy = forecast.crowded_ms
    lengths, sizes = range(1, forecast.longest + 1), range(1, forecast.most_rows + 1)
    rows = statistics.median(min(sizes, key=lambda n: busy[n][length] / n) for length in lengths)
    row_ms = statistics.median(forecast.row_ms[length] for length in lengths)
    in_time = _SHARE_OF_DEADLINE * deadline_ms / row_ms if row_ms else math.inf
    return max(1.0, forecast.lanes * min(float(rows), in_time))


def timeout_s(settings: Settings) -> float:
    """Return how long a proxy waits for a replica: the bound on a request that finds none, or whose replica hangs."""
    return max(_LEAST_TIMEOUT_S, 2 * settings.deadline_ms / 1e3)

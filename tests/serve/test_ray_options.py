"""What Ray is told follows from the settings, the machine and the cost table."""

from __future__ import annotations

from pathlib import Path

import pytest

from plimsoll.core.errors import UserError
from plimsoll.serve.costs import Costs, Forecast
from plimsoll.serve.ray_options import Replicas, options, target_ongoing, threads_of
from plimsoll.testing.server import settings_of


def forecast(*by_rows: float, threads: tuple[int, ...] = (1,)) -> Forecast:
    """Of an artifact whose batches of 1, 2, 4 and 8 rows take so many ms, whatever their length."""
    grid = tuple((ms, ms) for ms in by_rows)
    return Forecast(Costs(version="v", machine="m", threads=threads, rows=(1, 2, 4, 8), lengths=(8, 16), wide_ms=grid))


@pytest.mark.parametrize(("said", "least", "most"), [("2", 2, 2), ("1:4", 1, 4)])
def test_replicas_are_a_number_or_a_range(said: str, least: int, most: int) -> None:
    assert Replicas.parse(said) == Replicas(least, most)


@pytest.mark.parametrize("said", ["", "0", "two", "3:2", "1:2:3", "-1", "1:", "²"])
def test_anything_else_is_refused(said: str) -> None:
    with pytest.raises(UserError, match="replicas"):
        Replicas.parse(said)


def test_replicas_share_the_cores_out() -> None:
    assert threads_of(Replicas(2, 2), 8, 8, None) == 4
    assert threads_of(Replicas(1, 4), 2, 2, None) == 1  # the others wait for a larger cluster
    assert threads_of(Replicas(1, 1), 64, 16, None) == 16  # a replica is on one machine
    assert threads_of(Replicas(2, 2), 8, 8, 3) == 3
    with pytest.raises(UserError, match="3 replicas of 1 cores each do not fit"):
        threads_of(Replicas(3, 3), 2, 2, None)
    with pytest.raises(UserError, match="do not fit"):
        threads_of(Replicas(1, 1), 8, 4, 5)


def test_a_replica_is_kept_as_busy_as_its_best_batch_and_its_deadline_allow() -> None:
    assert target_ongoing(forecast(10, 20, 40, 80), 1000) == 1  # nothing is gained by batches
    assert target_ongoing(forecast(10, 11, 12, 13), 1000) == 8
    assert target_ongoing(forecast(800, 810, 820, 830), 400) == pytest.approx(200 / (830 / 8))
    assert target_ongoing(forecast(900, 1800, 3600, 7200), 100) == 1


def test_only_a_range_lets_ray_decide_how_many(tmp_path: Path) -> None:
    settings, costs = settings_of(tmp_path, queue_rows=100), forecast(10, 11, 12, 13)
    fixed = options(settings, Replicas(2, 2), 1, 2, costs)
    assert fixed["num_replicas"] == 2
    assert "autoscaling_config" not in fixed
    assert fixed["max_ongoing_requests"] > settings.queue_rows  # the replica refuses, not Ray
    assert 0 < fixed["max_queued_requests"] < 10_000
    ranged = options(settings, Replicas(1, 4), 1, 4, costs)
    assert "num_replicas" not in ranged
    assert ranged["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8.0}

def test_a_new_replica_starts_before_an_old_one_ends_where_there_is_room(tmp_path: Path) -> None:
    settings, costs = settings_of(tmp_path), forecast(10, 11, 12, 13)
    assert "max_surge_percent" not in options(settings, Replicas(2, 2), 2, 5, costs)
    assert options(settings, Replicas(2, 2), 2, 6, costs)["max_surge_percent"] == 50
    assert options(settings, Replicas(1, 1), 1, 2, costs)["max_surge_percent"] == 100


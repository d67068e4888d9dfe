"""The cost table says what was measured, fills what there was no time for, and which lanes pay."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from plimsoll.serve import costs
from plimsoll.serve.costs import MOST_ROWS, Costs, Forecast, measure


def table(wide_gain: float, crowd_cost: float = 1.0, budget_s: float = 60.0, threads: tuple[int, ...] = (2, 1, 1),
          longest: int = 50) -> Costs:
    """Measure a machine of paper: 0.1 ms a call and 0.01 a token on one thread."""
    running = 0

    async def ask(lane: int, rows: Sequence[Sequence[int]]) -> float:
        nonlocal running
        running += 1
        await asyncio.sleep(0)
        ms = 0.1 + 0.01 * sum(map(len, rows))
        ms = ms / wide_gain if lane == 0 else ms * (crowd_cost if running > 1 else 1.0)
        await asyncio.sleep(0)
        running -= 1
        return ms

    return asyncio.run(measure(ask, threads, list(range(longest)), budget_s, "v", "m"))


def test_every_cell_is_measured_when_there_is_time() -> None:
    found = table(wide_gain=1.5)
    assert found.measured == 1.0
    assert found.quiet
    assert found.lengths == (8, 16, 32, 50)
    assert found.alone_ms[0][0] == pytest.approx(0.18)
    assert found.wide_ms[0][0] == pytest.approx(0.12)
    assert found.busy_ms[3][1] == pytest.approx(0.1 + 0.01 * sum(range(9, 17)))
    assert Costs.model_validate_json(found.to_json()) == found


def test_what_there_was_no_time_for_follows_from_what_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.02
        return now

    monkeypatch.setattr(costs.time, "perf_counter", clock)
    found = table(wide_gain=1.5, budget_s=0.05)
    assert 0 < found.measured < 1
    for grid in (found.wide_ms, found.alone_ms, found.busy_ms):
        for line in grid:
            assert list(line) == sorted(line)
        for one, more in itertools.pairwise(grid):
            assert all(a <= b for a, b in zip(one, more, strict=True))


@pytest.mark.parametrize(("wide_gain", "crowd_cost", "narrow", "wide"), [
    (1.5, 1.0, True, True),  # two cores: side by side answers more, together answers one row sooner
    (2.0, 1.03, True, True),  # side by side is as good when nothing else runs, and better when something does
    (1.0, 1.0, True, False),  # threads within a batch gain nothing
    (1.9, 1.2, False, True),  # lanes get in each other's way
])
def test_the_lanes_are_those_that_pay(wide_gain: float, crowd_cost: float, narrow: bool, wide: bool) -> None:
    found = table(wide_gain, crowd_cost)
    assert (found.narrow_pays(), found.wide_pays()) == (narrow, wide)
    forecast = Forecast(found)
    assert forecast.lanes == (2 if narrow else 1)
    assert forecast.widens(10) == (narrow and wide)


def test_one_lane_is_all_there_is_where_threads_cannot_be_shared_out() -> None:
    forecast = Forecast(table(1.0, threads=(1,)))
    assert (forecast.lanes, forecast.narrow) == (1, False)
    assert not forecast.widens(10)


def test_a_forecast_lies_between_the_cells_around_it() -> None:
    forecast = Forecast(table(wide_gain=1.5, threads=(1,)))
    lines = forecast.quiet_ms
    assert len(lines) == MOST_ROWS + 1
    for rows in range(1, MOST_ROWS):
        assert all(a <= b for a, b in zip(lines[rows], lines[rows + 1], strict=True))
    assert lines[1][8] < lines[1][12] < lines[1][16]
    assert forecast.row_ms[16] == pytest.approx(min(lines[n][16] / n for n in range(1, MOST_ROWS + 1)))


def test_a_busy_machine_is_seen_and_adds_nothing_to_the_table() -> None:
    calls = 0

    async def ask(lane: int, rows: Sequence[Sequence[int]]) -> float:
        nonlocal calls
        calls += 1
        return 1.0 * len(rows) * (3.0 if calls % 2 else 1.0)

    found = asyncio.run(measure(ask, (1,), [1] * 16, 60.0, "v", "m"))
    assert not found.quiet
    assert [line[0] for line in found.wide_ms] == [1, 2, 4, 8]

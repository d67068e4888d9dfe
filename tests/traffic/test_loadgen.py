"""MLPerf's LoadGen asks through the adapter: every query is answered, and what fails is counted beside its verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plimsoll.traffic.load import Question, load
from plimsoll.traffic.loadgen import summarized

TEXTS = tuple(f"text number {i}" for i in range(20))

Fakes = Callable[..., Any]

SUMMARY = """================================================
MLPerf Results Summary
================================================
SUT name : PyFastSUT
Scenario : Server
Completed samples per second    : 199.61
Result is : VALID
  Performance constraints satisfied : Yes
Samples per second: 512.5
99.00 percentile latency (ns)   : 1534210

================================================
Test Parameters Used
================================================
target_latency (ns): 20000000
"""


def test_the_summary_is_read_line_by_line_without_the_settings() -> None:
    found = summarized(SUMMARY)
    assert found["Result is"] == "VALID"
    assert found["99.00 percentile latency (ns)"] == "1534210"
    assert found["Samples per second"] == "512.5"
    assert "target_latency (ns)" not in found


def asked(url: str, tmp_path: Path, **changes: Any) -> Any:
    given: dict[str, Any] = {"seconds": 1.0, "connections": 8, "mlperf": True, "p99_ms": 500.0} | changes
    return load(Question(url, TEXTS, **given), logs=tmp_path)


def test_the_server_scenario_is_asked_and_judged_by_loadgen(fake: Fakes, tmp_path: Path) -> None:
    service = fake()
    found = asked(service.url, tmp_path, rate_per_s=600.0)
    assert found.asker == "loadgen"
    assert found.loadgen.result == "VALID"
    assert found.loadgen.failed == 0
    assert found.loadgen.summary["Scenario"] == "Server"
    assert found.load.accepted == found.load.requests
    assert (tmp_path / "loadgen" / "mlperf_log_summary.txt").exists()
    assert {body["texts"][0] for body in service.bodies} <= set(TEXTS)


def test_refusals_are_told_beside_a_verdict_that_cannot_know_them(fake: Fakes, tmp_path: Path) -> None:
    service = fake(lambda number, body: {"status": 429 if number > 5 else 200})
    found = asked(service.url, tmp_path, rate_per_s=600.0)
    assert found.loadgen.failed > 100
    assert not found.stands
    assert "cannot know" in found.verdict


@pytest.mark.parametrize(("scenario", "rows", "most"), [("single-stream", 1, 1), ("offline", 4, 8)])
def test_the_closed_scenarios_run_to_their_end(
    fake: Fakes, tmp_path: Path, scenario: str, rows: int, most: int
) -> None:
    service = fake()
    found = asked(service.url, tmp_path, scenario=scenario, rows=rows)
    assert found.loadgen.summary["Scenario"] == {"offline": "Offline"}.get(scenario, "SingleStream")
    assert found.load.accepted == found.load.requests > 20
    assert service.most_in_flight <= most
    assert max(len(body["texts"]) for body in service.bodies) == rows

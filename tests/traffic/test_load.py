"""A whole load test of a service that does as it is told: what it says, and what it refuses to say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.errors import UserError
from plimsoll.core.traffic import TrafficReport
from plimsoll.traffic import rate
from plimsoll.traffic.load import Question, load

TEXTS = tuple(f"text number {i}" for i in range(20))

Fakes = Callable[..., Any]


def question(url: str, **changes: Any) -> Question:
    given: dict[str, Any] = {"rate_per_s": 600.0, "seconds": 1.0, "warm_up_s": 0.2, "connections": 16} | changes
    return Question(url, TEXTS, **given)


def checks(found: TrafficReport) -> dict[str, bool]:
    assert found.load is not None
    return {check.name: check.holds for check in found.load.checks}


def test_a_service_that_answers_is_measured(fake: Fakes) -> None:
    service = fake(metrics="process_start_time_seconds 5\n")
    found = load(question(service.url, p99_ms=5000.0))
    assert found.load is not None
    assert found.load.accepted == found.load.requests > 459
    assert found.load.refused == found.load.failed == 0
    assert found.load.holds is True
    assert found.load.versions == ("v1",)
    assert set(found.load.stages_ms) == {"queue", "compute"}
    # the others say how busy this machine is
    assert all(checks(found)[name] for name in ("samples", "service", "answers"))
    assert TrafficReport.model_validate_json(found.to_json()) == found


def test_a_service_that_refuses_half_does_not_hold_its_limit(fake: Fakes) -> None:
    service = fake(lambda number, body: {"status": 429 if number % 2 else 200})
    found = load(question(service.url, p99_ms=1000.0))
    assert found.load is not None
    assert found.load.refused > 100
    assert found.load.holds is False
    assert not found.stands


def test_a_swap_under_way_is_no_measurement_of_either(fake: Fakes) -> None:
    service = fake(lambda number, body: {"version": "a" if number < 400 else "b"})
    found = load(question(service.url))
    assert checks(found)["service"] is False
    assert not found.stands


def test_a_restart_is_seen_in_the_metrics(fake: Fakes) -> None:
    service = fake(metrics="worker_restarts_total 0\n")

    def behave(number: int, body: Any) -> dict[str, Any]:
        service.metrics = f"worker_restarts_total {number // 200}\n"
        return {}

    service.behave = behave
    assert checks(load(question(service.url)))["service"] is False


def test_a_trace_is_replayed_at_its_rate(fake: Fakes, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("".join(f"{i * 2 + (i % 3) * 0.3}\n" for i in range(301)))
    found = load(question(fake().url, trace=tmp_path / "trace.csv"))
    assert found.load is not None
    assert found.asked.trace == "trace.csv"
    assert any("The trace ends after 0.5 s" in note for note in found.notes)


def test_several_processes_share_the_arrivals(fake: Fakes, tmp_path: Path) -> None:
    service = fake()
    found = load(question(service.url, processes=2, seconds=1.0), logs=tmp_path)
    assert found.load is not None
    assert found.load.accepted == found.load.requests
    assert found.load.client_cores is None
    assert len(service.bodies) > found.load.requests
    assert set(found.load.stages_ms) == {"queue", "compute"}


@pytest.mark.parametrize(("scenario", "in_flight"), [("single-stream", 1), ("offline", 16)])
def test_closed_scenarios_keep_their_number_in_flight(fake: Fakes, scenario: str, in_flight: int) -> None:
    service = fake(wait_s=0.005)
    found = load(question(service.url, scenario=scenario, rate_per_s=None, seconds=0.5, connections=in_flight, rows=2))
    assert service.most_in_flight == in_flight
    assert found.load is not None
    assert found.load.answered_per_s > 0
    assert all(len(body["texts"]) == 2 for body in service.bodies)


def test_the_highest_rate_is_searched_for(fake: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_LEAST_S", 0.4)
    monkeypatch.setattr(rate, "_BLOCK_S", 0.05)
    monkeypatch.setattr(rate, "_BETWEEN_S", 0.0)
    monkeypatch.setattr(rate, "_MOST_STEPS", 3)
    service = fake()
    told: list[dict[str, Any]] = []
    found = load(question(service.url, rate_per_s=1000.0, find_rate=True, p99_ms=2000.0, warm_up_s=0.0), told.append)
    assert found.load is None
    assert found.highest is not None
    assert [s.rate_per_s for s in found.highest.steps] == [1000.0, 1500.0, 3375.0][: len(found.highest.steps)]
    assert found.highest.steps[0].outcome == "held"
    assert found.stands
    assert sum("requests/s: held" in event.get("note", "") for event in told) >= 1


def test_a_deadline_is_told_to_the_service(fake: Fakes) -> None:
    service = fake()
    load(question(service.url, deadline_ms=25.0, seconds=0.2, rate_per_s=50.0))
    assert service.headers[-1]["plimsoll-deadline-ms"] == "25"


@pytest.mark.parametrize(("changes", "says"), [
    ({"rate_per_s": None}, "how many requests a second"),
    ({"rate_per_s": -1.0}, "--rate above 0"),
    ({"seconds": 0.0}, "--seconds above 0"),
    ({"warm_up_s": -1.0}, "--warm-up-s"),
    ({"rows": 0}, "--rows"),
    ({"connections": 0}, "--connections"),
    ({"find_rate": True}, "needs a limit"),
    ({"find_rate": True, "p99_ms": 5.0, "processes": 2}, "--processes"),
    ({"find_rate": True, "p99_ms": 5.0, "mlperf": True}, "--mlperf"),
    ({"scenario": "offline"}, "--rate is for requests that come by themselves"),
    ({"scenario": "offline", "rate_per_s": None, "processes": 2}, "one process"),
    ({"mlperf": True}, "needs a limit"),
    ({"mlperf": True, "p99_ms": 5.0, "processes": 2}, "--processes"),
    ({"processes": 20}, "cannot share"),
])
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    fake: Fakes, changes: dict[str, Any], says: str
) -> None:
    service = fake()
    with pytest.raises(UserError, match=says) as refused:
        load(question(service.url, **changes))
    assert refused.value.hint
    assert not service.bodies


def test_no_texts_are_refused() -> None:
    with pytest.raises(UserError, match="no text to send"):
        Question("http://localhost:1", (), rate_per_s=1.0)

"""A measurement that measured itself says so, and by what."""

from __future__ import annotations

from typing import Any

import pytest

from plimsoll.core.record import Measurement
from plimsoll.core.traffic import Asked, Stretch, UnderLoad
from plimsoll.traffic.checks import Seen, checked, rising

GOOD = (b"http/1.1 200 ok", b'{"predictions": [1]}')


def asked(**changes: Any) -> Asked:
    return Asked(url="http://localhost:1", scenario="server", seconds=10, warm_up_s=1, texts=9, connections=8,
                 timeout_s=10, seed=0).model_copy(update=changes)


def stretches(medians: list[float]) -> tuple[Stretch, ...]:
    return tuple(Stretch(start_s=i, requests=100, p50_ms=m, p99_ms=m, accepted=100, refused=0, failed=0)
                 for i, m in enumerate(medians))


def load(**changes: Any) -> UnderLoad:
    p50 = Measurement(value=10, low=9, high=11, n=1000, unit="ms")
    calm = [10.0, 10.1, 9.9, 10.05, 9.95, 10.02, 9.98, 10.1, 9.9, 10.0]
    return UnderLoad(seconds=10, requests=1000, accepted=1000, refused=0, latency_ms={"p50": p50}, achieved_per_s=100,
                answered_per_s=100, lag_ms={"p50": 0.01, "p99": 0.5, "max": 1.0}, versions=("a",),
                stretches=stretches(calm)).model_copy(update=changes)


def broken(one: UnderLoad, question: Asked | None = None, seen: Seen | None = None) -> list[str]:
    found = checked(one, question or asked(), seen or Seen([GOOD], {"x": 1.0}, {"x": 1.0}))
    return [check.name for check in found.checks if not check.holds]


def test_a_sound_measurement_is_valid() -> None:
    found = checked(load(), asked(), Seen([GOOD], {"x": 1.0}, {"x": 1.0}))
    assert found.valid
    assert {c.name for c in found.checks} >= {"client", "connections", "rate", "steady", "samples", "service"}
    assert all(c.says for c in found.checks)


@pytest.mark.parametrize(("changes", "name"), [
    ({"lag_ms": {"p50": 0.1, "p99": 1.5, "max": 3.0}}, "client"),
    ({"waited_share": 0.2}, "connections"),
    ({"achieved_per_s": 90}, "rate"),
    ({"accepted": 458}, "samples"),
    ({"versions": ("a", "b")}, "service"),
    ({"stretches": stretches([10 + i for i in range(12)])}, "steady"),
    ({"stretches": ()}, "steady"),
])
def test_each_fault_is_found_alone(changes: dict[str, Any], name: str) -> None:
    assert broken(load(**changes)) == [name]


def test_lag_is_held_against_the_limit_where_there_is_one() -> None:
    late = load(lag_ms={"p50": 0.1, "p99": 1.5, "max": 3.0})
    assert broken(late, asked(p99_ms=20.0)) == []
    assert broken(late, asked(p99_ms=14.0)) == ["client"]


def test_a_certain_trend_that_is_too_small_to_matter_is_no_fault() -> None:
    assert broken(load(stretches=stretches([10 + i * 0.05 for i in range(12)]))) == []


def test_rising_is_told_from_falling() -> None:
    assert rising(load(stretches=stretches([10 + i for i in range(12)])))
    assert not rising(load(stretches=stretches([30 - i for i in range(12)])))
    assert not rising(load())


def test_restarts_and_odd_answers_are_seen() -> None:
    assert broken(load(), seen=Seen([GOOD], {"x": 1.0}, {"x": 2.0})) == ["service"]
    assert broken(load(), seen=Seen([GOOD, (b"", b"[]")], None, None)) == ["answers"]
    assert broken(load(), seen=Seen([], None, {"x": 1.0})) == []


def test_a_closed_loop_has_no_schedule_to_be_late_to() -> None:
    found = checked(load(lag_ms={}), asked(scenario="offline"), Seen([GOOD], None, None))
    assert found.valid
    assert "client" not in {c.name for c in found.checks}

"""Which students are proposed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.spec import Budget
from plimsoll.search import choose, space


@pytest.mark.parametrize(
    ("allowed", "sizes"),
    [
        (None, (3, 2)),  # no speed limit: a half, and two thirds of that
        (2.0, (3, 2)),  # the whole model holds it with room
        (0.96, (4, 2)),  # a little too slow: a little smaller
        (0.62, (3, 2)),
        (0.05, (1,)),  # hopeless: the smallest there is
    ],
)
def test_students_are_as_large_as_the_speed_limit_leaves_room_for(allowed: float, sizes: tuple[int, ...]) -> None:
    assert space.student_sizes(6, allowed) == sizes


@given(layers=st.integers(2, 48), allowed=st.floats(0.01, 3))
def test_students_are_smaller_than_the_model_and_differ(layers: int, allowed: float) -> None:
    sizes = space.student_sizes(layers, allowed)
    assert all(0 < k < layers for k in sizes)
    assert sorted(set(sizes), reverse=True) == list(sizes)


def test_the_tighter_of_two_speed_limits_sets_the_room() -> None:
    assert choose.allowed_share(2.0, 10.0, Budget(p95_ms=3, min_speedup=10)) == pytest.approx(0.5)
    assert choose.allowed_share(2.0, 10.0, Budget(p95_ms=1, min_speedup=1)) == pytest.approx(0.5)
    assert choose.allowed_share(2.0, 10.0, Budget(quality_drop=0.1)) is None

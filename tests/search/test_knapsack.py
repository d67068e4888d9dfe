"""The best widths for a time limit, against trying every combination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.search.knapsack import least_loss


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray]]:
    modules = draw(st.integers(1, 4))
    counts = [draw(st.integers(1, 4)) for _ in range(modules)]
    whole = st.integers(0, 40)  # times that are multiples of a step, so that rounding up changes nothing
    return (
        [np.array([float(draw(whole)) for _ in range(n)]) for n in counts],
        [np.array([draw(st.floats(0, 1)) for _ in range(n)]) for n in counts],
    )


@given(problems())
def test_no_other_choice_within_the_limit_loses_less(problem: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    times, losses = problem
    fits = [
        sum(c[k] for c, k in zip(losses, levels, strict=True))
        for levels in itertools.product(*(range(len(t)) for t in times))
        if sum(t[k] for t, k in zip(times, levels, strict=True)) <= 100
    ]
    chosen = least_loss(times, losses, 100.0)
    if not fits:
        assert chosen is None
        return
    assert chosen is not None
    assert sum(t[k] for t, k in zip(times, chosen, strict=True)) <= 100
    assert sum(c[k] for c, k in zip(losses, chosen, strict=True)) == pytest.approx(min(fits))


@given(problems(), st.floats(0.5, 150))
def test_a_choice_never_overruns_the_limit(problem: tuple[list[np.ndarray], list[np.ndarray]], limit: float) -> None:
    times, losses = problem
    chosen = least_loss(times, losses, limit)
    if chosen is None:
        assert sum(t.min() for t in times) > limit
    else:
        assert sum(t[k] for t, k in zip(times, chosen, strict=True)) <= limit + 1e-9


def test_losses_that_do_not_pair_with_times_are_refused() -> None:
    with pytest.raises(ValueError, match="as many losses as times"):
        least_loss([np.array([1.0, 2.0])], [np.array([0.0])], 5.0)

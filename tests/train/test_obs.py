"""Optimal brain surgeon: what is missed least goes first, and what is left makes up for it as well as it can."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.train import obs


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices of this size take longer on several threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _case(seed: int, groups: int, group: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs that are correlated, as those of a network are, and a weight: [tokens, inputs], [outputs, inputs].

    The inputs are of very different size.
    """
    generator = torch.Generator().manual_seed(seed)
    width = groups * group

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = normal(60, width) @ normal(width, width) * normal(width).exp()
    return inputs, normal(outputs, width)


def _columns(kept: list[int], group: int) -> list[int]:
    return [k * group + i for k in kept for i in range(group)]


def _error(inputs: torch.Tensor, weight: torch.Tensor, part: torch.Tensor, columns: list[int]) -> float:
    return float((inputs[:, columns] @ part.T - inputs @ weight.T).square().sum())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 4), st.integers(1, 5), st.data())
def test_what_is_kept_is_the_damped_least_squares_fit_and_never_worse_than_leaving_it_alone(
        seed: int, groups: int, group: int, outputs: int, data: st.DataObject) -> None:
    inputs, weight = _case(seed, groups, group, outputs)
    kept = sorted(data.draw(st.sets(st.integers(0, groups - 1), min_size=1)))
    columns = _columns(kept, group)
    gram = obs.gram(inputs)
    made_up = obs.compensated(weight, gram, kept, group)
    assert made_up.shape == (outputs, len(columns))
    # the same fit as rows of data: the damping is a few more tokens, one for each input
    damping = (gram - 2 * inputs.T @ inputs).diagonal().mean() / 2
    more = torch.cat([inputs, torch.eye(groups * group, dtype=torch.float64) * damping.sqrt()])
    best = torch.linalg.lstsq(more[:, columns], more @ weight.T).solution.T
    assert torch.allclose(made_up, best, rtol=1e-5, atol=1e-8)
    plain = _error(inputs, weight, weight[:, columns], columns)
    assert _error(inputs, weight, made_up, columns) <= plain * (1 + 1e-9) + 1e-9


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 4), st.integers(1, 5))
def test_the_first_to_go_is_the_one_whose_removal_costs_least_when_all_are_tried(
        seed: int, groups: int, group: int, outputs: int) -> None:
    inputs, weight = _case(seed, groups, group, outputs)
    gram = obs.gram(inputs)
    order = obs.removal_order(weight, gram, group)
    assert sorted(order) == list(range(groups))

    def cost(gone: int) -> float:
        kept = [g for g in range(groups) if g != gone]
        difference = weight.clone()
        difference[:, _columns([gone], group)] = 0
        difference[:, _columns(kept, group)] = obs.compensated(weight, gram, kept, group)
        difference -= weight
        return float((difference @ gram * difference).sum())

    costs = [cost(g) for g in range(groups)]
    assert costs[order[0]] == pytest.approx(min(costs), rel=1e-6)


@pytest.mark.parametrize("group", [1, 4])
def test_one_of_two_that_say_the_same_goes_first_and_the_other_last(group: int) -> None:
    # each alone is missed by nobody, both together are what matters most
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 4 * group, generator=generator, dtype=torch.float64)
    inputs[:, group:2 * group] = inputs[:, :group]
    weight = torch.cat([torch.full((2, group), w, dtype=torch.float64) for w in (3.0, 3.0, 0.5, 1.0)], dim=1)
    gram = obs.gram(inputs)
    order = obs.removal_order(weight, gram, group)
    assert order[0] in (0, 1)
    assert order[1:] == [2, 3, 1 - order[0]]
    made_up = obs.compensated(weight, gram, sorted(order[1:]), group)
    assert torch.allclose(made_up[:, :group], torch.full((2, group), 6.0, dtype=torch.float64), rtol=0.02)


@pytest.mark.parametrize("group", [1, 4])
def test_what_contributes_nothing_goes_first_also_where_several_go_at_once(group: int) -> None:
    groups = 130
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(400, groups * group, generator=generator)
    weight = torch.randn(6, groups * group, generator=generator)
    idle = [3, 50, 129]
    weight[:, _columns(idle, group)] = 0
    order = obs.removal_order(weight, obs.gram(inputs), group)
    assert sorted(order) == list(range(groups))
    assert set(order[:3]) == set(idle)


def test_inputs_that_are_all_zero_can_still_be_removed() -> None:
    weight = torch.ones(2, 5)
    gram = obs.gram(torch.zeros(7, 5))
    assert sorted(obs.removal_order(weight, gram)) == [0, 1, 2, 3, 4]
    assert torch.isfinite(obs.compensated(weight, gram, [0, 2])).all()

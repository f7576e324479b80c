"""The cut against brute force, and its refusals."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import InputError
from trainer.cut import LayerCost, balance, check_cut, measure
from trainer.recipe import Shape
from trainer.recipes.danq import danq_layers

COSTS = st.lists(
    st.builds(
        LayerCost,
        st.just("x"),
        st.integers(0, 9).map(float),
        st.sampled_from([0, 0, 5]),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=9,
)


def slowest(costs: list[LayerCost], cut: tuple[int, ...]) -> float:
    bounds = pairwise([*cut, len(costs)])
    return max(sum(cost.seconds for cost in costs[a:b]) for a, b in bounds)


@given(COSTS, st.integers(1, 4))
def test_no_other_cut_has_a_faster_slowest_stage(costs: list[LayerCost], stages: int) -> None:
    with_weights = sum(cost.parameters > 0 for cost in costs)
    if stages > with_weights:
        with pytest.raises(InputError, match=f"only {with_weights} of"):
            balance(costs, stages)
        return
    found = balance(costs, stages)
    check_cut(found, [cost.parameters for cost in costs], stages)
    possible = []
    for rest in combinations(range(1, len(costs)), stages - 1):
        cut = (0, *rest)
        parts = pairwise([*cut, len(costs)])
        if all(any(cost.parameters for cost in costs[a:b]) for a, b in parts):
            possible.append(cut)
    assert slowest(costs, found) == min(slowest(costs, cut) for cut in possible)


def test_of_equally_fast_cuts_the_one_that_sends_least_wins() -> None:
    costs = [LayerCost("a", 1, 5, 900), LayerCost("b", 0, 0, 10), LayerCost("c", 1, 5, 1)]
    assert balance(costs, 2) == (0, 2)


@pytest.mark.parametrize(
    ("cut", "problem"),
    [
        ((0,), "not 2 rising layer numbers"),
        ((1, 2), "not 2 rising layer numbers"),
        ((0, 0), "not 2 rising layer numbers"),
        ((0, 9), "not 2 rising layer numbers"),
        ((0, 1), "stage 0 has no layer with weights"),
    ],
)
def test_a_wrong_cut_by_hand_is_refused(cut: tuple[int, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_cut(cut, [0, 5, 5], 2)


def test_measuring_gives_each_layer_a_time_and_its_size() -> None:
    layers = danq_layers("small", Shape(300, 4))
    costs = measure(layers, torch.zeros(5, 300, dtype=torch.uint8), seed=0, repeats=1)
    assert [cost.name for cost in costs] == [layer.name for layer in layers]
    assert all(cost.seconds > 0 for cost in costs)
    assert costs[0].output_bytes == 5 * 4 * 300 * 4
    assert [cost.parameters > 0 for cost in costs] == [
        False, True, False, True, False, True, True,
    ]  # fmt: skip

"""Cuts that need no measuring: as DeepSpeed makes them; and the refusals."""

from __future__ import annotations

import pytest
from deepspeed.runtime.utils import partition_balanced, partition_uniform
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import InputError
from trainer.grid import Grid
from trainer.planning.cut import check_cut, check_stages, parameters_cut, plain_cut, uniform_cut


@given(st.integers(1, 40), st.integers(1, 12))
def test_uniform_is_deepspeeds(layers: int, parts: int) -> None:
    if parts <= layers:
        assert [*uniform_cut(layers, parts), layers] == list(partition_uniform(layers, parts))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 6))
def test_parameters_is_deepspeeds(parameters: list[int], parts: int) -> None:
    if parts <= len(parameters):
        theirs = [int(bound) for bound in partition_balanced(parameters, parts)]
        assert [*parameters_cut(parameters, parts), len(parameters)] == theirs


def test_a_cut_is_named_or_given() -> None:
    assert plain_cut([5, 5, 5, 5], 2, "uniform") == (0, 2)
    assert plain_cut([1, 1, 1, 9], 2, "parameters") == (0, 3)
    assert plain_cut([1, 1, 1, 9], 2, (0, 1)) == (0, 1)
    assert plain_cut([1, 1], 1, "measured") == (0,)
    with pytest.raises(ValueError, match="needs measurements"):
        plain_cut([1, 1], 2, "measured")


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
        check_cut(cut, [0, 5, 5], Grid(2, 1))


def test_a_stage_of_dualpipev_has_two_parts() -> None:
    folded = Grid(2, 1, folded=True)
    check_cut((0, 1, 2, 3), [5, 5, 5, 5], folded)
    with pytest.raises(InputError, match="not 4 \\(two a stage\\) rising"):
        check_cut((0, 2), [5, 5, 5, 5], folded)
    with pytest.raises(InputError, match="part 1 has no layer with weights"):
        check_cut((0, 1, 2, 3), [5, 0, 5, 5, 5], folded)


def test_more_stages_than_layers_with_weights_are_refused() -> None:
    check_stages([0, 5, 5], Grid(2, 3))
    with pytest.raises(InputError, match="3 stages, but only 2 of the network's 3 layers") as error:
        check_stages([0, 5, 5], Grid(3, 1))
    assert "use --stages 2 or fewer" in str(error.value)
    with pytest.raises(InputError, match="a stage of DualPipeV needs at least two") as error:
        check_stages([0, 5, 5, 5, 5, 5], Grid(3, 1, folded=True))
    assert "use --stages 2 or fewer" in str(error.value)

"""Predictions of a step, and the ranking of all grids."""

from __future__ import annotations

import pytest

from data_shards.errors import InputError
from tests.trainer.planning.examples import layer
from trainer.config import RunConfig
from trainer.grid import BatchLayout, Grid
from trainer.planning.conditions import Conditions
from trainer.planning.costs import LayerCost
from trainer.planning.hardware import Hardware, Link
from trainer.planning.prediction import Prediction, predict
from trainer.planning.ranking import layouts, rank

FREE = Link(0.0, float("inf"))
COSTS = [layer(1.0), layer(1.0), layer(1.0), layer(1.0)]


def config(batch_size: int = 16, **grid: object) -> RunConfig:
    return RunConfig.model_validate({"recipe": "x", "batch_size": batch_size, "grid": grid})


def hardware(
    nodes: int = 1, per_node: int = 4, link: Link = FREE, cores: float | None = None
) -> Hardware:
    return Hardware(nodes, per_node, link, link, None, cores)


def predicted(
    grid: Grid,
    micro_batches: int,
    costs: list[LayerCost] = COSTS,
    *,
    on: Hardware | None = None,
    update: float = 0.0,
    **options: object,
) -> Prediction:
    on, run = on or hardware(), config(**options)
    layout = BatchLayout(16, grid.replicas, micro_batches)
    return predict(costs, layout, Conditions.of(run, grid, layout, on, update), on, run.grid.cut)


def test_one_worker_takes_its_passes_and_the_optimizers_step() -> None:
    found = predicted(Grid(1, 1), 4, update=0.5)
    assert found.seconds == pytest.approx(4 * 4.0 + 20 * 0.5)
    assert found.samples_per_second == pytest.approx(16 / found.seconds)
    assert (found.bubble, found.transfer, found.reduce) == (0.0, 0.0, 0.0)
    assert found.update == pytest.approx(10.0)


def test_equal_stages_have_the_textbook_step_and_bubble() -> None:
    found = predicted(Grid(4, 1), 4)
    assert found.seconds == pytest.approx(4 + 3)
    assert found.bubble == pytest.approx(3 / 7)
    assert found.cut == (0, 1, 2, 3)


def test_replicas_average_over_a_ring() -> None:
    link = Link(0.25, 80.0)
    found = predicted(Grid(1, 4), 1, on=hardware(link=link))
    # 20 weights of 4 bytes: 2 * 3 messages of a quarter of 80 bytes.
    assert found.reduce == pytest.approx(6 * (0.25 + 20 / 80))
    assert found.seconds == pytest.approx(4.0 + found.reduce)
    shared = predicted(Grid(1, 4), 1, on=hardware(link=link), zero=1, update=1.0)
    assert shared.reduce == pytest.approx(found.reduce + 80 / 80 + 4 * 0.25)
    assert shared.update == pytest.approx(20 / 4)


def test_workers_that_share_cores_take_longer() -> None:
    alone = predicted(Grid(4, 1), 4)
    shared = predicted(Grid(4, 1), 4, on=hardware(cores=1.0))
    assert shared.seconds == pytest.approx(16.0), "all that is to be computed, one after the other"
    assert shared.sharing == pytest.approx(16 / 7)
    assert (alone.sharing, shared.timeline) == (1.0, alone.timeline)


def test_a_given_cut_and_the_other_methods_are_predicted_too() -> None:
    costs = [layer(3.0), layer(1.0), layer(1.0, parameters=50), layer(1.0)]
    assert predicted(Grid(2, 1), 4, costs).cut == (0, 1)
    assert predicted(Grid(2, 1), 4, costs, cut="uniform").cut == (0, 2)
    assert predicted(Grid(2, 1), 4, costs, cut="parameters").cut == (0, 2)
    given = predicted(Grid(2, 1), 4, costs, cut=[0, 3])
    assert given.cut == (0, 3)
    assert given.seconds > predicted(Grid(2, 1), 4, costs).seconds
    with pytest.raises(InputError, match="not 2 rising"):
        predicted(Grid(2, 1), 4, costs, cut=[0, 4])


def test_all_grids_and_all_numbers_of_micro_batches_are_listed() -> None:
    listed = list(layouts(config(6), hardware(), [5, 5]))
    possible = {
        (grid.stages, grid.replicas, layout.micro_batches)
        for grid, layout, _ in listed
        if layout is not None
    }
    assert possible == {
        *((1, 1, m) for m in (1, 2, 3, 6)),
        *((1, 2, m) for m in (1, 3)),
        *((1, 3, m) for m in (1, 2)),
        *((2, 1, m) for m in (1, 2, 3, 6)),
        *((2, 2, m) for m in (1, 3)),
    }
    refused = {(grid.stages, grid.replicas): why for grid, layout, why in listed if layout is None}
    assert "does not divide over 4 replicas" in refused[1, 4]
    assert "3 stages, but only 2" in refused[3, 1]


def test_fixed_micro_batches_and_dualpipev_narrow_the_list() -> None:
    fixed = list(layouts(config(6, micro_batches=3), hardware(), [5, 5]))
    assert {layout.micro_batches for _, layout, _ in fixed if layout} == {3}
    folded = list(layouts(config(8, schedule="dualpipev"), hardware(), [5] * 4))
    counts = {(g.stages, layout.micro_batches) for g, layout, _ in folded if layout}
    assert counts == {(1, 2), (1, 4), (1, 8), (2, 4), (2, 8)}
    assert all(grid.folded for grid, _, _ in folded)


def linear_costs(micro_batch: int, activations: int = 0) -> list[LayerCost]:
    """Time in proportion to samples, and a fixed part."""
    seconds = 0.01 + micro_batch / 16
    return [layer(seconds, activations=activations * micro_batch) for _ in range(4)]


def test_the_fastest_comes_first_and_the_refused_last() -> None:
    measured = {1: linear_costs(1), 16: linear_costs(16)}
    ranked = rank(measured, config(), hardware())
    speeds = [c.prediction.samples_per_second for c in ranked if c.prediction]
    assert speeds == sorted(speeds, reverse=True)
    assert ranked[0].grid == Grid(1, 4), "free averaging and no bubble"
    assert [bool(c.refused) for c in ranked] == sorted(bool(c.refused) for c in ranked)
    assert {c.refused for c in ranked if c.refused} == {
        "batch size 16 does not divide over 3 replicas"
    }
    slow = rank(measured, config(), hardware(link=Link(2.0, 1e9)))
    assert slow[0].grid == Grid(1, 1), "no link is worth that latency"


def test_micro_batches_that_were_not_measured_are_refused() -> None:
    ranked = rank({1: linear_costs(1), 4: linear_costs(4)}, config(), hardware(per_node=1))
    refused = {c.layout.micro_batch: c.refused for c in ranked if c.refused and c.layout}
    assert set(refused) == {8, 16}
    assert "not measured (up to 4)" in refused[8]


def test_memory_decides_what_is_possible_and_how() -> None:
    measured = {1: linear_costs(1, 1000), 16: linear_costs(16, 1000)}
    # One worker with all samples at once keeps 64 kB of activations; small micro-batches, 4 kB.
    ranked = rank(measured, config(memory_gb=2e-5, recompute="off"), hardware())
    alone = [c for c in ranked if c.grid == Grid(1, 1)]
    assert {c.layout.micro_batch for c in alone if c.layout} == {1, 2, 4, 8, 16}
    assert {c.layout.micro_batch for c in alone if c.layout and c.prediction} == {1, 2, 4}
    for candidate in ranked:
        if candidate.prediction:
            assert max(candidate.prediction.bytes) <= 2e4
    nothing = rank(measured, config(memory_gb=1e-7), hardware())
    assert all("GB at least" in c.refused or "divide" in c.refused for c in nothing)


def test_zero_is_taken_where_it_is_needed() -> None:
    costs = {16: [layer(1.0, parameters=250) for _ in range(4)]}
    # Weights, gradients and RMSprop's state: 12 kB; two replicas average 4 kB more.
    plain = rank(costs, config(32, micro_batches=1, memory_gb=17e-6), hardware(per_node=2))
    assert {c.zero for c in plain if c.prediction} == {0}
    tight = rank(costs, config(32, micro_batches=1, memory_gb=15e-6), hardware(per_node=2))
    [both] = [c for c in tight if c.grid == Grid(1, 2)]
    assert both.prediction is not None
    assert both.zero == 1
    asked = rank(costs, config(32, micro_batches=1, zero=1), hardware(per_node=2))
    assert {c.zero for c in asked if c.prediction} == {1}

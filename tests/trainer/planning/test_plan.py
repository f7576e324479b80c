"""The plan of a run: when layers are measured, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from tests.trainer.planning.examples import layer
from trainer.config import RunConfig
from trainer.grid import BatchLayout, Grid, grid_of
from trainer.planning.costs import CostCache
from trainer.planning.plan import hardware_here, plan_network
from trainer.recipe import Layer
from trainer.results import StagePlan

LAYERS = [
    Layer("a", lambda: nn.Linear(64, 64)),
    Layer("relu", nn.ReLU),
    Layer("b", lambda: nn.Linear(64, 64)),
    Layer("c", lambda: nn.Linear(64, 64)),
    Layer("d", lambda: nn.Linear(64, 64)),
]


def plan(
    asked: list[int] | None = None, cache: CostCache | None = None, **grid: object
) -> StagePlan:
    config = RunConfig.model_validate(
        {"recipe": "x", "batch_size": 64, "grid": {"micro_batches": 8, **grid}}
    )

    def inputs() -> Tensor:
        if asked is not None:
            asked.append(1)
        return torch.zeros(8, 64)

    return plan_network(
        LAYERS,
        inputs,
        config=config,
        grid=grid_of(config.grid),
        layout=BatchLayout(64, 1, 8),
        method=config.grid.cut,
        cache=cache,
    )


@pytest.mark.parametrize(
    "grid",
    [
        {"stages": 1},
        {"stages": 2, "cut": "uniform"},
        {"stages": 2, "cut": "parameters"},
        {"stages": 2, "cut": [0, 3]},
        {"stages": 2, "cut": [0, 3], "recompute": "on"},
    ],
)
def test_nothing_is_measured_where_nothing_is_chosen_by_it(grid: dict[str, object]) -> None:
    asked: list[int] = []
    found = plan(asked, **grid)
    assert asked == []
    assert found.costs == ()
    assert found.parameters == (4160, 0, 4160, 4160, 4160)
    assert found.method == ("given" if grid.get("cut") == [0, 3] else grid.get("cut", "measured"))
    assert found.recompute == (grid.get("recompute") == "on",) * len(found.cut)


def test_a_measured_cut_is_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [layer(seconds) for seconds in (1, 0, 1, 1, 5)]
    monkeypatch.setattr("trainer.planning.plan.measure_cached", lambda *a, **k: costs)
    asked: list[int] = []
    found = plan(asked, stages=2)
    assert asked == [1]
    assert found.cut == (0, 4)
    assert (found.method, found.costs, found.recompute) == (
        "measured", tuple(costs), (False, False),
    )  # fmt: skip


def test_measured_costs_are_kept(tmp_path: Path) -> None:
    first = plan(cache=CostCache(tmp_path), stages=2)
    assert [cost.name for cost in first.costs] == [given.name for given in LAYERS]
    assert plan(cache=CostCache(tmp_path), stages=2) == first


def test_dualpipev_has_two_parts_a_stage() -> None:
    found = plan(stages=2, schedule="dualpipev", recompute="on")
    assert len(found.cut) == len(found.recompute) == 4
    assert found.stages == 2
    assert [found.stage_of(layer) for layer in (0, 4)] == [0, 0]
    assert found.stage_of(found.cut[1]) == found.stage_of(found.cut[2]) == 1


def test_a_memory_limit_is_kept_or_refused_whatever_the_method() -> None:
    # A layer: 17 kB weights, as much gradient and RMSprop's state; 2 kB of activations.
    for method in ("measured", "uniform", [0, 2]):
        found = plan(stages=2, cut=method, memory_gb=0.001)
        assert found.costs
        assert found.recompute == (False, False)
        with pytest.raises(InputError, match="GB at least"):
            plan(stages=2, cut=method, memory_gb=1e-5)
    with pytest.raises(InputError, match=r"no cut fits: a stage may take 0\.0001 GB"):
        plan(stages=1, memory_gb=0.0001)


def test_impossible_stages_are_refused_before_anything_is_measured() -> None:
    asked: list[int] = []
    with pytest.raises(InputError, match="5 stages, but only 4"):
        plan(asked, stages=5, cut="uniform")


def test_a_worker_knows_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    here = hardware_here(torch.device("cpu"), Grid(3, 2))
    assert (here.nodes, here.per_node) == (2, 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert hardware_here(torch.device("cpu"), Grid(3, 2)).nodes == 1

"""Memory of a stage: rules by hand, and a real training step that takes as much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from trainer.config import OptimizerConfig, RunConfig
from trainer.planning.costs import LayerCost
from trainer.planning.measuring import measure
from trainer.planning.memory import Upkeep, kept_weights, stage_bytes, state_factor
from trainer.planning.tables import Tables
from trainer.recipe import Layer, build_layer

COSTS = [
    LayerCost("a", 1, 1, parameters=10, parameter_bytes=40, output_bytes=7, activation_bytes=100),
    LayerCost("b", 1, 1, parameters=2, parameter_bytes=12, output_bytes=3, activation_bytes=50),
    LayerCost("c", 1, 1, parameters=4, parameter_bytes=16, output_bytes=9, activation_bytes=30),
]


def taken(start: int, stop: int, alive: int, upkeep: Upkeep, *, recompute: bool = False) -> float:
    pieces = [(np.array(start), np.array(stop))]
    tables = Tables.of(COSTS)
    return float(stage_bytes(tables, pieces, [(alive,)], upkeep, recompute=recompute))


def test_a_middle_stage_by_hand() -> None:
    sgd = Upkeep(state=1, ema=False, replicas=1, zero=False)
    own = 12 + 4 * 2 + 4 * 2  # weights with a buffer, gradients, momentum
    assert taken(1, 2, 3, sgd) == own + 3 * (50 + 2 * 7 + 3) + 7 + 3
    assert taken(1, 2, 3, sgd, recompute=True) == own + 3 * (2 * 7 + 3) + 50 + 7 + 3
    averaged = Upkeep(state=1, ema=True, replicas=1, zero=False)
    assert taken(1, 2, 3, averaged) - taken(1, 2, 3, sgd) == 4 * 2


def test_the_ends_receive_or_send_nothing() -> None:
    none = Upkeep(state=0, ema=False, replicas=1, zero=False)
    assert taken(0, 1, 2, none) == 80 + 2 * (100 + 7) + 7
    assert taken(2, 3, 1, none) == 32 + 30 + 2 * 3 + 3
    assert taken(0, 3, 1, none) == 68 + 64 + 180


def test_replicas_average_a_flat_copy_of_the_gradients() -> None:
    two = Upkeep(state=0, ema=False, replicas=2, zero=False)
    costs = [LayerCost("a", 1, 1, 1000, 4000, 0, 10)]
    pieces = [(np.array(0), np.array(1))]
    size = stage_bytes(Tables.of(costs), pieces, [(1,)], two, recompute=False)
    assert size == 4000 + 4000 + 4000


def test_zero_shares_out_whole_tensors() -> None:
    tables = Tables.of(COSTS)
    pieces = [(np.array(0), np.array(3))]
    zero = Upkeep(state=2, ema=False, replicas=4, zero=True)
    assert kept_weights(tables, pieces, zero) == 10, "the largest layer is not split"
    plain = Upkeep(state=2, ema=False, replicas=4, zero=False)
    assert kept_weights(tables, pieces, plain) == 16
    assert kept_weights(Tables.of([COSTS[1]] * 8), [(np.array(0), np.array(8))], zero) == 4


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        (OptimizerConfig(name="sgd"), 1),
        (OptimizerConfig(name="sgd", momentum=0.0), 0),
        (OptimizerConfig(name="adamw"), 2),
        (OptimizerConfig(name="rmsprop"), 1),
        (OptimizerConfig(name="rmsprop", momentum=0.9), 2),
    ],
)
def test_the_state_factor_is_what_torch_keeps(config: OptimizerConfig, factor: int) -> None:
    from trainer.optimizers import build_optimizer

    weight = nn.Parameter(torch.zeros(1000))
    weight.grad = torch.ones(1000)
    optimizer = build_optimizer(config, [("weight", weight)])
    optimizer.step()
    tensors = [
        value
        for value in optimizer.state[weight].values()
        if isinstance(value, torch.Tensor) and value.numel() == 1000
    ]
    assert state_factor(config) == len(tensors) == factor
    upkeep = Upkeep.of(RunConfig(recipe="x", optimizer=config), replicas=3)
    assert (upkeep.state, upkeep.replicas, upkeep.zero, upkeep.ema) == (factor, 3, False, False)


def test_activations_are_those_of_a_whole_network() -> None:
    layers = [
        Layer("conv", lambda: nn.Conv1d(4, 8, 3)),
        Layer("relu", nn.ReLU),
        Layer("flat", nn.Flatten),
        Layer("dense", lambda: nn.Linear(8 * 18, 16)),
        Layer("sigmoid", nn.Sigmoid),
        Layer("out", lambda: nn.Linear(16, 2)),
    ]
    x = torch.zeros(5, 4, 20)
    costs = measure(layers, x, seed=0, repeats=1)
    network = nn.Sequential(*(build_layer(layer, 0, i) for i, layer in enumerate(layers)))
    own = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(x)
    assert output.requires_grad
    assert sum(cost.activation_bytes for cost in costs) == sum(kept.values())

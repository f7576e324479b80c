"""Optimizers equal plain torch; ZeRO-1 shares their state without changing a bit."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from data_shards.errors import InputError
from trainer.config import OptimizerConfig
from trainer.optimizers import (
    _FOREACH_BELOW,
    Named,
    build_optimizer,
    check_optimizer,
    owned,
    owner_of,
    share_weights,
)

CONFIGS = (
    OptimizerConfig(name="sgd", lr=0.1, momentum=0.8, weight_decay=0.01),
    OptimizerConfig(name="sgd", lr=0.1, nesterov=True, weight_decay=0.01),
    OptimizerConfig(name="adamw", lr=0.01, momentum=0.8, beta2=0.9, eps=1e-6, weight_decay=0.1),
    OptimizerConfig(name="rmsprop", lr=0.01, alpha=0.8, momentum=0.5, weight_decay=0.01),
)
STEPS = 4


class Parts(nn.Module):
    """Parameters of many shapes: a scalar, vectors, a transposed matrix, a frozen one, float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(8, 6)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.LayerNorm(6)
        self.lstm = nn.LSTM(6, 5)
        self.transposed = nn.Parameter(torch.randn(4, 7).t())
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.precise = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))


def named_of(module: nn.Module) -> Named:
    return list(module.named_parameters())


def set_gradients(named: Named, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for _, parameter in named:
        if parameter.requires_grad:
            values = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
            parameter.grad = values


def run(optimizer: torch.optim.Optimizer, named: Named) -> None:
    for step in range(STEPS):
        set_gradients(named, step)
        optimizer.step()


def torch_s_own(config: OptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    decay = {"lr": config.lr, "weight_decay": config.weight_decay, "foreach": False}
    momentum = config.effective_momentum
    if config.name == "sgd":
        return torch.optim.SGD(parameters, momentum=momentum, nesterov=config.nesterov, **decay)
    if config.name == "adamw":
        betas = (momentum, config.beta2)
        return torch.optim.AdamW(parameters, betas=betas, eps=config.effective_eps, **decay)
    return torch.optim.RMSprop(
        parameters, alpha=config.alpha, eps=config.effective_eps, momentum=momentum, **decay
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_steps_equal_torch_s_optimizer_to_the_bit(config: OptimizerConfig) -> None:
    ours, plain = named_of(Parts()), named_of(Parts())
    run(build_optimizer(config, ours), ours)
    run(torch_s_own(config, [p for _, p in plain if p.requires_grad]), plain)
    for (name, mine), (_, expected) in zip(ours, plain, strict=True):
        assert torch.equal(mine, expected), name


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_one_call_for_all_and_one_call_each_agree_to_the_bit(config: OptimizerConfig) -> None:
    results = []
    for foreach in (False, True):
        named = named_of(Parts())
        optimizer = build_optimizer(config, named)
        for group in optimizer.param_groups:
            group["foreach"] = foreach
        run(optimizer, named)
        results.append([parameter for _, parameter in named])
    assert all(map(torch.equal, *results))


def test_only_large_networks_on_a_cpu_are_stepped_one_parameter_a_call() -> None:
    small, large = (nn.Parameter(torch.zeros(size)) for size in (_FOREACH_BELOW - 1, 1))
    config = OptimizerConfig()
    assert build_optimizer(config, [("a", small)]).param_groups[0]["foreach"] is True
    both = [("a", small), ("b", large)]
    assert build_optimizer(config, both).param_groups[0]["foreach"] is False


def test_parameters_that_require_no_gradient_are_left_out() -> None:
    module = Parts()
    [group] = build_optimizer(OptimizerConfig(), named_of(module)).param_groups
    assert len(group["params"]) == len(named_of(module)) - 2
    assert all(parameter.requires_grad for parameter in group["params"])


def test_biases_norms_and_scalars_are_spared_from_decay_on_demand() -> None:
    module = Parts()
    config = OptimizerConfig(name="sgd", lr=1.0, momentum=0, weight_decay=0.5, decay_all=False)
    optimizer = build_optimizer(config, named_of(module))
    before = {name: parameter.detach().clone() for name, parameter in named_of(module)}
    for _, parameter in named_of(module):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    halved = {n for n, p in named_of(module) if not torch.equal(p, before[n])}
    weights = {"linear.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "transposed", "precise"}
    assert halved == weights
    assert all(torch.equal(p, before[n] / 2) for n, p in named_of(module) if n in weights)


def test_decay_reaches_every_parameter_by_default() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    [group] = build_optimizer(OptimizerConfig(weight_decay=0.5), named_of(module)).param_groups
    assert group["weight_decay"] == 0.5
    assert len(group["params"]) == 4


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("decay_all", [True, False])
def test_a_stage_without_parameters_has_an_optimizer_that_steps(
    config: OptimizerConfig, decay_all: bool
) -> None:
    named = [("frozen", nn.Parameter(torch.ones(2), requires_grad=False))]
    optimizer = build_optimizer(config.model_copy(update={"decay_all": decay_all}), named)
    optimizer.step()
    assert [group["params"] for group in optimizer.param_groups] == [[]]
    assert optimizer.param_groups[0]["lr"] == config.lr


def test_a_stage_of_norms_only_has_no_empty_group() -> None:
    config = OptimizerConfig(weight_decay=0.1, decay_all=False)
    [group] = build_optimizer(config, named_of(nn.LayerNorm(3))).param_groups
    assert (len(group["params"]), group["weight_decay"]) == (2, 0.0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (OptimizerConfig(name="adamw", nesterov=True), 'optimizer "adamw" has no Nesterov'),
        (OptimizerConfig(name="rmsprop", nesterov=True), 'optimizer "rmsprop" has no Nesterov'),
        (OptimizerConfig(name="sgd", nesterov=True, momentum=0), "optimizer.momentum is 0"),
    ],
)
def test_nesterov_without_momentum_of_sgd_is_refused(config: OptimizerConfig, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_optimizer(config)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_sound_settings_pass(config: OptimizerConfig) -> None:
    check_optimizer(config)


def blank(sizes: list[int]) -> Named:
    return [(f"p{i}", nn.Parameter(torch.empty(size))) for i, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 6))
def test_each_parameter_has_one_owner_and_loads_are_balanced(
    sizes: list[int], replicas: int
) -> None:
    named = blank(sizes)
    shares = [owned(named, replica, replicas) for replica in range(replicas)]
    assert sorted(name for share in shares for name, _ in share) == sorted(n for n, _ in named)
    assert owner_of(named, replicas) == {
        name: replica for replica, share in enumerate(shares) for name, _ in share
    }
    loads = [sum(parameter.numel() for _, parameter in share) for share in shares]
    assert max(loads) <= sum(sizes) / replicas + max(sizes, default=0) * (1 - 1 / replicas)


def test_shares_are_in_the_order_of_the_parameters_and_leave_out_frozen_ones() -> None:
    named = blank([5, 90, 7, 80])
    named[0][1].requires_grad_(False)
    assert owner_of(named, 2) == {"p1": 0, "p2": 1, "p3": 1}
    assert list(owner_of(named, 2)) == ["p1", "p2", "p3"]
    assert [name for name, _ in owned(named, 1, 2)] == ["p2", "p3"]


def state_elements(optimizer: torch.optim.Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(t.numel() for t in tensors if isinstance(t, torch.Tensor) and t.ndim)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("replicas", [2, 3, 4])
def test_state_is_one_part_in_replicas(config: OptimizerConfig, replicas: int) -> None:
    def stack() -> Named:
        return named_of(nn.Sequential(*(nn.Linear(10, 10) for _ in range(12))))

    def state(named: Named) -> int:
        optimizer = build_optimizer(config, named)
        run(optimizer, named)
        return state_elements(optimizer)

    whole = state(stack())
    shares = [state(owned(stack(), replica, replicas)) for replica in range(replicas)]
    assert whole > 0
    assert shares == [whole // replicas] * replicas


def step_sharded(rank: int, replicas: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=replicas
    )
    group = dist.group.WORLD
    assert group is not None
    results: list[Any] = []
    for config in CONFIGS:
        named, whole = named_of(Parts()), named_of(Parts())
        run(build_optimizer(config, whole), whole)
        owners = owner_of(named, replicas)
        optimizer = build_optimizer(config, owned(named, rank, replicas))
        for step in range(STEPS):
            set_gradients(named, step)
            optimizer.step()
            share_weights(named, owners, group)
        results.append([torch.equal(p, q) for (_, p), (_, q) in zip(named, whole, strict=True)])
        assert [p.stride() for _, p in named] == [p.stride() for _, p in whole]
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_that_share_the_state_end_with_the_bits_of_the_whole_optimizer(
    replicas: int, tmp_path: Path
) -> None:
    mp.spawn(step_sharded, args=(replicas, str(tmp_path)), nprocs=replicas)
    for rank, config in product(range(replicas), range(len(CONFIGS))):
        equal = torch.load(tmp_path / f"{rank}.pt")[config]
        assert equal == [True] * len(named_of(Parts())), (rank, config)

"""Where to cut a list of layers into stages: measured times, balanced by dynamic programme."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from trainer.layers import KeyedDropout
from trainer.recipe import Layer, build_layer, trainable


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs for one micro-batch.

    Attributes:
        name: of the layer.
        seconds: forward plus backward.
        parameters: trainable weights.
        output_bytes: size of what it hands on.
    """

    name: str
    seconds: float
    parameters: int
    output_bytes: int

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def measure(
    layers: Sequence[Layer], inputs: Tensor, seed: int, repeats: int = 3
) -> list[LayerCost]:
    """Time each layer on the device of ``inputs``, on real data, one layer in memory at a time.

    Args:
        layers: the network.
        inputs: one micro-batch as the first layer gets it.
        seed: of the run; the layers are built as training will build them.
        repeats: the least of so many timings counts, after one that warms up.

    Returns:
        One cost a layer.
    """
    costs: list[LayerCost] = []
    x = inputs
    for index, layer in enumerate(layers):
        module = build_layer(layer, seed, index).to(x.device).train()
        best = float("inf")
        for _ in range(1 + repeats):
            seconds, output = _time(module, x)
            best = min(best, seconds)
        costs.append(
            LayerCost(layer.name, best, trainable(module), output.numel() * output.element_size())
        )
        x = output
    return costs


def _time(module: nn.Module, x: Tensor) -> tuple[float, Tensor]:
    """Time one forward and backward pass; return the seconds and the detached output."""
    for part in module.modules():
        if isinstance(part, KeyedDropout):
            part.position = 0
    module.zero_grad()
    x = x.detach().requires_grad_(x.is_floating_point())
    _synchronize(x)
    begin = time.perf_counter()
    output: Tensor = module(x)
    if output.requires_grad:
        output.backward(torch.ones_like(output))
    _synchronize(x)
    return time.perf_counter() - begin, output.detach()


def _synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def balance(costs: Sequence[LayerCost], stages: int) -> tuple[int, ...]:
    """Cut layers into contiguous stages so that the slowest stage is as fast as can be.

    Every stage gets at least one layer with weights: a stage without any has nothing to train.
    Among equally fast cuts the one that hands on fewer bytes wins.

    Args:
        costs: one a layer.
        stages: how many.

    Returns:
        The first layer of each stage; the first is 0.

    Raises:
        InputError: there are more stages than layers with weights.
    """
    check_stages([cost.parameters for cost in costs], stages)
    n = len(costs)

    def price(start: int, stop: int) -> float | None:
        if not any(cost.parameters for cost in costs[start:stop]):
            return None
        return sum(cost.seconds for cost in costs[start:stop])

    # best[stop] is the best way to cut layers[:stop] into the stages placed so far:
    # (seconds of the slowest stage, bytes handed on, cut)
    best: dict[int, tuple[float, int, tuple[int, ...]]] = {0: (0.0, 0, ())}
    for _ in range(stages):
        longer: dict[int, tuple[float, int, tuple[int, ...]]] = {}
        for start, (slowest, handed, cut) in best.items():
            for stop in range(start + 1, n + 1):
                seconds = price(start, stop)
                if seconds is None:
                    continue
                sent = handed + (costs[stop - 1].output_bytes if stop < n else 0)
                found = (max(slowest, seconds), sent, (*cut, start))
                if stop not in longer or found < longer[stop]:
                    longer[stop] = found
        best = longer
    return best[n][2]


def check_stages(parameters: Sequence[int], stages: int) -> None:
    """Refuse more stages than there are layers with weights.

    Raises:
        InputError: says how many there can be.
    """
    most = sum(count > 0 for count in parameters)
    if stages > most:
        raise InputError(
            f"{stages} stages, but only {most} of the network's {len(parameters)} layers have "
            "weights, and a stage needs at least one",
            remedy=f"use --stages {most} or fewer (more replicas use more workers)",
        )


def check_cut(cut: Sequence[int], parameters: Sequence[int], stages: int) -> None:
    """Check a cut given by hand.

    Raises:
        InputError: it is not one rising list of ``stages`` first layers from 0, or it leaves a
            stage without weights.
    """
    check_stages(parameters, stages)
    bounds = [*cut, len(parameters)]
    rising = all(a < b for a, b in pairwise(bounds))
    if len(cut) != stages or cut[0] != 0 or not rising:
        raise InputError(
            f"grid.cut = {list(cut)} is not {stages} rising layer numbers from 0 below "
            f"{len(parameters)}",
            remedy="give the first layer of each stage, as [0, 4] for two stages",
        )
    for stage, (start, stop) in enumerate(pairwise(bounds)):
        if not any(parameters[start:stop]):
            raise InputError(
                f"grid.cut = {list(cut)}: stage {stage} has no layer with weights",
                remedy="move the cut so that each stage has a layer that trains",
            )

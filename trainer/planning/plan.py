"""Where a run cuts its network; called on one worker, which tells the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainer.config import CutMethod, RunConfig
from trainer.grid import BatchLayout, Grid
from trainer.planning.cached import measure_cached, warn
from trainer.planning.conditions import Conditions
from trainer.planning.costs import CostCache
from trainer.planning.cut import check_cut, check_stages, plain_cut
from trainer.planning.hardware import Hardware, default_links, default_overhead, device_memory
from trainer.planning.measuring import update_rate
from trainer.planning.prediction import choose_cut
from trainer.recipe import Activations, Layer, build_layer, trainable
from trainer.results import StagePlan


def plan_network(
    layers: Sequence[Layer],
    inputs: Callable[[], Activations],
    *,
    config: RunConfig,
    grid: Grid,
    layout: BatchLayout,
    method: CutMethod | tuple[int, ...],
    cache: CostCache | None,
    hardware: Hardware | None = None,
    note: Callable[[str], None] = warn,
) -> StagePlan:
    """Decide where to cut a network, and which parts compute their activations again.

    Layers are measured if the method is "measured" and there is something to cut, or if
    ``grid.memory_gb`` says that memory matters. Where nothing is measured, recompute "auto" means
    that no part computes again.

    Args:
        layers: the network.
        inputs: makes one micro-batch as the first layer gets it, on the device that will compute;
            called only if something is to be measured.
        config: of the run; says precision, optimizer, ZeRO, recomputing, memory limit.
        grid: the workers.
        layout: how batches are shared out.
        method: how to cut, or the first layer of each part.
        cache: where measured costs are kept; None keeps none.
        hardware: links and memory; None takes typical links and the device's memory. The nodes are
            as large as LOCAL_WORLD_SIZE says, or there is one.
        note: told of what a person should know.

    Raises:
        InputError: the network can't be cut so, or no such cut fits the memory.
    """
    names = tuple(layer.name for layer in layers)
    limited = config.grid.memory_gb is not None
    if not limited and (method != "measured" or grid.parts == 1):
        parameters = count_parameters(layers, config.seed)
        check_stages(parameters, grid)
        cut = plain_cut(parameters, grid.parts, method)
        check_cut(cut, parameters, grid)
        recompute = (config.grid.recompute == "on",) * grid.parts
        return StagePlan(names, parameters, cut, (), recompute, _name(method), grid.folded)
    batch = inputs()
    costs = measure_cached(
        layers, batch, config.seed, cache=cache, precision=config.precision, note=note
    )
    device = (batch if isinstance(batch, Tensor) else batch[0]).device
    conditions = Conditions.of(
        config,
        grid,
        layout,
        hardware or hardware_here(device, grid),
        update_rate(config.optimizer, costs, device),
    )
    found = choose_cut(costs, conditions, method)
    parameters = tuple(cost.parameters for cost in costs)
    return StagePlan(
        names, parameters, found.first, tuple(costs), found.recompute, _name(method), grid.folded
    )


def count_parameters(layers: Sequence[Layer], seed: int) -> tuple[int, ...]:
    """Count the trainable weights of each layer, one layer in memory at a time."""
    return tuple(trainable(build_layer(layer, seed, index)) for index, layer in enumerate(layers))


def hardware_here(device: torch.device, grid: Grid) -> Hardware:
    """Return what is known in a worker: its device, the number of workers on its node."""
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", grid.workers))
    within, network = default_links(device)
    return Hardware(
        nodes=-(-grid.workers // per_node),
        per_node=per_node,
        within=within,
        network=network,
        memory=device_memory(device, per_node),
        overhead=default_overhead(device),
    )


def _name(method: CutMethod | tuple[int, ...]) -> str:
    return method if isinstance(method, str) else "given"

"""``replisome plan``: which grid trains fastest on some nodes, predicted from measured layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from data_shards.order import sample_order
from jobs.configure import preflight
from jobs.console import Bars, Console
from jobs.ranking import draw_best, explain, plain, ranking_table, refusals
from trainer.config import RunConfig
from trainer.grid import BatchLayout
from trainer.recipe import Layer, shape_of
from trainer.recipes import get_recipe

if TYPE_CHECKING:
    import torch

    from trainer.planning.costs import LayerCost
    from trainer.planning.hardware import Hardware

_MEASURED_SIZES = 4


@dataclass(frozen=True)
class PlanRequest:
    """What a person asked for.

    Attributes:
        config: resolved configuration; its stages and replicas are not looked at.
        data: path or URL of the data set.
        nodes: equal nodes.
        gpus: workers a node; None takes what this machine has.
        bandwidth: bytes a second between two workers of a node; None takes a typical value.
        network: bytes a second between nodes; None takes a typical value.
        top: rows of the table.
        picture: file for the timeline of the best.
    """

    config: RunConfig
    data: str
    nodes: int = 1
    gpus: int | None = None
    bandwidth: float | None = None
    network: float | None = None
    top: int = 10
    picture: Path | None = None


def plan(request: PlanRequest, console: Console) -> dict[str, Any]:
    """Measure the recipe's layers here, predict all grids, and show the best.

    Returns:
        The result, as plain values.

    Raises:
        InputError: wrong input, or no grid can train the network.
    """
    from trainer.planning.measuring import threads, update_rate
    from trainer.planning.ranking import rank

    config = request.config
    if not isinstance(config.grid.cut, str):
        raise InputError(
            f"grid.cut = {list(config.grid.cut)} is for one number of stages, and all are tried",
            remedy='leave it out, or say grid.cut = "measured"',
        )
    data = ShardedDataset(request.data)
    preflight(_without_grid(config), data)
    device = _device(config)
    hardware, count = _hardware(request, device)
    layers = get_recipe(config.recipe).network.layers(config.size, shape_of(data.schema))
    with console.bars() as bars, threads(count):
        measured = _measure(config, data, layers, hardware, device, bars)
        update = update_rate(config.optimizer, measured[max(measured)], device)
        candidates = rank(
            measured,
            config,
            hardware,
            update,
            lambda done, total: bars.update("predicting grids", done, total),
        )
    best = candidates[0]
    if best.prediction is None:
        raise InputError(
            f"none of the grids of up to {hardware.workers} workers can train this: {best.refused}",
            remedy="give more nodes, GPUs or memory, or a smaller --batch-size",
        )
    where = describe_device(device, count)
    console.show(
        f"layers measured here, on {where}, with micro-batches of "
        f"{', '.join(str(size) for size in sorted(measured))} (linear in between);\n"
        f"predicted for {request.nodes} node(s) of {hardware.per_node} such workers"
    )
    console.show(ranking_table(candidates, request.top))
    for line in [*explain(candidates), *refusals(candidates)]:
        console.show(line)
    if request.picture is not None:
        draw_best(best, request.picture)
        console.show(f"timeline of the best: {request.picture}")
    return {
        "recipe": config.recipe,
        "data": request.data,
        "device": where,
        "nodes": hardware.nodes,
        "workers_per_node": hardware.per_node,
        "measured": {
            size: [cost.plain() for cost in costs] for size, costs in sorted(measured.items())
        },
        "candidates": [plain(candidate) for candidate in candidates],
        "picture": None if request.picture is None else str(request.picture),
        "seconds": console.seconds,
    }


def _without_grid(config: RunConfig) -> RunConfig:
    """Forget stages and replicas: all are tried."""
    alone = {"stages": 1, "replicas": 1, "cut": "measured", "schedule": "1f1b"}
    grid = config.grid.model_copy(update=alone | {"micro_batches": None})
    return config.model_copy(update={"grid": grid})


def _device(config: RunConfig) -> torch.device:
    """Return the device of this machine to measure on.

    Raises:
        InputError: a GPU was asked for, and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if config.grid.device == "gpu" and not there:
        raise InputError(
            "--device gpu: this machine has no GPU to measure on",
            remedy="run plan on a machine like those that will train, or say --device cpu",
        )
    return torch.device("cpu" if config.grid.device == "cpu" or not there else "cuda")


def _hardware(request: PlanRequest, device: torch.device) -> tuple[Hardware, int]:
    """Return the nodes asked for, and the threads with which each worker computes on a CPU."""
    import torch

    from trainer.planning.hardware import Hardware, default_links, default_overhead, device_memory

    cores = os.cpu_count() or 1
    on_gpu = device.type == "cuda"
    per_node = request.gpus or (torch.cuda.device_count() if on_gpu else cores)
    if request.nodes < 1 or per_node < 1:
        raise InputError("a plan needs a node and a worker", remedy="give --nodes and --gpus >= 1")
    threads = max(1, cores // per_node)
    within, network = default_links(device)
    if request.bandwidth is not None:
        within = replace(within, bandwidth=request.bandwidth, ring=None)
    if request.network is not None:
        network = replace(network, bandwidth=request.network)
    shared = not on_gpu and per_node > cores
    return Hardware(
        nodes=request.nodes,
        per_node=per_node,
        within=within,
        network=network,
        memory=device_memory(device, per_node),
        cores=float(cores) if shared else None,
        overhead=default_overhead(device),
    ), threads


def measured_sizes(sizes: Sequence[int], most: int = _MEASURED_SIZES) -> list[int]:
    """Choose which micro-batch sizes to measure: the ends, and some evenly by ratio between."""
    ordered = sorted(set(sizes))
    if len(ordered) <= most:
        return ordered
    low, high = ordered[0], ordered[-1]
    wanted = [low * (high / low) ** (number / (most - 1)) for number in range(most)]
    return sorted({min(ordered, key=lambda size: abs(size / want - 1)) for want in wanted})


def _measure(
    config: RunConfig,
    data: ShardedDataset,
    layers: list[Layer],
    hardware: Hardware,
    device: torch.device,
    bars: Bars,
) -> dict[int, list[LayerCost]]:
    """Measure the layers with some of the micro-batch sizes that grids would have."""
    import torch

    from trainer.feed import Feed
    from trainer.planning.cached import measure_cached
    from trainer.planning.costs import CostCache
    from trainer.planning.plan import count_parameters
    from trainer.planning.ranking import layouts

    parameters = count_parameters(layers, config.seed)
    possible = [layout for _, layout, _ in layouts(config, hardware, parameters) if layout]
    if not possible:
        raise InputError(
            f"no grid of up to {hardware.workers} workers is possible: "
            + "; ".join(sorted({why for _, _, why in layouts(config, hardware, parameters)})),
            remedy="give another --batch-size, or other settings of the grid",
        )
    order = sample_order(data.schema.split("train").samples, config.seed, config.shuffle)
    feed = Feed(data, "train", order, inputs=True, targets=False)
    measured: dict[int, list[LayerCost]] = {}
    for size in measured_sizes([layout.micro_batch for layout in possible]):
        [(inputs, _)] = feed.step(0, BatchLayout(size, 1, 1), 0)
        moved = (
            inputs.to(device)
            if isinstance(inputs, torch.Tensor)
            else tuple(tensor.to(device) for tensor in inputs)
        )
        try:
            measured[size] = measure_cached(
                layers,
                moved,
                config.seed,
                cache=CostCache.of_user(),
                precision=config.precision,
                advance=_layers_done(bars, size),
                note=bars.say,
            )
        except torch.OutOfMemoryError:
            bars.say(f"a layer alone does not fit {device} with a micro-batch of {size}")
            break
    if not measured:
        raise InputError(
            "a layer alone does not fit the device, even with the smallest micro-batch",
            remedy="give a smaller --batch-size, or measure on a device with more memory",
        )
    return measured


def _layers_done(bars: Bars, size: int) -> Callable[[int, int], None]:
    return lambda done, total: bars.update(f"measuring, micro-batch {size}", done, total)


def describe_device(device: torch.device, threads: int) -> str:
    """Name a device as people know it."""
    from trainer.planning.cached import device_name

    if device.type == "cuda":
        return device_name(device)
    model = device_name(device).rpartition(",")[0]
    return f"a CPU ({model}) with {threads} thread(s) a worker"

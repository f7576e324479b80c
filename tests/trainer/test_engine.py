"""The pipeline computes what one plain PyTorch process computes, to 1e-6."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.dataset import ShardedDataset
from tests.workers import on_workers
from trainer.config import OptimizerConfig
from trainer.engine import build_optimizer
from trainer.feed import Feed
from trainer.grid import BatchLayout, Grid
from trainer.layers import KeyedDropout
from trainer.recipe import build_layer, shape_of
from trainer.recipes.danq import danq_layers, loss
from trainer.stage import unpack_bits

STEPS, BATCH, SEED, CUT = 10, 32, 5, (0, 3)
OPTIMIZERS = (
    OptimizerConfig(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-3),
    OptimizerConfig(name="adamw", lr=1e-3, weight_decay=1e-2),
)
CLIPS = (0.0, 0.05)  # the gradient's norm is about 0.1 to 1: 0.05 always clips
MICRO_BATCHES = (1, 2, 8)

Trained = tuple[list[float], dict[str, np.ndarray]]


def train_plainly(
    data: ShardedDataset, optimizer: OptimizerConfig, replicas: int, micro_batches: int
) -> Trained:
    """Train in this process with nothing but PyTorch; return losses and weights.

    Gradients are accumulated over equal parts of the batch, as any plain script would that can't
    hold the batch at once. ``replicas = micro_batches = 1`` is the whole batch at once.
    """
    torch.set_num_threads(1)
    layers = danq_layers("small", shape_of(data.schema))
    network = nn.Sequential(*(build_layer(layer, SEED, i) for i, layer in enumerate(layers)))
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    dropouts = [part for part in network.modules() if isinstance(part, KeyedDropout)]
    torch_optimizer = build_optimizer(optimizer, weights)
    feed = Feed(data, "train", SEED, inputs=True, targets=True)
    whole = BatchLayout(BATCH, replicas=1, micro_batches=1)
    losses: list[float] = []
    for step in range(STEPS):
        [(codes, packed)] = feed.step(step, whole, replica=0)
        labels = unpack_bits(packed, len(data.schema.tasks))
        size = BATCH // (replicas * micro_batches)
        gradients: list[list[torch.Tensor]] = []
        values: list[float] = []
        for first in range(0, BATCH, BATCH // replicas):
            torch_optimizer.zero_grad()
            for begin in range(first, first + BATCH // replicas, size):
                for dropout in dropouts:
                    dropout.position = step * BATCH + begin
                part = slice(begin, begin + size)
                value = loss(network(codes[part]), labels[part])
                (value / micro_batches).backward()
                values.append(value.item())
            gradients.append([weight.grad.clone() for weight in weights])
        for weight, *parts in zip(weights, *gradients, strict=True):
            weight.grad = torch.stack(parts).mean(0)
        if optimizer.clip:
            norm = nn.utils.clip_grad_norm_(weights, optimizer.clip)
            assert norm > optimizer.clip, "the case must really clip"
        torch_optimizer.step()
        losses.append(sum(values) / len(values))
    return losses, {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def train_as_pipeline(
    data: Path, grid: Grid, cases: list[tuple[OptimizerConfig, int]], folder: Path
) -> list[Trained]:
    """Train each case on one warm worker group of the grid; return losses and merged weights."""
    steps, batch, seed, cut = STEPS, BATCH, SEED, CUT  # a nested function travels by value

    def work() -> list[Any]:
        import torch.distributed as dist

        from trainer.engine import Engine, prepare

        prepare("cpu")
        dataset = ShardedDataset(data)
        layers = danq_layers("small", shape_of(dataset.schema))
        tasks = len(dataset.schema.tasks)
        replica = grid.replica(dist.get_rank())
        results = []
        for optimizer, micro_batches in cases:
            layout = BatchLayout(batch, grid.replicas, micro_batches)
            engine = Engine(layers, cut, grid, layout, loss, tasks, optimizer, seed)
            feed = Feed(dataset, "train", seed, inputs=engine.is_first, targets=engine.is_last)
            losses = [
                float(engine.train_step(step, feed.step(step, layout, replica)))
                for step in range(steps)
            ]
            mine = {
                f"{index}.{name}": tensor.numpy().copy()
                for index, module in engine.stage.local_layers()
                for name, tensor in module.state_dict().items()
            }
            parts: list[Any] = [None] * grid.workers
            dist.all_gather_object(parts, mine)
            merged: dict[str, np.ndarray] = {}
            for part in parts:
                for name, tensor in part.items():
                    if name in merged:
                        assert np.array_equal(merged[name], tensor), "replicas drifted apart"
                    merged[name] = tensor
            results.append((losses, merged))
            engine.close()
        return results

    results: list[Trained] = on_workers(grid, work, folder)
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid", [Grid(2, 1), Grid(2, 2)], ids=["2-stages", "2-stages-x-2-replicas"]
)
def test_pipeline_equals_one_plain_process_to_1e_6(
    grid: Grid, danq_data: Path, tmp_path: Path
) -> None:
    configs = [
        optimizer.model_copy(update={"clip": clip})
        for optimizer, clip in product(OPTIMIZERS, CLIPS)
    ]
    cases = list(product(configs, MICRO_BATCHES))
    piped = train_as_pipeline(danq_data, grid, cases, tmp_path)
    data = ShardedDataset(danq_data)
    for (config, micro_batches), (losses, weights) in zip(cases, piped, strict=True):
        case = f"{config.name}, clip {config.clip}, {micro_batches} micro-batches"
        for replicas, parts in ((1, 1), (grid.replicas, micro_batches)):
            expected_losses, expected = train_plainly(data, config, replicas, parts)
            off = max(abs(a - b) for a, b in zip(losses, expected_losses, strict=True))
            far = max(float(np.abs(weights[name] - expected[name]).max()) for name in expected)
            print(f"{case}; plain {replicas} x {parts}: losses {off:.1e}, weights {far:.1e}")
            assert weights.keys() == expected.keys()
            assert off <= 1e-6, f"{case}: losses differ by {off:.1e}"
            # AdamW divides a gradient by its own size, so where that is all rounding the update is
            # noise of full size: its weights are compared with the same sums in the same order.
            if config.name == "sgd" or parts * replicas > 1 or micro_batches * grid.replicas == 1:
                assert far <= 1e-6, f"{case}: weights differ by {far:.1e}"

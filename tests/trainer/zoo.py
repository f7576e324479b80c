"""A network with one of every kind of layer, and the plain PyTorch that trains it.

What passes between its layers are tuples with floating-point tensors, one that carries no gradient,
integers, and one that a later layer does not read. There are no biases before batch norm and in
attention: their gradient is zero but for rounding, which AdamW and RMSprop blow up to full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from trainer.config import RunConfig
from trainer.layers import BiLSTM, KeyedDropout, OneHot
from trainer.learning_rate import learning_rate
from trainer.optimizers import build_optimizer
from trainer.recipe import Layer, build_layer

LENGTH, CHANNELS, NUMBERS, TASKS = 24, 8, 3, 2


class Scan(nn.Module):
    """(codes, numbers) -> (positions, numbers, kind of each sample); the numbers are constant."""

    def __init__(self) -> None:
        super().__init__()
        self.onehot, self.conv = OneHot(), nn.Conv1d(4, CHANNELS, 5, bias=False)

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        codes, numbers = x
        return self.conv(self.onehot(codes)), numbers, codes[:, 0].long()


class Normalise(nn.Module):
    """Batch norm and pooling; hands on a gate that nobody after the attention reads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(CHANNELS)

    def forward(self, x: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        positions, numbers, kind = x
        positions = max_pool1d(torch.relu(self.norm(positions)), 2)
        return positions, numbers, kind, torch.sigmoid(positions.mean(2))


class Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, bias=False, batch_first=True)
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        positions, numbers, kind, gate = x
        states = positions.transpose(1, 2)
        states = self.norm(states + self.attention(states, states, states, need_weights=False)[0])
        return states.transpose(1, 2), numbers, kind, gate


class Remember(nn.Module):
    """Bidirectional LSTM and dropout; the gate is read by nobody and still handed on."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.dropout = BiLSTM(CHANNELS, 4), KeyedDropout(0.3)

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        positions, numbers, kind, gate = x
        return self.dropout(self.lstm(positions)), numbers, kind, gate


class Join(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(5, 4)
        self.linear = nn.Linear(10 * 8 + NUMBERS + 4, 6)

    def forward(self, x: tuple[Tensor, ...]) -> Tensor:
        states, numbers, kind, _ = x
        joined = torch.cat([states.flatten(1), numbers, self.kinds(kind)], 1)
        return torch.relu(self.linear(joined))


LAYERS = (
    Layer("scan", Scan, constants=(1,)),
    Layer("normalise", Normalise, constants=(1,)),
    Layer("attend", Attend, constants=(1,)),
    Layer("remember", Remember, constants=(1,)),
    Layer("join", Join),
    Layer("tasks", lambda: nn.Linear(6, TASKS)),
)

MicroBatch = tuple[tuple[Tensor, Tensor], Tensor]


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs, targets)


def batch(step: int, size: int) -> MicroBatch:
    """Return the samples of a step: inputs (codes, numbers) and targets."""
    generator = torch.Generator().manual_seed(step)
    codes = torch.randint(0, 5, (size, LENGTH), generator=generator, dtype=torch.uint8)
    numbers = torch.randn(size, NUMBERS, generator=generator)
    return (codes, numbers), torch.randn(size, TASKS, generator=generator)


def part(samples: MicroBatch, start: int, stop: int) -> MicroBatch:
    (codes, numbers), targets = samples
    return (codes[start:stop], numbers[start:stop]), targets[start:stop]


def rate(config: RunConfig, step: int) -> float:
    return learning_rate(config.schedule, config.optimizer.lr, step, 20, 5.0, step // 3)


@dataclass
class Trained:
    """Losses of the steps, and tensors of the network (and averaged weights) after them."""

    losses: list[float] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    averages: dict[str, np.ndarray] = field(default_factory=dict)


def train_plainly(
    config: RunConfig, steps: int, replicas: int, micro_batch: int, layers: Sequence[Layer] = LAYERS
) -> Trained:
    """Train in one process with nothing but PyTorch, summing as the grid does.

    Batch norms' running statistics are those of the step: the mean over its micro-batches.
    """
    torch.set_num_threads(1)  # as the ranks: sums over more threads round otherwise
    modules = [build_layer(layer, config.seed, index) for index, layer in enumerate(layers)]
    network = nn.Sequential(*modules).train()
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    weights = [p for _, p in named]
    optimizer = build_optimizer(config.optimizer, named)
    dropouts = [m for m in network.modules() if isinstance(m, KeyedDropout)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
    averages = {name: p.detach().clone() for name, p in named}
    trained = Trained()
    share = config.batch_size // replicas
    for step in range(steps):
        samples = batch(step, config.batch_size)
        gradients: list[list[Tensor]] = []
        values: list[float] = []
        kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in norms]
        for first in range(0, config.batch_size, share):
            optimizer.zero_grad()
            for start in range(first, first + share, micro_batch):
                inputs, targets = part(samples, start, start + micro_batch)
                for dropout in dropouts:
                    dropout.position = step * config.batch_size + start
                for norm in norms:
                    norm.momentum = 1.0
                bf16 = config.precision == "bf16"
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    outputs = network(inputs)
                value = loss(outputs.float(), targets)
                (value * micro_batch / share).backward()
                values.append(value.item())
                for norm, pairs in zip(norms, seen, strict=True):
                    pairs.append((norm.running_mean.clone(), norm.running_var.clone()))
            gradients.append([weight.grad.clone() for weight in weights])
        for norm, (mean, variance), pairs in zip(norms, kept, seen, strict=True):
            means, variances = (torch.stack(column).mean(0) for column in zip(*pairs, strict=True))
            norm.running_mean.copy_(0.9 * mean + 0.1 * means)
            norm.running_var.copy_(0.9 * variance + 0.1 * variances)
        for weight, *parts in zip(weights, *gradients, strict=True):
            weight.grad = torch.stack(parts).mean(0)
        if config.optimizer.clip:
            assert nn.utils.clip_grad_norm_(weights, config.optimizer.clip) > config.optimizer.clip
        for group in optimizer.param_groups:
            group["lr"] = rate(config, step)
        optimizer.step()
        for name, weight in named:
            averages[name].lerp_(weight.detach(), 1 - config.optimizer.ema)
        trained.losses.append(sum(values) / len(values))
    trained.tensors = _arrays(dict(network.state_dict()))
    if config.optimizer.ema:
        trained.averages = _arrays(averages)
    return trained


def _arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {
        name: tensor.detach().numpy().copy()
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


def train_on_grid(cases: Sequence[tuple[RunConfig, int, Any]], steps: int) -> list[Trained]:
    """Train each case on the ranks that are there; every rank returns the whole.

    Args:
        cases: configuration, samples of a micro-batch, and the cut (``trainer.stage.Cut``).
        steps: of the optimizer.
    """
    import torch.distributed as dist

    from trainer.engine import Engine, prepare
    from trainer.grid import BatchLayout, grid_of

    prepare("cpu")
    results: list[Trained] = []
    for config, micro_batch, cut in cases:
        grid = grid_of(config.grid)
        share = config.batch_size // grid.replicas
        layout = BatchLayout(config.batch_size, grid.replicas, share // micro_batch)
        engine = Engine(LAYERS, cut, grid, layout, loss, lambda targets: targets, config)
        trained = Trained()
        for step in range(steps):
            samples = batch(step, config.batch_size)
            first = engine.replica * share
            micro_batches = [
                part(samples, start, start + micro_batch)
                for start in range(first, first + share, micro_batch)
            ]
            value = engine.train_step(step, micro_batches, rate(config, step))
            trained.losses.append(float(value))
        mine = {
            f"{index}.{name}": tensor
            for index, module in engine.stage.local_layers()
            for name, tensor in module.state_dict().items()
        }
        averages = dict(engine.average.tensors) if engine.average else {}
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (_arrays(mine), _arrays(averages)))
        for weights, averaged in parts:
            for target, found in ((trained.tensors, weights), (trained.averages, averaged)):
                for name, array in found.items():
                    if name in target:
                        assert np.array_equal(target[name], array), f"replicas differ in {name}"
                    target[name] = array
        results.append(trained)
        engine.close()
    return results

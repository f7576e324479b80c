"""A small network of awkward layers, trained and saved as one process does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoint.format import step_folder
from trainer.checkpoint.reader import Checkpoint
from trainer.checkpoint.snapshot import LayerState, layer_state
from trainer.checkpoint.writer import CheckpointWriter

NAMES = ("scale", "norm", "dense", "dense", "pool", "head")
"""Two layers of one name, and one without weights."""


class Twice(nn.Module):
    """Applies one weight under two names, and has a frozen one and a computed buffer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.register_buffer("computed", torch.arange(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class Scale(nn.Module):
    """A scalar parameter, and one in bfloat16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))
        self.shift = nn.Parameter(torch.randn(width, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.shift.float()


def network(seed: int, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        Scale(width),
        nn.BatchNorm1d(width),
        Twice(width),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 2),
    )


def optimizer_of(kind: str, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    if kind == "sgd":
        return torch.optim.SGD(chosen, lr=0.05)
    if kind == "momentum":
        return torch.optim.SGD(chosen, lr=0.05, momentum=0.9, nesterov=True)
    if kind == "adamw":
        return torch.optim.AdamW(chosen, lr=0.01)
    if kind == "amsgrad":
        return torch.optim.AdamW(chosen, lr=0.01, amsgrad=True)
    if kind == "rmsprop":
        return torch.optim.RMSprop(chosen, lr=0.01, momentum=0.0)
    if kind == "rmsprop-momentum":
        return torch.optim.RMSprop(chosen, lr=0.01, momentum=0.9)
    raise ValueError(kind)


KINDS = ("sgd", "momentum", "adamw", "amsgrad", "rmsprop", "rmsprop-momentum")


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """Take steps on batches that depend on the step only; return the losses."""
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 6, generator=generator)
        optimizer.zero_grad()
        loss = (net(x) - x[:, :2].sin()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def states_of(
    net: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    ema: Sequence[Mapping[str, Tensor]] | None = None,
    **options: Any,
) -> list[LayerState]:
    options = {"weights": True, **options}
    return [
        layer_state(index, name, module, optimizer, ema[index] if ema else None, **options)
        for index, (name, module) in enumerate(zip(NAMES, net, strict=True))
    ]


def writer_of(folder: Path, **options: Any) -> CheckpointWriter:
    """Return the writer of a single worker."""
    options = {"rank": 0, "workers": 1, "layers": NAMES, "attempt": "a", "keep": 2, **options}
    return CheckpointWriter(folder, **options)


def save(
    folder: Path, step: int, states: list[LayerState], progress: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Save and open again."""
    writer = writer_of(folder)
    writer.save(step, states, progress)
    assert writer.close(60)
    assert writer.faults() == []
    return Checkpoint.open(folder / step_folder(step))


def saved(folder: Path, step: int = 3, kind: str = "adamw") -> Checkpoint:
    """Save a trained network."""
    net = network(0)
    optimizer = optimizer_of(kind, list(net.parameters()))
    train(net, optimizer, range(step))
    return save(folder, step, states_of(net, optimizer), {"epoch": 1})

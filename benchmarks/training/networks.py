"""The networks that are trained: layers, loss, optimizer, and batches drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    cross_entropy,
    gelu,
    max_pool1d,
    max_pool2d,
    mse_loss,
    poisson_nll_loss,
)

from trainer.config import OptimizerConfig
from trainer.layers import BASES, KeyedDropout, OneHot
from trainer.objective import Decode, unpack_bits
from trainer.recipe import Activations, Layer, Loss, Shape
from trainer.recipes.danq import RECIPE, danq_layers

Batch = tuple[Activations, Tensor]


@dataclass(frozen=True)
class Workload:
    """One network, and what it is trained on.

    Attributes:
        name: as the tables show it.
        about: its sizes, in a line.
        layers: of the network.
        loss: from outputs and decoded targets to a scalar.
        decode: from targets as they are stored.
        draw: (samples, generator) -> one batch, in memory.
        batch: samples an optimizer step, in one stage.
        piped: samples an optimizer step, and micro-batches of it, in a pipeline.
        optimizer: and its settings.
    """

    name: str
    about: str
    layers: tuple[Layer, ...]
    loss: Loss
    decode: Decode
    draw: Callable[[int, torch.Generator], Batch]
    batch: int
    piped: tuple[int, int]
    optimizer: OptimizerConfig

    def batches(self, count: int, samples: int) -> list[Batch]:
        """Draw batches; the same on every worker."""
        generator = torch.Generator().manual_seed(1)
        return [self.draw(samples, generator) for _ in range(count)]


def workload(name: str, *, quick: bool = False) -> Workload:
    """Return a network by its name; ``quick`` shrinks it to show that everything works."""
    return WORKLOADS[name](quick)


_RMSPROP = OptimizerConfig(name="rmsprop", lr=1e-4)
_SGD = OptimizerConfig(name="sgd", lr=1e-3, momentum=0.9, nesterov=True)
_ADAMW = OptimizerConfig(name="adamw", lr=1e-4)


def _as_stored(targets: Any) -> Any:
    return targets


# DanQ (Quang and Xie 2016) ----------------------------------------------------------------------


def _draw_windows(length: int, tasks: int, samples: int, generator: torch.Generator) -> Batch:
    codes = torch.randint(0, BASES, (samples, length), dtype=torch.uint8, generator=generator)
    width = -(-tasks // 8)
    labels = torch.randint(0, 256, (samples, width), dtype=torch.uint8, generator=generator)
    return codes, labels


def danq(size: str, length: int, tasks: int, batch: int, piped: tuple[int, int]) -> Workload:
    """Return DanQ on windows in memory."""
    return Workload(
        "DanQ" if size == "paper" else "DanQ-small",
        f"{length:,} bp, {tasks} tasks",
        tuple(danq_layers(size, Shape(length, tasks))),
        RECIPE.loss,
        partial(unpack_bits, tasks=tasks),
        partial(_draw_windows, length, tasks),
        batch,
        piped,
        _RMSPROP,
    )


# Multilayer perceptrons: D-GEX (Chen et al. 2016), and one that is all overhead -------------------


class Hidden(nn.Module):
    """A dense layer and its activation: (B, inputs) -> (B, units)."""

    def __init__(self, inputs: int, units: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(inputs, units), activation

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, add, and activate."""
        return self.activation(self.linear(x))


def _draw_numbers(inputs: int, outputs: int, samples: int, generator: torch.Generator) -> Batch:
    return (
        torch.randn(samples, inputs, generator=generator),
        torch.randn(samples, outputs, generator=generator),
    )


GENES, TARGETS = 943, 4760


def dgex(quick: bool) -> Workload:
    """Three hidden layers with tanh and 10 % dropout, from 943 genes to 4,760."""
    units = 64 if quick else 3000
    layers = []
    for number, inputs in enumerate((GENES, units, units), start=1):
        layers += [
            Layer(f"hidden{number}", partial(Hidden, inputs, units, torch.tanh)),
            Layer(f"dropout{number}", partial(KeyedDropout, 0.1)),
        ]
    layers.append(Layer("genes", partial(nn.Linear, units, TARGETS)))
    return Workload(
        "D-GEX",
        f"{GENES} genes, 3 x {units:,} tanh units, {TARGETS:,} genes",
        tuple(layers),
        mse_loss,
        _as_stored,
        partial(_draw_numbers, GENES, TARGETS),
        200,
        (200, 8),
        _SGD,
    )


def tiny(quick: bool) -> Workload:
    """A network whose step is nearly all overhead."""
    sizes = (16, 32, 32)
    layers = [
        Layer(f"hidden{number}", partial(Hidden, inputs, 32, torch.relu))
        for number, inputs in enumerate(sizes[:2], start=1)
    ]
    return Workload(
        "tiny MLP",
        "16 inputs, 2 x 32 ReLU units, 4 outputs",
        (*layers, Layer("outputs", partial(nn.Linear, 32, 4))),
        mse_loss,
        _as_stored,
        partial(_draw_numbers, 16, 4),
        32,
        (32, 2),
        _SGD,
    )


# Images of piled-up reads, after DeepVariant (Poplin et al. 2018) ---------------------------------

PILEUP = (6, 100, 221)  # channels, reads, positions


class ConvNorm(nn.Module):
    """2-D convolution, batch norm, ReLU, as Inception v3 (Szegedy et al. 2016) has them."""

    def __init__(self, channels: int, filters: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(filters, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Scan the map with the filters."""
        return torch.relu(self.norm(self.conv(x)))


class Stem(nn.Module):
    """Reads as stored, (B, 6, 100, 221) uint8, to the first feature map."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv = ConvNorm(PILEUP[0], filters, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Centre the stored values and scan them."""
        filtered: Tensor = self.conv(x.float() / 128 - 1)
        return filtered


class Downsample(nn.Module):
    """A convolution and 3 x 3 max-pooling by 2."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, filters, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Scan and pool."""
        return max_pool2d(self.conv(x), 3, 2, 1)


class Inception(nn.Module):
    """Four branches side by side: 1 x 1, 3 x 3, twice 3 x 3, pooling; each ``width`` channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.one = ConvNorm(channels, width, 1)
        self.three = nn.Sequential(ConvNorm(channels, width, 1), ConvNorm(width, width, 3))
        self.five = nn.Sequential(
            ConvNorm(channels, width, 1), ConvNorm(width, width, 3), ConvNorm(width, width, 3)
        )
        self.pool = ConvNorm(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the branches and join their channels."""
        pooled = self.pool(avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.one(x), self.three(x), self.five(x), pooled], 1)


class Genotype(nn.Module):
    """Mean over the map, and the three genotypes: (B, C, H, W) -> (B, 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Score the genotypes."""
        scores: Tensor = self.linear(x.mean((2, 3)))
        return scores


def _draw_pileups(samples: int, generator: torch.Generator) -> Batch:
    images = torch.randint(0, 256, (samples, *PILEUP), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 3, (samples,), generator=generator)


def pileup(quick: bool) -> Workload:
    """An Inception-like stack on images of reads."""
    width = 4 if quick else 32
    layers = [
        Layer("stem", partial(Stem, width)),
        Layer("down1", partial(Downsample, width, 2 * width)),
        Layer("down2", partial(Downsample, 2 * width, 4 * width)),
        *(Layer(f"mixed{n}", partial(Inception, 4 * width, width)) for n in (1, 2, 3)),
        Layer("down3", partial(Downsample, 4 * width, 8 * width)),
        Layer("mixed4", partial(Inception, 8 * width, 2 * width)),
        Layer("mixed5", partial(Inception, 8 * width, 2 * width)),
        Layer("genotype", partial(Genotype, 8 * width)),
    ]
    return Workload(
        "DeepVariant-like",
        f"{' x '.join(map(str, PILEUP))} uint8, five Inception blocks, 3 genotypes",
        tuple(layers),
        cross_entropy,
        _as_stored,
        _draw_pileups,
        32,
        (64, 8),
        _RMSPROP,
    )


# Binned coverage from long windows, after Basenji (Kelley et al. 2018) ----------------------------

BINS_OF = 128  # bp a bin


class ConvBlock(nn.Module):
    """Batch norm, GELU and convolution, with pooling or without: (B, C, L) -> (B, F, L / pool)."""

    def __init__(
        self, channels: int, filters: int, size: int, pool: int, dilation: int = 1
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        pad = dilation * (size // 2)
        self.conv = nn.Conv1d(channels, filters, size, padding=pad, dilation=dilation, bias=False)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, activate, scan and pool."""
        x = self.conv(gelu(self.norm(x)))
        return max_pool1d(x, self.pool) if self.pool > 1 else x


class Scan(nn.Module):
    """Codes (B, L) uint8 to the first feature map."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.onehot = OneHot()
        self.conv = nn.Conv1d(BASES, filters, 15, padding=7)

    def forward(self, codes: Tensor) -> Tensor:
        """Scan the sequence with the filters."""
        return max_pool1d(self.conv(self.onehot(codes)), 2)


class Dilated(nn.Module):
    """A dilated convolution and one of width 1, added to what came in."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.wide = ConvBlock(channels, channels // 2, 3, 1, dilation)
        self.back = ConvBlock(channels // 2, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add what a wider view says."""
        added: Tensor = self.back(self.wide(x))
        return x + added


class Tracks(nn.Module):
    """Positive rates of each track and bin: (B, C, bins) -> (B, tracks, bins)."""

    def __init__(self, channels: int, tracks: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, tracks, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the rates."""
        return nn.functional.softplus(self.conv(gelu(x)))


def _draw_coverage(length: int, tracks: int, samples: int, generator: torch.Generator) -> Batch:
    codes = torch.randint(0, BASES, (samples, length), dtype=torch.uint8, generator=generator)
    rates = torch.full((samples, tracks, length // BINS_OF), 2.0)
    return codes, torch.poisson(rates, generator=generator)


def _poisson(rates: Tensor, counts: Tensor) -> Tensor:
    return poisson_nll_loss(rates, counts, log_input=False)


def basenji(quick: bool) -> Workload:
    """A tower of convolutions and pooling, then dilated residual blocks."""
    width, length, tracks = (16, 1_024, 4) if quick else (64, 16_384, 16)
    layers = [
        Layer("scan", partial(Scan, width)),
        *(
            Layer(f"tower{n}", partial(ConvBlock, width if n == 1 else 2 * width, 2 * width, 5, 2))
            for n in range(1, 7)
        ),
        *(Layer(f"dilated{2**n}", partial(Dilated, 2 * width, 2**n)) for n in range(6)),
        Layer("tracks", partial(Tracks, 2 * width, tracks)),
    ]
    return Workload(
        "Basenji-like",
        f"{length:,} bp to {tracks} tracks of {BINS_OF}-bp bins, 7 pools, 6 dilated blocks",
        tuple(layers),
        _poisson,
        _as_stored,
        partial(_draw_coverage, length, tracks),
        8,
        (32, 8),
        _ADAMW,
    )


def _danq_paper(quick: bool) -> Workload:
    return danq("paper", 300 if quick else 1000, 919, 20 if quick else 100, (128, 8))


def _danq_small(quick: bool) -> Workload:
    return danq("small", 300, 4, 100, (128, 8))


WORKLOADS: dict[str, Callable[[bool], Workload]] = {
    "danq": _danq_paper,
    "danq-small": _danq_small,
    "dgex": dgex,
    "tiny": tiny,
    "pileup": pileup,
    "basenji": basenji,
}

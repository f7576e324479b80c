"""Predicted step times against measured ones, on this machine.

    python benchmarks/planning.py --out benchmarks/results/planning.md
    python benchmarks/planning.py --networks danq-small,mlp --grids 1x1,2x1 --steps 20
    python benchmarks/planning.py --overhead   # measures CPU_OVERHEAD of trainer.planning.hardware

Each layer is measured with as many threads as a worker will have; the step is then predicted, and
right afterwards run by the engine on workers of a private Ray, with the batch already in memory.
Neighbours on a shared host slow a machine down for a second here and there, so both go on for some
seconds, and the prediction from the fastest tenth of the layers' passes is compared with the
fastest tenth of the steps. The median step is shown beside it, and how much slower than its fastest
tenth a fixed matrix product was, at the median, in the same minutes. Where workers share cores, the
prediction takes that into account (see ``trainer.planning.prediction``), and the median error is
told with and without these rows.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from trainer.config import RunConfig
from trainer.grid import BatchLayout, Grid
from trainer.layers import Dense
from trainer.planning.cached import device_name
from trainer.planning.conditions import Conditions
from trainer.planning.costs import LayerCost
from trainer.planning.hardware import (
    CPU_LINK,
    CPU_NETWORK,
    CPU_OVERHEAD,
    NO_OVERHEAD,
    Hardware,
    Overhead,
)
from trainer.planning.measuring import measure, threads, update_rate
from trainer.planning.prediction import Prediction, predict
from trainer.recipe import Layer, Shape
from trainer.recipes.danq import danq_layers

LIBRARIES = ("replisome", "torch", "deepspeed", "ray")
GRIDS = ("1x1", "2x1", "1x2", "4x1", "2x2")
CPU = torch.device("cpu")
_LONG = 6.0  # seconds of passes, and of steps


@dataclass(frozen=True)
class Case:
    """A network and a batch for it.

    Attributes:
        name: in the table.
        layers: of the network.
        inputs: makes so many samples.
        outputs: numbers a sample that it predicts.
        batch_size: samples a step.
    """

    name: str
    layers: list[Layer]
    inputs: Callable[[int], Tensor]
    outputs: int
    batch_size: int


class Block(nn.Module):
    """Convolution, batch norm, GELU, max-pooling: (B, C, L) -> (B, filters, L // pool)."""

    def __init__(self, channels: int, filters: int, width: int, pool: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, filters, width, padding=width // 2)
        self.norm = nn.BatchNorm1d(filters)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        return nn.functional.max_pool1d(nn.functional.gelu(self.norm(self.conv(x))), self.pool)


class Dilated(nn.Module):
    """A residual block of dilated convolutions, as in Basenji (Kelley et al. 2018)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels // 2, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(channels // 2)
        self.out = nn.Conv1d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        return x + self.out(nn.functional.gelu(self.norm(self.conv(x))))


def mlp(sizes: tuple[int, ...]) -> list[Layer]:
    return [
        Layer(f"dense{i}", partial(Dense, a, b, relu=i < len(sizes) - 2))
        for i, (a, b) in enumerate(pairwise(sizes))
    ]


def conv_stack() -> list[Layer]:
    widths = (4, 48, 56, 64, 72, 80)
    blocks = [
        Layer(f"block{i}", partial(Block, a, b, 15 if i == 0 else 5, 4 if i == 0 else 2))
        for i, (a, b) in enumerate(pairwise(widths))
    ]
    dilated = [Layer(f"dilated{i}", partial(Dilated, widths[-1], 2**i)) for i in range(5)]
    length = 4096 // 4 // 2**4
    return [*blocks, *dilated, Layer("tasks", partial(Dense, widths[-1] * length, 64, relu=False))]


def codes(length: int, samples: int) -> Tensor:
    return torch.randint(0, 4, (samples, length), dtype=torch.uint8)


def numbers(shape: tuple[int, ...], samples: int) -> Tensor:
    return torch.randn(samples, *shape)


def cases() -> dict[str, Case]:
    small, paper = Shape(300, 4), Shape(1000, 919)
    return {
        case.name: case
        for case in (
            Case("danq-small", danq_layers("small", small), partial(codes, 300), 4, 64),
            Case("danq-paper", danq_layers("paper", paper), partial(codes, 1000), 919, 64),
            Case("mlp", mlp((943, 2048, 2048, 2048, 1024)), partial(numbers, (943,)), 1024, 256),
            Case("conv-stack", conv_stack(), partial(numbers, (4, 4096)), 64, 32),
        )
    }


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs, targets)


def run_config(grid: Grid, micro_batches: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "recipe": "planning",
            "optimizer": {"name": "rmsprop"},
            "grid": {
                "stages": grid.stages, "replicas": grid.replicas, "micro_batches": micro_batches,
            },
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Times:
    """How long the same work took again and again; seconds.

    Attributes:
        quiet: the fastest tenth took at most this.
        median: of all.
    """

    quiet: float
    median: float

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        """Sum up what was measured."""
        ordered = sorted(seconds)
        return cls(ordered[len(ordered) // 10], statistics.median(ordered))


def quiet_costs(case: Case, samples: int, seconds: float = _LONG) -> list[LayerCost]:
    """Measure the layers again and again for so many seconds; each pass' fastest tenth counts."""
    until, found = time.perf_counter() + seconds, []
    while not found or time.perf_counter() < until:
        found.append(measure(case.layers, case.inputs(samples), seed=0, repeats=1))
    return [
        replace(
            again[0],
            forward=Times.of([cost.forward for cost in again]).quiet,
            backward=Times.of([cost.backward for cost in again]).quiet,
        )
        for again in zip(*found, strict=True)
    ]


def prediction(
    case: Case, grid: Grid, layout: BatchLayout, own: Overhead = CPU_OVERHEAD
) -> Prediction:
    """Measure the layers as a worker of this grid would run them, and predict."""
    cores = os.cpu_count() or 1
    shared = float(cores) if grid.workers > cores else None
    hardware = Hardware(1, grid.workers, CPU_LINK, CPU_NETWORK, None, shared, own)
    config = run_config(grid, layout.micro_batches)
    with threads(max(1, cores // grid.workers)):
        costs = quiet_costs(case, layout.micro_batch)
        update = update_rate(config.optimizer, costs, CPU)
    conditions = Conditions.of(config, grid, layout, hardware, update)
    return predict(costs, layout, conditions, hardware)


def disturbance(seconds: float = 3.0) -> float:
    """Return by how much a fixed computation is slower at the median than when undisturbed."""
    matrix, taken = torch.ones(256, 256), []
    until = time.perf_counter() + seconds
    with threads(1):
        while time.perf_counter() < until:
            begin = time.perf_counter()
            for _ in range(20):
                matrix @ matrix
            taken.append(time.perf_counter() - begin)
    times = Times.of(taken)
    return times.median / times.quiet - 1


def measurement(
    case: Case, grid: Grid, layout: BatchLayout, cut: tuple[int, ...], steps: int, folder: Path
) -> Times:
    """Run steps on workers; return how long they took."""
    from ray.train import RunConfig as RayRunConfig
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config = run_config(grid, layout.micro_batches)
    cores = os.cpu_count() or 1
    share = float(max(1, cores // grid.workers)) if grid.workers <= cores else cores / grid.workers

    def work() -> list[float]:
        from trainer.engine import Engine, prepare
        from trainer.stage import Cut

        prepare("cpu")
        engine = Engine(case.layers, Cut(cut), grid, layout, loss, lambda x: x, config)
        size = layout.micro_batch
        batch: list[tuple[Any, Any]] = [
            (case.inputs(size), torch.randint(0, 2, (size, case.outputs)).float())
            for _ in range(layout.micro_batches)
        ]
        seconds = []
        for step in range(3 + steps):
            begin = time.perf_counter()
            float(engine.train_step(step, batch, config.optimizer.lr))
            seconds.append(time.perf_counter() - begin)
        return seconds[3:]

    trainer = TorchTrainer(
        work,
        torch_config=TorchConfig(backend="gloo", timeout_s=300),
        scaling_config=ScalingConfig(num_workers=grid.workers, resources_per_worker={"CPU": share}),
        run_config=RayRunConfig(name="planning", storage_path=str(folder)),
    )
    return Times.of(trainer.fit().return_value)


def error(row: dict[str, Any], times: str) -> float:
    """Return by which part of the measured time the prediction is too long."""
    return float(row["predicted"] / getattr(row["measured"], times) - 1)


def report(rows: list[dict[str, Any]], command: str, steps: int) -> str:
    """Write the table with all that is needed to read it."""
    lines = [
        f"# {command}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {os.cpu_count()} cores ({device_name(CPU)}); "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "",
        f"Step time, predicted and measured ({_LONG:g} seconds and at least {steps} steps, after "
        "3); fp32, RMSprop. The error is "
        "that of the prediction against the fastest tenth of the steps, and in brackets against "
        "their median; disturbed: how much slower than in its fastest tenth a fixed computation on "
        "one core was at the median, right before and after. "
        'Where there are more workers than cores ("shared"), the prediction says how long all '
        "computing takes on the cores; waiting for each other at bad moments is not in it.",
        "",
        "| network | stages x replicas | micro-batches | cut | predicted ms | measured, quiet "
        "| median | error | disturbed |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        quiet, median = (error(row, times) for times in ("quiet", "median"))
        lines.append(
            f"| {row['network']} | {row['grid']} | {row['micro']} | {row['cut']} "
            f"| {row['predicted'] * 1e3:.1f} | {row['measured'].quiet * 1e3:.1f} "
            f"| {row['measured'].median * 1e3:.1f} "
            f"| {100 * quiet:+.0f} % ({100 * median:+.0f} %){' (shared)' * row['shared']} "
            f"| {100 * row['disturbed']:.0f} % |"
        )
    alone = [row for row in rows if not row["shared"]]
    lines += ["", "Median of the absolute errors, against the quiet steps (the median steps):", ""]
    for title, chosen in (("a core for each worker", alone), ("all rows", rows)):
        if chosen:
            quiet, median = (
                statistics.median(abs(error(row, times)) for row in chosen)
                for times in ("quiet", "median")
            )
            lines.append(f"- {title}: {100 * quiet:.1f} % ({100 * median:.1f} %)")
    return "\n".join(lines) + "\n"


def rows_of(names: list[str], grids: list[Grid], steps: int, folder: Path) -> list[dict[str, Any]]:
    """Predict and measure all networks on all grids."""
    from jobs.cluster import cluster

    plans = [
        (cases()[name], grid, BatchLayout(cases()[name].batch_size, grid.replicas, count))
        for name in names
        for grid in grids
        for count in ((1,) if grid.stages == 1 else (grid.stages * 2, grid.stages * 4))
    ]
    rows = []
    with cluster():
        for case, grid, layout in plans:
            before = disturbance()
            found = prediction(case, grid, layout)
            count = max(steps, math.ceil(_LONG / found.seconds))
            measured = measurement(case, grid, layout, found.cut, count, folder)
            row = {
                "network": case.name,
                "grid": f"{grid.stages} x {grid.replicas}",
                "micro": f"{layout.micro_batches} of {layout.micro_batch}",
                "cut": ",".join(map(str, found.cut)),
                "predicted": found.seconds,
                "measured": measured,
                "disturbed": (before + disturbance()) / 2,
                "shared": grid.workers > (os.cpu_count() or 1),
            }
            rows.append(row)
            print(f"{case.name} {grid}: {100 * error(row, 'quiet'):+.0f} %", file=sys.stderr)
    return rows


def overhead(steps: int, folder: Path) -> str:
    """Measure the engine's own time, with a network that has next to nothing to compute.

    One stage with m micro-batches takes each_step + 2 m each_pass: two m give both.
    """
    from jobs.cluster import cluster

    case = Case("tiny", mlp((8, 8, 8)), partial(numbers, (8,)), 8, 64)
    counts, grid = (2, 32), Grid(1, 1)
    seconds = []
    with cluster():
        for count in counts:
            layout = BatchLayout(case.batch_size, 1, count)
            computing = prediction(case, grid, layout, NO_OVERHEAD).seconds
            times = measurement(case, grid, layout, (0,), steps, folder)
            seconds.append(times.median - computing)
    each_pass = (seconds[1] - seconds[0]) / (2 * (counts[1] - counts[0]))
    each_step = seconds[0] - 2 * counts[0] * each_pass
    return f"CPU_OVERHEAD = Overhead({each_pass:.2g}, {max(0.0, each_step):.2g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(cases()), help="names, with commas")
    parser.add_argument("--grids", default=",".join(GRIDS), help="stages x replicas, with commas")
    parser.add_argument("--steps", type=int, default=20, help="steps measured")
    parser.add_argument("--overhead", action="store_true", help="the engine's own time instead")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    # Workers can't import this script: what it defines travels by value.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    shapes = [grid.split("x") for grid in options.grids.split(",")]
    grids = [Grid(int(stages), int(replicas)) for stages, replicas in shapes]
    with tempfile.TemporaryDirectory() as folder:
        if options.overhead:
            print(overhead(10 * options.steps, Path(folder)))
            return
        rows = rows_of(options.networks.split(","), grids, options.steps, Path(folder))
    command = f"python benchmarks/planning.py --networks {options.networks} --grids {options.grids}"
    text = report(rows, command, options.steps)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

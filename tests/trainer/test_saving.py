"""What one grid saves, any other goes on from, as if nothing had been."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.store.location import Location
from tests.ranks import on_ranks
from tests.trainer import zoo
from trainer.config import CheckpointConfig, GridConfig, OptimizerConfig, RunConfig, ScheduleConfig
from trainer.grid import Grid, same_parts
from trainer.progress import Progress
from trainer.results import TrainJob

BATCH, MICRO, FIRST, ALL = 16, 4, 3, 6  # steps before the save, and in all
OPTIMIZERS = (
    OptimizerConfig(name="sgd", lr=0.05, momentum=0.9, ema=0.9, clip=0.05),
    OptimizerConfig(name="adamw", lr=1e-3, weight_decay=1e-2),
    OptimizerConfig(name="rmsprop", lr=1e-3, momentum=0.5, ema=0.5),
)
CUTS = {1: (0,), 2: (0, 2), 3: (0, 1, 4)}
GRIDS = [
    Grid(1, 1),
    Grid(1, 2),
    Grid(2, 1),
    Grid(2, 2),
    Grid(3, 1),
    Grid(2, 1, folded=True),
]


def cases(precision: str, zero: int) -> list[RunConfig]:
    return [
        RunConfig(
            recipe="zoo",
            seed=3,
            batch_size=BATCH,
            precision=precision,
            optimizer=optimizer,
            schedule=ScheduleConfig(name="cosine", warmup_steps=2),
            grid=GridConfig(zero=zero),
            checkpoint=CheckpointConfig(keep=3),
        )
        for optimizer in OPTIMIZERS
    ]


def job_of(config: RunConfig, folder: Path, grid: Grid, attempt: int) -> TrainJob:
    layout = same_parts(BATCH, grid, MICRO)
    assert layout is not None
    return TrainJob(config, Location.parse("/nowhere"), folder, "cpu", grid, layout, None, attempt)


def go_on(
    configs: Sequence[RunConfig], folders: Sequence[Path], grid: Grid, attempt: int, steps: int
) -> list[Any]:
    """Take steps from the newest checkpoint on, save, and return losses and tensors."""
    import torch.distributed as dist

    from trainer.engine import Engine, prepare
    from trainer.saving import Saver, latest
    from trainer.stage import Cut

    device = prepare("cpu")
    names = [layer.name for layer in zoo.LAYERS]
    results = []
    for config, folder in zip(configs, folders, strict=True):
        job, notes = job_of(config, folder, grid, attempt), []
        first = (0, 1, 2, 4) if grid.folded else CUTS[grid.stages]
        cut = Cut(first, (), "dualpipev" if grid.folded else "1f1b")
        engine = Engine(zoo.LAYERS, cut, grid, job.layout, zoo.loss, lambda t: t, config)
        saver = Saver(job, "zoo", names, engine, notes.append)
        saved = latest(job, "zoo", device, notes.append)
        progress = Progress(network="zoo", micro_batch=MICRO, stages=grid.stages, cut=first)
        if saved is not None:
            progress = saver.restore(saved)
        losses = []
        for step in range(progress.step, steps):
            samples, share = zoo.batch(step, BATCH), job.layout.per_replica
            begin = engine.replica * share
            parts = [zoo.part(samples, s, s + MICRO) for s in range(begin, begin + share, MICRO)]
            losses.append(float(engine.train_step(step, parts, zoo.rate(config, step))))
        saver.save(progress.model_copy(update={"step": steps}))
        saver.close()
        mine = {
            f"{index}.{name}": tensor.numpy().copy()
            for index, module in engine.stage.local_layers()
            for name, tensor in module.state_dict().items()
        }
        parts = [None] * grid.workers
        dist.all_gather_object(parts, mine)
        results.append((losses, {k: v for part in parts for k, v in part.items()}, notes))
        engine.close()
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "zero", "saver", "grids"),
    [
        ("fp32", 0, Grid(2, 1), GRIDS),
        ("bf16", 0, Grid(2, 1), GRIDS[:-1]),
        ("fp32", 1, Grid(1, 2), [Grid(2, 1), Grid(2, 2)]),
    ],
    ids=["fp32", "bf16", "zero-1"],
)
def test_any_grid_goes_on_from_what_another_saved_as_if_nothing_had_been(
    precision: str, zero: int, saver: Grid, grids: Sequence[Grid], tmp_path: Path
) -> None:
    configs = cases(precision, zero)
    tolerance = 1e-6 if precision == "fp32" else 1e-4
    wholes = {
        replicas: [zoo.train_plainly(config, ALL, replicas, MICRO) for config in configs]
        for replicas in (1, 2)
    }
    saved = [tmp_path / f"{number}" for number in range(len(configs))]
    [first, *_] = on_ranks(saver.workers, go_on, configs, saved, saver, 0, FIRST)
    for (losses, _, notes), whole in zip(first, wholes[saver.replicas], strict=True):
        assert not notes
        assert np.abs(np.subtract(losses, whole.losses[:FIRST])).max() <= tolerance
    for number, grid in enumerate(grids):
        copies = [tmp_path / f"{number}-{folder.name}" for folder in saved]
        for source, copy in zip(saved, copies, strict=True):
            _copy(source, copy)
        [rest, *_] = on_ranks(grid.workers, go_on, configs, copies, grid, 1, ALL)
        for config, (losses, tensors, notes), whole in zip(configs, rest, wholes[1], strict=True):
            case = f"{saver} -> {grid}, {config.optimizer.name}, {precision}"
            assert not notes
            assert len(losses) == ALL - FIRST, case
            off = np.abs(np.subtract(losses, whole.losses[FIRST:])).max()
            assert off <= tolerance, f"{case}: losses differ by {off:.1e}"
            if config.optimizer.name == "sgd":
                for name, array in whole.tensors.items():
                    far = np.abs(tensors[name] - array).max()
                    assert far <= tolerance, f"{case}: {name} differs by {far:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1])
def test_the_same_grid_goes_on_bit_for_bit(zero: int, tmp_path: Path) -> None:
    grid, configs = Grid(2, 2), cases("fp32", zero)
    at_once = [tmp_path / f"whole-{number}" for number in range(len(configs))]
    parted = [tmp_path / f"parted-{number}" for number in range(len(configs))]
    [wholes, *_] = on_ranks(grid.workers, go_on, configs, at_once, grid, 0, ALL)
    [before, *_] = on_ranks(grid.workers, go_on, configs, parted, grid, 0, FIRST)
    [after, *_] = on_ranks(grid.workers, go_on, configs, parted, grid, 1, ALL)
    for whole, first, second in zip(wholes, before, after, strict=True):
        assert whole[0] == first[0] + second[0]
        for name, array in whole[1].items():
            assert np.array_equal(array, second[1][name]), name


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)

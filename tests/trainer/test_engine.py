"""The pipeline computes what one plain PyTorch process computes, to 1e-6, whatever the settings."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.ranks import on_ranks
from tests.trainer import zoo
from trainer.config import GridConfig, OptimizerConfig, RunConfig, ScheduleConfig
from trainer.grid import Grid

STEPS, BATCH = 4, 16
OPTIMIZERS = {
    "sgd": OptimizerConfig(name="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adamw": OptimizerConfig(name="adamw", lr=1e-3, weight_decay=1e-2, decay_all=False),
    "rmsprop": OptimizerConfig(name="rmsprop", lr=1e-3, momentum=0.5),
}
CLIPS = (0.0, 0.05)  # the gradient's norm is above 0.05: it always clips (the oracle asserts it)
SCHEDULES = {
    "sgd": ScheduleConfig(name="cosine", warmup_steps=2),
    "adamw": ScheduleConfig(name="plateau"),
    "rmsprop": ScheduleConfig(name="step", every_epochs=1),
}
CUTS = {1: (0,), 2: (0, 2), 3: (0, 1, 4)}
GRIDS = [Grid(1, 1), Grid(2, 1), Grid(3, 1), Grid(1, 2), Grid(2, 2), Grid(2, 1, folded=True)]


def name_of(grid: Grid) -> str:
    return f"{grid.stages}x{grid.replicas}" + ("-folded" if grid.folded else "")


def configs(grid: Grid, precision: str) -> list[tuple[RunConfig, int]]:
    """All settings of a grid, each with the samples of a micro-batch."""
    sizes = (4,) if grid.folded else (4, 8 if grid.replicas > 1 else 16)
    found = []
    for number, (name, clip, size) in enumerate(product(OPTIMIZERS, CLIPS, sizes)):
        config = RunConfig(
            recipe="zoo",
            seed=5,
            batch_size=BATCH,
            precision=precision,
            optimizer=OPTIMIZERS[name].model_copy(
                update={"clip": clip, "ema": 0.9 if number % 2 else 0.0}
            ),
            schedule=SCHEDULES[name],
            grid=GridConfig(
                stages=grid.stages,
                replicas=grid.replicas,
                schedule="dualpipev" if grid.folded else "1f1b",
                zero=number // 2 % 2,
            ),
        )
        found.append((config, size))
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("grid", GRIDS, ids=name_of)
def test_a_pipeline_equals_one_plain_process(grid: Grid, precision: str) -> None:
    from trainer.stage import Cut

    cases = []
    for number, (config, size) in enumerate(configs(grid, precision)):
        first = (0, 1, 2, 4) if grid.folded else CUTS[grid.stages]
        recompute = tuple(part % 2 == number % 2 for part in range(grid.parts))
        cases.append((config, size, Cut(first, recompute, config.grid.schedule)))
    [trained, *_] = on_ranks(grid.workers, zoo.train_on_grid, cases, STEPS)
    tolerance = 1e-6 if precision == "fp32" else 1e-5
    for (config, size, cut), found in zip(cases, trained, strict=True):
        expected = zoo.train_plainly(config, STEPS, grid.replicas, size)
        case = f"{name_of(grid)} {config.optimizer}, {size} a micro-batch, {cut}"
        off = np.abs(np.subtract(found.losses, expected.losses)).max()
        assert off <= tolerance, f"{case}: losses differ by {off:.1e}"
        for kind in ("tensors", "averages"):
            ours, theirs = getattr(found, kind), getattr(expected, kind)
            assert ours.keys() == theirs.keys(), case
            for name, array in theirs.items():
                far = np.abs(ours[name] - array).max()
                assert far <= tolerance, f"{case}: {kind} {name} differ by {far:.1e}"

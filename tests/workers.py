"""Running a function on a real worker group of Ray Train, as training does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.grid import Grid


def on_workers(grid: Grid, work: Callable[[], Any], folder: Path) -> Any:
    """Run ``work`` in each worker of a grid, on the connected cluster; return rank 0's result.

    Args:
        grid: how many workers; together they take one CPU.
        work: defined inside the caller, so that it travels by value; its result has no torch in it.
        folder: where Ray Train keeps its own files.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        work,
        torch_config=TorchConfig(backend="gloo", timeout_s=120),
        scaling_config=ScalingConfig(
            num_workers=grid.workers, resources_per_worker={"CPU": 1 / grid.workers}
        ),
        run_config=RunConfig(name="test", storage_path=str(folder)),
    )
    return trainer.fit().return_value

"""``replisome demo``: the whole way, from simulated raw files to a scored and tracked model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs.cluster import cluster
from jobs.configure import configure
from jobs.console import Console
from jobs.datasets import build_dataset, simulate_files
from jobs.train import TrainRequest, train

_FLAGS = {"size": "small", "grid": {"stages": 2}}


def run_demo(out: Path, runs: Path, seed: int, console: Console) -> dict[str, Any]:
    """Simulate, build, train in two stages, compare with the baselines; one Ray for all.

    Raises:
        InputError: ``out`` is not empty.
    """
    console.say(f"1/3 simulating a genome with a planted motif grammar, in {out}/raw")
    simulate_files("danq", out / "raw", seed, console)
    with ExitStack() as stack:
        with console.step("start Ray"):
            stack.enter_context(cluster())
        console.say(f"2/3 building {out}/genome.zarr from its FASTA and BED files")
        data = out / "genome.zarr"
        build_dataset("danq", out / "raw", None, data, console)
        console.say("3/3 training DanQ (small) as two pipeline stages, then its baselines")
        config = configure("danq", None, {**_FLAGS, "seed": seed})
        return train(TrainRequest(config, data, runs), console)

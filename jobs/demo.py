"""``replisome demo``: the whole way, from simulated raw files to a scored and tracked model."""

from __future__ import annotations

import shutil
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

    What an earlier demo of the same seed made is used again; the training is always new.

    Args:
        out: folder for the files and the data set; each seed has its own in it.
        runs: the folder of all runs.
        seed: of the genome and of the training.
        console: where to tell about it.
    """
    raw, data = out / f"seed-{seed}" / "raw", out / f"seed-{seed}" / "genome.zarr"
    if raw.exists():
        console.say(f"1/3 using the simulated genome in {raw}")
    else:
        console.say(f"1/3 simulating a genome with a planted motif grammar, in {raw}")
        unfinished = raw.with_name("raw.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        simulate_files("danq", unfinished, seed, console)
        unfinished.rename(raw)
    with ExitStack() as stack:
        with console.step("start Ray"):
            stack.enter_context(cluster())
        if data.exists():
            console.say(f"2/3 using the data set {data}")
        else:
            console.say(f"2/3 building {data} from FASTA and BED files")
            build_dataset("danq", raw, None, str(data), console)
        console.say("3/3 training DanQ (small) as two pipeline stages, then its baselines")
        config = configure("danq", None, {**_FLAGS, "seed": seed})
        return train(TrainRequest(config, str(data), runs), console)

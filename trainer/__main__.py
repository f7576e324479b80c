"""Training without Ray: ``torchrun --nproc-per-node 2 -m trainer config.toml X.zarr FOLDER``.

The configuration is one that ``replisome train`` wrote, or any of that form; its grid must have as
many workers as torchrun starts. The folder is the run's, as Ray's workers would fill it: started
again on the same folder, the training goes on from its last checkpoint. Nothing is tracked, and the
recipe's estimators are not fitted.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from data_shards.dataset import ShardedDataset
from data_shards.documents import parse, read_toml
from data_shards.errors import InputError
from trainer.config import RunConfig
from trainer.loop import run_worker
from trainer.results import TrainJob


def main() -> None:
    """Train as one of torchrun's workers."""
    parser = argparse.ArgumentParser(prog="torchrun ... -m trainer", description=__doc__)
    parser.add_argument("config", type=Path, help="TOML file with the configuration")
    parser.add_argument("data", help="the data set")
    parser.add_argument("folder", type=Path, help="the run's folder; made if missing")
    arguments = parser.parse_args()
    if "RANK" not in os.environ:
        parser.error("start it with torchrun")
    values = read_toml(arguments.config, remedy="a run's config.toml is one")
    config = parse(RunConfig, values, arguments.config)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    device = config.grid.device or "cpu"
    job = TrainJob.of(config, ShardedDataset(arguments.data), arguments.folder.resolve(), device)
    workers = int(os.environ["WORLD_SIZE"])
    if workers != job.grid.workers:
        raise InputError(
            f"torchrun starts {workers} worker(s), and the grid has {job.grid.workers}",
            path=arguments.config,
            remedy=f"say --nproc-per-node {job.grid.workers}, or change grid.stages or replicas",
        )
    outcome = run_worker(job)
    if int(os.environ["RANK"]) == 0 and outcome.results is not None:
        scores = {result.network: result.test.plain() for result in outcome.results}
        print(json.dumps(scores))


if __name__ == "__main__":
    main()

"""Starting from another run's weights: what loads, what stays, and that it is worth it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.build.description import read_description
from data_shards.build.run import build
from data_shards.build.windows_plan import plan_windows
from data_shards.dataset import ShardedDataset
from tests.ranks import on_ranks
from trainer.checkpoint.reader import Checkpoint
from trainer.config import InitConfig, OptimizerConfig, RunConfig
from trainer.results import NetworkResult, TrainJob

KEPT = ("chr1", "chr9", "chr10", "chr11", "chr12")  # one contig to train on instead of eight


def train(config: RunConfig, data: Path, folder: Path) -> NetworkResult:
    from trainer.loop import run_worker

    folder.mkdir()
    job = TrainJob.of(config, ShardedDataset(data), folder, "cpu")
    outcome = run_worker(job)
    assert outcome.results is not None
    return outcome.results[0]


def small(simulated: Path, folder: Path) -> Path:
    """Build a data set with an eighth of the training windows."""
    folder.mkdir()
    contig = ""
    with (folder / "genome.fa").open("w") as out:
        for line in (simulated / "genome.fa").read_text().splitlines():
            contig = line[1:] if line.startswith(">") else contig
            if contig in KEPT:
                out.write(line + "\n")
    for path in (*simulated.glob("*.narrowPeak"), *simulated.glob("a_*.bed")):
        lines = path.read_text().splitlines()
        kept = [line for line in lines if line.split("\t")[0] in KEPT]
        (folder / path.name).write_text("\n".join(kept) + "\n")
    spec = folder / "danq.toml"
    spec.write_text((simulated / "danq.toml").read_text())
    out_path = folder / "small.zarr"
    plan = plan_windows(read_description(spec), folder, recipe="danq", spec_path=spec)
    build(plan, out_path, command="test")
    return out_path


@pytest.mark.slow
def test_fine_tuning_beats_scratch_on_a_small_set_and_leaves_frozen_layers_as_they_were(
    simulated: Path, danq_data: Path, tmp_path: Path
) -> None:
    config = RunConfig(
        recipe="danq",
        size="small",
        batch_size=100,
        epochs=8,
        baselines=False,
        optimizer=OptimizerConfig(name="adamw", lr=3e-3),
    )
    [large] = on_ranks(1, train, config, danq_data, tmp_path / "large")
    data = small(simulated, tmp_path / "raw")
    init = InitConfig(source=str(large.fit.weights), fresh=("tasks",), freeze=("conv",))
    few = config.model_copy(update={"epochs": 8})
    [scratch] = on_ranks(1, train, few, data, tmp_path / "scratch")
    [tuned] = on_ranks(1, train, few.model_copy(update={"init": init}), data, tmp_path / "tuned")
    print(f"AUROC: large {large.test.auroc}, scratch {scratch.test.auroc}, {tuned.test.auroc}")
    assert large.test.auroc > 0.9, "there is something to take over"
    assert tuned.test.auroc > scratch.test.auroc + 0.1
    before, after = (Checkpoint.open(result.fit.weights) for result in (large, tuned))
    for layer, name in enumerate(before.layers):
        with before.weights(layer) as one, after.weights(layer) as other:
            changed = [
                key for key in one.keys if not np.array_equal(one.tensor(key), other.tensor(key))
            ]
        assert bool(changed) == (name in ("lstm", "dense", "tasks")), name

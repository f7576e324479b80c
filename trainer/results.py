"""What goes into the training loop and what comes out: plain values that travel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.dataset import ShardedDataset
from data_shards.labels import LabelStatistics, label_statistics
from data_shards.order import Order, sample_order
from data_shards.sampling import WeightedOrder, sampling_weights, weighted_order
from data_shards.store.location import Location
from trainer.config import Device, RunConfig
from trainer.grid import BatchLayout, Grid, grid_of, lay_out, same_parts
from trainer.metrics import Scores
from trainer.planning.costs import LayerCost
from trainer.planning.streams import owner

_LAYOUT = "micro-batch"
CALL = "called-away"
"""File in a run's folder that asks its workers to save and leave."""


@dataclass(frozen=True)
class TrainJob:
    """What a worker is told.

    Attributes:
        config: of the run.
        data: where the data set is; all workers can reach it.
        run_folder: path of the run's folder, visible to all workers.
        device: resolved from the configuration by whoever knows the cluster.
        grid: the workers; may be smaller than the configuration's, when some were lost.
        layout: how the batch is shared out over them.
        labels: statistics of the training split's labels, for losses that need them.
        attempt: number of the worker group in the life of the run, from 0.
        max_steps: stop after so many optimizer steps, whatever the epochs; for tests.
    """

    config: RunConfig
    data: Location
    run_folder: Path
    device: Device
    grid: Grid
    layout: BatchLayout
    labels: LabelStatistics | None = None
    attempt: int = 0
    max_steps: int | None = None

    @classmethod
    def of(
        cls,
        config: RunConfig,
        data: ShardedDataset,
        run_folder: Path,
        device: Device,
        max_steps: int | None = None,
        labels: LabelStatistics | None = None,
    ) -> TrainJob:
        """Make a job on the grid that the configuration asks for.

        What needs all labels (their statistics, the weights of samples) is made here, once: workers
        read only their own. ``labels`` may be given where they are known.
        """
        grid = grid_of(config.grid)
        layout = lay_out(config.batch_size, grid, config.grid.micro_batches)
        labels = labels or label_statistics(data, "labels", "train")
        job = cls(config, data.place, run_folder, device, grid, layout, labels, max_steps=max_steps)
        if config.sampling.name != "uniform" and not job._draws.is_file():
            weights = sampling_weights(data, "labels", "train", config.sampling)
            np.save(job._draws, weighted_order(weights, config.seed).ends)
        return job.like_before()

    def order(self, samples: int) -> Order:
        """Return the order of the training samples."""
        if self.config.sampling.name == "uniform":
            return sample_order(samples, self.config.seed, self.config.shuffle)
        return WeightedOrder(samples, self.config.seed, np.load(self._draws, mmap_mode="r"))

    @property
    def _draws(self) -> Path:
        return self.run_folder / "draws.npy"

    def like_before(self) -> TrainJob:
        """Return the job with micro-batches of the size they had, where the grid allows it.

        Batch normalisation looks at a micro-batch at a time, so this keeps the numbers.
        """
        sizes = self.run_folder / _LAYOUT
        if not sizes.is_file():
            sizes.write_text(str(self.layout.micro_batch))
            return self
        layout = same_parts(self.config.batch_size, self.grid, int(sizes.read_text()))
        if layout is None or (self.grid.folded and layout.micro_batches < self.grid.parts):
            return self
        return replace(self, layout=layout)

    def on(self, grid: Grid, attempt: int) -> TrainJob:
        """Return the same job on another grid, with micro-batches of the same size."""
        layout = same_parts(self.config.batch_size, grid, self.layout.micro_batch)
        if layout is None:
            raise ValueError(f"{self.layout} can't go over {grid} in equal parts")
        return replace(self, grid=grid, layout=layout, attempt=attempt)

    @property
    def checkpoints(self) -> Path:
        """Where the networks' states are."""
        return self.run_folder / "checkpoints"

    def trace(self, network: str) -> Path:
        """Where the spans of a network's traced step are."""
        return self.run_folder / "trace" / f"{network}.json"

    def losses(self, network: str) -> Path:
        """Where the loss of each step of a network is."""
        return self.run_folder / "losses" / f"{network}.f64"

    def progress_made(self) -> frozenset[str]:
        """Name the states that are saved: others than before, and the run has come on."""
        return frozenset(
            str(path.relative_to(self.checkpoints)) for path in self.checkpoints.glob("*/*/step-*")
        )

    def call_away(self, reason: str) -> None:
        """Ask the workers to save and leave; they see it within a second."""
        self._call.write_text(reason)

    def call_back(self) -> None:
        """Take such a wish back."""
        self._call.unlink(missing_ok=True)

    def called_away(self) -> bool:
        """Whether the workers are asked to leave."""
        return self._call.exists()

    @property
    def _call(self) -> Path:
        return self.run_folder / CALL


@dataclass(frozen=True)
class Outcome:
    """What a worker group came to.

    Attributes:
        results: one a network, the same on every worker; None if the group was called away, with
            its state saved.
    """

    results: list[NetworkResult] | None


@dataclass(frozen=True)
class StagePlan:
    """How a network was cut into parts: a part a stage, or two a stage under DualPipeV.

    Attributes:
        layers: names of all layers.
        parameters: trainable weights of each layer.
        cut: first layer of each part.
        costs: measured costs of the layers; empty where nothing had to be chosen.
        recompute: for each part, whether it computes its activations again.
        method: how the cut was made: "measured", "parameters", "uniform" or "given".
        folded: whether stages have two parts.
    """

    layers: tuple[str, ...]
    parameters: tuple[int, ...]
    cut: tuple[int, ...]
    costs: tuple[LayerCost, ...]
    recompute: tuple[bool, ...]
    method: str
    folded: bool = False

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.cut) // 2 if self.folded else len(self.cut)

    def stage_of(self, layer: int) -> int:
        """Return the stage that has a layer."""
        return owner(sum(layer >= first for first in self.cut) - 1, self.stages)


@dataclass(frozen=True)
class Fit:
    """What the loop gave.

    Attributes:
        losses: training loss of each optimizer step.
        epochs: passes over the training split, the last maybe not whole.
        best_epoch: the epoch, from 1, with the lowest validation loss.
        weights: folder of the weights of that epoch.
        seconds: wall time, validation included, without what was lost and done again.
        waited: seconds the reporter waited for data, since its last start.
        skipped: steps whose update was left out.
    """

    losses: tuple[float, ...]
    epochs: int
    best_epoch: int
    weights: Path
    seconds: float
    waited: float
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True)
class NetworkResult:
    """One network, trained and scored with its best weights.

    Attributes:
        network: its name.
        plan: how it was cut.
        fit: how training went.
        valid: scores on the validation split.
        test: scores on the test split, with curves.
        engine_config: the DeepSpeed settings in effect.
        seconds: wall time of it all: measuring, training, testing.
    """

    network: str
    plan: StagePlan
    fit: Fit
    valid: Scores
    test: Scores
    engine_config: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class PredictJob:
    """What a worker is told.

    Attributes:
        config: of the run that trained.
        weights: folder of the checkpoint.
        network: name of the network.
        data: the data set.
        split: which part of it.
        device: of all workers.
        grid: the workers.
        micro_batch: samples that go through a stage at a time.
        out: file for the logits, float32, shape (samples, tasks); the reporter writes it.
        progress: file that says how many samples are done.
    """

    config: RunConfig
    weights: Path
    network: str
    data: Location
    split: str
    device: Device
    grid: Grid
    micro_batch: int
    out: Path
    progress: Path

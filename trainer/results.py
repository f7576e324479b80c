"""What goes into the training loop and what comes out: plain values that travel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.store.location import Location
from trainer.config import Device, RunConfig
from trainer.cut import LayerCost
from trainer.metrics import Scores


@dataclass(frozen=True)
class TrainJob:
    """What a worker is told.

    Attributes:
        config: of the run.
        data: where the data set is; all workers can reach it.
        run_folder: path of the run's folder, visible to all workers.
        device: resolved from the configuration by whoever knows the cluster.
        max_steps: stop after so many optimizer steps, whatever the epochs; for tests.
    """

    config: RunConfig
    data: Location
    run_folder: Path
    device: Device
    max_steps: int | None = None


@dataclass(frozen=True)
class StagePlan:
    """How a network was cut.

    Attributes:
        layers: names of all layers.
        parameters: trainable weights of each layer.
        cut: first layer of each stage.
        costs: measured costs of the layers; empty where nothing had to be chosen.
    """

    layers: tuple[str, ...]
    parameters: tuple[int, ...]
    cut: tuple[int, ...]
    costs: tuple[LayerCost, ...]


@dataclass(frozen=True)
class Fit:
    """What the loop gave.

    Attributes:
        losses: training loss of each optimizer step.
        epochs: passes over the training split, the last maybe not whole.
        best_epoch: the epoch, from 1, with the lowest validation loss.
        weights: folder of the weights of that epoch.
        seconds: wall time, validation included.
        waited: seconds the reporter waited for data.
    """

    losses: tuple[float, ...]
    epochs: int
    best_epoch: int
    weights: Path
    seconds: float
    waited: float


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

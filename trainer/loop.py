"""The training loop: the one function that every worker of a run executes.

Read :func:`run_worker`, :func:`train_network`, :func:`fit`, in this order. Every worker runs the
same lines; the stages of a pipeline meet inside ``engine.train_step`` and ``evaluate``. The worker
of the last stage of the first replica (the reporter) has losses and scores first hand; it writes
the event log and tells the others what they need to decide alike.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from data_shards.dataset import ShardedDataset
from data_shards.prefetch import Prefetch
from trainer.clock import Clock, Patience
from trainer.cut import LayerCost, balance, check_cut, measure
from trainer.engine import Engine, prepare
from trainer.evaluation import evaluate
from trainer.events import FILE_NAME, EventWriter, log_scores
from trainer.feed import Feed
from trainer.grid import BatchLayout, Grid, lay_out
from trainer.metrics import Scores
from trainer.recipe import Layer, Loss, Network, build_layer, shape_of, trainable
from trainer.recipes import get_recipe
from trainer.results import Fit, NetworkResult, StagePlan, TrainJob
from trainer.system import SystemSampler
from trainer.weights import load_weights, save_weights

T = TypeVar("T")


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the message has the step and its samples."""


@dataclass(frozen=True)
class Worker:
    """What a worker knows about itself and has at hand."""

    job: TrainJob
    grid: Grid
    layout: BatchLayout
    rank: int
    device: torch.device
    data: ShardedDataset
    events: EventWriter

    @property
    def replica(self) -> int:
        """The replica this worker belongs to."""
        return self.grid.replica(self.rank)


def run_worker(job: TrainJob) -> list[NetworkResult]:
    """Train and score the recipe's model, then its ablations. Entry point of every worker.

    Runs in a Ray Train worker, whose process group is already up.

    Returns:
        One result a network, the same on every worker.
    """
    device = prepare(job.device)
    config, rank = job.config, dist.get_rank()
    grid = Grid(config.grid.stages, config.grid.replicas)
    if not job.run_folder.is_dir():
        raise FileNotFoundError(
            f"worker {rank} can't see the run's folder {job.run_folder}: "
            "it must be on storage that all nodes share (--runs)"
        )
    recipe = get_recipe(config.recipe)
    events = EventWriter(job.run_folder / FILE_NAME if rank == grid.reporter else None)
    layout = lay_out(config.batch_size, grid, config.grid.micro_batches)
    worker = Worker(job, grid, layout, rank, device, ShardedDataset(job.data), events)
    with SystemSampler.on_first_worker_of_node(job.run_folder):
        return [
            train_network(worker, network, recipe.loss, config.cut_of(network is recipe.network))
            for network in recipe.networks(config.baselines)
        ]


def train_network(
    worker: Worker, network: Network, loss: Loss, cut: tuple[int, ...] | None
) -> NetworkResult:
    """Train one network, go back to its best weights, and score it on the test split."""
    begin = time.perf_counter()
    config, data, events = worker.job.config, worker.data, worker.events
    layers = network.layers(config.size, shape_of(data.schema))
    plan = plan_stages(worker, layers, cut)
    engine = Engine(
        layers,
        plan.cut,
        worker.grid,
        worker.layout,
        loss,
        len(data.schema.tasks),
        config.optimizer,
        config.seed,
    )
    feed = Feed(
        data,
        "train",
        config.seed,
        inputs=engine.is_first,
        targets=engine.is_last,
        shuffle=config.shuffle,
        augment=config.augment,
    )

    def testing(done: int, total: int) -> None:
        events.progress(network.name, "testing", done, total)

    result = fit(worker, network.name, plan, engine, feed, loss)
    load_weights(result.weights, plan.layers, engine.stage.local_layers())
    valid = told(worker, evaluate(engine, feed, data, "valid", loss))
    test = told(worker, evaluate(engine, feed, data, "test", loss, curves=True, advance=testing))
    log_scores(events, network.name, len(result.losses), "test", test)
    engine.close()
    seconds = time.perf_counter() - begin
    return NetworkResult(network.name, plan, result, valid, test, engine.config, seconds)


def fit(worker: Worker, name: str, plan: StagePlan, engine: Engine, feed: Feed, loss: Loss) -> Fit:
    """Take optimizer steps until the epochs are done or validation stops improving."""
    job, layout, events = worker.job, worker.layout, worker.events
    clock = Clock(feed.order.rows, layout.batch_size, job.config.epochs, job.max_steps)
    patience = Patience(job.config.patience)
    losses: list[float] = []
    fresh: list[torch.Tensor] = []  # losses since the last log: reading one waits for the device
    kept: tuple[int, Path] | None = None
    begin = time.perf_counter()
    batches = Prefetch(lambda step: feed.step(step, layout, worker.replica), 0, clock.steps)
    try:
        for step, micro_batches in enumerate(batches):
            fresh.append(engine.train_step(step, micro_batches))
            if clock.logs(step):
                losses += read_losses(fresh, len(losses), name, feed, layout, events)
                log_training(
                    events, name, losses[-len(fresh) :], len(losses), layout, begin, batches
                )
                events.progress(name, "training", step + 1, clock.steps)
                fresh.clear()
            if clock.ends_epoch(step):
                scores = told(worker, evaluate(engine, feed, worker.data, "valid", loss))
                log_scores(events, name, step + 1, "valid", scores)
                if patience.improved(math.inf if scores.loss is None else scores.loss):
                    kept = keep(worker, name, plan, engine, clock.epoch(step), kept)
                if patience.exhausted:
                    break
    finally:
        batches.close()
    if kept is None:
        raise TrainingDivergedError(f"{name}: no epoch had a finite validation loss")
    seconds = time.perf_counter() - begin
    return Fit(tuple(losses), clock.epoch(step), *kept, seconds, batches.waited)


def plan_stages(worker: Worker, layers: Sequence[Layer], cut: tuple[int, ...] | None) -> StagePlan:
    """Take the cut that is given, or choose one by measured times; the same on every worker."""
    config = worker.job.config
    stages = worker.grid.stages
    costs: list[LayerCost] = []
    if cut is None and stages > 1 and worker.rank == 0:
        rows = worker.data.split_rows("train")[: worker.layout.micro_batch]
        inputs = torch.from_numpy(worker.data.gather("sequence", rows)).to(worker.device)
        costs = measure(layers, inputs, config.seed)
    costs = broadcast(costs, source=0)
    parameters = tuple(
        trainable(build_layer(layer, config.seed, index)) for index, layer in enumerate(layers)
    )
    if cut is None:
        cut = balance(costs, stages) if costs else (0,)
    check_cut(cut, parameters, stages)
    return StagePlan(tuple(layer.name for layer in layers), parameters, cut, tuple(costs))


def keep(
    worker: Worker,
    name: str,
    plan: StagePlan,
    engine: Engine,
    epoch: int,
    before: tuple[int, Path] | None,
) -> tuple[int, Path]:
    """Save the weights of an epoch, then remove those kept before."""
    folder = worker.job.run_folder / "checkpoints" / name / f"epoch-{epoch:04d}"
    save_weights(
        folder,
        plan.layers,
        engine.stage.local_layers(),
        writer=worker.replica == 0,
        about={"network": name, "epoch": epoch},
    )
    if before is not None and worker.rank == 0:
        shutil.rmtree(before[1])
    return epoch, folder


def read_losses(
    fresh: Sequence[torch.Tensor],
    first_step: int,
    name: str,
    feed: Feed,
    layout: BatchLayout,
    events: EventWriter,
) -> list[float]:
    """Bring losses of steps from ``first_step`` on to the host, and refuse to go on without sense.

    Raises:
        TrainingDivergedError: a loss is NaN or infinite; the samples of its batch are logged.
    """
    losses: list[float] = torch.stack(list(fresh)).flatten().tolist()
    for step, loss in enumerate(losses, start=first_step):
        if not math.isfinite(loss):
            rows = feed.rows(step, layout).tolist()
            events.note(name, f"the loss of step {step} is {loss}; samples: {rows}")
            raise TrainingDivergedError(
                f"{name}: the loss of step {step} is {loss}; the samples of its batch are in "
                f"{FILE_NAME}. Try a lower learning rate or --clip"
            )
    return losses


def log_training(
    events: EventWriter,
    name: str,
    losses: Sequence[float],
    step: int,
    layout: BatchLayout,
    begin: float,
    batches: Prefetch[Any],
) -> None:
    """Log the mean loss since the last log, and the speed since the beginning."""
    values = {
        "train/loss": sum(losses) / len(losses),
        "train/samples_per_second": step * layout.batch_size / (time.perf_counter() - begin),
        "train/data_wait_seconds": batches.waited,
    }
    events.metrics(name, step, values)


def told(worker: Worker, scores: Scores | None) -> Scores:
    """Let every worker have the scores that the reporter computed."""
    shared = broadcast(scores, source=worker.grid.reporter)
    if shared is None:
        raise RuntimeError("the reporter has no scores")
    return shared


def broadcast(value: T, source: int) -> T:
    """Send a plain value from one worker to all."""
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]

"""The training loop: the one function that every worker of a run executes.

Read :func:`run_worker`, :func:`train_network`, :func:`fit`, in this order. Every worker runs the
same lines; the stages of a pipeline meet inside ``engine.train_step`` and ``evaluate``. The worker
of the last stage of the first replica (the reporter) has losses and scores first hand; it writes
the event log and tells the others what they need to decide alike. Whatever happened before, a
worker group begins by looking for a checkpoint, so a start and a restart are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist

from data_shards.dataset import ShardedDataset
from data_shards.prefetch import Prefetch
from trainer.attention import Attention
from trainer.checkpoint.transfer import start_from
from trainer.clock import Clock
from trainer.config import CutMethod, InitConfig
from trainer.engine import Engine, prepare
from trainer.evaluation import evaluate
from trainer.events import FILE_NAME, EventWriter, log_scores
from trainer.feed import Feed
from trainer.grid import BatchLayout, Grid
from trainer.history import read_losses
from trainer.learning_rate import learning_rate, plateau_drops
from trainer.loss_log import LossLog, TrainingDivergedError
from trainer.losses import build_loss
from trainer.metrics import Scores
from trainer.objective import unpack_bits
from trainer.planning.costs import CostCache
from trainer.planning.plan import plan_network
from trainer.progress import Progress
from trainer.recipe import Layer, Loss, Network, frozen, shape_of
from trainer.recipes import get_recipe
from trainer.results import Fit, NetworkResult, Outcome, StagePlan, TrainJob
from trainer.saving import Saver, latest
from trainer.stage import Cut
from trainer.system import SystemSampler
from trainer.together import together, told
from trainer.traced import TracedStep

_AHEAD_STEPS, _AHEAD_BYTES = 8, 512 << 20  # read ahead, at most
_LAST_WRITE = 2.0  # seconds that a worker which failed still waits for a checkpoint under way


class CalledAwayError(Exception):
    """The run shall go on elsewhere; its state is saved. Raised on all workers alike."""


class PrunedError(Exception):
    """Whoever watches the training wants no more of it. Raised on all workers alike."""


Watcher = Callable[[int, Scores], bool]
"""Told each epoch, from 1, and its validation, on the reporter; returns whether to end here."""


@dataclass(frozen=True)
class Worker:
    """What a worker knows about itself and has at hand."""

    job: TrainJob
    rank: int
    device: torch.device
    data: ShardedDataset
    events: EventWriter
    watcher: Watcher | None = None

    @property
    def grid(self) -> Grid:
        """The workers."""
        return self.job.grid

    @property
    def layout(self) -> BatchLayout:
        """How batches are shared out over them."""
        return self.job.layout

    @property
    def replica(self) -> int:
        """The replica this worker belongs to."""
        return self.grid.replica(self.rank)


def run_worker(job: TrainJob) -> Outcome:
    """Train and score the recipe's model, then its ablations. Entry point of every worker.

    Runs in a Ray Train worker, whose process group is already up, or under ``torchrun``.

    Returns:
        One result a network, the same on every worker.
    """
    device = prepare(job.device)
    config, rank = job.config, dist.get_rank()
    if not job.run_folder.is_dir():
        raise FileNotFoundError(
            f"worker {rank} can't see the run's folder {job.run_folder}: "
            "it must be on storage that all nodes share (--runs)"
        )
    recipe = get_recipe(config.recipe)
    loss = build_loss(config.loss, job.labels, recipe.loss)
    events = EventWriter(job.run_folder / FILE_NAME if rank == job.grid.reporter else None)
    data = together(lambda: ShardedDataset(job.data), device)
    worker = Worker(job, rank, device, data, events)
    try:
        with SystemSampler.on_first_worker_of_node(job.run_folder):
            results = [
                train_network(worker, network, loss, config.cut_of(network is recipe.network))
                for network in recipe.networks(config.baselines)
            ]
    except CalledAwayError:
        return Outcome(None)
    return Outcome(results)


def train_network(
    worker: Worker, network: Network, loss: Loss, cut: CutMethod | tuple[int, ...]
) -> NetworkResult:
    """Train one network, go back to its best weights, and score it on the test split."""
    begin = time.perf_counter()
    config, events = worker.job.config, worker.events
    with in_training(worker, network, loss, cut) as net:
        fitted = fit(worker, net, loss)
        progress = fitted.progress
        valid = go_back(worker, net, loss, fitted)
        test = score_split(worker, net.engine, net.feed, "test", loss, network.name)
        log_scores(events, network.name, progress.step, "test", test)
        settings = net.engine.config
        weights = net.saver.best_folder(progress)
    assert progress.best_epoch is not None
    result = Fit(
        read_losses(worker.job.losses(network.name)),
        math.ceil(progress.step * config.batch_size / net.feed.order.rows),
        progress.best_epoch,
        weights,
        progress.seconds,
        fitted.waited,
        progress.skipped,
    )
    seconds = time.perf_counter() - begin
    return NetworkResult(network.name, net.plan, result, valid, test, settings, seconds)


@dataclass(frozen=True)
class InTraining:
    """A network on the workers, with what feeds it and what saves it.

    Attributes:
        progress: how far it was when it was set up.
    """

    plan: StagePlan
    engine: Engine
    feed: Feed
    saver: Saver
    progress: Progress


@dataclass(frozen=True)
class Fitted:
    """A training that came to its end.

    Attributes:
        progress: how far it came.
        waited: seconds that this worker waited for data.
        best: validation of the best epoch, if this worker group saw it.
    """

    progress: Progress
    waited: float = 0.0
    best: Scores | None = None


@contextmanager
def in_training(
    worker: Worker, network: Network, loss: Loss, cut: CutMethod | tuple[int, ...]
) -> Iterator[InTraining]:
    """Set a network up, from its newest checkpoint if there is one; take it down in the end.

    When all workers leave it in the same way, others can follow in the same processes.
    """
    job, config, data, events = worker.job, worker.job.config, worker.data, worker.events
    layers = network.layers(config.size, shape_of(data.schema))
    init = config.init if network is get_recipe(config.recipe).network else InitConfig()
    layers = [frozen(layer) if layer.name in init.freeze else layer for layer in layers]
    saved = latest(job, network.name, worker.device, partial(events.note, network.name))
    plan = plan_stages(worker, layers, cut, saved.progress if saved else None)
    engine = Engine(
        layers,
        Cut(plan.cut, plan.recompute, config.grid.schedule, config.grid.compile),
        worker.grid,
        worker.layout,
        loss,
        partial(unpack_bits, tasks=len(data.schema.tasks)),
        config,
        fill=None if saved else start_from(init, plan.layers),
    )
    order = job.order(data.schema.split("train").samples)
    feed = Feed(
        data,
        "train",
        order,
        inputs=engine.is_first,
        targets=engine.is_last,
        augment=config.augment,
    )
    saver = Saver(job, network.name, plan.layers, engine, partial(events.note, network.name))
    try:
        together(feed.warm, worker.device)
        progress = saver.restore(saved) if saved else fresh_progress(worker, network.name, plan)
        if progress.step:
            grid = f"{worker.grid.stages} x {worker.grid.replicas}"
            events.note(network.name, f"goes on at step {progress.step:,}, on {grid}")
        yield InTraining(plan, engine, feed, saver, progress)
    except (CalledAwayError, PrunedError, TrainingDivergedError):
        saver.close()
        engine.close()
        raise
    except BaseException:
        saver.close(_LAST_WRITE)
        raise
    saver.close()
    engine.close()


def fit(worker: Worker, net: InTraining, loss: Loss) -> Fitted:
    """Take optimizer steps until the epochs are done or validation stops improving.

    Raises:
        CalledAwayError: the run shall go on elsewhere.
        PrunedError: the training shall end.
        TrainingDivergedError: a loss makes no sense.
    """
    job, config, layout, events = worker.job, worker.job.config, worker.layout, worker.events
    engine, feed, saver, progress = net.engine, net.feed, net.saver, net.progress
    if progress.finished:
        return Fitted(progress)
    best: Scores | None = None
    clock = Clock(feed.order.rows, layout.batch_size, config.epochs, job.max_steps)
    attention = Attention(config.checkpoint, worker.grid.reporter, worker.device, job.called_away)
    trace = job.trace(progress.network)
    traced = TracedStep(engine, worker.device, trace, progress.step, clock.steps)
    first = progress.step
    losses = LossLog(job, engine, feed, events, progress)
    begin = time.perf_counter() - progress.seconds
    with Prefetch(
        lambda step: feed.step(step, layout, worker.replica),
        progress.step,
        clock.steps,
        _AHEAD_STEPS,
        _AHEAD_BYTES,
    ) as batches:
        for step, micro_batches in enumerate(batches, start=progress.step):
            rate = learning_rate(
                config.schedule,
                config.optimizer.lr,
                step,
                clock.steps,
                feed.order.rows / layout.batch_size,
                plateau_drops(progress.losses, config.schedule.patience),
            )
            with traced.around(step):
                losses.add(engine.train_step(step, micro_batches, rate))
            if step == first:
                events.progress(progress.network, "training", step + 1, clock.steps)
            decision, ends = attention.after(step), clock.ends_epoch(step)
            if ends or decision.save or clock.logs(step):
                losses.log(rate, batches.waited, traced.flop)
                events.progress(progress.network, "training", step + 1, clock.steps)
                progress = losses.progress(progress, step + 1, time.perf_counter() - begin)
            if ends:
                scores = score_split(worker, engine, feed, "valid", loss)
                log_scores(events, progress.network, step + 1, "valid", scores)
                progress = progress.after_epoch(clock.epoch(step), scores.badness(config.monitor))
                if progress.best_step == step + 1:
                    saver.save_best(progress)
                    best = scores
            done = step + 1 == clock.steps or (ends and progress.exhausted(config.patience))
            if ends and unwanted(worker, clock.epoch(step), scores) and not done:
                raise PrunedError
            if ends:
                losses.go_on()
            if decision.save or done:
                progress = progress.model_copy(update={"finished": done})
                saver.save(progress)
                attention.saved()
            if done:
                break
            if decision.leave:
                saver.close()
                raise CalledAwayError
        waited = batches.waited
    if progress.best_step is None:
        raise TrainingDivergedError(
            f"{progress.network}: no epoch had a finite validation {config.monitor}"
        )
    return Fitted(progress, waited, best)


def go_back(worker: Worker, net: InTraining, loss: Loss, fitted: Fitted) -> Scores:
    """Load the weights of the best epoch; return its validation, computed again if need be."""
    net.saver.restore_best(fitted.progress)
    if fitted.best is not None:
        return fitted.best
    return score_split(worker, net.engine, net.feed, "valid", loss)


def unwanted(worker: Worker, epoch: int, scores: Scores) -> bool:
    """Ask whoever watches the training, if anybody does; every worker gets the answer."""
    watcher, reporter = worker.watcher, worker.grid.reporter
    if watcher is None:
        return False
    answer = together(lambda: worker.rank == reporter and watcher(epoch, scores), worker.device)
    return told(answer, source=reporter)


def plan_stages(
    worker: Worker,
    layers: Sequence[Layer],
    cut: CutMethod | tuple[int, ...],
    before: Progress | None,
) -> StagePlan:
    """Decide where to cut; the same on every worker, and as before where the stages are as many."""
    config, grid = worker.job.config, worker.grid
    if before is not None and before.is_on(grid.stages, grid.folded):
        cut = before.cut

    def plan() -> StagePlan | None:
        if worker.rank != 0:
            return None
        rows = worker.data.split_rows("train")[: worker.layout.micro_batch]

        def inputs() -> torch.Tensor:
            return torch.from_numpy(worker.data.gather("sequence", rows)).to(worker.device)

        return plan_network(
            layers,
            inputs,
            config=config,
            grid=grid,
            layout=worker.layout,
            method=cut,
            cache=CostCache.of_user(),
        )

    decided = told(together(plan, worker.device), source=0)
    if decided is None:
        raise RuntimeError("rank 0 has no plan")
    return decided


def fresh_progress(worker: Worker, name: str, plan: StagePlan) -> Progress:
    """Return the progress of a training that begins."""
    return Progress(
        network=name,
        micro_batch=worker.layout.micro_batch,
        stages=worker.grid.stages,
        folded=worker.grid.folded,
        cut=plan.cut,
        recompute=plan.recompute,
        method=plan.method,
    )


def score_split(
    worker: Worker, engine: Engine, feed: Feed, split: str, loss: Loss, testing: str | None = None
) -> Scores:
    """Score a split; every worker gets the scores that the reporter computes.

    Args:
        worker: this one.
        engine: the network.
        feed: this worker's reader.
        split: which one.
        loss: mean over samples and tasks.
        testing: name of the network, to show progress and draw curves for.
    """

    def advance(done: int, total: int) -> None:
        if testing is not None:
            worker.events.progress(testing, "testing", done, total)

    work = evaluate(
        engine, feed, worker.data, split, loss, curves=testing is not None, advance=advance
    )
    shared = told(together(work, worker.device), source=worker.grid.reporter)
    if shared is None:
        raise RuntimeError("the reporter has no scores")
    return shared

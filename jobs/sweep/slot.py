"""A slot: a worker group that stays up and runs trial after trial.

The reporter talks to the board, the others learn from it. What all workers come to alike (the end
of a training, pruned, diverged, called away) is told to the board, and the next trial begins in the
same processes. Anything else ends the group; the driver starts a fresh one.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from data_shards.documents import parse
from data_shards.errors import InputError
from data_shards.store.location import Location
from jobs.sweep.messages import Assignment, Told
from jobs.sweep.space import nested
from jobs.sweep.study import ObjectiveName
from trainer.config import Device, RunConfig, merge
from trainer.grid import grid_of, lay_out

if TYPE_CHECKING:
    from data_shards.dataset import ShardedDataset
    from data_shards.labels import LabelStatistics
    from trainer.loop import Worker
    from trainer.metrics import Scores
    from trainer.results import TrainJob

_LOOK = 0.5  # seconds between two questions for a trial where there is none


@dataclass(frozen=True)
class SlotJob:
    """What the workers of a slot are told.

    Attributes:
        number: of the slot.
        board: handle of the board's actor.
        config: of all trials, apart from what is searched.
        data: the data set.
        trials: folder of the trials' folders; all workers see it.
        objectives: what a trial is judged by.
        device: of all workers.
        halved: how often the micro-batch is halved in each trial, after memory ran out.
    """

    number: int
    board: Any
    config: RunConfig
    data: Location
    trials: Path
    objectives: tuple[ObjectiveName, ...]
    device: Device
    halved: Mapping[int, int]


def trial_folder(trials: Path, number: int) -> Path:
    """Where a trial's files are."""
    return trials / f"{number:04d}"


def work_slot(slot: SlotJob) -> int:
    """Run trials until the board has none; every worker of the group runs this.

    Returns:
        How many trials were run.
    """
    import ray
    import torch.distributed as dist

    from data_shards.dataset import ShardedDataset
    from data_shards.labels import label_statistics
    from trainer.engine import prepare
    from trainer.together import together, told

    device = prepare(slot.device)
    rank, reporter = dist.get_rank(), grid_of(slot.config.grid).reporter
    data = together(lambda: ShardedDataset(slot.data), device)
    labels = label_statistics(data, "labels", "train")

    def ask() -> Assignment | Literal["wait"] | None:
        if rank != reporter:
            return None
        answer: Assignment | Literal["wait"] | None = ray.get(slot.board.next.remote(slot.number))
        return answer

    gc.collect()
    gc.freeze()  # what stays need not be looked through after each trial, which took 0.3 s
    done = 0
    while True:
        assignment = told(together(ask, device), source=reporter)
        if assignment is None:
            return done
        if isinstance(assignment, str):  # there is none now
            time.sleep(_LOOK)
            continue
        began = time.perf_counter()
        try:
            ended = _run(slot, assignment, data, labels, device)
        except InputError as error:  # its settings don't go together; so on every worker
            ended = Told("failed", reason=str(error))
        if rank == reporter:
            seconds = time.perf_counter() - began
            extra = {**ended.extra, **resources()}
            ended = replace(ended, seconds=seconds, extra=extra)
            ray.get(slot.board.tell.remote(assignment.number, ended))
        done += 1


def resources() -> dict[str, float]:
    """Return what this process holds: were it to grow from trial to trial, one would see it."""
    import psutil

    me = psutil.Process()
    return {
        "memory_mb": me.memory_info().rss / 1e6,
        "threads": me.num_threads(),
        "descriptors": me.num_fds(),
    }


def configure_trial(slot: SlotJob, assignment: Assignment) -> RunConfig:
    """Return a trial's configuration.

    Raises:
        InputError: its values make none.
    """
    values = merge(slot.config.model_dump(), nested(assignment.values))
    config = parse(RunConfig, values, f"trial {assignment.number}")
    grid = grid_of(config.grid)
    layout = lay_out(config.batch_size, grid, config.grid.micro_batches)
    if halvings := slot.halved.get(assignment.number, 0):
        parts = layout.micro_batches * 2**halvings
        lay_out(config.batch_size, grid, parts)
        smaller = config.grid.model_copy(update={"micro_batches": parts})
        config = config.model_copy(update={"grid": smaller})
    return config


def _run(
    slot: SlotJob,
    assignment: Assignment,
    data: ShardedDataset,
    labels: LabelStatistics,
    device: Any,
) -> Told:
    """Run one trial; the same end on every worker."""
    import torch.distributed as dist

    from trainer.events import FILE_NAME, EventWriter
    from trainer.loop import CalledAwayError, PrunedError, Worker
    from trainer.loss_log import TrainingDivergedError
    from trainer.together import together, told
    from trainer.trial import run_trial

    rank = dist.get_rank()
    config = configure_trial(slot, assignment)
    folder = trial_folder(slot.trials, assignment.number)

    def make() -> TrainJob | None:
        return _job(slot, config, folder, data, labels) if rank == 0 else None

    job = told(together(make, device), source=0)
    assert job is not None
    job = replace(job, attempt=assignment.attempt)
    is_reporter = rank == job.grid.reporter
    events = EventWriter(folder / FILE_NAME if is_reporter else None)
    watcher = _watcher(slot, assignment)
    worker = Worker(job, rank, device, data, events, watcher)
    try:
        result = run_trial(worker)
        ended = Told(
            "complete",
            tuple(
                objective_value(name, result.valid, result.seconds, result.parameters)
                for name in slot.objectives
            ),
            extra={
                "best_epoch": result.best_epoch,
                "epochs": result.epochs,
                "steps": result.steps,
                "train_seconds": result.seconds,
                "parameters": result.parameters,
            },
        )
    except PrunedError:
        ended = Told("pruned")
    except TrainingDivergedError as error:
        ended = Told("failed", reason=str(error).partition("\n")[0])
    except CalledAwayError:
        return Told("returned", reason="called away")
    finally:
        events.close()
    together(lambda: None, device)  # all have written what they had to
    if rank == 0:  # a trial that has ended does not go on; its best weights are kept
        shutil.rmtree(folder / "checkpoints" / _network(worker) / "state", ignore_errors=True)
    return ended


def _watcher(slot: SlotJob, assignment: Assignment) -> Callable[[int, Scores], bool]:
    import ray

    begin = time.perf_counter()

    def watch(epoch: int, scores: Scores) -> bool:
        values = tuple(
            objective_value(name, scores, time.perf_counter() - begin, 0)
            for name in slot.objectives
        )
        answer: bool = ray.get(slot.board.report.remote(assignment.number, epoch, values))
        return answer

    return watch


def objective_value(name: ObjectiveName, scores: Scores, seconds: float, parameters: int) -> float:
    """Return the value of an objective; NaN where it is undefined."""
    match name:
        case "loss":
            return float("nan") if scores.loss is None else scores.loss
        case "auroc":
            return scores.auroc
        case "aupr":
            return scores.aupr
        case "seconds":
            return seconds
        case "parameters":
            return float(parameters)


def _job(
    slot: SlotJob, config: RunConfig, folder: Path, data: ShardedDataset, labels: LabelStatistics
) -> TrainJob:
    from trainer.results import TrainJob

    (folder / "log").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    text = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
    (folder / "config.toml").write_text(text)
    job = TrainJob.of(config, data, folder, slot.device, labels=labels)
    job.call_back()  # a driver that was killed while it paused left the wish behind
    return job


def _network(worker: Worker) -> str:
    from trainer.recipes import get_recipe

    return get_recipe(worker.job.config.recipe).network.name

"""Starting the workers of a run, and starting them again when some were lost.

Ray Train places the workers and watches them; the training loop runs in each. When workers or nodes
are lost, the group is started anew on what is left, from the last checkpoint: with as many replicas
as fit, in micro-batches of the same size, so that the losses go on as if nothing had been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_shards.errors import InputError
from jobs.cluster import Share
from jobs.lost import WorkersLostError, cause_of, sign_in, sign_out, signed_in
from jobs.nodes import Node, most_replicas, nodes, place, responding, selector
from jobs.watch import Watch
from trainer.grid import Grid, same_parts
from trainer.results import NetworkResult, Outcome, TrainJob

_LOOK = 1.0  # seconds between two looks for lost nodes that are back
_WAIT = 600.0  # seconds that a run without a single replica waits for nodes

_RELEASE, _PAUSE = 5.0, 0.1  # seconds that Ray may take to take workers' resources back; each look

_LEAVE = 60.0  # seconds that interrupted workers get to save
_HANG = 120.0  # seconds

Say = Callable[[str], None]
J = TypeVar("J")
R = TypeVar("R")


def _work(job: TrainJob) -> Outcome:
    from trainer.loop import run_worker  # and DeepSpeed with it, which the driver never needs

    return run_worker(job)


def launch(
    job: TrainJob, workers: Share, log: Path, say: Say, wait: float = _WAIT
) -> list[NetworkResult]:
    """Run the training loop on the connected cluster until it is through.

    Args:
        job: what each worker is told.
        workers: what each worker gets.
        log: where Ray Train keeps its own files.
        say: told what was lost, and how the run goes on.
        wait: seconds to wait for nodes while there is no room for a single replica.

    Raises:
        Exception: what made a worker fail, as it was raised there.
        WorkersLostError: workers were lost again and again, without a checkpoint in between.
        InputError: there was no room for a replica for too long.
    """
    wanted, attempt, lost_in_a_row = job.grid, 0, 0
    mute: set[str] = set()
    found = responding(mute, say)
    while True:
        before = job.progress_made()
        storage = log / f"ray-{attempt}"
        sign_out(storage)
        begun = partial(_begun, storage)
        try:
            with Watch(job, wanted, workers.resources, begun) as watch:
                outcome = run_group(
                    _work,
                    job,
                    job.grid,
                    workers,
                    storage,
                    found=found,
                    hang_seconds=job.config.failure.hang_seconds,
                    leave=partial(_leave, job, say),
                )
            if outcome.results is not None:
                return outcome.results
            lost_in_a_row = 0
            say(f"{watch.reason}; the state is saved")
        except WorkersLostError as error:
            lost_in_a_row = 0 if job.progress_made() != before else lost_in_a_row
            lost_in_a_row += 1
            if lost_in_a_row > job.config.failure.restarts:
                raise WorkersLostError(_gave_up(job, error)) from error
            say(f"{error}; starting again from the last checkpoint")
        attempt += 1
        _released(job.grid, workers.resources)
        look = partial(responding, mute, say)
        grid, found = _room(job, wanted, workers.resources, look, say, wait)
        job = job.on(grid, attempt)


def _leave(job: TrainJob, say: Say) -> None:
    say("interrupted: the state is saved first; once more ends it at once")
    job.call_away("interrupted")


def _begun(storage: Path) -> int:
    return len(signed_in(storage))


def _released(grid: Grid, need: Mapping[str, float]) -> None:
    """Give Ray some seconds to take back what the workers had.

    What is not back by then is on a node that is gone.
    """
    deadline = time.monotonic() + _RELEASE
    while most_replicas(nodes(free=True), need, 1) < grid.workers and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def run_group(
    work: Callable[[J], R],
    job: J,
    grid: Grid,
    workers: Share,
    storage: Path,
    *,
    found: Sequence[Node] | None = None,
    hang_seconds: float = _HANG,
    leave: Callable[[], None] | None = None,
) -> R:
    """Run a function on the workers of a grid, once.

    Args:
        work: what each worker does; its process group is up.
        job: what it is told.
        grid: the workers; the stages of a replica sit together where they can.
        workers: what each worker gets.
        storage: folder for Ray Train's own files and for ours about the workers.
        found: the nodes to use; by default those that Ray takes for alive.
        hang_seconds: a worker that is silent for so long counts as lost.
        leave: on an interrupt, asks the workers to leave; they get some seconds for it.

    Returns:
        What the worker of rank 0 returned.

    Raises:
        Exception: what made a worker fail, as it was raised there.
        WorkersLostError: workers were lost, or could not be started.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError

    from jobs.group import ProcessGroup, Trainer

    found = nodes() if found is None else found
    places = place(found, workers.resources, grid) if len(found) > 1 else None

    def begin() -> R:  # takes the job along: as a setting, the controller would unpack it too
        sign_in(storage)
        return work(job)

    trainer = Trainer(
        train_loop_per_worker=begin,
        backend_config=ProcessGroup(workers.device, hang_seconds),
        scaling_config=ScalingConfig(
            num_workers=grid.workers,
            use_gpu=workers.device == "gpu",
            resources_per_worker=workers.resources,
            placement_strategy="PACK",
            label_selector=[selector(node) for node in places] if places else None,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=0
            ),
        ),
    )
    try:
        returned: R = trainer.fit().return_value
    except WorkerGroupError as error:
        raise cause_of(error.worker_failures, grid, hang_seconds, storage) from error
    except (ControllerError, PreemptionError) as error:
        first = str(getattr(error, "controller_failure", error)).strip().splitlines()[0]
        raise WorkersLostError(f"the workers could not be started: {first[:200]}") from error
    except KeyboardInterrupt:
        if leave is not None:
            leave()
            trainer.wait(_LEAVE)
        raise
    finally:
        trainer.close()
    return returned


def _room(
    job: TrainJob,
    wanted: Grid,
    need: Mapping[str, float],
    look: Callable[[], list[Node]],
    say: Say,
    wait: float,
) -> tuple[Grid, list[Node]]:
    """Return the wanted grid with as many replicas as fit now; waits while not even one does.

    Returns:
        The grid, and the nodes that answer.

    Raises:
        InputError: for too long there was no room for one replica.
    """
    deadline = time.monotonic() + wait
    waiting = False
    while True:
        found = look()
        room = most_replicas(found, need, wanted.stages)
        for replicas in range(min(room, wanted.replicas), 0, -1):
            grid = Grid(wanted.stages, replicas, wanted.folded)
            if same_parts(job.config.batch_size, grid, job.layout.micro_batch) is not None:
                if replicas < wanted.replicas:
                    say(f"{replicas} of {wanted.replicas} replicas go on, with the same batch")
                return grid, found
        if time.monotonic() > deadline:
            raise InputError(
                f"there is no room for the {wanted.stages} worker(s) of one replica",
                remedy=f"bring nodes back, then: replisome train --resume {job.run_folder}",
            )
        if not waiting:
            say(f"no room for a replica: waiting for nodes, {wait:g} s at most")
        waiting = True
        time.sleep(_LOOK)


def _gave_up(job: TrainJob, error: WorkersLostError) -> str:
    restarts = job.config.failure.restarts
    tried = f"{restarts} restarts" if restarts != 1 else "a restart"
    after = f", and {tried} brought no new checkpoint" if restarts else ""
    return (
        f"{error}{after}. When the cause is gone: replisome train --resume {job.run_folder} "
        "(failure.restarts says how often to try, checkpoint.seconds how often to save)"
    )

"""Starting the workers of a run, and starting them again when some were lost.

Ray Train places the workers and watches them; the training loop runs in each. When workers or nodes
are lost, the group is started anew on what is left, from the last checkpoint: with as many replicas
as fit, in micro-batches of the same size, so that the losses go on as if nothing had been.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_shards.errors import InputError
from jobs.cluster import Share
from jobs.nodes import most_replicas, nodes, place, responding, selector
from jobs.watch import Watch
from trainer.grid import Grid, same_parts
from trainer.results import NetworkResult, Outcome, TrainJob
from trainer.together import OtherWorkerError

_LOOK = 1.0  # seconds between two looks for lost nodes that are back
_WAIT = 600.0  # seconds that a run without a single replica waits for nodes

Say = Callable[[str], None]


class WorkersLostError(Exception):
    """Workers were lost: by a signal, with their node, or silent for too long."""


def _work(job: TrainJob) -> Outcome:
    from trainer.loop import run_worker  # and DeepSpeed with it, which the driver never needs

    return run_worker(job)


def launch(job: TrainJob, workers: Share, log: Path, say: Say) -> list[NetworkResult]:
    """Run the training loop on the connected cluster until it is through.

    Args:
        job: what each worker is told.
        workers: what each worker gets.
        log: where Ray Train keeps its own files.
        say: told what was lost, and how the run goes on.

    Raises:
        Exception: what made a worker fail, as it was raised there.
        WorkersLostError: workers were lost again and again, without a step in between.
    """
    wanted, attempt, lost_in_a_row = job.grid, 0, 0
    while True:
        before = job.progress_made()
        try:
            with Watch(job, wanted, workers.resources) as watch:
                outcome = _fit(job, workers, log / f"ray-{attempt}")
            if outcome.results is not None:
                return outcome.results
            lost_in_a_row = 0
            say(f"{watch.reason}; the state is saved")
        except WorkersLostError as error:
            lost_in_a_row = 0 if job.progress_made() != before else lost_in_a_row
            lost_in_a_row += 1
            if lost_in_a_row > job.config.failure.restarts:
                raise
            say(f"{error}; starting again from the last checkpoint")
        attempt += 1
        job = job.on(_grid_that_fits(job, wanted, workers.resources, say), attempt)


def _fit(job: TrainJob, workers: Share, storage: Path) -> Outcome:
    """Run one worker group to its end."""
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError

    found = nodes()
    places = place(found, workers.resources, job.grid) if len(found) > 1 else None
    trainer = TorchTrainer(
        _work,
        train_loop_config=job,
        torch_config=TorchConfig(
            backend="gloo" if workers.device == "cpu" else "nccl",
            timeout_s=int(max(1, job.config.failure.hang_seconds)),
        ),
        scaling_config=ScalingConfig(
            num_workers=job.grid.workers,
            use_gpu=workers.device == "gpu",
            resources_per_worker=workers.resources,
            placement_strategy="PACK",
            label_selector=[selector(node) for node in places] if places else None,
        ),
        run_config=RayRunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=0
            ),
        ),
    )
    try:
        with _own_interrupt():
            outcome: Outcome = trainer.fit().return_value
    except WorkerGroupError as error:
        raise _cause(error.worker_failures) from error
    except (ControllerError, PreemptionError) as error:
        raise WorkersLostError(f"the workers could not be started or held: {error}") from error
    return outcome


def _grid_that_fits(job: TrainJob, wanted: Grid, need: Mapping[str, float], say: Say) -> Grid:
    """Return the wanted grid with as many replicas as fit now; waits while not even one does.

    Raises:
        InputError: for too long there was no room for one replica.
    """
    deadline = time.monotonic() + _WAIT
    waiting = False
    while True:
        room = most_replicas(responding(), need, wanted.stages)
        for replicas in range(min(room, wanted.replicas), 0, -1):
            grid = Grid(wanted.stages, replicas, wanted.folded)
            if same_parts(job.config.batch_size, grid, job.layout.micro_batch) is not None:
                if replicas < wanted.replicas:
                    say(f"{replicas} of {wanted.replicas} replicas go on, with the same batch")
                return grid
        if time.monotonic() > deadline:
            raise InputError(
                f"there is no room for the {wanted.stages} worker(s) of one replica",
                remedy="bring nodes back, then: replisome train --resume " + str(job.run_folder),
            )
        if not waiting:
            say(f"no room for a replica: waiting for nodes, {_WAIT / 60:.0f} minutes at most")
        waiting = True
        time.sleep(_LOOK)


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Keep Ctrl-C ours: Ray Train ends its workers on it, then exits, and leaves its handler."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)


_SIGNS_OF_LOSS = ("onnection", "Timed out", "timed out", "Socket", "NCCL", "closed by peer")


def _cause(failures: Mapping[int, Exception]) -> BaseException:
    """Pick, of what the workers raised, the error that is not a consequence of another's.

    A worker that died raised nothing; its peers say that they lost it.
    """
    from ray.exceptions import RayError

    causes: dict[int, BaseException] = {}
    for rank, failure in failures.items():
        inner: BaseException = failure
        while inner.__cause__ is not None:
            inner = inner.__cause__
        causes[rank] = inner
    own = [
        cause
        for cause in causes.values()
        if not isinstance(cause, RayError)
        and not isinstance(cause, OtherWorkerError)
        and not (isinstance(cause, RuntimeError) and any(s in str(cause) for s in _SIGNS_OF_LOSS))
        and "ealthCheck" not in type(cause).__name__
    ]
    if own:
        return own[0]
    gone = [rank for rank, cause in causes.items() if isinstance(cause, RayError)]
    if gone:
        return WorkersLostError(f"lost worker(s) {', '.join(map(str, sorted(gone)))}")
    first = next(iter(causes.values()))
    return WorkersLostError(f"workers lost each other ({str(first).splitlines()[0][:200]})")

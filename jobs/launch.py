"""Starting the workers of a run: Ray Train places them, the training loop runs in each."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jobs.cluster import Share
from trainer.results import NetworkResult, TrainJob

# Seconds until a worker gives up on a silent one. Workers wait while the reporter scores a split,
# which may take minutes; one that died is noticed at once, by its closed connection.
_COLLECTIVE_TIMEOUT = 1800


def _work(job: TrainJob) -> list[NetworkResult]:
    from trainer.loop import run_worker  # and DeepSpeed with it, which the driver never needs

    return run_worker(job)


def launch(job: TrainJob, workers: Share, log: Path) -> list[NetworkResult]:
    """Run the training loop on a worker group of the connected cluster.

    Args:
        job: what each worker is told.
        workers: what each worker gets.
        log: where Ray Train keeps its own files.

    Raises:
        Exception: what made a worker fail, as it was raised there.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    grid = job.config.grid
    trainer = TorchTrainer(
        _work,
        train_loop_config=job,
        torch_config=TorchConfig(
            backend="gloo" if workers.device == "cpu" else "nccl",
            timeout_s=_COLLECTIVE_TIMEOUT,
        ),
        scaling_config=ScalingConfig(
            num_workers=grid.stages * grid.replicas,
            use_gpu=workers.device == "gpu",
            resources_per_worker=workers.resources,
            placement_strategy="PACK",
        ),
        run_config=RayRunConfig(
            name="ray", storage_path=str(log), failure_config=FailureConfig(max_failures=0)
        ),
    )
    try:
        with _own_interrupt():
            results: list[NetworkResult] = trainer.fit().return_value
    except WorkerGroupError as error:
        raise _root_cause(error.worker_failures) from error
    return results


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


def _root_cause(failures: Mapping[int, Exception]) -> BaseException:
    """Pick, of what the workers raised, the error that is not just a lost connection."""
    causes: list[BaseException] = []
    for failure in failures.values():
        inner: BaseException = failure
        while inner.__cause__ is not None:
            inner = inner.__cause__
        causes.append(inner)
    own = [cause for cause in causes if "onnection" not in str(cause)]
    return (own or causes)[0]

"""Why a worker group ended before its time: an error of its own, or workers that were lost."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.grid import Grid
from trainer.together import OtherWorkerError

# What PyTorch 2.13's gloo and NCCL say when another worker is gone or silent.
_SILENT = ("Timed out", "timed out", "timeout")
_SIGNS_OF_LOSS = (
    *_SILENT,
    "onnection",
    "Socket",
    "socket",
    "NCCL",
    "closed by peer",
    "Broken pipe",
)
_FOLDER = "workers"
_ASKED, _PAUSE = 5, 0.1  # times that Ray is asked who died, and seconds between


class WorkersLostError(Exception):
    """Workers were lost: by a signal, with their node, or silent for too long."""


class NodeLostError(WorkersLostError):
    """Workers were lost with their node."""


class MemoryLostError(WorkersLostError):
    """Ray ended workers because the node was short of memory."""


@dataclass(frozen=True)
class Death:
    """A worker's end that it did not choose.

    Attributes:
        rank: of the worker.
        pid: of its process.
        address: of its node.
        node: whether the whole node was lost.
        memory: whether Ray ended it because memory was short.
    """

    rank: int
    pid: int
    address: str
    node: bool
    memory: bool


def sign_in(storage: Path) -> None:
    """Note which process this worker is; called in the worker, read when it is lost."""
    # DeepSpeed imports MLflow for its autotuner if it can, which takes a second of every start.
    # Only the driver talks to the tracker.
    sys.modules.setdefault("mlflow", None)  # type: ignore[arg-type]
    folder = storage / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rank = os.environ["RANK"]
    partial = folder / f"{rank}.partial"  # the driver reads while workers write
    partial.write_text(json.dumps({"pid": os.getpid()}))
    partial.rename(folder / f"{rank}.json")


def signed_in(storage: Path) -> dict[int, int]:
    """Return the rank of each process that signed in."""
    return {
        int(json.loads(path.read_text())["pid"]): int(path.stem)
        for path in (storage / _FOLDER).glob("*.json")
    }


def sign_out(storage: Path) -> None:
    """Forget the workers of a group that has ended."""
    for path in (storage / _FOLDER).glob("*.json"):
        path.unlink()


def cause_of(
    failures: Mapping[int, Exception], grid: Grid, hang_seconds: float, storage: Path
) -> BaseException:
    """Pick, of what the workers raised, the error that is not a consequence of another's.

    A worker that died raised nothing; its peers say that they lost it.

    Args:
        failures: by rank, as Ray Train reports them.
        grid: the workers.
        hang_seconds: how long they waited for one that was silent.
        storage: where they signed in.

    Returns:
        A worker's own error, or a :class:`WorkersLostError` that says who was lost.
    """
    causes = {rank: _root(failure) for rank, failure in failures.items()}
    for cause in causes.values():
        if not _is_consequence(cause):
            return cause
    if deaths := _deaths(storage):
        kind = WorkersLostError
        if any(death.node for death in deaths):
            kind = NodeLostError
        elif any(death.memory for death in deaths):
            kind = MemoryLostError
        return kind(in_words(deaths, grid))
    mute = {rank for rank, cause in causes.items() if "HealthCheckTimeout" in type(cause).__name__}
    if mute or any(any(sign in str(cause) for sign in _SILENT) for cause in causes.values()):
        silent = sorted(mute or set(range(grid.workers)) - set(causes))
        which = _workers(silent) if silent else "a worker"
        return WorkersLostError(f"lost {which}: silent for {hang_seconds:g} s")
    gone = sorted(set(range(grid.workers)) - set(causes)) or sorted(causes)
    return WorkersLostError(f"lost the connection to {_workers(gone)}")


def in_words(deaths: Iterable[Death], grid: Grid) -> str:
    """Say who was lost, for people."""
    parts = []
    known = sorted(deaths, key=lambda death: death.rank)
    for address in sorted({death.address for death in known if death.node}):
        ranks = [death.rank for death in known if death.node and death.address == address]
        parts.append(f"node {address} is gone, with {_workers(ranks)}")
    for death in known:
        if not death.node:
            where = f"stage {grid.stage(death.rank)} of replica {grid.replica(death.rank)}"
            why = " for want of memory" if death.memory else ""
            parts.append(
                f"worker {death.rank} ({where}, process {death.pid} on {death.address}) died{why}"
            )
    return "; ".join(parts)


def _workers(ranks: Iterable[int]) -> str:
    numbers = [str(rank) for rank in ranks]
    return f"worker{'s' * (len(numbers) > 1)} {', '.join(numbers)}"


def _root(failure: BaseException) -> BaseException:
    while failure.__cause__ is not None:
        failure = failure.__cause__
    return failure


def _is_consequence(cause: BaseException) -> bool:
    """Whether a worker failed only because another did, or did not raise anything itself."""
    from ray.exceptions import RayError

    if isinstance(cause, (RayError, OtherWorkerError)) or "HealthCheck" in type(cause).__name__:
        return True
    return isinstance(cause, RuntimeError) and any(s in str(cause) for s in _SIGNS_OF_LOSS)


def _deaths(storage: Path) -> list[Death]:
    """Ask Ray which workers of this attempt died; of a node's end it may not know yet."""
    for _ in range(_ASKED):
        if deaths := _known_deaths(storage):
            return deaths
        time.sleep(_PAUSE)
    return []


def _known_deaths(storage: Path) -> list[Death]:
    import ray
    import ray._private.state

    mine = ray.get_runtime_context().get_job_id()
    ranks = signed_in(storage)
    deaths = []
    # There is no public call without Ray's dashboard.
    for actor in ray._private.state.actors().values():
        rank = ranks.get(int(actor["Pid"]))
        if actor["JobID"] != mine or actor["State"] != "DEAD" or rank is None:
            continue
        reason = _reason(actor["DeathCause"])
        if reason in ("WORKER_DIED", "NODE_DIED", "OOM"):
            address = actor["Address"]["IPAddress"]
            deaths.append(
                Death(rank, actor["Pid"], address, reason == "NODE_DIED", reason == "OOM")
            )
    return deaths


def _reason(cause: Any) -> str:
    """Read the reason out of Ray's record of an actor's death."""
    if cause is None:
        return ""
    if cause.HasField("oom_context"):
        return "OOM"
    if not cause.HasField("actor_died_error_context"):
        return ""
    context = cause.actor_died_error_context
    return str(type(context).Reason.Name(context.reason))

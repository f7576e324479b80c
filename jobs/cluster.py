"""The Ray cluster of a command: one that is there, or a private one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import InputError
from trainer.config import Device
from trainer.grid import Grid


@dataclass(frozen=True)
class Cluster:
    """What a cluster offers.

    Attributes:
        each: logical CPUs and GPUs of each living node.
        local: whether this command started it, on this machine.
    """

    each: tuple[tuple[int, int], ...]
    local: bool

    @property
    def cpus(self) -> int:
        """Logical CPUs of all nodes."""
        return sum(cpus for cpus, _ in self.each)

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(gpus for _, gpus in self.each)

    @property
    def nodes(self) -> int:
        """Living nodes."""
        return len(self.each)

    def fits(self, cpus: int, *, gpu: bool) -> int:
        """How many workers fit that take so many CPUs of one node, and a GPU if they do."""
        return sum(min(free // cpus, gpus) if gpu else free // cpus for free, gpus in self.each)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Connect to the Ray cluster that ``RAY_ADDRESS`` names, or start one for this command.

    A started one is private: it listens on this machine, with a token of its own, and ends with
    the command. Ray is imported here and not before, because it reads its settings on import.
    """
    address = os.environ.get("RAY_ADDRESS")
    _authenticate(joining=address is not None)
    # The controller looks at its workers this often; its default makes a finished run, or a failed
    # worker, go unnoticed for two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # We watch for nodes that are about to be taken away ourselves (jobs.watch): one process less.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # For Prometheus; nobody reads them here.
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    # The controller is a part of the driver (jobs.group), whose log is its own.
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    # Workers are placed on nodes that answer; what still does not start is tried again elsewhere.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():  # a command that runs within another one shares its cluster
        yield _describe(local=False)
        return
    handler = signal.getsignal(signal.SIGTERM)
    if address is not None:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            num_cpus=os.cpu_count(),
        )
    # Ray installs a handler that prints a stack and aborts; a plain kill shall end us in order.
    signal.signal(signal.SIGTERM, handler)
    try:
        yield _describe(local=address is None)
    finally:
        ray.shutdown()


def _authenticate(*, joining: bool) -> None:
    """Choose how Ray authenticates, unless the environment says.

    Joining: use the token that there is. Starting: a token of our own, in the environment of this
    process and its children only, so that nothing is written to the home folder.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    known = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if known or (joining and (Path.home() / ".ray" / "auth_token").is_file()):
        os.environ["RAY_AUTH_MODE"] = "token"
    elif not joining:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _describe(*, local: bool) -> Cluster:
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Cluster(
        tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in found), local
    )


@dataclass(frozen=True)
class Share:
    """What each worker gets.

    Attributes:
        device: "cpu" or "gpu".
        cpus: logical CPUs a worker; below 1 where workers share a core.
        nodes: nodes of the cluster.
        notes: what the user should know about it.
    """

    device: Device
    cpus: float
    nodes: int
    notes: tuple[str, ...]

    @property
    def resources(self) -> dict[str, float]:
        """The share as Ray resources."""
        return {"CPU": self.cpus} | ({"GPU": 1.0} if self.device == "gpu" else {})


def share(cluster: Cluster, grid: Grid, device: Device | None) -> Share:
    """Decide what each worker of a grid gets; a wish that can't be met is an error.

    Raises:
        InputError: a GPU was asked for, or is there but not for every worker; or a cluster that is
            not ours to overload has too few CPUs.
    """
    workers = grid.workers
    if device is None:
        if 0 < cluster.gpus < workers:
            raise InputError(
                f"{workers} workers need a GPU each, and there are {cluster.gpus}",
                remedy="use fewer stages or replicas, or say --device cpu",
            )
        device = "gpu" if cluster.gpus >= workers else "cpu"
    elif device == "gpu" and cluster.gpus < workers:
        raise InputError(
            f"--device gpu: {workers} workers need a GPU each, and there are {cluster.gpus}",
            remedy="use fewer stages or replicas, or say --device cpu",
        )
    notes = [f"computing on {device.upper()}: {workers} workers, {cluster.cpus} CPUs"]
    gpu = device == "gpu"
    most = max((cpus for cpus, _ in cluster.each), default=0)
    room = (cpus for cpus in range(most, 0, -1) if cluster.fits(cpus, gpu=gpu) >= workers)
    cpus = float(next(room, 0))  # the most that each can have where nodes are not divided
    if not cpus:
        if not cluster.local:
            raise InputError(
                f"{workers} workers need a CPU each{' beside a GPU' if gpu else ''}, and the "
                f"cluster has {cluster.cpus}",
                remedy="use fewer stages or replicas, or a larger cluster",
            )
        cpus = cluster.cpus / workers
        notes.append(f"{workers} workers share {cluster.cpus} CPUs: this gains no speed")
    return Share(device, cpus, cluster.nodes, tuple(notes))

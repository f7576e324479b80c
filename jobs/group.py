"""How Ray Train sets up the workers' process group, lets go of it, and is interrupted."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.callback import RayTrainCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup, remove_placement_group

from trainer.config import Device

_HEALTH = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
_ABORT = 10.0  # seconds that the controller may take to end its workers


class Trainer(DataParallelTrainer):  # type: ignore[misc]  # ray has no types
    """Ray Train's own, quicker to start, for threads too, and with an interrupt that is ours.

    Ray Train 2.60 starts a process for data sets of Ray Data, which we have none of, and one that
    gives a dead controller's resources back, if Ray's dashboard runs: :meth:`close` does that
    without. It puts a handler of its own on Ctrl-C and leaves it there; an interrupt that arrives
    as the run ends is lost.

    Args:
        storage: folder for notes about the group, on this node.
        hang_seconds: a worker that is silent for so long counts as lost.
        settings: of Ray Train's trainer.
    """

    def __init__(self, storage: Path, hang_seconds: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._storage, self._hang_seconds = storage, hang_seconds
        self._controller: Any = None
        self._work: Any = None

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, (DatasetsCallback, PlacementGroupCleanerCallback))
        ]
        return [*callbacks, _Room(self._storage)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        environment = {**get_env_vars_to_propagate(), _HEALTH: f"{self._hang_seconds:g}"}
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        controller = ray.remote(
            num_cpus=0, label_selector=here, runtime_env={"env_vars": environment}
        )(TrainController)
        self._controller = controller.remote(**settings)
        self._work = self._controller.run.remote()
        ray.get(self._work)
        return ray.get(self._controller.get_result.remote())

    def wait(self, seconds: float) -> None:
        """After an interrupt: wait for workers that were asked to leave, so long at most."""
        if self._work is not None:
            ray.wait([self._work], timeout=seconds)

    def close(self) -> None:
        """End what is left of the group: workers that still run, and the room that it held."""
        if not ray.is_initialized():  # the cluster is gone; to ask would start another one
            return
        if self._controller is not None:
            with contextlib.suppress(RayActorError, GetTimeoutError):
                ray.get(self._controller.abort.remote(), timeout=_ABORT)
            self._controller = None
        _Room(self._storage).give_back()


class _Room(WorkerGroupCallback):  # type: ignore[misc]  # ray has no types
    """Notes which placement group the workers have; the controller runs on the driver's node."""

    def __init__(self, storage: Path) -> None:
        self._note = storage / "placement-group"

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Write the id down."""
        handle = worker_group.get_worker_group_state().placement_group_handle
        self._note.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(handle.placement_group.id.hex())

    def give_back(self) -> None:
        """Remove the placement group, which outlives a controller that was killed."""
        if self._note.exists():
            group = ray._raylet.PlacementGroupID(bytes.fromhex(self._note.read_text()))
            remove_placement_group(PlacementGroup(group))
            self._note.unlink()


class _Gathering(Backend):  # type: ignore[misc]  # ray has no types
    """Brings the workers' process group up.

    As Ray Train's own for PyTorch, but the controller, which runs this, does not import PyTorch;
    and workers that end are not asked to leave the group in order first: that waits half a minute
    for one that is stopped or on a lost node.
    """

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        """Have all workers meet at the first one."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        met = [
            worker_group.execute_single_async(rank, _meet, address, port, backend_config)
            for rank in range(len(worker_group))
        ]
        ray.get(met)


@dataclass
class ProcessGroup(BackendConfig):  # type: ignore[misc]  # ray has no types
    """Ray Train's description of a process group.

    Attributes:
        device: of the workers: gloo on CPUs, NCCL on GPUs.
        hang_seconds: how long a worker waits for another before it counts as lost.
    """

    device: Device
    hang_seconds: float

    @property
    def backend_cls(self) -> type[_Gathering]:
        """The class that sets it up."""
        return _Gathering


def _meet(address: str, port: int, group: ProcessGroup) -> None:
    """Join the process group; runs in each worker. The environment is what ``torchrun`` sets."""
    import torch.distributed as dist

    here = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(here.get_world_rank()),
        "WORLD_SIZE": str(here.get_world_size()),
        "LOCAL_RANK": str(here.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(here.get_local_world_size()),
        "NODE_RANK": str(here.get_node_rank()),
    }
    backend = "gloo" if group.device == "cpu" else "nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=group.hang_seconds))

"""How Ray Train runs a worker group for us: its controller, the process group, interrupts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.state import AbortedState
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import remove_placement_group

from trainer.config import Device

_ABORT = 10.0  # seconds that the controller may take to end its workers


class Trainer(DataParallelTrainer):  # type: ignore[misc]  # ray has no types
    """Ray Train's own, quicker to start, for threads too, and with an interrupt that is ours.

    Ray Train 2.60 starts four processes that a run can do without: for its controller, for data
    sets of Ray Data, to reserve what workers need with an autoscaler, and to give a dead
    controller's resources back. Here the controller is a thread of the driver, without which a run
    can't go on anyway; we have no data sets of Ray Data; an autoscaler sees the placement group
    that the workers wait for; and :meth:`close` gives resources back, as Ray does when a driver
    dies. Ray Train also puts a handler of its own on Ctrl-C and leaves it there; an interrupt that
    arrives as the run ends is lost.

    Args:
        settings: of Ray Train's trainer; the backend is a :class:`ProcessGroup`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._control: _Control | None = None
        self._room = _Room()

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, (DatasetsCallback, PlacementGroupCleanerCallback))
        ]
        return [*callbacks, self._room]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        settings["scaling_policy"] = _FixedSize(self.scaling_config)
        self._control = _Control(settings)
        return self._control.result.result()

    def wait(self, seconds: float) -> None:
        """After an interrupt: wait for workers that were asked to leave, so long at most."""
        if self._control is not None:
            wait_for([self._control.result], timeout=seconds)

    def close(self) -> None:
        """End what is left of the group: workers that still run, and the room that they held."""
        if not ray.is_initialized():  # the cluster is gone; to ask would start another one
            return
        if self._control is not None:
            self._control.abort(_ABORT)
            self._control = None
        self._room.give_back()


class _Control:
    """A controller in a thread of its own.

    Attributes:
        result: what came of the run, once it is over.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.result: Future[Any] = Future()
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._controller: _Controller | None = None
        self._work: asyncio.Task[None] | None = None
        threading.Thread(target=self._run, name="ray-train-controller", daemon=True).start()

    def _run(self) -> None:
        try:
            self._controller = _Controller(**self._settings)
            self._work = self._loop.create_task(self._controller.run())
            self._loop.run_until_complete(self._work)
            self.result.set_result(self._controller.get_result())
        except BaseException as error:
            self.result.set_exception(error)
        finally:
            self._loop.close()

    def abort(self, seconds: float) -> None:
        """End the workers if the run is not over; wait for that so long at most."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            self._loop.call_soon_threadsafe(self._abort)
        with contextlib.suppress(NotYetError):
            self.result.exception(timeout=seconds)

    def _abort(self) -> None:
        if self._controller is not None and self._work is not None:
            self._controller.end_workers()
            self._work.cancel()


class _FixedSize(FixedScalingPolicy):  # type: ignore[misc]  # ray has no types
    """As many workers as were asked for; no process that tells an autoscaler about them."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Reserve nothing."""

    def _maybe_send_resource_request(self) -> None:
        pass


class _Workers(WorkerGroup):  # type: ignore[misc]  # ray has no types
    """Ray Train's worker group, started by a driver and not by an actor."""

    def __init__(self, train_run_context: Any, *settings: Any, **named: Any) -> None:
        super().__init__(train_run_context, *settings, **named)
        self._worker_health_check_timeout_s = train_run_context.backend_config.hang_seconds

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
        """Ask for nothing of its own, so that processes which Ray holds ready will do."""
        return dict(custom_runtime_env)

    def _init_train_context_on_workers(
        self, workers: Any, sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        """Tell workers where they are; they have no controller to turn to, and never do."""
        told = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **{name: values[rank] for name, values in train_context_args.items()},
            )
            for rank, worker in enumerate(workers)
        ]
        ray.get(told)
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):  # type: ignore[misc]  # ray has no types
    """Ray Train's controller, which is no actor here."""

    worker_group_cls = _Workers

    def end_workers(self) -> None:
        """Kill the workers, if there are any, and let nothing follow."""
        if not self.get_state().is_terminal():
            if self._worker_group:
                self._worker_group.abort()
            self._set_state(AbortedState())


class _Room(WorkerGroupCallback):  # type: ignore[misc]  # ray has no types
    """Knows which placement group the workers have."""

    def __init__(self) -> None:
        self._group: Any = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Note the placement group."""
        handle = worker_group.get_worker_group_state().placement_group_handle
        self._group = handle.placement_group

    def give_back(self) -> None:
        """Remove the placement group, which outlives a controller that could not end in order."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None


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

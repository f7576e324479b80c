"""How Ray Train sets up the workers' process group, lets go of it, and is interrupted."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend

from trainer.config import Device

_ABORT = 10.0  # seconds that the controller may take to end its workers


class Trainer(TorchTrainer):  # type: ignore[misc]  # ray has no types
    """Ray Train's own; an interrupt is ours.

    Ray Train 2.60 puts a handler of its own on Ctrl-C and leaves it there; one that arrives as the
    run ends is lost.
    """

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:
        self._controller = controller

    def abort(self) -> None:
        """End the workers at once."""
        if self._controller is None:
            return
        with contextlib.suppress(RayActorError, GetTimeoutError):
            ray.get(self._controller.abort.remote(), timeout=_ABORT)
        self._controller = None


class _Backend(_TorchBackend):  # type: ignore[misc]  # ray has no types
    """Ray Train's own, in its setup."""

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Do nothing: the workers end, and their process group with them.

        Ray Train 2.60 has each of them leave the group in order first, and waits half a minute for
        one that is stopped or on a lost node.
        """


@dataclass
class _Config(TorchConfig):  # type: ignore[misc]  # ray has no types
    """Ray Train's own, with our backend."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """The class that sets up and lets go."""
        return _Backend


def process_group(device: Device, hang_seconds: float) -> TorchConfig:
    """Describe the process group of workers.

    Args:
        device: of the workers: gloo on CPUs, NCCL on GPUs.
        hang_seconds: how long a worker waits for another before it counts as lost.
    """
    backend = "gloo" if device == "cpu" else "nccl"
    return _Config(backend=backend, timeout_s=max(1, round(hang_seconds)))

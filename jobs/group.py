"""How Ray Train sets up the workers' process group, and lets go of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from trainer.config import Device


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

"""System metrics of each node, sampled in a thread of its first worker."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pynvml

from trainer.events import EventWriter

_INTERVAL = 5.0  # seconds
_MB = 1 << 20


class SystemSampler:
    """Logs CPU, GPU, memory, disk and network use of this node while its context is open.

    The names are those that MLflow's system metrics page shows.
    """

    def __init__(self, folder: Path, node: int, *, active: bool) -> None:
        self._writer = EventWriter(folder / file_name(node) if active else None)
        self._prefix = "system/" if node == 0 else f"system/node{node}/"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system-metrics", daemon=True)
        self._active = active

    @classmethod
    def on_first_worker_of_node(cls, run_folder: Path) -> Self:
        """Make a sampler that is active on one worker of each node only."""
        node = int(os.environ.get("NODE_RANK", "0"))
        return cls(run_folder / "log", node, active=os.environ.get("LOCAL_RANK", "0") == "0")

    def __enter__(self) -> Self:
        if self._active:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._active:
            self._thread.join()
        self._writer.close()

    def _sample(self) -> None:
        gpus = Gpus()
        psutil.cpu_percent()  # the first call has no interval to look back on
        sample = 0
        while not self._stopped.wait(_INTERVAL if sample else 1.0):
            memory, disk, net = psutil.virtual_memory(), psutil.disk_usage("/"), _network()
            values = {
                "cpu_utilization_percentage": psutil.cpu_percent(),
                "system_memory_usage_megabytes": memory.used / _MB,
                "system_memory_usage_percentage": memory.percent,
                "disk_usage_percentage": disk.percent,
                "disk_available_megabytes": disk.free / _MB,
                "network_receive_megabytes": net[0],
                "network_transmit_megabytes": net[1],
                **gpus.look(),
            }
            self._writer.metrics("", sample, {self._prefix + k: v for k, v in values.items()})
            sample += 1


class Gpus:
    """The GPUs of this node, as NVIDIA's driver sees them; none where there is no driver."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except pynvml.NVMLError:
            return

    def look(self) -> dict[str, float]:
        """Return what each is doing; what the driver does not tell is left out."""
        values: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            with contextlib.suppress(pynvml.NVMLError):
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                values[f"gpu_{index}_memory_usage_megabytes"] = memory.used / _MB
                values[f"gpu_{index}_memory_usage_percentage"] = 100 * memory.used / memory.total
            with contextlib.suppress(pynvml.NVMLError):
                busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
                values[f"gpu_{index}_utilization_percentage"] = float(busy)
            with contextlib.suppress(pynvml.NVMLError):
                power = pynvml.nvmlDeviceGetPowerUsage(handle)  # milliwatts
                values[f"gpu_{index}_power_usage_watts"] = power / 1000
        return values


def file_name(node: int) -> str:
    """Name of a node's log in the run's ``log`` folder."""
    return f"system-node{node}.jsonl"


def _network() -> tuple[float, float]:
    counters = psutil.net_io_counters()
    return counters.bytes_recv / _MB, counters.bytes_sent / _MB

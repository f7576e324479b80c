from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from trainer import system
from trainer.events import EventReader
from trainer.system import Gpus, SystemSampler, file_name


def test_the_first_worker_of_a_node_samples_and_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    monkeypatch.setattr(system, "_INTERVAL", 0.05)
    monkeypatch.setenv("NODE_RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with SystemSampler.on_first_worker_of_node(tmp_path):
        pass
    assert not list((tmp_path / "log").iterdir())
    monkeypatch.setenv("LOCAL_RANK", "0")
    with SystemSampler.on_first_worker_of_node(tmp_path) as sampler:
        sampler._thread.join(timeout=1.4)
    events = list(EventReader(tmp_path / "log" / file_name(0)).new())
    assert len(events) >= 2
    assert [event.step for event in events] == list(range(len(events)))
    assert 0 < events[0].values["system/system_memory_usage_percentage"] < 100


def test_gpus_are_told_as_the_driver_sees_them_and_what_it_refuses_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(handle: str) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=512 << 20, total=2048 << 20),
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=int(gpu[-1]) * 40 + 10),
        "nvmlDeviceGetPowerUsage": refuse,
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    assert Gpus().look() == {
        "gpu_0_memory_usage_megabytes": 512.0,
        "gpu_0_memory_usage_percentage": 25.0,
        "gpu_0_utilization_percentage": 10.0,
        "gpu_1_memory_usage_megabytes": 512.0,
        "gpu_1_memory_usage_percentage": 25.0,
        "gpu_1_utilization_percentage": 50.0,
    }


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert Gpus().look() == {}

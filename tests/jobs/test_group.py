"""A worker group on Ray: what workers are told, and what an interrupt leaves behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs import launch
from jobs.cluster import cluster, share
from jobs.launch import run_group
from jobs.lost import signed_in
from trainer.grid import Grid

pytestmark = pytest.mark.slow


def environment(_: Any) -> dict[str, str]:
    import torch.distributed as dist

    assert dist.get_backend() == "gloo"
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
    return {name: os.environ[name] for name in names}


def stay(_: Any) -> None:
    time.sleep(600)


def test_a_group_tells_workers_their_place(tmp_path: Path, ray_cluster: None) -> None:
    with cluster() as found:
        grid = Grid(2, 1)
        told = run_group(environment, None, grid, share(found, grid, "cpu"), tmp_path)
    assert told == {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
        "NODE_RANK": "0",
    }


def test_an_interrupt_ends_the_workers_and_gives_their_room_back(
    tmp_path: Path, ray_cluster: None
) -> None:
    import ray

    asked: list[str] = []

    def leave() -> None:  # workers that do not listen
        asked.append("leave")
        monkey.setattr(launch, "_LEAVE", 1.0)

    with cluster() as found, pytest.MonkeyPatch.context() as monkey:
        grid = Grid(2, 1)
        workers = share(found, grid, "cpu")
        begun = partial(_interrupt_once_begun, tmp_path)
        threading.Thread(target=begun, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run_group(stay, None, grid, workers, tmp_path, leave=leave)
        assert asked == ["leave"]
        deadline = time.monotonic() + 10
        while ray.available_resources().get("CPU") != found.cpus and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ray.available_resources()["CPU"] == found.cpus
    assert not any(psutil.pid_exists(pid) for pid in signed_in(tmp_path))


def _interrupt_once_begun(storage: Path) -> None:
    while len(signed_in(storage)) < 2:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)

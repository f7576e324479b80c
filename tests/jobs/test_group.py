"""What a worker group leaves behind when its controller is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster import cluster, share
from jobs.launch import run_group
from jobs.lost import WorkersLostError
from trainer.grid import Grid

pytestmark = pytest.mark.slow


def kill_the_controller(_: Any) -> None:
    from ray.train.v2._internal.execution import context

    controller = context.get_train_context().controller_actor
    pid = ray_pid(controller._actor_id.hex())
    os.kill(pid, signal.SIGKILL)
    time.sleep(60)


def ray_pid(actor: str) -> int:
    import ray._private.state

    return int(ray._private.state.actors(actor)["Pid"])


def environment(_: Any) -> dict[str, str]:
    import torch.distributed as dist

    assert dist.get_backend() == "gloo"
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
    return {name: os.environ[name] for name in names}


def test_a_group_tells_workers_their_place_and_gives_its_room_back_when_its_controller_dies(
    tmp_path: Path, ray_cluster: None
) -> None:
    with cluster() as found:
        import ray

        grid = Grid(2, 1)
        workers = share(found, grid, "cpu")
        told = run_group(environment, None, grid, workers, tmp_path / "a")
        assert told == {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "2",
            "NODE_RANK": "0",
        }
        with pytest.raises(WorkersLostError, match="controller died"):
            run_group(kill_the_controller, None, grid, workers, tmp_path / "b")
        deadline = time.monotonic() + 10
        while ray.available_resources().get("CPU") != found.cpus and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ray.available_resources()["CPU"] == found.cpus

"""When a run is called away; with a cluster that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.store.location import Location
from jobs import watch
from jobs.nodes import Node
from trainer.config import RunConfig
from trainer.grid import Grid, lay_out
from trainer.results import TrainJob

NEED = {"CPU": 1.0}


class Nodes:
    """A made-up cluster."""

    def __init__(self) -> None:
        self.leaving: set[str] = set()
        self.free: dict[str, float] = {}
        self.mute: set[str] = set()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    found = Nodes()
    monkeypatch.setattr(watch, "draining", lambda: set(found.leaving))
    monkeypatch.setattr(
        watch, "nodes", lambda free: [Node(name, {"CPU": n}) for name, n in found.free.items()]
    )
    monkeypatch.setattr(watch, "answering", lambda nodes: {node.id for node in nodes} - found.mute)
    return found


def watching(folder: Path, replicas: int, begun: int = 8) -> watch.Watch:
    grid = Grid(2, replicas)
    layout = lay_out(32, grid, 8 // replicas)
    job = TrainJob(
        RunConfig(recipe="x", batch_size=32), Location.parse("/x"), folder, "cpu", grid, layout
    )
    return watch.Watch(job, Grid(2, 4), NEED, lambda: begun)


def test_a_node_that_goes_calls_away_unless_it_was_known_before(
    cluster: Nodes, tmp_path: Path
) -> None:
    cluster.leaving = {"old"}
    watcher = watching(tmp_path, 4)
    assert watcher._why_leave() is None
    cluster.leaving.add("spot-instance")
    assert watcher._why_leave() == "node spot-ins is about to be taken away"


def test_room_for_a_lost_replica_calls_away_once_it_has_lasted(
    cluster: Nodes, tmp_path: Path
) -> None:
    watcher = watching(tmp_path, 1)
    cluster.free = {"a": 2.0}
    assert [watcher._why_leave() for _ in range(2)] == [None, None]
    assert watcher._why_leave() == "there is room for 2 replicas again"
    watcher = watching(tmp_path, 1)
    for free in (2.0, 2.0, 0.0, 2.0, 2.0):
        cluster.free = {"a": free}
        assert watcher._why_leave() is None


def test_room_is_not_looked_for_before_all_workers_have_begun(
    cluster: Nodes, tmp_path: Path
) -> None:
    cluster.free = {"a": 4.0}  # what the two workers themselves are waiting for
    watcher = watching(tmp_path, 1, begun=1)
    assert not any(watcher._why_leave() for _ in range(10))
    watcher = watching(tmp_path, 1, begun=2)
    assert [watcher._why_leave() for _ in range(3)][-1] == "there is room for 2 replicas again"


def test_room_on_a_node_that_does_not_answer_is_none(cluster: Nodes, tmp_path: Path) -> None:
    watcher = watching(tmp_path, 1)
    cluster.free, cluster.mute = {"gone": 2.0}, {"gone"}
    assert not any(watcher._why_leave() for _ in range(10))


def test_only_grids_that_share_out_the_batch_are_worth_moving_for(
    cluster: Nodes, tmp_path: Path
) -> None:
    watcher = watching(tmp_path, 2)
    cluster.free = {"a": 2.0}  # 3 replicas, and 32 samples in micro-batches of 4 don't divide by 3
    assert not any(watcher._why_leave() for _ in range(5))
    cluster.free = {"a": 2.0, "b": 2.0}
    assert [watcher._why_leave() for _ in range(3)][-1] == "there is room for 4 replicas again"


def test_the_wish_to_leave_reaches_workers_and_is_taken_back(
    cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_LOOK", 0.001)
    watcher = watching(tmp_path, 4)
    job = watcher._job
    with watcher:
        assert not job.called_away()
        cluster.leaving = {"spot"}
        watcher._thread.join(10)
        assert job.called_away()
    assert watcher.reason == "node spot is about to be taken away"
    assert not job.called_away()

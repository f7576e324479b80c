"""When a run is started again, when it gives up, and what it says; with groups that are made up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from data_shards.store.location import Location
from jobs import launch
from jobs.cluster import Share
from jobs.lost import WorkersLostError
from jobs.nodes import Node
from trainer.config import FailureConfig, RunConfig
from trainer.grid import Grid, lay_out
from trainer.results import Outcome, TrainJob

SHARE = Share("cpu", 1.0, 1, ())
GRID = Grid(2, 2)
RESULTS: list[Any] = ["results"]
Attempt = Callable[[TrainJob], Outcome]


class Made:
    """Attempts that are made up, and what was said and started."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.grids: list[Grid] = []
        self.rooms = [4]
        config = RunConfig(recipe="danq", batch_size=32, failure=FailureConfig(restarts=2))
        layout = lay_out(32, GRID, 2)
        self.job = TrainJob(config, Location.parse("/nowhere"), folder, "cpu", GRID, layout)
        self.attempts: list[Attempt] = []

        class Watched:
            reason = "called away"

        @contextlib.contextmanager
        def watch(*_: Any) -> Iterator[Watched]:
            yield Watched()

        def run_group(_: Any, job: TrainJob, *__: Any, **___: Any) -> Outcome:
            self.grids.append(job.grid)
            return self.attempts.pop(0)(job)

        def responding(*_: Any) -> list[Node]:
            room = self.rooms.pop(0) if len(self.rooms) > 1 else self.rooms[0]
            return [Node("one", {"CPU": float(room)})]

        monkeypatch.setattr(launch, "Watch", watch)
        monkeypatch.setattr(launch, "run_group", run_group)
        monkeypatch.setattr(launch, "responding", responding)
        monkeypatch.setattr(launch, "nodes", lambda free: [Node("one", {"CPU": 4.0})])
        monkeypatch.setattr(launch, "_LOOK", 0.001)

    def run(self, wait: float = 10.0) -> list[Any]:
        return launch.launch(self.job, SHARE, self.job.run_folder, self.said.append, wait)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(tmp_path, monkeypatch)


def finish(_: TrainJob) -> Outcome:
    return Outcome(RESULTS)


def leave(_: TrainJob) -> Outcome:
    return Outcome(None)


def lose(_: TrainJob) -> Outcome:
    raise WorkersLostError("worker 1 died")


def save_and_lose(job: TrainJob) -> Outcome:
    (job.checkpoints / "danq" / "state" / f"step-{job.attempt:08}").mkdir(parents=True)
    raise WorkersLostError("worker 1 died")


def test_restarts_without_a_new_checkpoint_stop_with_the_remedy(made: Made) -> None:
    made.attempts = [lose, lose, lose, finish]
    with pytest.raises(WorkersLostError) as caught:
        made.run()
    assert "worker 1 died, and 2 restarts brought no new checkpoint" in str(caught.value)
    assert f"replisome train --resume {made.job.run_folder}" in str(caught.value)
    assert made.said == ["worker 1 died; starting again from the last checkpoint"] * 2
    assert len(made.grids) == 3


def test_a_run_that_comes_on_is_started_again_as_often_as_needed(made: Made) -> None:
    made.attempts = [*[save_and_lose] * 6, finish]
    assert made.run() == RESULTS


def test_moves_do_not_count_as_restarts(made: Made) -> None:
    made.attempts = [*[leave] * 6, finish]
    assert made.run() == RESULTS
    assert made.said == ["called away; the state is saved"] * 6


def test_an_error_of_a_worker_is_not_tried_again(made: Made) -> None:
    def fail(_: TrainJob) -> Outcome:
        raise ArithmeticError("a bug")

    made.attempts = [fail, finish]
    with pytest.raises(ArithmeticError, match="a bug"):
        made.run()
    assert len(made.grids) == 1


def test_replicas_shrink_to_what_fits_and_grow_again(made: Made) -> None:
    made.attempts, made.rooms = [lose, leave, finish], [4, 3, 4]
    made.run()
    assert made.grids == [GRID, Grid(2, 1), GRID]
    assert "1 of 2 replicas go on, with the same batch" in made.said


def test_without_room_for_a_replica_it_waits_and_goes_on(made: Made) -> None:
    made.attempts, made.rooms = [lose, finish], [4, 1, 0, 1, 2]
    made.run()
    assert [text for text in made.said if "waiting" in text] == [
        "no room for a replica: waiting for nodes, 10 s at most"
    ]
    assert made.grids[-1] == Grid(2, 1)


def test_waiting_ends_with_the_remedy(made: Made) -> None:
    made.attempts, made.rooms = [lose], [4, 1]
    with pytest.raises(InputError, match="no room for the 2 worker") as caught:
        made.run(wait=0.01)
    assert f"--resume {made.job.run_folder}" in str(caught.value)

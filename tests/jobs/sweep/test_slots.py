"""What becomes of a slot and its trial when the group is lost; with groups that are made up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_shards.store.location import Location
from jobs.cluster import Share
from jobs.lost import NodeLostError, WorkersLostError
from jobs.nodes import Node
from jobs.sweep import slots as slots_module
from jobs.sweep.board import Board
from jobs.sweep.messages import Assignment, Told
from jobs.sweep.slot import SlotJob
from jobs.sweep.slots import Slots
from tests.jobs.sweep.test_board import Desk
from trainer.config import RunConfig

Group = Callable[[SlotJob], int]


class Made:
    """Slots on a real board, whose groups are functions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.desk, self.folder = Desk(folder), folder
        self.groups: list[Group] = []
        self.said: list[str] = []
        self.jobs: list[SlotJob] = []

        def run_group(_: Any, job: SlotJob, *__: Any, **___: Any) -> int:
            self.jobs.append(job)
            return self.groups.pop(0)(job)

        monkeypatch.setattr(slots_module, "run_group", run_group)
        monkeypatch.setattr(slots_module, "ask", lambda method, *given: method(*given))
        there = [Node("one", {"CPU": 2.0}), Node("two", {"CPU": 1.0})]
        monkeypatch.setattr(slots_module, "responding", lambda *_: there)

    def run(self, board: Board, *groups: Group, count: int = 1, halve: bool = False) -> Slots:
        self.groups = list(groups)
        config = RunConfig(recipe="danq")
        job = SlotJob(0, board, config, Location.parse("/x"), self.folder, ("loss",), "cpu", {})
        share = Share("cpu", 1.0, 1, ())
        self.slots = Slots(job, count, share, self.folder / "log", self.said.append, halve=halve)
        for thread in self.slots._threads:
            thread.join(30)
        return self.slots


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(tmp_path, monkeypatch)


def take(job: SlotJob) -> Assignment:
    answer = job.board.next(job.number)
    assert isinstance(answer, Assignment)
    return answer


def finish(job: SlotJob) -> int:
    job.board.tell(take(job).number, Told("complete", (0.5,)))
    return 1


def lose(job: SlotJob) -> int:
    take(job)
    raise WorkersLostError("worker 1 died")


def lose_node(job: SlotJob) -> int:
    take(job)
    raise NodeLostError("node 10.0.0.1 is gone")


def run_out(job: SlotJob) -> int:
    take(job)
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 GB")


def states(made: Made) -> list[str]:
    return [trial.state.name for trial in made.desk.trials()]


def test_a_lost_group_is_replaced_and_its_trial_done_again(made: Made) -> None:
    made.run(made.desk.board(retries=1), lose, finish)
    assert states(made) == ["COMPLETE"]
    assert made.said == ["trial 0 in slot 0: worker 1 died; a fresh worker group starts"]


def test_a_trial_that_ends_its_group_again_and_again_fails_and_others_go_on(made: Made) -> None:
    made.run(made.desk.board(retries=1), lose, lose, finish)
    assert states(made) == ["FAIL", "COMPLETE"]
    assert made.desk.trials()[0].user_attrs["replisome.reason"] == "worker 1 died"


def test_lost_nodes_do_not_count_against_a_trial(made: Made) -> None:
    made.run(made.desk.board(retries=0), lose_node, lose_node, lose_node, finish)
    assert states(made) == ["COMPLETE"]


def test_a_trial_without_memory_is_recorded_as_such(made: Made) -> None:
    made.run(made.desk.board(retries=0), run_out, finish)
    assert states(made) == ["FAIL", "COMPLETE"]
    failed = made.desk.trials()[0]
    assert failed.user_attrs["replisome.out_of_memory"] is True
    assert "RuntimeError: DefaultCPUAllocator" in failed.user_attrs["replisome.reason"]


def test_a_trial_without_memory_is_tried_with_half_the_micro_batch_if_asked(made: Made) -> None:
    made.run(made.desk.board(retries=0), run_out, run_out, finish, halve=True)
    assert states(made) == ["COMPLETE"]
    assert [dict(job.halved) for job in made.jobs] == [{}, {0: 1}, {0: 2}]


def test_groups_that_never_get_to_a_trial_end_the_slot(made: Made) -> None:
    def never(_: SlotJob) -> int:
        raise WorkersLostError("the workers could not be started: no space")

    slots = made.run(made.desk.board(), never, never, never, finish)
    [error] = slots.errors
    assert "could not be started" in str(error)
    assert states(made) == []


def test_slots_share_out_the_nodes(made: Made) -> None:
    places: list[int] = []

    def look(_: SlotJob) -> int:
        time.sleep(0.3)  # until all have their room
        places.append(len(made.slots._taken))
        return 0

    slots = made.run(made.desk.board(), look, look, look, look, count=4)
    assert not slots.errors
    assert max(places) == 3, "three workers fit, and the fourth waits"
    assert len(made.jobs) == 4
    assert "slot" in made.said[0]
    assert "waiting for room for its 1 worker(s)" in made.said[0]

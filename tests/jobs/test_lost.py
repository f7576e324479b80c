"""What is told of a group that ended before its time: the error that was first, or who was lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from data_shards.errors import CorruptDataError
from jobs import lost
from jobs.lost import Death, WorkersLostError, cause_of, in_words
from trainer.grid import Grid
from trainer.together import OtherWorkerError

GRID = Grid(2, 2)
GLOO = RuntimeError(
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
    "[127.0.0.1]:15503. This may indicate a remote failure"
)
SILENT = RuntimeError("[unbound_buffer.cc:81] Timed out waiting 6000ms for recv operation")


def told(failures: dict[int, Exception], folder: Path) -> BaseException:
    return cause_of(failures, GRID, 6.0, folder)


@pytest.fixture(autouse=True)
def nobody_known_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost, "_deaths", lambda storage: [])


def test_an_error_of_a_worker_wins_over_what_it_did_to_others(tmp_path: Path) -> None:
    own = CorruptDataError("reference/c/0: 12 bytes")
    assert told({0: GLOO, 1: OtherWorkerError("x"), 2: own, 3: SILENT}, tmp_path) is own
    wrapped = ValueError("around")
    wrapped.__cause__ = own
    assert told({0: GLOO, 1: wrapped}, tmp_path) is own


def test_a_runtime_error_of_the_model_is_not_taken_for_a_lost_worker(tmp_path: Path) -> None:
    own = RuntimeError("mat1 and mat2 shapes cannot be multiplied (16x3 and 4x5)")
    assert told({1: own}, tmp_path) is own


@pytest.mark.parametrize(
    ("failures", "text"),
    [
        ({0: GLOO, 1: GLOO, 3: GLOO}, "lost the connection to worker 2"),
        ({0: GLOO, 1: RayActorError()}, "lost the connection to workers 2, 3"),
        ({0: SILENT, 2: SILENT, 3: GLOO}, "lost worker 1: silent for 6 s"),
        (dict.fromkeys(range(4), SILENT), "lost a worker: silent for 6 s"),
    ],
)
def test_lost_workers_are_told_in_words(
    failures: dict[int, Exception], text: str, tmp_path: Path
) -> None:
    cause = told(failures, tmp_path)
    assert isinstance(cause, WorkersLostError)
    assert str(cause) == text


def test_those_whom_ray_knows_dead_are_named_with_stage_process_and_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = [
        Death(3, 99, "10.0.0.2", node=True, memory=False),
        Death(2, 98, "10.0.0.2", node=True, memory=False),
        Death(1, 77, "10.0.0.1", node=False, memory=True),
    ]
    monkeypatch.setattr(lost, "_deaths", lambda storage: deaths)
    assert str(told({0: GLOO}, tmp_path)) == in_words(deaths, GRID)
    assert in_words(deaths, GRID) == (
        "node 10.0.0.2 is gone, with workers 2, 3; worker 1 (stage 1 of replica 0, process 77 on "
        "10.0.0.1) died for want of memory"
    )


def test_workers_sign_in_and_an_ended_group_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lost.signed_in(tmp_path) == {}
    monkeypatch.setenv("RANK", "3")
    lost.sign_in(tmp_path)
    assert lost.signed_in(tmp_path) == {os.getpid(): 3}
    lost.sign_out(tmp_path)
    assert lost.signed_in(tmp_path) == {}

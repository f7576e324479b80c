"""Workers and nodes lost under a run, on Ray: it goes on, and its losses are as if nothing was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.recovery import settings
from tests.jobs.groups import job_of, run_group, trace_of

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Harmed:
    """What the driver of a harmed run measured, and how far its losses are from a quiet run's."""

    cases: dict[str, dict[str, Any]]
    losses: np.ndarray[Any, Any]
    quiet: np.ndarray[Any, Any]


def harmed(case: str, grid: tuple[int, int], data: Path, folder: Path) -> Harmed:
    with tempfile.TemporaryDirectory(prefix="rpl-", dir="/tmp") as scratch:
        environment = os.environ | {"RAY_TMPDIR": scratch, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.recovery", "--case", case]
        done = subprocess.run(
            [*command, "--times", "1", "--patience", "0", "--data", data, "--folder", folder],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=Path(__file__).resolve().parents[2],
        )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    losses = np.array(answer["losses"][case])
    job = job_of(data, folder / "quiet", grid, len(losses), settings(*grid))
    [end, *_] = run_group(job)
    assert end.value is not None, end.text
    cases = {recovery["case"]: recovery for recovery in answer["recoveries"]}
    return Harmed(cases, losses, np.array(trace_of(job).losses))


@pytest.fixture(scope="module")
def workers(danq_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    return harmed("workers", (2, 1), danq_data, tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="module")
def nodes(danq_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    return harmed("nodes", (2, 2), danq_data, tmp_path_factory.mktemp("nodes"))


def test_a_killed_worker_is_replaced_and_named(workers: Harmed) -> None:
    case = workers.cases["worker killed"]
    assert 0 <= case["lost"] <= 10, "no more than since the last checkpoint"
    assert "worker 0 (stage 0 of replica 0, process" in case["said"][0]
    assert "died; starting again from the last checkpoint" in case["said"][0]


def test_a_worker_that_hangs_is_replaced_in_the_time_that_is_set(workers: Harmed) -> None:
    [said] = workers.cases["worker hangs"]["said"]
    assert "lost worker 1: silent for 6 s; starting again from the last checkpoint" in said


def test_losses_after_lost_workers_are_those_of_a_quiet_run_to_the_last_bit(
    workers: Harmed,
) -> None:
    assert len(workers.losses) > 20
    assert np.array_equal(workers.losses, workers.quiet)


def test_a_lost_node_shrinks_the_replicas(nodes: Harmed) -> None:
    case = nodes.cases["node lost"]
    assert 0 <= case["lost"] <= 10
    assert "1 of 2 replicas go on, with the same batch" in case["said"]


def test_a_node_that_returns_is_used_again_without_a_step_lost(nodes: Harmed) -> None:
    case = nodes.cases["node returns"]
    assert case["lost"] == 0
    assert case["said"] == ["there is room for 2 replicas again; the state is saved"]


def test_a_notice_moves_the_run_before_the_node_goes_without_a_step_lost(nodes: Harmed) -> None:
    case = nodes.cases["notice"]
    assert case["lost"] == 0
    assert "is about to be taken away; the state is saved" in case["said"][0]


def test_without_room_for_a_replica_the_run_waits_and_says_so(nodes: Harmed) -> None:
    said = nodes.cases["no room"]["said"]
    assert "no room for a replica: waiting for nodes, 90 s at most" in said
    assert "1 of 2 replicas go on, with the same batch" in said


def test_losses_over_all_these_grids_are_those_of_a_quiet_run(nodes: Harmed) -> None:
    assert len(nodes.losses) > 40
    assert np.abs(nodes.losses - nodes.quiet).max() <= 1e-6

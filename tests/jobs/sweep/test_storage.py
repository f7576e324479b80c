"""A study in PostgreSQL: also when the server goes away under it; and what may look into it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from optuna.trial import TrialState

from jobs.sweep.messages import WAIT, Assignment, Told
from jobs.sweep.study import masked
from tests.jobs.sweep.conftest import Sweeps, finish
from tests.jobs.sweep.postgres import postgres
from tests.jobs.sweep.test_board import Desk

pytestmark = pytest.mark.slow
TINY = ("--size", "small", "--epochs", "1", "--set", "grid.cut=parameters", "--space")


def test_a_server_that_crashes_and_comes_back_loses_no_trial(tmp_path: Path) -> None:
    with postgres() as server:
        desk = Desk(tmp_path)
        desk.url = server.url
        board = desk.board()
        first = board.next(0)
        assert isinstance(first, Assignment)
        server.stop()
        assert not board.report(first.number, 1, (0.5,))
        board.tell(first.number, Told("complete", (0.5,), seconds=1.0))
        assert board.next(0) == WAIT
        assert board.watch(0)[1].away is not None
        server.start()
        deadline = time.monotonic() + 60
        while not isinstance(second := board.next(0), Assignment):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert second.number == 1
        stored = desk.trials()
        assert [trial.state for trial in stored] == [TrialState.COMPLETE, TrialState.RUNNING]
        assert stored[0].intermediate_values == {1: 0.5}


def test_a_sweep_in_postgresql_goes_on_and_keeps_its_password_to_itself(
    tiny_data: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.toml"
    space.write_text('["optimizer.lr"]\nlow = 1e-3\nhigh = 1e-1\nlog = true\n')
    with postgres() as server:
        sweeps = Sweeps(tiny_data, tmp_path)
        flags = (*TINY, space, "--set", "batch_size=20", "--trials", "2")
        answer = finish(sweeps.begin("s", *flags, "--storage", server.url))
        assert answer["counts"]["complete"] == 2, sweeps.said()
        refused = finish(sweeps.resume("s", "--trials", "3"))
        assert refused["exit"] == 2
        assert "its password is not kept" in refused["error"]
        answer = finish(sweeps.resume("s", "--trials", "3", REPLISOME_STORAGE=server.url))
        assert answer["counts"]["complete"] == 3
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"s3cret-of-tests" not in everything
    assert masked(server.url).startswith("postgresql://postgres:***@127.0.0.1")


def test_optuna_dashboard_opens_the_storage(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    board = desk.board()
    trial = board.next(0)
    assert isinstance(trial, Assignment)
    board.tell(trial.number, Told("complete", (0.5,)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Path(sys.executable).with_name("optuna-dashboard")
    server = subprocess.Popen(
        [command, desk.url, "--port", str(port), "--server", "wsgiref"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies") as page:
                    assert '"study_name": "s"' in page.read().decode()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        server.terminate()
        server.wait()


def test_a_slot_holds_no_more_after_200_trials_than_after_some(
    tiny_data: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[seed]\nlow = 0\nhigh = 100000\n")
    sweeps = Sweeps(tiny_data, tmp_path)
    flags = (*TINY, space, "--set", "batch_size=20", "--stages", "2", "--sampler", "random")
    answer = finish(sweeps.begin("many", *flags, "--pruner", "none", "--trials", "200"))
    assert answer["counts"]["complete"] == 200, sweeps.said()
    trials = sorted(sweeps.study("many").trials, key=lambda trial: trial.datetime_complete)
    assert len(list(sweeps.folder_of("many").log.glob("slot-*"))) == 1, "one group did them all"

    def held(what: str) -> list[float]:
        return [trial.user_attrs[f"replisome.{what}"] for trial in trials]

    for what, slack in (("threads", 3), ("descriptors", 8)):
        assert abs(held(what)[-1] - held(what)[20]) <= slack, held(what)
    assert held("memory_mb")[-1] - held("memory_mb")[20] < 40, held("memory_mb")

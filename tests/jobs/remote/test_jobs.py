"""Commands on a cluster that wants a token, by ``replisome``: sent, followed, stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.remote.client import _Log
from tests.jobs.clusters import ray_head
from tests.worked_examples import commands

pytestmark = pytest.mark.slow
COMMAND = Path(sys.executable).with_name("replisome")
SMALL = ("--size", "small", "--no-baselines", "--set", "grid.cut=parameters")


@dataclass(frozen=True)
class Head:
    """A cluster on this machine."""

    dashboard: str
    environment: dict[str, str]

    def start(self, *words: str | Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self.environment | {"RAY_API_SERVER_ADDRESS": self.dashboard} | environment,
        )

    def run(self, *words: str | Path, **environment: str) -> tuple[int, dict[str, Any], str]:
        """Run a command with --json; return exit status, its object and what was said."""
        process = self.start(*words, **environment)
        stdout, stderr = process.communicate(timeout=300)
        return process.returncode, json.loads(stdout.splitlines()[-1]), stderr

    def submit(self, folder: Path, *words: str | Path) -> tuple[int, dict[str, Any], str]:
        flags = ("--json", "--working-dir", folder, "--python", sys.executable)
        return self.run("submit", *flags, *words)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        head = Head(started.dashboard, started.environment)
        deadline = time.monotonic() + 90
        while head.run("jobs", "list", "--json")[0] != 0:
            assert started.process.poll() is None
            assert time.monotonic() < deadline
        yield head


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "config.toml").write_text('recipe = "danq"\nepochs = 1\n')
    return tmp_path / "work"


def test_a_training_is_followed_to_its_end_and_not_submitted_twice(
    head: Head, folder: Path, danq_data: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    words = ("--label", "team=x", "--", "train", "danq", "--data", danq_data, "--name", "one")
    words = (*words, *SMALL, "--config", "config.toml", "--runs", runs)
    status, answer, said = head.submit(folder, *words)
    assert (status, answer["state"]) == (0, "succeeded"), said
    assert "run danq/one, in" in said, "the job's log comes here"
    assert (runs / "danq" / "one" / "results.json").is_file()

    status, again, _ = head.submit(folder, *words)
    assert status == 2
    assert f"was submitted before: {answer['job']}, succeeded" in again["error"]

    status, listed, _ = head.run("jobs", "list", "--label", "team=x", "--json")
    assert [job["id"] for job in listed["jobs"]] == [answer["job"]]
    assert listed["jobs"][0]["command"].startswith("replisome train danq --data")
    status, log, _ = head.run("jobs", "logs", answer["job"], "--json")
    assert "run danq/one, in" in log["log"]


def test_the_exit_status_is_the_commands_and_no_word_reaches_a_shell(
    head: Head, folder: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    evil = f"x; touch {trap} #"
    status, answer, said = head.submit(folder, "--", "train", "danq", "--data", evil)
    assert status == 2
    assert answer["exit"] == 2
    assert "x; touch" in said, "it is the name of a data set that is not there"
    status, answer, _ = head.submit(folder, "--", "data", "show", f"$(touch {trap})")
    assert status == 2
    assert not trap.exists()


def test_stop_saves_the_run_and_ctrl_c_only_lets_go_of_the_log(
    head: Head, folder: Path, danq_data: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    words = ("train", "danq", "--data", str(danq_data), "--name", "long", "--runs", str(runs))
    process = head.start(
        "submit", "--working-dir", folder, "--python", sys.executable, "--", *words, *SMALL,
        "--epochs", "500",
    )  # fmt: skip
    log = runs / "danq" / "long" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and "train/loss" in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    job = stderr.split("submitted ")[1].split()[0]
    assert f"Follow it: replisome jobs logs {job} --follow" in stderr
    _, listed, _ = head.run("jobs", "list", "--json")
    assert {found["id"]: found["state"] for found in listed["jobs"]}[job] == "RUNNING"

    status, answer, _ = head.run("jobs", "stop", job, "--json")
    assert (status, answer["state"]) == (0, "stopped")
    states = runs / "danq" / "long" / "checkpoints" / "danq" / "state"
    assert list(states.glob("step-*")), "saved on the way out"
    status, _, _ = head.run("jobs", "wait", job, "--json")
    assert status == 130


def test_without_the_token_nothing_is_done(head: Head, folder: Path) -> None:
    environment = {k: v for k, v in head.environment.items() if k != "RAY_AUTH_TOKEN"}
    stranger = Head(head.dashboard, environment | {"HOME": str(folder)})
    status, answer, _ = stranger.run("jobs", "list", "--json")
    assert status == 2
    assert "token" in answer["error"]
    status, answer, _ = head.run("jobs", "list", "--json", RAY_AUTH_TOKEN="0" * 64)
    assert status == 2


def test_the_worked_example_of_the_page(head: Head, danq_data: Path, tmp_path: Path) -> None:
    """The cluster of the example is the one that is there; its address is another."""
    (tmp_path / "x.zarr").symlink_to(danq_data)
    environment = head.environment | {"RAY_API_SERVER_ADDRESS": head.dashboard}
    said = {}
    for line in commands("jobs.md"):
        if not line.startswith("replisome"):
            continue
        command = line.replace("http://127.0.0.1:8265", head.dashboard)
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said[line.split()[1]] = done.stdout + done.stderr
    for what in ("versions", "GPUs", "clock", "runs folder", "data set", "gloo all-reduce"):
        assert what in said["doctor"]
    assert "no faults" in said["doctor"]
    assert "AUROC" in said["submit"]
    assert "succeeded" in said["jobs"].lower()


def test_a_log_that_is_told_from_its_beginning_again_is_written_once() -> None:
    written: list[str] = []
    log = _Log(written.append)
    for pieces in (["one\n", "two\n"], ["one\ntw", "o\nthree\n"], ["one\ntwo\nthree\nfour\n"]):
        log.begin()
        for piece in pieces:
            log.take(piece)
    assert "".join(written) == "one\ntwo\nthree\nfour\n"

"""`replisome train` for real: the same result on another grid and from its own config; failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.tracking import open_store

pytestmark = pytest.mark.slow


def start(data: Path, folder: Path, name: str, *flags: str | Path) -> subprocess.Popen[str]:
    """Start a training, with one thread a worker: another number sums in another order."""
    command = Path(sys.executable).with_name("replisome")
    common = ["train", "danq", "--data", data, "--runs", folder / "runs", "--name", name, "--json"]
    return subprocess.Popen(
        [command, *common, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Return exit status, the JSON object and what was said."""
    stdout, stderr = process.communicate(timeout=600)
    return process.returncode, json.loads(stdout.splitlines()[-1]), stderr


def results(folder: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (folder / "runs" / "danq" / name / "results.json").read_text()
    )
    return loaded


def status_of(folder: Path, name: str) -> tuple[str, dict[str, str]]:
    client = open_store(folder / "runs")
    experiment = client.get_experiment_by_name("danq")
    [run] = client.search_runs(
        [experiment.experiment_id], f"attributes.run_name = '{name}'", max_results=2
    )
    return run.info.status, run.data.tags


SHORT = ("--size", "small", "--epochs", "1", "--no-baselines")


@pytest.fixture(scope="module")
def quiet(danq_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing befell, of one stage."""
    folder = tmp_path_factory.mktemp("quiet")
    status, _, said = finish(start(danq_data, folder, "quiet", *SHORT, "--micro-batches", "5"))
    assert status == 0
    assert "computing on CPU: 1 workers" in said
    return folder


def test_the_result_does_not_depend_on_the_cut_and_can_be_repeated_from_its_config(
    danq_data: Path, tmp_path: Path, quiet: Path
) -> None:
    config = quiet / "runs" / "danq" / "quiet" / "config.toml"
    flags = ("--config", config, "--stages", "2")
    status, answer, _ = finish(start(danq_data, tmp_path, "again", *flags))
    assert status == 0
    cut = answer["cut"]["danq"]
    assert len(cut) == 2
    # the same sums in the same order: equal to the last bit
    assert results(tmp_path, "again") == results(quiet, "quiet")
    assert set(answer["metrics"]) == {"danq"}, "--no-baselines"


def test_a_diverging_run_stops_with_the_step_and_its_samples(
    danq_data: Path, tmp_path: Path
) -> None:
    status, answer, said = finish(
        start(danq_data, tmp_path, "wild", *SHORT, "--optimizer", "sgd", "--lr", "1e30")
    )
    assert status == 1
    assert "TrainingDivergedError: danq: the loss of step" in answer["error"]
    log = (tmp_path / "runs" / "danq" / "wild" / "metrics.jsonl").read_text()
    assert "samples: [" in log
    assert "lower learning rate" in said
    state, tags = status_of(tmp_path, "wild")
    assert state == "FAILED"
    assert "the loss of step" in tags["error"]


def wait_for_training(process: subprocess.Popen[str], folder: Path, name: str) -> None:
    log = folder / "runs" / "danq" / name / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and "train/loss" in log.read_text()):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.1)


LONG = ("--size", "small", "--epochs", "500", "--no-baselines", "--stages", "2")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_an_interrupt_ends_the_run_its_workers_and_its_page(
    danq_data: Path, tmp_path: Path, how: signal.Signals
) -> None:
    process = start(danq_data, tmp_path, "stopped", *LONG)
    wait_for_training(process, tmp_path, "stopped")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 2
    process.send_signal(how)
    status, answer, _ = finish(process)
    assert status == 130
    assert answer["error"] == "interrupted"
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert status_of(tmp_path, "stopped")[0] == "KILLED"
    states = tmp_path / "runs" / "danq" / "stopped" / "checkpoints" / "danq" / "state"
    assert list(states.glob("step-*")), "saved on the way out: the next one was due in a minute"


def test_a_run_whose_driver_was_killed_goes_on_and_ends_as_if_nothing_had_been(
    danq_data: Path, tmp_path: Path, quiet: Path
) -> None:
    often = ("--set", "checkpoint.steps=10", "--micro-batches", "5")
    process = start(danq_data, tmp_path, "killed", *SHORT, *often)
    states = tmp_path / "runs" / "danq" / "killed" / "checkpoints" / "danq" / "state"
    deadline = time.monotonic() + 120
    while not list(states.glob("step-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    status, answer, _ = finish(resume(tmp_path, "killed"))
    assert (status, process.poll()) == (2, None)
    assert f"process {process.pid} on" in answer["error"]
    assert "is training this run" in answer["error"]
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    for left in alive:
        # Ray 2.60's agents may outlive it; they hold nothing.
        assert left.name() in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
        left.kill()

    status, answer, said = finish(resume(tmp_path, "killed"))
    assert status == 0, said
    assert "goes on at step" in said
    assert results(tmp_path, "killed") == results(quiet, "quiet")
    losses = [
        (folder / "runs" / "danq" / name / "losses" / "danq.f64").read_bytes()
        for folder, name in ((tmp_path, "killed"), (quiet, "quiet"))
    ]
    assert losses[0] == losses[1]
    assert status_of(tmp_path, "killed")[0] == "FINISHED"


def resume(folder: Path, name: str) -> subprocess.Popen[str]:
    command = Path(sys.executable).with_name("replisome")
    return subprocess.Popen(
        [command, "train", "--resume", f"danq/{name}", "--runs", folder / "runs", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

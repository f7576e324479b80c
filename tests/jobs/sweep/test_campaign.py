"""Whole sweeps by the command, on real workers: what kills, stops and pauses leave behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from jobs.tracking import open_store
from tests.jobs.sweep.conftest import SMALL, Sweeps, finish, kill_all

pytestmark = pytest.mark.slow
STILL = ("--sampler", "random", "--pruner", "none", "--set", "checkpoint.steps=10")
SHORTER = ("--set", "batch_size=200")


def rates(sweeps: Sweeps) -> tuple[str, Path]:
    """Search the learning rate alone: small batches would take several times as long."""
    space = sweeps.folder / "space.toml"
    space.write_text('["optimizer.lr"]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n')
    return "--space", space


def outcomes(study: Any) -> list[tuple[Any, ...]]:
    """What must not depend on what befell the sweep."""
    return [
        (trial.number, trial.state, trial.params, trial.values, trial.intermediate_values)
        for trial in study.trials
    ]


def children(sweeps: Sweeps, name: str) -> dict[int, Any]:
    """The MLflow runs of the trials, by number."""
    client = open_store(sweeps.runs)
    [experiment] = [e for e in client.search_experiments() if e.name == "danq"]
    [parent] = client.search_runs(
        [experiment.experiment_id], f"attributes.run_name = '{name}'", max_results=2
    )
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    numbers = [int(run.data.tags["replisome.trial"]) for run in found]
    assert len(set(numbers)) == len(numbers), "one run a trial"
    return dict(zip(numbers, found, strict=True))


def test_a_sweep_whose_driver_and_workers_were_killed_ends_as_if_nothing_had_been(
    sweeps: Sweeps,
) -> None:
    flags = (*SMALL, *STILL, *SHORTER, *rates(sweeps), "--trials", "3", "--stages", "2")
    quiet = finish(sweeps.begin("quiet", *flags))
    assert quiet["counts"] == {
        "complete": 3, "pruned": 0, "failed": 0, "running": 0, "waiting": 0
    }  # fmt: skip

    process = sweeps.begin("harmed", *flags)
    sweeps.until(process, lambda: "trial 0 done" in sweeps.said().partition("harmed")[2])
    states = sweeps.runs / "danq" / "harmed" / "trials" / "0001" / "checkpoints" / "danq" / "state"
    sweeps.until(process, lambda: list(states.glob("step-*")))
    kill_all(process)
    assert [trial.state for trial in sweeps.study("harmed").trials] == [
        TrialState.COMPLETE,
        TrialState.RUNNING,
    ]

    process = sweeps.resume("harmed", "--trials", "3")
    newest = sweeps.runs / "danq" / "harmed" / "trials" / "0002" / "checkpoints" / "danq" / "state"
    sweeps.until(process, lambda: list(newest.glob("step-*")))
    os.kill(sweeps.worker("harmed", 1), signal.SIGKILL)
    harmed = finish(process)

    assert harmed["exit"] == 0
    assert outcomes(sweeps.study("harmed")) == outcomes(sweeps.study("quiet"))
    assert harmed["best"]["values"] == quiet["best"]["values"]
    attempts = [
        trial.user_attrs.get("replisome.attempts", 0) for trial in sweeps.study("harmed").trials
    ]
    assert attempts == [0, 1, 1]
    assert "trial 2 in slot 0: worker 1 (stage 1 of replica 0" in sweeps.said()
    assert "a fresh worker group starts" in sweeps.said()
    runs = children(sweeps, "harmed")
    assert {number: run.info.status for number, run in runs.items()} == {
        0: "FINISHED", 1: "FINISHED", 2: "FINISHED"
    }  # fmt: skip
    for number, run in runs.items():
        [value] = sweeps.study("harmed").trials[number].values
        assert run.data.metrics["objective/loss"] == value


def test_ctrl_c_pauses_and_cancel_ends_for_good(sweeps: Sweeps) -> None:
    flags = (*SMALL, *STILL, *rates(sweeps), "--trials", "4", "--slots", "2", "--epochs", "6")
    process = sweeps.begin("s", *flags)
    trials = sweeps.runs / "danq" / "s" / "trials"
    logs = [trials / number / "metrics.jsonl" for number in ("0000", "0001")]
    sweeps.until(process, lambda: all(log.exists() for log in logs))
    process.send_signal(signal.SIGINT)
    paused = finish(process)
    assert paused["ended"] == "pause"
    assert [trial.state for trial in sweeps.study("s").trials] == [TrialState.RUNNING] * 2
    saved = [
        list((trials / n / "checkpoints" / "danq" / "state").glob("step-*"))
        for n in ("0000", "0001")
    ]
    assert all(saved), "each trial has saved before it left"

    process = sweeps.resume("s", "--slots", "2")
    sweeps.until(process, lambda: "goes on at step" in logs[0].read_text())
    refused = finish(sweeps.resume("s"))
    assert refused["exit"] == 2
    assert "is training this run" in refused["error"] or "drives this sweep" in refused["error"]
    (trials.parent / "command").write_text("cancel")
    cancelled = finish(process)
    assert cancelled["ended"] == "cancel"
    assert {trial.state for trial in sweeps.study("s").trials} == {TrialState.FAIL}
    assert {run.info.status for run in children(sweeps, "s").values()} == {"FAILED"}


def test_what_is_searched_cannot_change_on_the_way(tiny_data: Path, tmp_path: Path) -> None:
    sweeps = Sweeps(tiny_data, tmp_path)
    finish(sweeps.begin("s", *SMALL, "--set", "batch_size=20", *rates(sweeps), "--trials", "1"))
    space = tmp_path / "other.toml"
    space.write_text('["optimizer.lr"]\nlow = 0.1\nhigh = 0.2\n')
    answer = finish(sweeps.resume("s", "--space", space))
    assert answer["exit"] == 2
    assert "was begun with other settings" in answer["error"]
    assert "space.optimizer.lr" in answer["error"]

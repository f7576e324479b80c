"""A sweep on a cluster that loses a node for good."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.jobs.clusters import ray_head
from tests.jobs.sweep.conftest import SMALL, Sweeps, finish

pytestmark = pytest.mark.slow


def test_a_node_lost_for_good_costs_a_slot_and_no_trial(danq_data: Path, tmp_path: Path) -> None:
    sweeps = Sweeps(danq_data, tmp_path)
    space = tmp_path / "space.toml"
    space.write_text('["optimizer.lr"]\nlow = 1e-4\nhigh = 1e-3\n')
    flags = (*SMALL, "--pruner", "none", "--set", "checkpoint.steps=10", "--space", space)
    with ray_head(cpus=0) as head, contextlib.ExitStack() as nodes:
        head.until("Usage")
        nodes.enter_context(head.node(1))
        head.until("/1.0 CPU")  # two that start at once may want the same port
        doomed = nodes.enter_context(contextlib.ExitStack())
        doomed.enter_context(head.node(1))
        head.until("/2.0 CPU")
        environment = head.environment | {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": head.address}
        process = sweeps.begin("s", *flags, "--trials", "2", "--slots", "2", **environment)
        trials = sweeps.runs / "danq" / "s" / "trials"
        saved = [trials / n / "checkpoints" / "danq" / "state" for n in ("0000", "0001")]
        sweeps.until(process, lambda: all(list(folder.glob("step-*")) for folder in saved))
        doomed.close()
        answer = finish(process)
    assert answer["exit"] == 0, sweeps.said()
    assert " is gone; a fresh worker group starts" in sweeps.said()
    assert "waiting for room for its 1 worker(s)" in sweeps.said()
    study = sweeps.study("s")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    attempts = [trial.user_attrs.get("replisome.attempts", 0) for trial in study.trials]
    assert sorted(attempts) == [0, 1], "one trial was at work on the node, and went on elsewhere"
    assert not any(trial.user_attrs.get("replisome.crashes") for trial in study.trials)
    moved = trials / f"{attempts.index(1):04d}" / "metrics.jsonl"
    assert "goes on at step" in moved.read_text()

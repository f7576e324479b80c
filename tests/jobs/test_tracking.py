"""Tracking never stops a run: what can't be delivered waits, and arrives later, each once."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from data_shards.store.location import Location
from jobs import tracking
from jobs.tracking import (
    Delivery,
    log_dataset,
    log_parameters,
    open_store,
    start_run,
    tracking_uri,
    using_store,
)
from trainer.events import Event, EventWriter


@pytest.fixture
def store(tmp_path: Path) -> tuple[Any, str]:
    client = open_store(tmp_path)
    return client, start_run(client, tmp_path, "exp", "run", {"lr": 0.1}, {"a": "b"})


def history(client: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, key)]


def test_metrics_arrive_with_their_steps_under_their_networks_names(
    store: tuple[Any, str], tmp_path: Path
) -> None:
    client, run_id = store
    log = tmp_path / "metrics.jsonl"
    seen: list[Event] = []
    delivery = Delivery(client, run_id, [log], "danq", seen.append, seen.append)  # type: ignore[arg-type]
    writer = EventWriter(log)
    for step in range(5):
        writer.metrics("danq", step, {"train/loss": 1.0 / (step + 1)})
    writer.metrics("other", 3, {"train/loss": 9.0, "test/auroc": math.nan})
    writer.metrics("", 1, {"system/cpu": 50.0})
    writer.progress("danq", "training", 1, 1)
    assert delivery.close() == 0
    assert history(client, run_id, "train/loss") == [(s, 1.0 / (s + 1)) for s in range(5)]
    assert history(client, run_id, "other/train/loss") == [(3, 9.0)]
    assert history(client, run_id, "other/test/auroc") == [], "an undefined score is no metric"
    assert history(client, run_id, "system/cpu") == [(1, 50.0)]
    assert [event.kind for event in seen].count("progress") == 1


class Flaky:
    """A store that is away for a while."""

    def __init__(self, client: Any) -> None:
        self.client, self.away, self.refused = client, True, 0

    def log_batch(self, *arguments: Any, **named: Any) -> None:
        if self.away:
            self.refused += 1
            raise ConnectionError("the server is away")
        self.client.log_batch(*arguments, **named)


def test_an_outage_loses_nothing_and_is_told_once(
    store: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_RETRY", 0.2)
    client, run_id = store
    flaky, told = Flaky(client), []
    log = tmp_path / "metrics.jsonl"
    delivery = Delivery(flaky, run_id, [log], "n", lambda _: None, told.append)  # type: ignore[arg-type]
    writer = EventWriter(log)
    for step in range(2500):
        writer.metrics("n", step, {"loss": float(step)})
    deadline = time.monotonic() + 20
    while flaky.refused < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert flaky.refused >= 3
    flaky.away = False
    assert delivery.close() == 0
    assert history(client, run_id, "loss") == [(s, float(s)) for s in range(2500)]
    assert len(told) == 1
    assert "the server is away" in told[0]


def test_a_store_that_stays_away_delays_the_end_only_so_long_and_is_counted(
    store: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_PATIENCE", 0.5)
    client, run_id = store
    log = tmp_path / "metrics.jsonl"
    EventWriter(log).metrics("n", 0, {"loss": 1.0})
    delivery = Delivery(Flaky(client), run_id, [log], "n", lambda _: None, lambda _: None)  # type: ignore[arg-type]
    begin = time.monotonic()
    assert delivery.close() == 1
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("place", ["/data/x.zarr", "s3://lab/genomes/x.zarr"])
def test_a_run_has_its_parameters_tags_data_set_and_kind(
    store: tuple[Any, str], tmp_path: Path, place: str
) -> None:
    client, run_id = store
    log_parameters(client, run_id, {f"p{i}": i for i in range(250)})
    log_dataset(client, run_id, Location.parse(place), "f" * 64)
    run = client.get_run(run_id)
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["p249"] == "249"
    assert run.data.tags["a"] == "b"
    [entry] = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("x.zarr", "f" * 32)
    assert place in entry.dataset.source
    experiment = client.get_experiment_by_name("exp")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.artifact_location == (tmp_path / "artifacts" / "exp").as_uri()


@pytest.mark.parametrize("before", [None, "sqlite:////elsewhere.db"])
def test_the_fluent_store_is_ours_inside_the_block_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    outside = tracking_uri(tmp_path)
    with using_store("sqlite:////inside.db"):
        assert mlflow.get_tracking_uri() == "sqlite:////inside.db"
    assert tracking_uri(tmp_path) == outside
    assert os.environ.get("MLFLOW_TRACKING_URI") == before


@pytest.mark.slow
def test_several_first_users_at_once_do_not_break_a_new_store(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from jobs.tracking import *;"
        "c = open_store(Path(sys.argv[1]));"
        "print(start_run(c, Path(sys.argv[1]), 'e' + sys.argv[2], 'r', {}, {}))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "runs"), str(i)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    ids = {process.communicate()[0].strip().splitlines()[-1] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    client = open_store(tmp_path / "runs")
    assert {client.get_run(run_id).info.run_id for run_id in ids} == ids
    assert len(ids) == 4

"""MLflow's store: made by one process, and asked for nothing but what is meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from data_shards.store.location import Location
from jobs.tracking import (
    experiment_id,
    log_dataset,
    log_parameters,
    open_store,
    tracking_uri,
    using_store,
)


@pytest.fixture
def store(tmp_path: Path) -> tuple[Any, str]:
    client = open_store(tmp_path)
    experiment = experiment_id(client, tmp_path, "exp")
    return client, client.create_run(experiment, run_name="run").info.run_id


@pytest.mark.parametrize("place", ["/data/x.zarr", "s3://lab/genomes/x.zarr"])
def test_a_run_has_its_parameters_data_set_and_kind(
    store: tuple[Any, str], tmp_path: Path, place: str
) -> None:
    client, run_id = store
    log_parameters(client, run_id, {f"p{i}": i for i in range(250)})
    schema = {"sequence (300)": "integer", "labels (4)": "boolean"}
    log_dataset(client, run_id, Location.parse(place), "f" * 64, schema)
    run = client.get_run(run_id)
    assert run.data.params["p249"] == "249"
    [entry] = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("x.zarr", "f" * 32)
    assert place in entry.dataset.source
    assert "labels (4)" in entry.dataset.schema
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
        "e = experiment_id(c, Path(sys.argv[1]), 'e' + sys.argv[2]);"
        "print(c.create_run(e).info.run_id)"
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

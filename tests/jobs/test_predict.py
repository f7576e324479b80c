"""Predictions of a trained run: the scores it had itself, whatever the sizes and the grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from jobs.console import Console
from jobs.predict import PredictRequest, evaluate, predict
from jobs.runfolder import find_run_folder
from tests.jobs.conftest import Demo

pytestmark = pytest.mark.slow


def test_evaluation_gives_the_scores_that_the_run_had_itself_on_another_grid(
    demo: Demo, ray_cluster: None
) -> None:
    run = str(demo.run_folder)  # trained in 2 stages
    request = PredictRequest(run, demo.runs, batch_size=77)
    found = evaluate(request, Console(json=True))["scores"]
    expected = json.loads((demo.run_folder / "results.json").read_text())["danq"]
    assert found["samples"] == expected["samples"]
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    for task, scores in expected["tasks"].items():
        assert found["tasks"][task]["auroc"] == pytest.approx(scores["auroc"], abs=1e-5)


def test_predictions_name_each_samples_locus_and_the_probability_of_each_task(
    demo: Demo, ray_cluster: None, tmp_path: Path
) -> None:
    run, out = str(demo.run_folder), tmp_path / "predictions.parquet"
    request = PredictRequest(run, demo.runs, split="valid", network="danq-no-lstm")
    predict(request, out, Console(json=True))
    table = pq.read_table(out)
    data = ShardedDataset(find_run_folder(demo.runs, run).identity().data)
    rows = data.split_rows("valid")
    assert table["row"].to_pylist() == rows.tolist()
    assert table["start"].to_pylist() == data.loci.start[rows].tolist()
    assert set(table["contig"].to_pylist()) == {"chr9", "chr10"}
    chances = np.stack([table[task].to_numpy() for task in data.schema.task_names])
    assert ((chances >= 0) & (chances <= 1)).all()
    assert not [path for path in demo.run_folder.iterdir() if path.name.startswith(".predict")]
    with pytest.raises(InputError, match="exists"):
        predict(request, out, Console(json=True))


def test_what_does_not_fit_is_refused_before_anything_starts(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.predict.cluster", lambda: pytest.fail("started a cluster"))
    run, console = str(demo.run_folder), Console(json=True)
    for request, problem in (
        (PredictRequest(run, demo.runs, split="tset"), "tset"),
        (PredictRequest(run, demo.runs, network="cnn"), "no network 'cnn'"),
        (PredictRequest("nope", demo.runs), "no run is called"),
        (PredictRequest(run, demo.runs, data=str(tmp_path)), "not a Zarr group"),
    ):
        with pytest.raises(InputError, match=problem):
            evaluate(request, console)

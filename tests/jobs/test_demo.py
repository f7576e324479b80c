"""The demo from end to end: what it finds, what it leaves, what it logs."""

from __future__ import annotations

import json
import os
import tomllib

import mlflow
import numpy as np
import pytest
import torch

from data_shards.dataset import ShardedDataset
from jobs.tracking import open_store, tracking_uri, using_store
from tests.jobs.conftest import Demo
from trainer.events import EventReader
from trainer.flops import training_flop
from trainer.recipe import build_layer, shape_of
from trainer.recipes.danq import danq_layers

pytestmark = pytest.mark.slow

MODELS = ("danq", "danq-no-lstm", "6-mer-lr")


def auroc(demo: Demo, model: str, task: str) -> float:
    return float(demo.result["metrics"][model]["tasks"][task]["auroc"])


def aupr(demo: Demo, model: str, task: str) -> float:
    return float(demo.result["metrics"][model]["tasks"][task]["aupr"])


def test_danq_beats_both_baselines_where_the_truth_was_planted(demo: Demo) -> None:
    """Safe bounds, well under the margins that three seeds gave; docs/danq.md has the table."""
    for task in ("a_before_b", "a_before_b_near"):
        # k-mers of a window tell neither order nor distance
        assert 0.42 < auroc(demo, "6-mer-lr", task) < 0.60
        assert auroc(demo, "danq", task) > 0.95
    near = "a_before_b_near"
    assert auroc(demo, "danq", near) > auroc(demo, "danq-no-lstm", near) + 0.015
    assert aupr(demo, "danq", near) > aupr(demo, "danq-no-lstm", near) + 0.03
    # the ablation fails by the grammar, not by missing the motifs
    for task in ("motif_a", "motif_b"):
        for model in ("danq", "danq-no-lstm"):
            assert auroc(demo, model, task) > 0.95


def test_the_closing_summary_tells_scores_times_folder_and_the_next_command(demo: Demo) -> None:
    for words in (*MODELS, "a_before_b_near", "mean", "train danq", "run folder:", "replisome ui"):
        assert words in demo.stderr
    steps = demo.result["seconds"]
    for step in ("simulate", "build shards", "start Ray", "train danq", "fit 6-mer-lr"):
        assert steps[step] > 0


def test_it_leaves_no_process(demo: Demo) -> None:
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.group, 0)


def test_the_runs_folder_is_as_documented(demo: Demo) -> None:
    folder = demo.run_folder
    assert folder.parent == (demo.runs / "danq").resolve()
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.toml", "plan.json", "results.json", "metrics.jsonl", "run.json", "lock",
        "micro-batch", "checkpoints", "figures", "log", "losses", "trace",
    }  # fmt: skip
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["grid"]["stages"] == 2
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["danq"]["deepspeed"]["gradient_clipping"] == 0.0
    assert plan["danq"]["cut"] == demo.result["cut"]["danq"]
    assert len(plan["danq"]["costs"]) == 7
    results = json.loads((folder / "results.json").read_text())
    assert results == demo.result["metrics"]
    [kept] = (folder / "checkpoints" / "danq" / "best").glob("step-*")
    assert kept.name == plan["danq"]["weights"]
    for path in (folder / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_mlflow_has_the_whole_run(demo: Demo) -> None:
    client = open_store(demo.runs)
    run = client.get_run(demo.result["run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == demo.result["run"]
    parameters = run.data.params
    assert parameters["data.fingerprint"] == demo.result["data_fingerprint"]
    assert parameters["grid.stages"] == "2"
    assert parameters["grid.device"] == "cpu"
    assert parameters["cut.danq"] == str(demo.result["cut"]["danq"])
    assert parameters["optimizer.clip"] == "0.0"
    assert parameters["seed"] == "0"
    for key in ("version.torch", "version.deepspeed", "git.commit", "data.samples.train"):
        assert parameters[key]
    assert "| mean |" in run.data.tags["mlflow.note.content"]
    assert run.data.tags["mlflow.source.name"] == "replisome demo --json"
    [entry] = run.inputs.dataset_inputs
    assert demo.result["data_fingerprint"].startswith(entry.dataset.digest)
    for model in MODELS:
        prefix = "" if model == "danq" else f"{model}/"
        for task in ("motif_a", "a_before_b"):
            logged = run.data.metrics[f"{prefix}test/auroc/{task}"]
            assert logged == pytest.approx(auroc(demo, model, task))
    assert run.data.metrics["system/cpu_utilization_percentage"] > 0
    figures = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {
        f"figures/{name}.png"
        for name in (
            "training", "roc", "precision_recall", "comparison", "stages", "timeline_danq",
            "timeline_danq-no-lstm", "calibration", "confusion", "ranking",
        )
    }  # fmt: skip
    shares = [
        run.data.metrics[f"timeline/danq/worker1/{kind}"]
        for kind in ("compute", "wait", "load", "reduce", "optimizer", "bubble")
    ]
    assert sum(shares) == pytest.approx(1)


def test_mlflow_has_the_curves_of_the_event_log(demo: Demo) -> None:
    client = open_store(demo.runs)
    events = list(EventReader(demo.run_folder / "metrics.jsonl").new())
    for name in ("train/loss", "valid/loss", "valid/auroc"):
        written = [
            (event.step, event.values[name])
            for event in events
            if event.network == "danq" and name in event.values
        ]
        history = client.get_metric_history(demo.result["run_id"], name)
        assert [(m.step, m.value) for m in history] == written
        assert len(written) >= 5
    mine = [event for event in events if event.network == "danq"]
    losses = [event.values["train/loss"] for event in mine if "train/loss" in event.values]
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])


def test_speed_and_operations_are_logged_over_all_stages(demo: Demo) -> None:
    data = ShardedDataset(demo.folder / "demo" / "seed-0" / "genome.zarr")
    layers = danq_layers("small", shape_of(data.schema))
    network = [build_layer(layer, 0, index) for index, layer in enumerate(layers)]
    flop = training_flop(network, torch.from_numpy(data.gather("sequence", np.arange(4))))
    logs = [
        event.values
        for event in EventReader(demo.run_folder / "metrics.jsonl").new()
        if event.network == "danq" and "train/step_seconds" in event.values
    ]
    assert "train/tflop_per_second" not in logs[0], "nothing has been counted yet"
    later = [values for values in logs if "train/tflop_per_second" in values]
    assert len(later) > 20
    for values in later:
        speed = values["train/samples_per_second"]
        assert values["train/tflop_per_second"] == pytest.approx(speed * flop / 1e12)
        assert 0 <= values["train/data_wait_percent"] <= 100


def test_the_logged_model_predicts_as_it_was_scored(demo: Demo) -> None:
    data = ShardedDataset(demo.folder / "demo" / "seed-0" / "genome.zarr")
    rows = data.split_rows("test")
    with using_store(tracking_uri(demo.runs)):
        model = mlflow.pyfunc.load_model(demo.result["model"])
    probabilities = model.predict(data.gather("sequence", rows))
    assert probabilities.shape == (1600, 4)
    from sklearn.metrics import roc_auc_score

    labels = data.labels(rows)
    for column, task in enumerate(("motif_a", "motif_b")):
        expected = auroc(demo, "danq", task)
        found = roc_auc_score(labels[:, column], probabilities[:, column])
        assert found == pytest.approx(expected, abs=1e-4)
    registered = open_store(demo.runs).get_registered_model("danq")
    assert registered.latest_versions[0].run_id == demo.result["run_id"]

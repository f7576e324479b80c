"""Tracking never stops a run: what MLflow does not take waits on disk, and arrives later, once."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from data_shards.store.location import Location
from jobs import delivery as delivering
from jobs.console import Console
from jobs.delivery import Delivery, Store
from jobs.journal import Journal, Ledger
from jobs.sync import sync, waiting
from jobs.tracking import open_store
from trainer.events import Event, EventWriter

ROOT = Path(__file__).resolve().parents[2]


class FlakyStore(Store):
    """A store whose server is away for a while."""

    def __init__(self, runs: Path) -> None:
        super().__init__(runs)
        self.away, self.refused = True, 0

    def client(self) -> Any:
        if self.away:
            self.refused += 1
            raise ConnectionError("the server is away")
        return super().client()


def run_folder(runs: Path, name: str = "run") -> Path:
    folder = runs / "exp" / name
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('recipe = "danq"')
    return folder


def begun(folder: Path, **tags: str) -> Journal:
    journal = Journal(folder)
    journal.begin("exp", folder.name, {"lr": 0.1}, {"a": "b", **tags})
    journal.data(Location.parse("/data/x.zarr"), "f" * 64, {"labels (4)": "boolean"})
    return journal


def follow(store: Store, folder: Path, said: list[str] | None = None) -> Delivery:
    told = [] if said is None else said
    return Delivery(store, folder, "danq", lambda _: None, told.append)


def only_run(runs: Path) -> Any:
    client = open_store(runs)
    experiment = client.get_experiment_by_name("exp")
    [run] = client.search_runs([experiment.experiment_id])
    return run


def history(runs: Path, run_id: str, key: str) -> list[tuple[int, float]]:
    client = open_store(runs)
    return [(m.step, m.value) for m in client.get_metric_history(run_id, key)]


def test_a_run_arrives_with_all_that_was_told(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    journal = begun(folder)
    seen: list[Event] = []
    delivery = Delivery(Store(tmp_path), folder, "danq", seen.append, seen.append)  # type: ignore[arg-type]
    run_id = delivery.wait_for_id(20)
    assert run_id is not None
    writer = EventWriter(folder / "metrics.jsonl")
    for step in range(5):
        writer.metrics("danq", step, {"train/loss": 1.0 / (step + 1)})
    writer.metrics("other", 3, {"train/loss": 9.0, "test/auroc": math.nan})
    writer.progress("danq", "training", 1, 1)
    system = EventWriter(folder / "log" / "system-node0.jsonl")
    system.metrics("", 1, {"system/cpu": 50.0})
    (folder / "table.md").write_text("x")
    journal.file(folder / "table.md", "tables")
    journal.tags({"c": "d"})
    journal.metrics({"timeline/bubble": 0.25})
    journal.status("FINISHED")
    assert delivery.close() == 0

    run = only_run(tmp_path)
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1"}
    assert {run.data.tags["a"], run.data.tags["c"]} == {"b", "d"}
    assert run.inputs.dataset_inputs[0].dataset.digest == "f" * 32
    assert run.data.metrics["timeline/bubble"] == 0.25
    assert history(tmp_path, run_id, "train/loss") == [(s, 1.0 / (s + 1)) for s in range(5)]
    assert history(tmp_path, run_id, "other/train/loss") == [(3, 9.0)]
    assert history(tmp_path, run_id, "other/test/auroc") == [], "an undefined score is no metric"
    assert history(tmp_path, run_id, "system/cpu") == [(1, 50.0)]
    assert [event.kind for event in seen].count("progress") == 1
    assert [f.path for f in open_store(tmp_path).list_artifacts(run_id, "tables")] == [
        "tables/table.md"
    ]
    assert waiting(tmp_path) == []


def test_an_outage_from_the_start_loses_nothing_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "_RETRY", 0.2)
    folder = run_folder(tmp_path)
    journal, store, told = begun(folder), FlakyStore(tmp_path), []
    delivery = follow(store, folder, told)
    writer = EventWriter(folder / "metrics.jsonl")
    for step in range(2500):
        writer.metrics("danq", step, {"loss": float(step)})
    deadline = time.monotonic() + 20
    while store.refused < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert store.refused >= 3
    assert delivery.run_id is None
    store.away = False
    journal.status("FINISHED")
    assert delivery.close() == 0
    run = only_run(tmp_path)
    assert run.info.status == "FINISHED"
    expected = [(step, float(step)) for step in range(2500)]
    assert history(tmp_path, run.info.run_id, "loss") == expected
    assert len(told) == 1
    assert "the server is away" in told[0]


def test_an_outage_longer_than_the_run_is_made_good_by_sync_once(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    journal = begun(folder)
    EventWriter(folder / "metrics.jsonl").metrics("danq", 0, {"loss": 1.0})
    journal.status("FINISHED")
    begin = time.monotonic()
    left = follow(FlakyStore(tmp_path), folder).close(patience=0.5)
    assert left == 5, "begin, parameters, data, status and a metric"
    assert time.monotonic() - begin < 10, "the end of a run waits no longer than it was told"
    assert waiting(tmp_path) == [folder]

    for _ in range(2):  # a second time there is nothing to do
        sync(tmp_path, 10.0, Console(json=True))
        run = only_run(tmp_path)
        assert run.info.status == "FINISHED"
        assert history(tmp_path, run.info.run_id, "loss") == [(0, 1.0)]
    assert waiting(tmp_path) == []


def test_what_arrived_before_its_driver_died_is_not_told_twice(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    journal = begun(folder)
    first = follow(Store(tmp_path), folder)
    run_id = first.wait_for_id(20)
    first.close()
    ledger = Ledger.of(folder)
    # The driver died after MLflow made the run and before it was written down.
    ledger.model_copy(update={"run_id": None, "entries": 0}).write(folder)
    journal.status("RUNNING")
    assert follow(Store(tmp_path), folder).close() == 0
    assert only_run(tmp_path).info.run_id == run_id


def test_a_trial_waits_for_the_run_that_it_is_shown_below(tmp_path: Path) -> None:
    parent, child = run_folder(tmp_path, "sweep"), run_folder(tmp_path, "trial")
    Journal(child).begin("exp", "trial", {}, {}, parent=parent)
    below = follow(Store(tmp_path), child)
    time.sleep(0.5)
    assert below.run_id is None
    begun(parent)
    above = follow(Store(tmp_path), parent)
    assert above.wait_for_id(20) is not None
    child_id = below.wait_for_id(20)
    assert below.close() == above.close() == 0
    run = open_store(tmp_path).get_run(child_id)
    assert run.data.tags["mlflow.parentRunId"] == above.run_id


def test_an_entry_that_mlflow_refuses_is_left_out_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "_RETRY", 0.1)
    folder, told = run_folder(tmp_path), []
    journal = begun(folder)
    journal.parameters({"lr": 0.2})  # a parameter has one value
    journal.file(folder / "gone.png")
    journal.status("FINISHED")
    assert follow(Store(tmp_path), folder, told).close() == 0
    assert only_run(tmp_path).info.status == "FINISHED"
    assert only_run(tmp_path).data.params == {"lr": "0.1"}
    assert len([text for text in told if "which is left out" in text]) == 2


def test_a_line_that_a_killed_driver_left_unfinished_is_dropped(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    begun(folder)
    with (folder / "log" / "tracking.jsonl").open("a") as stream:
        stream.write('{"kind": "tags", "time": 1.0, "val')
    Journal(folder).status("FINISHED")
    assert follow(Store(tmp_path), folder).close() == 0
    assert only_run(tmp_path).info.status == "FINISHED"


def test_secrets_reach_neither_disk_nor_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_DB_PASSWORD", "hunter2-and-more")
    monkeypatch.setenv("SOME_PATH", "/shared/runs")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ann Author")
    folder = run_folder(tmp_path)
    journal = Journal(folder)
    journal.begin(
        "exp",
        "run",
        {"storage": "postgresql://ann:s3cretword@db/x", "list": ["hunter2-and-more", "plain"]},
        {
            "mlflow.source.name": "replisome train --x hunter2-and-more",
            "place": "/shared/runs by Ann Author",
        },
    )
    journal.tags({"error": "could not log in to http://ann:s3cretword@host"})
    assert follow(Store(tmp_path), folder).close() == 0
    run = only_run(tmp_path)
    assert run.data.params["storage"] == "postgresql://ann:***@db/x"
    assert run.data.tags["mlflow.source.name"] == "replisome train --x ***"
    assert run.data.tags["place"] == "/shared/runs by Ann Author", "no secrets"
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hunter2" not in everything
    assert b"s3cretword" not in everything


ONE_OF_MANY = """
import sys
from pathlib import Path
from tests.jobs.test_delivery import begun, follow, run_folder
from jobs.delivery import Store
from trainer.events import EventWriter
runs, name = Path(sys.argv[1]), sys.argv[2]
said = []
folder = run_folder(runs, name)
journal = begun(folder, number=name)
delivery = follow(Store(runs), folder, said)
writer = EventWriter(folder / "metrics.jsonl")
for step in range(300):
    writer.metrics("danq", step, {"train/loss": float(step), "train/learning_rate": 0.1})
    if step % 50 == 0:
        journal.metrics({"valid/loss": float(step)}, step=step)
        assert delivery.wait_for_id(200) is not None
writer.close()
journal.status("FINISHED")
left = delivery.close(patience=200)
assert left == 0 and not said, (left, said)
"""


@pytest.mark.slow
def test_eight_runs_at_once_share_one_sqlite_file_without_an_error(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_MANY, tmp_path, f"run-{number}"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(8)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, said
    client = open_store(tmp_path)
    experiment = client.get_experiment_by_name("exp")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["number"] for run in runs) == [f"run-{n}" for n in range(8)]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert history(tmp_path, run.info.run_id, "train/loss") == [
            (step, float(step)) for step in range(300)
        ]

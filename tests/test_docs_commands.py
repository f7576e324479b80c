"""Worked examples of the docs run as they are written, one page after the other in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.tracking import open_store
from tests.worked_examples import commands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def run_page(page: str, folder: Path) -> dict[str, str]:
    """Run what was not run on an earlier page; return what each command said."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    said = {}
    for line in commands(page):
        if (folder / "x.zarr").is_dir() and line.startswith("replisome data"):
            continue
        command = line.replace("--epochs 30", "--epochs 1")  # the one change: less of the same
        if line == "replisome ui":
            said[line] = serve(folder, environment)
            continue
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, check=False, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        said[line] = done.stdout + done.stderr
    return said


def serve(folder: Path, environment: dict[str, str]) -> str:
    """Serve until the address is told."""
    server = subprocess.Popen(
        ["replisome", "ui", "--port", "0"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    told = server.stderr.readline()
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=30)
    return told


def test_the_worked_example_of_sweeps(folder: Path) -> None:
    said = run_page("sweeps.md", folder)
    [status] = [text for line, text in said.items() if "sweep status" in line]
    assert "4 done" in status or "pruned" in status
    assert pq.read_table(folder / "trials.parquet").num_rows == 4
    assert (folder / "best.toml").read_text().startswith("# trial ")


def test_the_worked_example_of_tracking(folder: Path) -> None:
    said = run_page("tracking.md", folder)
    [train] = [text for line, text in said.items() if "replisome train" in line]
    assert "wait on disk for MLflow" in train
    assert "MLflow at http://127.0.0.1:" in said["replisome ui"]
    client = open_store(folder / "runs")
    experiment = client.get_experiment_by_name("danq")
    names = {
        run.info.run_name: run.info.status
        for run in client.search_runs(
            [experiment.experiment_id], "tags.`replisome.phase` = 'train'"
        )
    }
    assert len(names) == 2, "the best trial's training, and the one that was brought later"
    assert set(names.values()) == {"FINISHED"}

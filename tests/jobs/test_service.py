"""`replisome ui` for a team: a database server, an object store, and a password."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.delivery import Store
from jobs.tracking import open_store
from tests.jobs.sweep.postgres import postgres
from tests.jobs.test_delivery import begun, follow, run_folder

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Team:
    """A served team: its address, its bucket, its folder, and the command that serves it."""

    url: str
    bucket: Any
    runs: Path
    process: psutil.Process

    @property
    def password(self) -> str:
        return (self.runs / ".mlflow-admin-password").read_text()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    import boto3
    from moto.server import ThreadedMotoServer

    runs = tmp_path_factory.mktemp("team")
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    endpoint = "http://{}:{}".format(*store.get_host_and_port())
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    client = boto3.resource(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
    )
    bucket = client.create_bucket(Bucket=f"team-{secrets.token_hex(4)}")
    command = Path(sys.executable).with_name("replisome")
    with postgres() as database:
        server = subprocess.Popen(
            [
                command, "ui", "--runs", runs, "--host", "0.0.0.0", "--port", "0", "--json",
                "--artifacts", f"s3://{bucket.name}/runs",
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | keys | {
                "MLFLOW_S3_ENDPOINT_URL": endpoint, "MLFLOW_BACKEND_STORE_URI": database.url
            },
            start_new_session=True,
        )  # fmt: skip
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"].replace("0.0.0.0", "127.0.0.1")
        yield Team(url, bucket, runs, psutil.Process(server.pid))
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    store.stop()


@pytest.fixture
def member(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a member of the team, without the object store's key."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", team.password)


def test_without_the_password_nobody_sees_a_thing(team: Team) -> None:
    for path in ("/api/2.0/mlflow/experiments/search?max_results=1", "/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(team.url + path, timeout=20)
        assert refused.value.code == 401
    assert (team.runs / ".mlflow-admin-password").stat().st_mode & 0o077 == 0
    words = [
        " ".join(one.cmdline()) for one in [team.process, *team.process.children(recursive=True)]
    ]
    assert len(words) > 1
    assert not any("s3cret-of-tests" in line or team.password in line for line in words)


def test_a_run_goes_to_the_database_and_its_files_to_the_object_store(
    team: Team, member: None, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path)
    journal = begun(folder)
    (folder / "report.txt").write_text("done")
    journal.file(folder / "report.txt", "reports")
    journal.metrics({"test/auroc": 0.75}, step=3)
    journal.status("FINISHED")
    said: list[str] = []
    assert follow(Store(tmp_path), folder, said).close() == 0, said
    client = open_store(tmp_path)
    [run] = client.search_runs([client.get_experiment_by_name("exp").experiment_id])
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"test/auroc": 0.75})
    [stored] = [item for item in team.bucket.objects.all() if item.key.endswith("report.txt")]
    assert stored.key.startswith("runs/")
    assert stored.get()["Body"].read() == b"done"
    assert not (team.runs / "mlflow.db").exists()
    text = client.download_artifacts(run.info.run_id, "reports/report.txt", str(tmp_path))
    assert Path(text).read_text() == "done"


def test_with_a_wrong_password_entries_wait_until_it_is_right(
    team: Team, member: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(tmp_path, "later")
    begun(folder).status("FINISHED")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a guess")
    said: list[str] = []
    assert follow(Store(tmp_path), folder, said).close(patience=1.0) > 0
    assert len(said) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", team.password)
    assert follow(Store(tmp_path), folder).close() == 0
    client = open_store(tmp_path)
    experiment = client.get_experiment_by_name("exp").experiment_id
    [run] = client.search_runs([experiment], "attributes.run_name = 'later'")
    assert run.info.status == "FINISHED"

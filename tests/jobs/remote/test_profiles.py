"""Profiles of clusters, and which address counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from jobs.remote.profiles import Profile, address_of, read_profile

FILE = """
[cluster.lab]
address = "http://head:8265"
python = "/opt/bin/python"
runs = "/shared/runs"
tracking = "http://mlflow:5000"
environment = { NCCL_SOCKET_IFNAME = "eth0" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "clusters.toml"
    path.write_text(FILE)
    return path


def test_a_profile_gives_address_interpreter_and_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLISOME_CLUSTERS", str(file))
    profile = read_profile("lab", None)
    assert (profile.python, profile.runs) == ("/opt/bin/python", "/shared/runs")
    assert profile.variables() == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "NCCL_SOCKET_IFNAME": "eth0",
    }
    assert address_of(None, profile) == "http://head:8265"
    assert address_of("other:1", profile) == "http://other:1"


def test_unknown_clusters_keys_and_files_are_told(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are: lab"):
        read_profile("lap", file)
    with pytest.raises(InputError, match="no such file"):
        read_profile("lab", tmp_path / "none.toml")
    file.write_text(FILE.replace("python", "pyhton"))
    with pytest.raises(InputError, match="did you mean 'python'"):
        read_profile("lab", file)


def test_without_any_address_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(InputError, match="--address"):
        address_of(None, None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://there:8265")
    assert address_of(None, None) == "http://there:8265"
    assert address_of(None, Profile(address="http://mine:1")) == "http://mine:1"

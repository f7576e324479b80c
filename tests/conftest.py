"""Fixtures that many tests share. Ray of the tests is their own: temporary folder, ports, token."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Set what Ray reads on import, before anything imports it."""
    # A short path: Ray's sockets lie in it, and a socket's path has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="rpl-", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    # What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A private Ray on this machine, shared by the tests of one process."""
    from jobs.cluster import cluster

    with cluster():
        yield


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of the danq recipe's simulator, seed 0. Not to be changed by tests."""
    from trainer.recipes.danq import simulate

    folder = tmp_path_factory.mktemp("simulated") / "raw"
    simulate(folder, 0)
    return folder


@pytest.fixture(scope="session")
def danq_data(simulated: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set built from the simulated files. Not to be changed by tests."""
    from data_shards.build.description import read_description
    from data_shards.build.run import build
    from data_shards.build.windows_plan import plan_windows

    out = tmp_path_factory.mktemp("built") / "genome.zarr"
    spec = simulated / "danq.toml"
    build(
        plan_windows(read_description(spec), simulated, recipe="danq", spec_path=spec),
        out,
        command="test",
    )
    return out


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A data set of 120 windows of 50 bp: a trial on it takes a moment."""
    from data_shards.build.description import read_description
    from data_shards.build.run import build
    from data_shards.build.windows_plan import plan_windows

    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    with (folder / "genome.fa").open("w") as fasta:
        for name in ("a", "b", "c"):
            fasta.write(f">{name}\n{''.join(rng.choice(list('ACGT'), 2000))}\n")
    with (folder / "peaks.bed").open("w") as bed:
        for name in ("a", "b", "c"):
            for start in range(0, 2000, 100):
                bed.write(f"{name}\t{start}\t{start + 50}\n")
    (folder / "tiny.toml").write_text(
        '[reference]\nfasta = "genome.fa"\n'
        "[windows]\nlength = 50\ncenter = 50\nstride = 50\n"
        '[splits]\nvalid = ["b"]\ntest = ["c"]\n'
        '[[tasks]]\nname = "peak"\nfile = "peaks.bed"\n'
    )
    spec = folder / "tiny.toml"
    out = folder / "tiny.zarr"
    build(
        plan_windows(read_description(spec), folder, recipe="danq", spec_path=spec),
        out,
        command="test",
    )
    return out


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; skips where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data are not on this machine (../shared/data)")
    return SHARED_DATA

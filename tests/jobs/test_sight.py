"""Nodes that do not see a run's files: another mount namespace stands for another machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.clusters import RayHead, ray_head

pytestmark = pytest.mark.slow
UNSHARE = shutil.which("unshare") or ""
can_mount = bool(UNSHARE) and (
    subprocess.run([UNSHARE, "-m", "true"], check=False, capture_output=True).returncode == 0
)
needs_mount = pytest.mark.skipif(not can_mount, reason="mount namespaces are not allowed here")

LOOK = """
import json, sys
from pathlib import Path
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from jobs.cluster import cluster
from jobs.nodes import nodes
from jobs.sight import check_sight
with cluster():
    said = []
    for words in json.loads(sys.argv[1]):
        need, runs, data = words
        try:
            check_sight(need, Path(runs), ShardedDataset(data))
            said.append("")
        except InputError as error:
            said.append(str(error))
    print(json.dumps([said, [node.id[:8] for node in nodes() if node.resources.get("far")]]))
"""


@pytest.fixture(scope="module")
def folder(danq_data: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that both nodes see alike, and some that the second does not."""
    folder = tmp_path_factory.mktemp("sight")
    for name in ("shared", "hidden", "swapped"):
        shutil.copytree(danq_data, folder / name / "x.zarr")
    shutil.copytree(tiny_data, folder / "other" / "x.zarr")
    return folder


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[RayHead]:
    with ray_head() as head:
        mounts = (
            f"mount -t tmpfs none {folder}/hidden && mount --bind {folder}/other {folder}/swapped"
        )
        head.until("Usage")
        with head.node(2, "--resources", '{"far": 1}', before=mounts):
            head.until("far")
            yield head


@needs_mount
def test_a_node_that_does_not_see_a_path_is_named_before_anything_starts(
    cluster: RayHead, folder: Path
) -> None:
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
    shared, runs = f"{folder}/shared/x.zarr", f"{folder}/shared/runs"
    one, none = {"CPU": 1.0}, {"CPU": 3.0}
    asked = [
        [one, runs, shared],
        [one, runs, f"{folder}/hidden/x.zarr"],
        [one, runs, f"{folder}/swapped/x.zarr"],
        [one, f"{folder}/hidden/runs", shared],
        [none, f"{folder}/hidden/runs", shared],
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (fine, hidden, swapped, no_runs, no_room), [far] = json.loads(done.stdout.splitlines()[-1])
    assert fine == no_room == ""
    assert f"({far})" in hidden
    assert f"{folder}/hidden/x.zarr" in hidden
    assert "another data set lies there" in swapped
    assert f"{folder}/hidden/runs: is not there on node" in no_runs
    assert not list(Path(runs).glob(".seen*")), "nothing is left behind"


@needs_mount
def test_train_refuses_it_and_leaves_no_run(cluster: RayHead, folder: Path, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("replisome"), "train", "danq", "--size", "small",
        "--data", folder / "hidden" / "x.zarr", "--runs", folder / "shared" / "none",
        "--set", "grid.cut=parameters",
    ]  # fmt: skip
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"{folder}/hidden/x.zarr: node " in done.stderr
    assert not list((folder / "shared" / "none").iterdir())

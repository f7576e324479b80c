"""``replisome doctor``: whether a cluster can train, node by node, with a remedy for each fault."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.cluster import Share, cluster
from jobs.console import Console
from jobs.network import meet
from jobs.nodes import Node, nodes
from jobs.sight import Sight, ask, look, marked, note_of

LIBRARIES = ("replisome", "ray", "torch", "deepspeed", "zarr", "numpy", "mlflow", "optuna")
_FREE_GB = 5.0  # of the temporary folder
_SHM_GB = 1.0  # of /dev/shm; Ray's objects lie there
_SKEW = 2.0  # seconds
_SLOW = 5.0  # seconds for one node's answer


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: in a word or two.
        where: a node's address, "driver", or two nodes.
        ok: whether it is as it should be.
        found: what is there.
        remedy: what to do if it is not.
    """

    what: str
    where: str
    ok: bool
    found: str
    remedy: str = ""


def examine(runs: Path, data: str | None, console: Console) -> list[Check]:
    """Look at the cluster that ``RAY_ADDRESS`` names, or at this machine.

    Args:
        runs: the folder of all runs, which all nodes must see.
        data: a data set that all nodes must see, if one is named.
        console: where progress is shown.
    """
    checks = [*_driver(), *_tracking(runs)]
    with cluster() as found:
        checks.append(Check("Ray", "driver", True, _ray_words(found)))
        here = {name: _version(name) for name in LIBRARIES}
        there = nodes()
        with marked(runs) as marker:
            for node in there:
                console.say(f"looking at {node.address} ...")
                checks += _node(node, here, marker, data)
            checks += _seen_from_here(marker, there)
        console.say("measuring the network ...")
        checks += _network(runs, there, gpu=any(node.resources.get("GPU") for node in there))
    return checks


def report(checks: list[Check], console: Console) -> dict[str, Any]:
    """Show a table of checks; return them as plain values."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "what", "where", "found"):
        table.add_column(name)
    for check in checks:
        table.add_row("ok" if check.ok else "FAULT", check.what, check.where, check.found)
    console.show(table)
    faults = [check for check in checks if not check.ok]
    for check in faults:
        console.show(f"{check.what} on {check.where}: {check.found}\n  remedy: {check.remedy}")
    if not faults:
        console.show("no faults")
    return {"checks": [asdict(check) for check in checks], "faults": len(faults)}


# The driver -------------------------------------------------------------------------------------


def _driver() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check(
        "Python",
        "driver",
        sys.version_info[:2] == (3, 11),
        python,
        "make an environment with Python 3.11",
    )
    joining = "RAY_ADDRESS" in os.environ
    token = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    file = Path.home() / ".ray" / "auth_token"
    there = bool(token) or file.is_file()
    yield Check(
        "token",
        "driver",
        there or not joining,
        "there" if there else "none" if joining else "made for this command",
        "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token: without one, whoever "
        "reaches the cluster runs code on it",
    )
    if file.is_file():
        private = file.stat().st_mode & 0o077 == 0
        yield Check(
            "token's file",
            "driver",
            private,
            "private" if private else "others can read it",
            f"chmod 600 {file}",
        )


def _tracking(runs: Path) -> Iterator[Check]:
    from jobs.tracking import open_store, tracking_uri

    uri = tracking_uri(runs)
    shown = uri.rpartition("@")[2] if "@" in uri else uri
    begin = time.perf_counter()
    try:
        open_store(runs).search_experiments(max_results=1)
    except Exception as error:  # whatever it says is the finding
        yield Check(
            "MLflow",
            "driver",
            False,
            f"{shown}: {str(error).splitlines()[0][:200]}",
            "start the server, or set MLFLOW_TRACKING_URI; runs go on without, and wait on disk",
        )
        return
    yield Check("MLflow", "driver", True, f"{shown}, {time.perf_counter() - begin:.1f} s")


def _ray_words(found: Any) -> str:
    kind = "a private one" if found.local else "joined"
    return f"{kind}: {found.nodes} nodes, {found.cpus} CPUs, {found.gpus} GPUs"


# A node -----------------------------------------------------------------------------------------


def _node(node: Node, here: dict[str, str], marker: Path, data: str | None) -> Iterator[Check]:
    import ray

    # Takes no GPU, so that it need not wait for one, but sees them all.
    sees_all = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
    begin = time.time()
    try:
        asked = ask(node, look_around, str(marker), data, runtime_env=sees_all)
        seen = ray.get(asked, timeout=120)
    except Exception as error:  # whatever it says is the finding
        text = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        remedy = "see that replisome is installed there, the same as here"
        yield Check("node", node.address, False, text, remedy)
        return
    took = time.time() - begin
    sight: Sight = seen["sight"]
    yield from _versions(node.address, here, seen["versions"])
    yield from _devices(node, seen)
    yield from _room(node.address, seen)
    skew = max(0.0, abs(seen["clock"] - begin - took / 2) - took / 2)
    yield Check(
        "clock", node.address, skew < _SKEW, f"{skew:.1f} s apart", "synchronise it (chrony, ntpd)"
    )
    yield Check(
        "runs folder",
        node.address,
        sight.marker and not sight.runs_fault,
        sight.runs_fault
        or ("readable and writable" if sight.marker else f"{marker.parent} is not there"),
        "put the runs on storage that all nodes share, and name it with --runs",
    )
    if data is not None:
        yield Check(
            "data set",
            node.address,
            sight.data_fault == "",
            sight.data_fault or data,
            "put it on storage that all nodes share",
        )


def look_around(marker: str, data: str | None) -> dict[str, Any]:
    """Tell what a node has; runs there."""
    import torch

    return {
        "versions": {name: _version(name) for name in LIBRARIES},
        "gpus": torch.cuda.device_count(),
        "gpu_names": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "tmp_gb": shutil.disk_usage("/tmp").free / 1e9,
        "shm_gb": shutil.disk_usage("/dev/shm").total / 1e9 if Path("/dev/shm").is_dir() else 0.0,
        "clock": time.time(),
        "sight": look(marker, data),
    }


def _versions(where: str, here: dict[str, str], there: dict[str, str]) -> Iterator[Check]:
    other = [
        f"{name} {there[name]}, here {here[name]}"
        for name in LIBRARIES
        if there[name] != here[name]
    ]
    yield Check(
        "versions",
        where,
        not other,
        "; ".join(other) or f"as here: torch {here['torch']}, ray {here['ray']}",
        "install the same: pip install -c constraints.txt",
    )


def _devices(node: Node, seen: dict[str, Any]) -> Iterator[Check]:
    told = int(node.resources.get("GPU", 0))
    found = ", ".join(seen["gpu_names"]) or "none"
    yield Check(
        "GPUs",
        node.address,
        seen["gpus"] == told,
        f"Ray has {told}, PyTorch sees {seen['gpus']}: {found}"
        + (f" (CUDA {seen['cuda']})" if seen["cuda"] else ""),
        "see that the driver fits PyTorch's CUDA: nvidia-smi, and torch.cuda.is_available()",
    )


def _room(where: str, seen: dict[str, Any]) -> Iterator[Check]:
    yield Check(
        "free disk",
        where,
        seen["tmp_gb"] >= _FREE_GB,
        f"{seen['tmp_gb']:.0f} GB in /tmp",
        f"free {_FREE_GB:.0f} GB, or start Ray with --temp-dir elsewhere",
    )
    yield Check(
        "shared memory",
        where,
        seen["shm_gb"] >= _SHM_GB,
        f"{seen['shm_gb']:.1f} GB in /dev/shm",
        "give the container more: --shm-size",
    )


def _seen_from_here(marker: Path, there: list[Node]) -> Iterator[Check]:
    """Check that what nodes wrote arrived."""
    for node in there:
        note = note_of(marker, node.id)
        yield Check(
            "runs folder, back",
            node.address,
            note.is_file(),
            "what it wrote is here" if note.is_file() else "what it wrote is not here",
            "its folder of that name is another one: mount the shared one",
        )


# The network ------------------------------------------------------------------------------------


def _network(runs: Path, there: list[Node], *, gpu: bool) -> Iterator[Check]:
    """Have a worker on each node meet the others, and measure what passes between them."""
    from jobs.launch import run_group
    from trainer.grid import Grid

    device: Any = "gpu" if gpu else "cpu"
    workers = max(2, len(there))
    share = Share(device, 1.0, len(there), ())
    need = {name: 0.5 if len(there) == 1 and not gpu else 1.0 for name in share.resources}
    spread = [Node(node.id, dict(need), node.address, node.port) for node in there]
    if len(there) == 1:
        spread = [Node(there[0].id, {n: 2 * a for n, a in need.items()}, there[0].address)]
    share = Share(device, need["CPU"], len(there), ())
    folder = runs.resolve() / f".doctor-network-{secrets.token_hex(4)}"
    backend = "NCCL" if gpu else "gloo"
    try:
        measured = run_group(
            meet, device, Grid(1, workers), share, folder, found=spread, hang_seconds=30
        )
    except Exception as error:  # whatever it says is the finding
        yield Check(
            backend,
            "all nodes",
            False,
            f"{type(error).__name__}: {str(error).splitlines()[0][:200]}",
            "open all ports between the nodes, and name the interface: NCCL_SOCKET_IFNAME, "
            "GLOO_SOCKET_IFNAME",
        )
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    yield Check(f"{backend} all-reduce", "all nodes", True, f"{measured['all_reduce']:.0f} MB/s")
    for (sender, receiver), (rate, delay) in measured["pairs"].items():
        yield Check(
            f"{backend} send",
            f"worker {sender} to {receiver}",
            True,
            f"{rate:.0f} MB/s, {delay * 1e3:.2f} ms",
        )


# Helpers ----------------------------------------------------------------------------------------


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"

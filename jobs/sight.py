"""Whether a cluster's nodes see the same files as the driver: a run's data set and its folder."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.errors import InputError

if TYPE_CHECKING:
    from data_shards.dataset import ShardedDataset
    from jobs.nodes import Node

_ANSWER = 120.0  # seconds that a node may take to start a process and look


@dataclass(frozen=True)
class Sight:
    """What a node sees of the driver's files.

    Attributes:
        marker: whether the file that the driver has just written is there.
        runs_fault: why nothing can be written beside it; empty if it can.
        data_fault: why the data set can't be opened; empty if it can, or if none was named.
        fingerprint: of the data set that it opened; empty without one.
    """

    marker: bool
    runs_fault: str
    data_fault: str
    fingerprint: str


def check_sight(need: Mapping[str, float], runs: Path, data: ShardedDataset) -> None:
    """Refuse to start workers on nodes that do not see what they read and write.

    Costs nothing where all workers run on the driver's own node.

    Args:
        need: resources of a worker; nodes without room for one need not see anything.
        runs: the folder of all runs.
        data: as the driver sees it.

    Raises:
        InputError: names the path, the node, and what it sees there.
    """
    import ray

    from jobs.nodes import nodes

    own = ray.get_runtime_context().get_node_id()
    others = [node for node in nodes() if node.id != own and node.fits(need)]
    if not others:
        return
    place, wanted = str(data.place), data.attributes.fingerprint
    with marked(runs) as marker:
        asked = {ask(node, look, str(marker), place): node for node in others}
        for answer, node in asked.items():
            seen: Sight = ray.get(answer, timeout=_ANSWER)
            where = f"{node.address} ({node.id[:8]})"
            if not seen.marker or seen.runs_fault:
                raise InputError(
                    seen.runs_fault or f"is not there on node {where}, or is another folder",
                    path=marker.parent,
                    remedy="put the runs on storage that all nodes share, and name it with --runs",
                )
            if seen.data_fault or seen.fingerprint != wanted:
                raise InputError(
                    f"node {where}: {seen.data_fault or 'another data set lies there'}",
                    path=place,
                    remedy="put the data set on storage that all nodes share, in the same place",
                )


def ask(node: Node, work: Any, *arguments: object, **options: Any) -> Any:
    """Have a node run a function that takes none of its resources; return Ray's reference."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(work).options(num_cpus=0, scheduling_strategy=there, **options)
    return task.remote(*arguments)


@contextmanager
def marked(runs: Path) -> Iterator[Path]:
    """Put a file into the runs folder, for nodes to see and to write beside."""
    path = runs.resolve() / f".seen-{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    except OSError as error:
        raise InputError(
            f"can't be written: {error.strerror}",
            path=path.parent,
            remedy="name another folder with --runs",
        ) from None
    try:
        yield path
    finally:
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink(missing_ok=True)


def note_of(marker: Path, node: str) -> Path:
    """Where a node writes beside the driver's file."""
    return marker.parent / f"{marker.name}.{node[:12]}"


def look(marker: str, data: str | None) -> Sight:
    """Tell what this node sees; runs there, in a process of its own."""
    import ray

    file, fault = Path(marker), ""
    try:
        note_of(file, ray.get_runtime_context().get_node_id()).write_text(socket.gethostname())
    except OSError as error:
        fault = f"not writable on node {socket.gethostname()}: {error.strerror}"
    seen = file.is_file() and file.read_text() == file.name
    if not file.parent.is_dir():
        fault = ""  # it is not there at all, which says more
    if data is None:
        return Sight(seen, fault, "", "")
    from data_shards.dataset import ShardedDataset

    try:
        return Sight(seen, fault, "", ShardedDataset(data).attributes.fingerprint)
    except Exception as error:  # whatever it says is the finding
        return Sight(seen, fault, str(error).splitlines()[0][:200], "")

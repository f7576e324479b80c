"""The nodes of the cluster: which are there, and on which the workers of a grid fit."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trainer.grid import Grid

_LABEL = "ray.io/node-id"
_ANSWER = 2.0  # seconds that a living node may take to answer
_ASKED = 2  # times a node is asked before it counts as mute
_AT_ONCE = 64  # nodes asked at the same time


@dataclass(frozen=True)
class Node:
    """A node that takes work.

    Attributes:
        id: Ray's.
        resources: by name; all of them, or the free ones.
        address: its network address.
        port: where its Ray listens.
    """

    id: str
    resources: Mapping[str, float]
    address: str = ""
    port: int = 0

    def fits(self, need: Mapping[str, float]) -> int:
        """How many workers that need this much fit."""
        return min(
            int(self.resources.get(name, 0.0) / amount + 1e-6) for name, amount in need.items()
        )


def nodes(*, free: bool = False) -> list[Node]:
    """Return the nodes that Ray takes for alive and that are not about to be taken away.

    Args:
        free: with the resources that nobody uses now, instead of all.
    """
    import ray
    from ray._private.state import available_resources_per_node

    leaving = draining()
    unused = available_resources_per_node() if free else {}
    return [
        Node(
            node["NodeID"],
            unused.get(node["NodeID"], {}) if free else node["Resources"],
            node["NodeManagerAddress"],
            node["NodeManagerPort"],
        )
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in leaving
    ]


def draining() -> set[str]:
    """Return the nodes that will be taken away soon (a spot instance's notice, for one)."""
    import ray._private.state

    # What Ray Train's own watcher asks; there is no public call.
    return set(ray._private.state.state.get_draining_nodes() or {})


def responding(mute_before: set[str], say: Callable[[str], None]) -> list[Node]:
    """Return the nodes that answer.

    A node that was lost a second ago still counts as alive for Ray (for 15 s or more by default).
    Workers placed on it would be waited for, so nothing is placed on a node that does not answer.

    Args:
        mute_before: ids of nodes that are known not to answer; those found now are added.
        say: told of new ones.
    """
    found = nodes()
    mute = found
    for _ in range(_ASKED):
        answered = answering(mute)
        mute = [node for node in mute if node.id not in answered]
    for node in mute:
        if node.id not in mute_before:
            say(f"node {node.address} ({node.id[:8]}) does not answer")
            mute_before.add(node.id)
    return [node for node in found if node not in mute]


def answering(asked: Sequence[Node]) -> set[str]:
    """Return those nodes whose Ray takes a connection, by id."""
    with ThreadPoolExecutor(max(1, min(len(asked), _AT_ONCE))) as pool:
        answers = list(pool.map(_answers, asked))
    return {node.id for node, answered in zip(asked, answers, strict=True) if answered}


def _answers(node: Node) -> bool:
    try:
        with socket.create_connection((node.address, node.port), timeout=_ANSWER):
            return True
    except OSError:
        return False


def most_replicas(found: Sequence[Node], need: Mapping[str, float], stages: int) -> int:
    """How many pipelines fit at once, their stages together or not."""
    return sum(node.fits(need) for node in found) // stages


def place(found: Sequence[Node], need: Mapping[str, float], grid: Grid) -> list[str] | None:
    """Choose a node for each worker; the stages of a replica sit together where they can.

    Args:
        found: nodes with what they have.
        need: resources of a worker.
        grid: the workers.

    Returns:
        A node's id for each rank, ranks of a node in a row; None if there is no room for all.
    """
    room = {node.id: node.fits(need) for node in sorted(found, key=lambda n: -n.fits(need))}
    chosen: dict[str, int] = {}
    left = grid.workers
    for unit in (grid.stages, 1):  # whole replicas first, then what fits in no node
        for node, fits in room.items():
            taken = min((fits - chosen.get(node, 0)) // unit, left // unit) * unit
            chosen[node] = chosen.get(node, 0) + taken
            left -= taken
    return [node for node, count in chosen.items() for _ in range(count)] if left == 0 else None


def selector(node: str) -> dict[str, str]:
    """Return Ray's label selector of a node."""
    return {_LABEL: node}

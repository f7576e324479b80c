"""The nodes of the cluster: which are there, and on which the workers of a grid fit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.grid import Grid

_LABEL = "ray.io/node-id"
_ANSWER = 3.0  # seconds that a living node may take to run nothing
_DEATH = 60.0  # seconds until Ray has noticed that a node is gone, at most


@dataclass(frozen=True)
class Node:
    """A node that takes work.

    Attributes:
        id: Ray's.
        resources: by name; all of them, or the free ones.
    """

    id: str
    resources: Mapping[str, float]

    def fits(self, need: Mapping[str, float]) -> int:
        """How many workers that need this much fit."""
        return min(
            int(self.resources.get(name, 0.0) / amount + 1e-6) for name, amount in need.items()
        )

    @property
    def selector(self) -> dict[str, str]:
        """Ray's label selector of this node."""
        return {_LABEL: self.id}


def nodes(*, free: bool = False) -> list[Node]:
    """Return the nodes that are alive and not about to be taken away.

    Args:
        free: with the resources that nobody uses now, instead of all.
    """
    import ray
    from ray._private.state import available_resources_per_node

    leaving = draining()
    unused = available_resources_per_node() if free else {}
    return [
        Node(node["NodeID"], unused.get(node["NodeID"], {}) if free else node["Resources"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in leaving
    ]


def draining() -> set[str]:
    """Return the nodes that will be taken away soon (a spot instance's notice, for one)."""
    import ray._private.state

    # What Ray Train's own watcher asks; there is no public call.
    return set(ray._private.state.state.get_draining_nodes() or {})


def responding() -> list[Node]:
    """Return the nodes that answer; waits until Ray has noticed the death of those that don't.

    A node that was lost a second ago still counts as alive for Ray (for 15 s by default), and
    workers placed on it would be waited for.
    """
    import ray

    deadline = time.monotonic() + _DEATH
    while True:
        found = nodes()
        mute = {node.id for node in found} - _answering(found)
        if not mute or time.monotonic() > deadline:
            return [node for node in found if node.id not in mute]
        while time.monotonic() < deadline:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if not mute & alive:
                break
            time.sleep(0.2)
            if mute & alive and (mute & alive) <= _answering(
                [node for node in found if node.id in mute & alive]
            ):
                break  # it was only slow


def _answering(found: Sequence[Node]) -> set[str]:
    """Return those nodes that run an empty task soon."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()

    answer = ray.remote(num_cpus=0, max_retries=0)(_answer)
    asked = {
        answer.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(): node.id
        for node in found
        if node.id != here
    }
    answered = {node.id for node in found if node.id == here}
    if not asked:
        return answered
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER)
    for reference in late:
        ray.cancel(reference, force=True)
    for reference in ready:
        try:
            ray.get(reference)
        except ray.exceptions.RayError:
            continue  # the node went away meanwhile
        answered.add(asked[reference])
    return answered


def _answer() -> None:
    """Do nothing, on another node."""


def most_replicas(found: Sequence[Node], need: Mapping[str, float], stages: int) -> int:
    """How many pipelines fit at once, their stages together or not."""
    return sum(node.fits(need) for node in found) // stages


def place(found: Sequence[Node], need: Mapping[str, float], grid: Grid) -> list[str] | None:
    """Choose a node for each worker, so that the stages of a replica sit together.

    Args:
        found: nodes with what they have.
        need: resources of a worker.
        grid: the workers.

    Returns:
        A node's id for each rank; None if some replica does not fit on one node (then Ray packs
        the workers, and ranks are still neighbours on a node).
    """
    chosen: list[str] = []
    for node in sorted(found, key=lambda node: -node.fits(need)):
        whole = min(node.fits(need) // grid.stages, grid.replicas - len(chosen) // grid.stages)
        chosen += [node.id] * (whole * grid.stages)
    return chosen if len(chosen) == grid.workers else None


def selector(node: str) -> dict[str, str]:
    """Return Ray's label selector of a node."""
    return {_LABEL: node}

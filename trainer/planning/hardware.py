"""Workers, the nodes they sit on, and the links between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from trainer.grid import Grid
from trainer.planning.tables import Floats

Size = TypeVar("Size", float, Floats)

_GPU_SHARE = 0.9  # of a GPU's memory is for tensors; the rest is its context and fragmentation


@dataclass(frozen=True)
class Link:
    """A way from one worker to another.

    Attributes:
        latency: seconds until the first byte arrives.
        bandwidth: bytes a second.
        ring: as it is to workers that average over it, where that differs: they add up what
            arrives before they hand it on.
    """

    latency: float
    bandwidth: float
    ring: Link | None = None

    def seconds(self, size: Size) -> Size:
        """Time of one message of ``size`` bytes."""
        return self.latency + size / self.bandwidth

    def shared(self, flows: int) -> Link:
        """The link as each of several equal flows sees it."""
        ring = self.ring and self.ring.shared(flows)
        return Link(self.latency, self.bandwidth / max(1, flows), ring)


# gloo over the loopback of a 2-core machine: 64 B in 43 us, 1 MB in 0.2 ms, 8 MB in 2.3 ms;
# averaged over two workers: 4 KB in 1.4 ms (mean; 0.2 or 4), 4 MB in 3.9 ms, 160 MB in 97 ms
# (python -m benchmarks.links; a busy host takes longer).
CPU_LINK = Link(4.5e-5, 3.5e9, ring=Link(7e-4, 1.6e9))
GPU_LINK = Link(2e-5, 2.5e10)  # PCIe 4.0 x16; NVLink has more
CPU_NETWORK = Link(1e-4, 1.25e9)  # 10 Gbit/s Ethernet
GPU_NETWORK = Link(2e-5, 1.25e10)  # 100 Gbit/s


@dataclass(frozen=True)
class Overhead:
    """What the engine itself takes of a worker's time, beside layers and messages; seconds.

    Attributes:
        each_pass: around one pass of one micro-batch, its load, send and receive included.
        each_step: the loss shared out, and all that is done once a step.
    """

    each_pass: float = 0.0
    each_step: float = 0.0


NO_OVERHEAD = Overhead()
# One stage of a network with next to nothing to compute (benchmarks/planning.py --overhead).
CPU_OVERHEAD = Overhead(3.6e-4, 0.0)


@dataclass(frozen=True)
class Hardware:
    """Equal nodes with equal workers on them; ranks fill one node after the other.

    Attributes:
        nodes: how many.
        per_node: workers a node: its GPUs, or processes on its CPU.
        within: between two workers of a node.
        network: between two nodes, shared by all that leave a node at once.
        memory: bytes that a worker's tensors may take; None for no limit.
        cores: workers of a node that can compute at the speed layers were measured at, all at the
            same time; None for all of them.
        overhead: of the engine.
    """

    nodes: int
    per_node: int
    within: Link
    network: Link
    memory: float | None = None
    cores: float | None = None
    overhead: Overhead = NO_OVERHEAD

    @property
    def workers(self) -> int:
        """Workers of all nodes."""
        return self.nodes * self.per_node

    def node(self, rank: int) -> int:
        """Node of a worker."""
        return rank // self.per_node

    def pipeline_links(self, grid: Grid) -> tuple[Link, ...]:
        """Links from each stage to the next: the network's where it is so in any replica."""
        return tuple(
            self.network
            if any(
                self.node(replica * grid.stages + stage)
                != self.node(replica * grid.stages + stage + 1)
                for replica in range(grid.replicas)
            )
            else self.within
            for stage in range(grid.stages - 1)
        )

    def reduce_links(self, grid: Grid) -> tuple[Link, ...]:
        """Links over which each stage averages its gradients with the other replicas.

        A stage whose replicas sit on several nodes has its share of the network: as many stages'
        rings leave a node at once as there are different stages on it.
        """
        homes = [
            [self.node(replica * grid.stages + stage) for replica in range(grid.replicas)]
            for stage in range(grid.stages)
        ]
        crossing = [set(nodes) for nodes in homes if len(set(nodes)) > 1]
        flows = max(
            (sum(node in nodes for nodes in crossing) for node in range(self.nodes)), default=1
        )
        shared = self.network.shared(flows)
        return tuple(shared if len(set(nodes)) > 1 else self.within for nodes in homes)


def default_links(device: torch.device | str) -> tuple[Link, Link]:
    """Return typical links, within a node and between nodes, where nobody measured them."""
    if torch.device(device).type == "cuda":
        return GPU_LINK, GPU_NETWORK
    return CPU_LINK, CPU_NETWORK


def default_overhead(device: torch.device | str) -> Overhead:
    """Return the engine's own time; none on a GPU, where kernels hide it and nobody measured it."""
    return NO_OVERHEAD if torch.device(device).type == "cuda" else CPU_OVERHEAD


def device_memory(device: torch.device, workers: int) -> float:
    """Return the bytes that a worker's tensors may take on a device.

    Args:
        device: of the worker.
        workers: workers of the node; they share the memory of a CPU.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory * _GPU_SHARE
    import psutil

    return float(psutil.virtual_memory().total) / max(1, workers)

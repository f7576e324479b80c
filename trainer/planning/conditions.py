"""All that a cut is chosen under, apart from the layers: workers, links, memory, batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.config import PipelineSchedule, Recompute, RunConfig
from trainer.grid import BatchLayout, Grid
from trainer.planning.hardware import NO_OVERHEAD, Hardware, Link, Overhead
from trainer.planning.memory import Upkeep
from trainer.planning.tables import Floats

_GRADIENT = 4  # bytes: float32


@dataclass(frozen=True)
class Conditions:
    """Under which a network is cut.

    Attributes:
        grid: the workers.
        micro_batches: a replica and step.
        links: from each stage to the next.
        reduce: over which each stage averages gradients.
        upkeep: what is kept for each weight.
        recompute: whether stages compute activations again; "auto": those that do not fit else.
        memory: bytes a worker; None for no limit.
        update: seconds of the optimizer's step for one weight.
        overhead: the engine's own time.
    """

    grid: Grid
    micro_batches: int
    links: tuple[Link, ...]
    reduce: tuple[Link, ...]
    upkeep: Upkeep
    recompute: Recompute = "auto"
    memory: float | None = None
    update: float = 0.0
    overhead: Overhead = NO_OVERHEAD

    @classmethod
    def of(
        cls,
        config: RunConfig,
        grid: Grid,
        layout: BatchLayout,
        hardware: Hardware,
        update: float = 0.0,
    ) -> Conditions:
        """Collect the conditions of a run on some hardware.

        Args:
            config: of the run; says optimizer, ZeRO, recomputing and the memory limit.
            grid: the workers, which the hardware has.
            layout: how batches are shared out.
            hardware: says links, the engine's own time, and the memory limit where the
                configuration has none.
            update: seconds of the optimizer's step for one weight.
        """
        limit = config.grid.memory_gb
        return cls(
            grid,
            layout.micro_batches,
            hardware.pipeline_links(grid),
            hardware.reduce_links(grid),
            Upkeep.of(config, grid.replicas),
            config.grid.recompute,
            hardware.memory if limit is None else limit * 1e9,
            update,
            hardware.overhead,
        )

    @property
    def schedule(self) -> PipelineSchedule:
        """Schedule of the pipeline."""
        return "dualpipev" if self.grid.folded else "1f1b"

    def reduce_seconds(self, stage: int, weights: Floats) -> Floats:
        """Time in which a stage averages its gradients over r replicas.

        A ring all-reduce sends ``2 (r - 1) / r`` of the bytes over each link, in ``2 (r - 1)``
        messages (Patarasuk and Yuan 2009). Under ZeRO-1 the new weights are sent once more.
        """
        replicas, link = self.upkeep.replicas, self.reduce[stage]
        link = link.ring or link
        if replicas == 1:
            return np.zeros_like(weights)
        size = _GRADIENT * weights
        seconds = 2 * (replicas - 1) * (size / replicas / link.bandwidth + link.latency)
        if self.upkeep.zero:
            seconds = seconds + size / link.bandwidth + replicas * link.latency
        return np.where(weights > 0, seconds, 0.0)

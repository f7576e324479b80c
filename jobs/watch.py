"""Watching the cluster while a run computes: nodes that are taken away, nodes that come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from jobs.nodes import answering, draining, most_replicas, nodes
from trainer.grid import Grid, same_parts
from trainer.results import TrainJob

_LOOK = 1.0  # seconds between two looks
_SETTLE = 3  # looks in a row that must see room for more: a node that comes back may go again


class Watch:
    """Calls a run away, in a thread, when it should go on elsewhere.

    That is when one of the nodes it may be on is about to be taken away, or when replicas that were
    lost fit again. The workers then save, and leave.

    It looks for room only once all workers have begun: before that, the room that is free is their
    own.

    Attributes:
        reason: why the run was called away.
    """

    def __init__(
        self, job: TrainJob, wanted: Grid, need: Mapping[str, float], begun: Callable[[], int]
    ) -> None:
        """Watch for a run.

        Args:
            job: what its workers are told.
            wanted: the grid that was asked for.
            need: resources of a worker.
            begun: counts the workers that have begun.
        """
        self.reason = ""
        self._job, self._wanted, self._need, self._begun = job, wanted, need, begun
        self._leaving = draining()  # these were known, and avoided, at the start
        self._seen = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._job.call_back()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._job.call_back()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK):
            reason = self._why_leave()
            if reason is not None:
                self.reason = reason
                self._job.call_away(reason)
                return

    def _why_leave(self) -> str | None:
        if leaving := draining() - self._leaving:
            return f"node {min(leaving)[:8]} is about to be taken away"
        missing = self._wanted.replicas - self._job.grid.replicas
        if missing == 0 or self._begun() < self._job.grid.workers:
            return None
        found = nodes(free=True)
        more = min(missing, most_replicas(found, self._need, self._wanted.stages))
        size, layout = self._job.config.batch_size, self._job.layout
        grids = [
            Grid(self._wanted.stages, self._job.grid.replicas + extra, self._wanted.folded)
            for extra in range(1, more + 1)
        ]
        better = [grid for grid in grids if same_parts(size, grid, layout.micro_batch)]
        self._seen = self._seen + 1 if better else 0
        if self._seen < _SETTLE:
            return None
        if len(answering(found)) < len(found):
            self._seen = 0  # Ray does not know yet that a node is gone, and counts its room
            return None
        return f"there is room for {better[-1].replicas} replicas again"

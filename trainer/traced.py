"""One step of a training, traced on all workers and kept as a file of spans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trainer.engine import Engine
from trainer.timeline import Tracer, gather_spans, write_spans

_AFTER = 10  # steps, in which memory, kernels and shapes settle


class TracedStep:
    """Traces the eleventh step that a worker group takes, or its last if there are fewer.

    Args:
        engine: that takes the steps.
        device: of this worker.
        path: file for the spans; the reporter writes it.
        first: first step that the group takes.
        steps: end of the training.
    """

    def __init__(
        self, engine: Engine, device: torch.device, path: Path, first: int, steps: int
    ) -> None:
        self._engine, self._path = engine, path
        self._tracer = Tracer(device)
        self._step = min(first + _AFTER, steps - 1)

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Trace what is inside, if it is the step; all workers enter with the same."""
        if step != self._step:
            yield
            return
        with self._tracer.tracing(self._engine.pipeline):
            yield
        spans = gather_spans(self._tracer.spans, self._engine.grid.reporter)
        if spans is not None:
            write_spans(spans, self._path)

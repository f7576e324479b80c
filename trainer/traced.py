"""One step of a training, looked at closely: who did what when, and how much was computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from trainer.engine import Engine
from trainer.flops import FLOP_PER_MULTIPLY_ADD, MultiplyAdds
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

    Attributes:
        flop: floating-point operations of training on one sample (``trainer.flops``), on every
            worker; None before the step, and where layers are compiled and can't be looked into.

    """

    def __init__(
        self, engine: Engine, device: torch.device, path: Path, first: int, steps: int
    ) -> None:
        self._engine, self._path = engine, path
        self._tracer = Tracer(device)
        self._step = min(first + _AFTER, steps - 1)
        self._device = device
        self.flop: float | None = None

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Trace what is inside, if it is the step; all workers enter with the same."""
        if step != self._step:
            yield
            return
        engine = self._engine
        layers = [] if engine.compiled else [module for _, module in engine.stage.local_layers()]
        with MultiplyAdds(layers) as counted, self._tracer.tracing(engine.pipeline):
            yield
        if not engine.compiled:
            total = torch.tensor(counted.total, dtype=torch.float64, device=self._device)
            dist.all_reduce(total)
            self.flop = FLOP_PER_MULTIPLY_ADD * float(total) / engine.layout.batch_size
        spans = gather_spans(self._tracer.spans, self._engine.grid.reporter)
        if spans is not None:
            write_spans(spans, self._path)

"""How fast training is: steps, samples and operations a second since the last look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

import torch

from trainer.engine import Engine
from trainer.flops import peak_of
from trainer.results import TrainJob


class Speed:
    """Times steps between two looks, without what else there is to do (validation, for one).

    Args:
        samples: a step, over all replicas.
        peak: of all workers together, TFLOP/s; None if it is not known.
        clock: seconds.

    """

    def __init__(
        self, samples: int, peak: float | None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._samples, self._peak, self._clock = samples, peak, clock
        self._waited = 0.0
        self._begin = clock()

    @classmethod
    def of(cls, job: TrainJob, engine: Engine) -> Self:
        """Return that of a training."""
        device = torch.device(engine.pipeline.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        peak = peak_of(name, job.config.precision)
        return cls(job.layout.batch_size, None if peak is None else peak * job.grid.workers)

    def go_on(self) -> None:
        """Begin an interval."""
        self._begin = self._clock()

    def since(self, steps: int, waited: float, flop: float | None) -> dict[str, float]:
        """End an interval and begin the next; return its figures as metrics.

        Args:
            steps: that were taken in it.
            waited: seconds that this worker has waited for data, over all intervals.
            flop: of training on one sample, if that is known.

        Returns:
            ``train/step_seconds``, ``train/samples_per_second`` over all replicas,
            ``train/data_wait_seconds`` over all intervals and ``train/data_wait_percent`` of this
            one; with ``flop``, ``train/tflop_per_second`` of all workers together, and
            ``train/mfu_percent`` of the GPUs' peak, if that is known.
        """
        now = self._clock()
        seconds = max(now - self._begin, 1e-9)
        speed = steps * self._samples / seconds
        figures = {
            "train/step_seconds": seconds / max(steps, 1),
            "train/samples_per_second": speed,
            "train/data_wait_seconds": waited,
            "train/data_wait_percent": 100 * min(1.0, (waited - self._waited) / seconds),
        }
        if flop is not None:
            reached = speed * flop / 1e12
            figures["train/tflop_per_second"] = reached
            if self._peak is not None:
                figures["train/mfu_percent"] = 100 * reached / self._peak
        self._begin, self._waited = now, waited
        return figures

"""When things happen in a training run: pure arithmetic on step numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Maps optimizer steps to epochs. A step number is that of a step just taken, from 0.

    Attributes:
        samples: in the training split.
        batch_size: samples a step; a batch may reach into the next epoch.
        epochs: passes over the split.
        max_steps: an upper limit of steps, or None.
    """

    samples: int
    batch_size: int
    epochs: int
    max_steps: int | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = math.ceil(self.epochs * self.samples / self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch(self, step: int) -> int:
        """The epoch, from 1, that the step's last sample belongs to."""
        return math.ceil((step + 1) * self.batch_size / self.samples)

    def ends_epoch(self, step: int) -> bool:
        """Whether the step completes an epoch, or is the last of the run."""
        done, before = (n * self.batch_size // self.samples for n in (step + 1, step))
        return done > before or step + 1 == self.steps

    def logs(self, step: int) -> bool:
        """Whether numbers are logged after the step: 20 times an epoch, and at its end."""
        every = max(1, self.samples // self.batch_size // 20)
        return (step + 1) % every == 0 or self.ends_epoch(step)

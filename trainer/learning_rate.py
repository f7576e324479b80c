"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.config import ScheduleConfig


def learning_rate(
    config: ScheduleConfig,
    base: float,
    step: int,
    steps: int,
    steps_per_epoch: float,
    drops: int,
) -> float:
    """Return the learning rate of a step.

    With W warm-up steps, step s < W has ``(s + 1) / (W + 1)`` of what the schedule says, so the
    rate rises in a straight line from 0 (before the first step) to the schedule's first value.
    Then, with ``low = floor * base``:

    - constant: ``base``.
    - cosine: ``low + (base - low) * (1 + cos(pi * t)) / 2``, where t goes from 0 at step W to 1 at
      step ``steps``, one after the last; without restarts (Loshchilov and Hutter, SGDR, 2017,
      section 3).
    - step: ``base * factor ** n``, not below low; n counts drops, one every ``every_epochs`` epochs
      since the start of the run.
    - plateau: the same, where n is ``drops``.

    Args:
        config: the schedule.
        base: ``optimizer.lr``.
        step: number of the step, from 0; from ``steps`` on, cosine stays at its lowest.
        steps: optimizer steps of the whole run.
        steps_per_epoch: training samples / batch size; need not be whole.
        drops: of a plateau so far, see :func:`plateau_drops`; the others ignore it.
    """
    warm_up = config.warmup_steps
    ramp = min(1.0, (step + 1) / (warm_up + 1))
    low = config.floor * base
    if config.name == "constant":
        return ramp * base
    if config.name == "cosine":
        done = min(max(0, step - warm_up) / max(1, steps - warm_up), 1.0)
        return ramp * (low + (base - low) * (1 + math.cos(math.pi * done)) / 2)
    if config.name == "step":
        drops = epochs_done(step, steps_per_epoch) // config.every_epochs
    return ramp * max(low, base * config.factor**drops)


def epochs_done(step: int, steps_per_epoch: float) -> int:
    """Return how many epochs are complete when a step, numbered from 0, begins."""
    # A step that begins an epoch exactly must not land below it by rounding of the quotient.
    return math.floor(step / steps_per_epoch + 1e-9)


def plateau_drops(losses: Sequence[float], patience: int) -> int:
    """Count the drops of the "plateau" schedule, from the validation losses so far.

    An epoch is bad if its loss is not lower than the lowest before (NaN never is). The rate drops
    after ``patience + 1`` bad epochs in a row, and again after as many more: what
    ``torch.optim.lr_scheduler.ReduceLROnPlateau`` does with threshold 0 and no cool-down.

    Args:
        losses: one an epoch, in order.
        patience: bad epochs in a row that are let pass.
    """
    best, bad, drops = math.inf, 0, 0
    for loss in losses:
        best, bad = (loss, 0) if loss < best else (best, bad + 1)
        if bad > patience:
            drops, bad = drops + 1, 0
    return drops

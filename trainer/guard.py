"""Losses that would do harm: not a number, infinite, or far above the recent ones."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

from trainer.config import FailureConfig

_RECENT = 64  # steps whose median says what is usual
_ENOUGH = 16  # fewer say nothing: the first losses fall fast
_IN_A_ROW = 20  # updates left out one after the other: then the weights are bad, not the samples


class LossGuard:
    """Judges the loss of each step from those before it; every worker comes to the same verdict.

    Attributes:
        skipped: steps whose update was left out.
    """

    def __init__(self, config: FailureConfig) -> None:
        self._skips = config.bad_loss == "skip"
        self._spike = config.spike
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self.skipped: list[int] = []
        self._in_a_row = 0

    @property
    def active(self) -> bool:
        """Whether each loss has to be known before its update; it costs one small exchange."""
        return self._skips

    def accepts(self, step: int, loss: float) -> bool:
        """Say whether the update of a step may be made, and remember its loss if so."""
        if self.fault(loss) is not None:
            self.skipped.append(step)
            self._in_a_row += 1
            return False
        self._in_a_row = 0
        self._recent.append(loss)
        return True

    def fault(self, loss: float) -> str | None:
        """Say what is wrong with a loss, if anything."""
        if not math.isfinite(loss):
            return f"is {loss}"
        if self._spike is not None and len(self._recent) >= _ENOUGH:
            usual = statistics.median(self._recent)
            if loss > self._spike * usual:
                return f"is {loss:.4g}, more than {self._spike:g} times the recent {usual:.4g}"
        return None

    def remember(self, losses: Sequence[float]) -> None:
        """Take in losses that were accepted elsewhere."""
        self._recent.extend(losses)

    def restore(self, recent: Sequence[float], skipped: Sequence[int]) -> None:
        """Go on from a checkpoint."""
        self._recent.clear()
        self._recent.extend(recent)
        self.skipped = list(skipped)

    @property
    def hopeless(self) -> bool:
        """Whether so many updates were left out in a row that the weights must be bad."""
        return self._in_a_row >= _IN_A_ROW

    @property
    def recent(self) -> list[float]:
        """The losses that a verdict is made from, oldest first."""
        return list(self._recent)

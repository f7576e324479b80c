"""How far a network's training is: what a checkpoint keeps beside tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from data_shards.documents import Document


class Progress(Document):
    """How far a network's training is, and all that decides how it goes on.

    Order, augmentation, dropout and learning rate are functions of the step, so they need no entry.
    """

    network: str
    step: int = Field(0, ge=0, description="optimizer steps taken")
    valid_losses: tuple[float | None, ...] = Field(
        (), description="validation loss of each epoch; none where it was no finite number"
    )
    best_epoch: int | None = Field(None, description="epoch, from 1, with the lowest of them")
    best_step: int | None = Field(None, description="steps taken at its end")
    recent: tuple[float, ...] = Field((), description="losses that say what a spike is")
    skipped: tuple[int, ...] = Field((), description="steps whose update was left out")
    seconds: float = Field(0.0, description="wall time of training so far")
    finished: bool = False
    micro_batch: int = Field(ge=1, description="samples in a micro-batch")
    stages: int = Field(ge=1)
    folded: bool = False
    cut: tuple[int, ...]
    recompute: tuple[bool, ...] = ()
    method: str = ""

    def after_epoch(self, epoch: int, loss: float | None) -> Progress:
        """Take in the validation loss of one more epoch."""
        number = math.inf if loss is None or math.isnan(loss) else loss
        kept = number if math.isfinite(number) else None
        best = all(number < _number(before) for before in self.valid_losses) and kept is not None
        changes = {"best_epoch": epoch, "best_step": self.step} if best else {}
        return self.model_copy(update={"valid_losses": (*self.valid_losses, kept), **changes})

    @property
    def losses(self) -> list[float]:
        """The validation losses, infinite where they were no finite number."""
        return [_number(loss) for loss in self.valid_losses]

    def exhausted(self, patience: int) -> bool:
        """Whether the lowest validation loss is ``patience`` or more epochs ago."""
        return epochs_since_best(self.losses) >= patience

    def is_on(self, stages: int, folded: bool) -> bool:
        """Whether a grid has as many stages: then the cut stays as it is."""
        return (self.stages, self.folded) == (stages, folded)


def epochs_since_best(losses: Sequence[float]) -> int:
    """Count the epochs since the lowest loss; all of them if none was finite."""
    best = min(losses, default=math.inf)
    if not math.isfinite(best):
        return len(losses)
    return len(losses) - 1 - losses.index(best)


def _number(loss: float | None) -> float:
    return math.inf if loss is None else loss

"""The losses of training: read from the device now and then, judged, logged and kept."""

from __future__ import annotations

import math

import torch

from trainer.engine import Engine
from trainer.events import FILE_NAME, EventWriter
from trainer.feed import Feed
from trainer.history import LossHistory
from trainer.progress import Progress
from trainer.results import TrainJob
from trainer.speed import Speed


class TrainingDivergedError(RuntimeError):
    """A loss is NaN, infinite or a spike; the message has the step, the log its samples."""


class LossLog:
    """The losses of training: read from the device now and then, judged, logged and kept."""

    def __init__(
        self, job: TrainJob, engine: Engine, feed: Feed, events: EventWriter, progress: Progress
    ) -> None:
        self._layout, self._engine, self._feed, self._events = job.layout, engine, feed, events
        self._name = progress.network
        self._step = progress.step  # of the first loss that is still on the device
        self._fresh: list[torch.Tensor] = []
        path = job.losses(self._name)
        self._history = LossHistory(path, self._step) if engine.is_reporter else None
        self._speed = Speed.of(job, engine)
        self._noted = len(engine.guard.skipped)

    def add(self, loss: torch.Tensor) -> None:
        """Take in the loss of the next step; reading it would wait for the device."""
        self._fresh.append(loss)

    def log(self, rate: float, waited: float, flop: float | None) -> None:
        """Bring the losses to the host, and refuse to go on without sense.

        Args:
            rate: learning rate of the last step.
            waited: seconds that this worker has waited for data so far.
            flop: of training on one sample, if that is known.

        Raises:
            TrainingDivergedError: a loss is NaN, infinite or a spike, and is not to be skipped.
        """
        losses: list[float] = torch.stack(self._fresh).flatten().tolist()
        guard = self._engine.guard
        if not guard.active:
            for step, loss in enumerate(losses, start=self._step):
                if fault := guard.fault(loss):
                    self._refuse(step, fault)
                guard.remember([loss])
        for step in guard.skipped[self._noted :]:
            loss = losses[step - self._step]
            self._note(f"skipped the update of step {step}: its loss is {loss:.4g}", step)
        self._noted = len(guard.skipped)
        if guard.hopeless:
            raise TrainingDivergedError(
                f"{self._name}: the last updates, up to that of step {guard.skipped[-1]}, were all "
                "left out, so it is the weights that are bad. Try a lower learning rate or --clip"
            )
        self._step += len(losses)
        self._fresh.clear()
        if self._history is not None:
            self._history.append(losses)
        kept = [loss for loss in losses if math.isfinite(loss)]
        values = {
            "train/loss": sum(kept) / max(len(kept), 1),
            "train/learning_rate": rate,
            **self._speed.since(len(losses), waited, flop),
        }
        if not kept:
            del values["train/loss"]
        self._events.metrics(self._name, self._step, values)

    def go_on(self) -> None:
        """Begin to time steps anew, after something else."""
        self._speed.go_on()

    def progress(self, progress: Progress, step: int, seconds: float) -> Progress:
        """Return how far training is; all losses must have been logged."""
        guard = self._engine.guard
        return progress.model_copy(
            update={
                "step": step,
                "seconds": seconds,
                "recent": tuple(guard.recent),
                "skipped": tuple(guard.skipped),
            }
        )

    def _refuse(self, step: int, fault: str) -> None:
        self._note(f"the loss of step {step} {fault}", step)
        raise TrainingDivergedError(
            f"{self._name}: the loss of step {step} {fault}; the samples of its batch are in "
            f'{FILE_NAME}. Try a lower learning rate, --clip, or failure.bad_loss = "skip"'
        )

    def _note(self, text: str, step: int) -> None:
        rows = self._feed.rows(step, self._layout).tolist()
        self._events.note(self._name, f"{text}; samples: {rows}")

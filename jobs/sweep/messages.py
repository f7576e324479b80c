"""What the board, the slots and the driver of a sweep tell each other: plain values that travel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data_shards.errors import InputError
from jobs.sweep.study import Lease, SweepPlan

WAIT: Literal["wait"] = "wait"
"""Answer to a slot that asks for a trial: none now, ask again."""

PAUSED, CANCELLED = "paused", "cancelled"
"""Why no trial is handed out, not even one that was begun."""

Ending = Literal["complete", "pruned", "failed", "returned"]


@dataclass(frozen=True)
class Budget:
    """When a sweep ends by itself.

    Attributes:
        trials: that end, well or not.
        seconds: of wall time, over all drivers.
        worker_seconds: seconds of workers (GPUs, or shares of CPUs), over all trials.
    """

    trials: int | None = None
    seconds: float | None = None
    worker_seconds: float | None = None

    def used_up(self, trials: int, seconds: float, worker_seconds: float) -> str | None:
        """Say what is used up, of what has been used so far; None if there is something left."""
        if self.trials is not None and trials >= self.trials:
            return f"{self.trials} trials are done"
        if self.seconds is not None and seconds >= self.seconds:
            return f"{self.seconds:g} s are over"
        if self.worker_seconds is not None and worker_seconds >= self.worker_seconds:
            return f"{self.worker_seconds:g} seconds of workers are used"
        return None


@dataclass(frozen=True)
class Opening:
    """How a board opens its study."""

    url: str
    name: str
    plan: SweepPlan
    lease: Lease
    budget: Budget
    retries: int
    resume: bool


@dataclass(frozen=True)
class Assignment:
    """A trial for a slot.

    Attributes:
        number: of the trial, from 0.
        values: settings by dotted name.
        attempt: how often it was begun before.
    """

    number: int
    values: dict[str, Any]
    attempt: int


@dataclass(frozen=True)
class Told:
    """How a trial ended.

    Attributes:
        ending: "returned": it did not end, and shall be handed out again.
        values: of the objectives; for "complete".
        reason: of a failure.
        seconds: wall time in its slot.
        extra: numbers worth keeping with it.
    """

    ending: Ending
    values: tuple[float, ...] = ()
    reason: str = ""
    seconds: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A trial at work."""

    number: int
    slot: int
    values: dict[str, Any]
    began: float
    attempt: int
    epoch: int = 0
    value: float = math.nan


@dataclass(frozen=True)
class News:
    """Something that happened: a trial began, ended, or goes back to be done again."""

    kind: Literal["began", "ended", "again"]
    number: int
    slot: int
    values: dict[str, Any]
    attempt: int
    told: Told | None = None


@dataclass(frozen=True)
class Snapshot:
    """How a sweep is doing.

    Attributes:
        counts: trials by state: complete, pruned, failed, running, waiting.
        running: those at work.
        best: number and objective values of the best trial, or of the first of the Pareto front.
        wall_seconds: of all drivers.
        worker_seconds: of all trials.
        closing: why no trial is handed out any more, if so.
        away: since when the storage does not answer; None if it does.
    """

    counts: Mapping[str, int]
    running: tuple[Running, ...]
    best: tuple[int, tuple[float, ...]] | None
    wall_seconds: float
    worker_seconds: float
    closing: str | None
    away: float | None


def ask(method: Any, *arguments: Any) -> Any:
    """Call a method of the board's actor, and wait for the answer.

    Raises:
        InputError: what the board has to say to a person.
        ray.exceptions.RayError: anything else that went wrong.
    """
    import ray

    try:
        return ray.get(method.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise

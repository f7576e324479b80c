"""When to save and when to leave: decided by one worker, known to all at the same step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from trainer.config import CheckpointConfig

_INTERVAL = 0.25  # seconds between two looks, about


@dataclass(frozen=True)
class Decision:
    """What is to be done after a step.

    Attributes:
        save: save the state.
        leave: then end here, to be continued elsewhere.
    """

    save: bool
    leave: bool


class Attention:
    """Looks up from training now and then.

    The reporter looks at the clock and whether the run is called away; what it finds, all workers
    learn at the same step. A look costs one small exchange, so there are a few a second, however
    short a step.

    Args:
        config: how often the state is saved.
        reporter: rank that decides.
        device: of this worker, for the exchange.
        called_away: asked on the reporter at each look.
        clock: seconds; monotonic.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        reporter: int,
        device: torch.device,
        called_away: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._reporter, self._device = config, reporter, device
        self._called_away, self._clock = called_away, clock
        self._decides = dist.get_rank() == reporter
        self._saved = self._looked = clock()
        self._since = 0  # steps since the last look
        self._every = 1  # steps between two looks

    def after(self, step: int) -> Decision:
        """Say what is to be done after a step; every worker calls this and gets the same answer."""
        due = self._config.steps is not None and (step + 1) % self._config.steps == 0
        self._since += 1
        if self._since < self._every:
            return Decision(due, leave=False)
        answer = self._decide() if self._decides else torch.zeros(3, dtype=torch.int64)
        answer = answer.to(self._device)
        dist.broadcast(answer, src=self._reporter)
        save, leave, self._every = (int(value) for value in answer.tolist())
        self._since = 0
        return Decision(due or bool(save) or bool(leave), bool(leave))

    def saved(self) -> None:
        """Take note that the state was saved."""
        self._saved = self._clock()

    def _decide(self) -> torch.Tensor:
        now = self._clock()
        took = max(now - self._looked, 1e-9) / self._since
        self._looked = now
        save = now - self._saved >= self._config.seconds
        every = min(max(1, int(_INTERVAL / took)), 10_000)
        return torch.tensor([int(save), int(self._called_away()), every])

"""What has to be written into a study's storage, in order, while the storage may be away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Outbox:
    """Writes that wait for the storage; none is lost, none overtakes another.

    Args:
        look: asks the storage for anything at all.

    Attributes:
        away: since when the storage does not answer, seconds since the epoch; None if it does.

    """

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._writes: deque[Callable[[], object]] = deque()
        self.away: float | None = None

    def put(self, write: Callable[[], object]) -> None:
        """Take a write; it may be tried more than once."""
        self._writes.append(write)

    def send(self) -> bool:
        """Write what waits, in order; return whether the storage has it all."""
        from optuna.exceptions import UpdateFinishedTrialError

        while self._writes:
            try:
                self._writes[0]()
            except UpdateFinishedTrialError:
                pass  # it arrived at an earlier try, or comes too late for a short trial
            except storage_errors():
                self.lost()
                return False
            self._writes.popleft()
            self.away = None
        return True

    def lost(self) -> None:
        """Take note that the storage did not answer."""
        if self.away is None:
            self.away = time.time()
        # A write that failed may have left half a transaction; a look that works ends the outage.
        if not self._writes:
            self._writes.append(self._look)


def storage_errors() -> tuple[type[Exception], ...]:
    """Return what Optuna and SQLAlchemy raise when the database does not answer."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    return (StorageInternalError, DBAPIError)

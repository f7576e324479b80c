"""The loss of every optimizer step of a network, as a file of float64, 8 bytes a step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_shards.errors import CorruptDataError

_BYTES = 8


class LossHistory:
    """Appends losses in the order of steps; only the reporter writes.

    Args:
        path: the file; made if absent.
        steps: steps that count: what a killed run wrote after its last checkpoint is cut off.

    Raises:
        CorruptDataError: the file has fewer steps than were saved.
    """

    def __init__(self, path: Path, steps: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with path.open("ab") as stream:
            size = stream.tell()
            if size < steps * _BYTES:
                raise CorruptDataError(
                    f"{path}: has {size // _BYTES:,} of {steps:,} losses: it was cut short"
                )
            stream.truncate(steps * _BYTES)

    def append(self, losses: Sequence[float]) -> None:
        """Add the losses of the next steps."""
        with self._path.open("ab") as stream:
            stream.write(np.asarray(losses, dtype="<f8").tobytes())

    def sync(self) -> None:
        """Make sure that all is on disk."""
        with self._path.open("rb") as stream:
            os.fsync(stream.fileno())


def read_losses(path: Path) -> tuple[float, ...]:
    """Read the loss of each step, from the first."""
    return tuple(np.fromfile(path, dtype="<f8").tolist())

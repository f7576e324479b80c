"""Binary labels as bits: an eighth of the bytes on disk, in the cache and on the wire."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pack(labels: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Pack labels, shape (samples, tasks), into bits, shape (samples, ceil(tasks / 8)).

    Task t is bit ``t % 8`` (least significant first) of byte ``t // 8``.
    """
    return np.packbits(labels, axis=1, bitorder="little")


def unpack(packed: npt.NDArray[np.uint8], tasks: int) -> npt.NDArray[np.uint8]:
    """Undo :func:`pack`: uint8 zeros and ones, shape (samples, tasks)."""
    return np.unpackbits(packed, axis=1, count=tasks, bitorder="little")

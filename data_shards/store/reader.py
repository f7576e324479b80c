"""Arrays of a data set as a reader sees them, wherever their bytes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view


class ArrayReader(Protocol):
    """One array, read by gathers along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        ...

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Gather rows, shape (n, *row)."""
        ...

    def slices(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        """Gather runs of ``length`` rows, shape (n, length, *row)."""
        ...


@dataclass(frozen=True)
class MappedArray:
    """An array in memory, usually mapped shards."""

    array: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        return self.array.dtype

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Gather rows, shape (n, *row)."""
        return self.array[rows]

    def slices(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        """Gather runs of ``length`` rows, shape (n, length, *row)."""
        return np.moveaxis(sliding_window_view(self.array, length, axis=0)[starts], -1, 1)

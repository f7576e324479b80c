"""Scratch files of a build: one plain .npy file an array, rows already in the data set's order.

Sources stream in the order of their files; their rows are scattered to where they belong, so that a
task can later read the rows of its shard as one stretch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
"""Where the rows of a source go, int64, shape (rows of the source,); -1 for rows left out."""

# A process that writes through a map has the touched pages in memory until it unmaps: so much.
_TOUCHED = 16 << 20
_PAGE = 4096


def create(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Make a staged array of zeros; the file is sparse."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)


def scatter(path: Path, positions: Positions, rows: npt.NDArray[Any]) -> None:
    """Write rows to their positions.

    Args:
        path: of the staged array.
        positions: where each row goes; -1 to leave it out.
        rows: shape (n, *row).
    """
    kept = np.flatnonzero(positions >= 0)
    row_bytes = max(1, rows[:1].nbytes)
    step = max(1, _TOUCHED // max(row_bytes, _PAGE))
    for first in range(0, len(kept), step):
        chosen = kept[first : first + step]
        target = np.load(path, mmap_mode="r+")
        target[positions[chosen]] = rows[chosen]
        del target


def scatter_columns(
    path: Path, positions: Positions, columns: npt.NDArray[np.int64], values: npt.NDArray[Any]
) -> None:
    """Write some columns of all rows.

    Args:
        path: of the staged array, shape (n, columns).
        positions: where each row of ``values`` goes; -1 to leave it out.
        columns: numbers of the columns, int64.
        values: shape (rows, columns).
    """
    kept = np.flatnonzero(positions >= 0)
    step = max(1, _TOUCHED // (_PAGE + values[:1].nbytes))
    for first in range(0, len(kept), step):
        chosen = kept[first : first + step]
        target = np.load(path, mmap_mode="r+")
        target[np.ix_(positions[chosen], columns)] = values[chosen]
        del target


def read(path: Path, start: int, stop: int) -> npt.NDArray[Any]:
    """Read the rows ``start`` to ``stop`` of a staged array into memory."""
    mapped = np.load(path, mmap_mode="r")
    stop = min(stop, len(mapped))
    row = int(np.prod(mapped.shape[1:], dtype=np.int64))
    # Not through the map: its pages would count as this process's memory beside the copy.
    with path.open("rb") as stream:
        stream.seek(mapped.offset + start * row * mapped.dtype.itemsize)
        values = np.fromfile(stream, dtype=mapped.dtype, count=(stop - start) * row)
    return values.reshape(stop - start, *mapped.shape[1:])


def shape_of(path: Path) -> tuple[int, ...]:
    """Return the shape of a staged array."""
    shape: tuple[int, ...] = np.load(path, mmap_mode="r").shape
    return shape


def element_places(
    places: Positions, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Positions:
    """Say where each element of some ragged rows goes.

    Args:
        places: of the rows in the data set, -1 for rows left out.
        starts: of each row of the data set in the pool of elements.
        lengths: of the rows.

    Returns:
        int64, shape (sum of lengths,): place in the pool, -1 for elements left out.
    """
    begin = np.where(places >= 0, starts[places], -1)
    ends = np.cumsum(lengths)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    begin = np.repeat(begin, lengths)
    return np.where(begin >= 0, begin + within, -1)

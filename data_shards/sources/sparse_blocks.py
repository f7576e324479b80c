"""Blocks of a compressed sparse matrix: where to cut it, and what its parts must satisfy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.sources.matrix import Axis


def major_ranges(indptr: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut the major axis into ranges of at most ``most`` stored values, or of one row.

    Args:
        indptr: int64, shape ``(rows + 1,)``, non-decreasing.
        most: stored values a range. A range has at most that many rows too.
    """
    start, rows = 0, len(indptr) - 1
    while start < rows:
        stop = int(np.searchsorted(indptr, indptr[start] + most, side="right")) - 1
        stop = min(max(stop, start + 1), start + most, rows)
        yield start, stop
        start = stop


def compressed_block(
    path: Path,
    major: Axis,
    data: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[np.int64],
    minor: int,
    names: tuple[str, ...],
) -> Any:
    """Make a sparse block of compressed parts, and check its indices.

    Args:
        path: of the file, for the message.
        major: "samples" if a row of the parts is a sample, "features" if it is a feature.
        data: stored values.
        indices: their place along the other axis.
        indptr: int64, where each row begins; from 0 to ``len(data)``.
        minor: length of the other axis.
        names: of the rows, for the message.

    Returns:
        ``scipy.sparse.csr_array`` of samples x features, indices sorted.

    Raises:
        InputError: an index outside the axis, or there twice in a row.
    """
    from scipy import sparse

    outside = np.flatnonzero((indices < 0) | (indices >= minor))
    if outside.size:
        raise _bad_index(path, names, indptr, int(outside[0]), indices, "is outside the matrix")
    small = minor <= np.iinfo(np.int32).max and len(data) <= np.iinfo(np.int32).max
    kind = np.int32 if small else np.int64
    shape = (len(indptr) - 1, minor)
    rows = sparse.csr_array(
        (data, indices.astype(kind, copy=False), indptr.astype(kind, copy=False)), shape=shape
    )
    rows.sort_indices()
    twice = rows.indices[1:] == rows.indices[:-1]
    starts = rows.indptr[1:-1]
    twice[starts[(starts > 0) & (starts < len(data))] - 1] = False
    if twice.any():
        at = int(np.flatnonzero(twice)[0])
        raise _bad_index(path, names, indptr, at, rows.indices, "is there twice")
    return rows if major == "samples" else rows.T.tocsr()


def _bad_index(
    path: Path,
    names: tuple[str, ...],
    indptr: npt.NDArray[np.int64],
    at: int,
    indices: npt.NDArray[Any],
    fault: str,
) -> InputError:
    row = int(np.searchsorted(indptr, at, side="right")) - 1
    return InputError(
        f"index {int(indices[at])} of {names[row]!r} {fault}",
        path=path,
        remedy="the sparse matrix is damaged: write the file again",
    )

"""Loops that numpy can't do in one step, compiled, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.sequence import Codes

Rows = npt.NDArray[np.int64]


@lru_cache(maxsize=16)
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel at its first use; the result is kept on disk where there is a place."""
    from numba import njit  # half a second: only who needs a kernel pays for it

    kernel: Callable[..., Any]
    try:
        kernel = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the home folder may numba write
        kernel = njit(nogil=True)(function)
    return kernel


def copy_windows(
    reference: Codes,
    contig: npt.NDArray[np.int32],
    start: Rows,
    strand: npt.NDArray[np.int8],
    offsets: Rows,
    lengths: Rows,
    rows: Rows,
    shift: Rows,
    out: Codes,
) -> int:
    """Copy the window of each row, or its reverse complement.

    Args:
        reference: all contigs end to end.
        contig: of every sample.
        start: of every sample, on its contig.
        strand: of every sample.
        offsets: where each contig begins.
        lengths: of the contigs.
        rows: samples to copy, shape (n,).
        shift: bp by which each moves, shape (n,).
        out: shape (n, length).

    Returns:
        -1, or the first i for which ``rows[i]`` is no sample or its window not on its contig.
    """
    # Two passes: lookups in the table of loci don't wait for the copies between them. Unsigned
    # indices can't count from the end: only so are the loops vectorised.
    count, length = len(rows), out.shape[1]
    samples, contigs = np.uint64(len(contig)), np.uint64(len(offsets))
    begins = np.empty(count, dtype=np.int64)
    for i in range(count):
        row = np.uint64(rows[i])
        if row >= samples:
            return i
        number = np.uint64(contig[row])
        if number >= contigs:
            return i
        first = start[row] + shift[i]
        if first < 0 or first + length > lengths[number]:
            return i
        begins[i] = offsets[number] + first
    one, size = np.uint64(1), np.uint64(length)
    for i in range(count):
        begin, target = np.uint64(begins[i]), out[i]
        if strand[np.uint64(rows[i])] >= 0:
            for j in range(size):
                target[j] = reference[begin + j]
        else:
            last = begin + size - one
            for j in range(size):
                base = reference[last - j]
                target[j] = np.uint8(3) - base if base < 4 else base
    return -1


def scatter_rows(
    values: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    start: Rows,
    length: npt.NDArray[np.int32],
    rows: Rows,
    out: npt.NDArray[Any],
) -> int:
    """Write CSR rows into dense ones.

    Args:
        values: of all samples end to end.
        indices: the column of each value.
        start: where the values of each sample begin.
        length: values of each sample.
        rows: samples to write, shape (n,).
        out: shape (n, columns), zeros.

    Returns:
        -1, or the first i for which ``rows[i]`` is no sample, or has values outside.
    """
    samples, columns = np.uint64(len(start)), np.uint64(out.shape[1])
    for i in range(len(rows)):
        row = np.uint64(rows[i])
        if row >= samples:
            return i
        first, last, target = start[row], start[row] + length[row], out[i]
        if first < 0 or last < first or last > len(values):
            return i
        for place in range(np.uint64(first), np.uint64(last)):
            column = np.uint64(indices[place])
            if column >= columns:
                return i
            target[column] = values[place]
    return -1

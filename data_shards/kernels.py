"""Loops that numpy can't do in one step, compiled, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.sequence import Codes

Rows = npt.NDArray[np.int64]
Memory = npt.NDArray[np.uint8]

# glibc copies up to 2 KiB with vector registers and more with one string instruction, which takes
# a twentieth longer from memory and a quarter from a cache. So long runs are copied in pieces.
_PIECE = 1024
_LOWERING = Lock()


@lru_cache(maxsize=16)
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel at its first use; the result is kept on disk where there is a place."""
    from numba import njit  # half a second: only who needs a kernel pays for it

    with _LOWERING:
        _lower_copy_bytes()
    kernel: Callable[..., Any]
    try:
        kernel = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the home folder may numba write
        kernel = njit(nogil=True)(function)
    return kernel


def copy_bytes(
    target: Memory, place: np.uint64, source: Memory, begin: np.uint64, size: np.uint64
) -> None:
    """Copy ``size`` bytes from one contiguous array into another, of any shapes; for kernels.

    ``place`` and ``begin`` count from the first byte of the array, uint64. Compiled it is
    ``memcpy``, and nothing is checked: the kernel has done that.
    """
    target.reshape(-1)[place : place + size] = source.reshape(-1)[begin : begin + size]


@lru_cache(maxsize=1)
def _lower_copy_bytes() -> None:
    """Teach numba what :func:`copy_bytes` is; a loop over bytes takes a third longer."""
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic, overload

    @intrinsic  # type: ignore[untyped-decorator]
    def memcpy(
        typing: Any, target: Any, place: Any, source: Any, begin: Any, size: Any
    ) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            def address(array: int, offset: int) -> Any:
                kind = context.make_array(signature.args[array])
                data = kind(context, builder, values[array]).data
                first = builder.bitcast(data, ir.IntType(8).as_pointer())
                return builder.gep(first, [values[offset]])

            cgutils.raw_memcpy(builder, address(0, 1), address(2, 3), values[4], 1)
            return context.get_dummy_value()

        number = types.uint64
        return types.void(target, number, source, number, number), generate

    piece = np.uint64(_PIECE)

    @overload(copy_bytes)  # type: ignore[untyped-decorator]
    def copy(target: Any, place: Any, source: Any, begin: Any, size: Any) -> Callable[..., None]:
        def in_pieces(target: Any, place: Any, source: Any, begin: Any, size: Any) -> None:
            done = np.uint64(0)
            while done < size:
                part = min(piece, size - done)
                memcpy(target, place + done, source, begin + done, part)
                done += part

        return in_pieces


def copy_runs(source: Memory, starts: Rows, out: Memory) -> int:
    """Copy runs of consecutive rows, each given as its bytes.

    Args:
        source: shape (rows, bytes of a row).
        starts: first row of each run, shape (n,).
        out: shape (n, rows of a run * bytes of a row).

    Returns:
        -1, or the first i for which a run at ``starts[i]`` is not within the source.
    """
    width, size = np.uint64(source.shape[1]), np.uint64(out.shape[1])
    rows = np.uint64(len(source))
    for i in range(len(starts)):
        start = np.uint64(starts[i])
        if start >= rows or start * width + size > rows * width:
            return i
        copy_bytes(out, np.uint64(i) * size, source, start * width, size)
    return -1


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
        shift: bp by which each moves, shape (n,); shape (0,) if none does.
        out: shape (n, length), contiguous.

    Returns:
        -1, or the first i for which ``rows[i]`` is no sample or its window not on its contig.
    """
    # Two passes: lookups in the table of loci don't wait for the copies between them. Unsigned
    # indices can't count from the end: only so are the loops vectorised.
    count, length = len(rows), out.shape[1]
    samples, contigs = np.uint64(len(contig)), np.uint64(len(offsets))
    moved, begins = len(shift) > 0, np.empty(count, dtype=np.int64)
    for i in range(count):
        row = np.uint64(rows[i])
        if row >= samples:
            return i
        number = np.uint64(contig[row])
        if number >= contigs:
            return i
        first = start[row] + shift[i] if moved else start[row]
        if first < 0 or first + length > lengths[number]:
            return i
        begins[i] = offsets[number] + first
    one, size = np.uint64(1), np.uint64(length)
    for i in range(count):
        begin = np.uint64(begins[i])
        if strand[np.uint64(rows[i])] >= 0:
            copy_bytes(out, np.uint64(i) * size, reference, begin, size)
        else:
            target, last = out[i], begin + size - one
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

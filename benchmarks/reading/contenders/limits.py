"""The limits: raw files, mapped or held in memory, read by numpy and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.reading import data
from benchmarks.reading.data import BIN, BINS, GENES
from benchmarks.reading.task import (
    LABEL_BYTES,
    ROW,
    WINDOWS,
    Answer,
    Block,
    Contender,
    Reader,
    Task,
    Windows,
    as_is,
    batches,
    once,
    rows_at_random,
    unpacked,
)


def gather_windows(task: Task) -> Reader:
    windows = sliding_window_view(data.raw(task.folder, "genome"), task.length)
    return once(lambda query: windows[query.flat])


def gather_windows_in_memory(task: Task) -> Reader:
    windows = sliding_window_view(data.raw(task.folder, "genome").copy(), task.length)
    return once(lambda query: windows[query.flat])


def slice_windows(task: Task) -> Reader:
    genome, length = data.raw(task.folder, "genome"), task.length

    def read(query: Windows) -> npt.NDArray[Any]:
        out = np.empty((len(query.flat), length), dtype=np.uint8)
        for place, start in enumerate(query.flat.tolist()):
            out[place] = genome[start : start + length]
        return out

    return once(read)


def gather_rows(task: Task) -> Reader:
    codes, labels = (data.raw(task.folder, name) for name in ("rows-codes", "rows-labels"))
    return rows_at_random(lambda rows: unpacked((codes[rows], labels[rows])))


def gather_rows_in_memory(task: Task) -> Reader:
    codes, labels = (data.raw(task.folder, name).copy() for name in ("rows-codes", "rows-labels"))
    return rows_at_random(lambda rows: unpacked((codes[rows], labels[rows])))


def read_rows(task: Task) -> Reader:
    fields = (("rows-codes", ROW), ("rows-labels", LABEL_BYTES))
    files = [(task.folder / f"{name}.raw").open("rb", buffering=0) for name, _ in fields]
    buffers = [np.empty((task.block, width), dtype=np.uint8) for _, width in fields]

    def read(block: Block) -> Answer:
        for file, buffer in zip(files, buffers, strict=True):
            file.seek(block.start * buffer.shape[1])
            file.readinto(buffer.data)
        return tuple(buffers)

    return batches(read, unpacked)


def gather_matrix(task: Task) -> Reader:
    inputs, targets = (data.raw(task.folder, name) for name in ("matrix-inputs", "matrix-targets"))
    return rows_at_random(lambda rows: as_is((inputs[rows], targets[rows])))


def scatter_cells(task: Task) -> Reader:
    from numba import njit

    values, indices, ends = (
        data.raw(task.folder, f"cells-{name}") for name in ("values", "indices", "offsets")
    )

    @njit(nogil=True)  # type: ignore[untyped-decorator]
    def scatter(out: Any, rows: Any, values: Any, indices: Any, ends: Any) -> None:
        for place in range(len(rows)):
            for at in range(ends[rows[place]], ends[rows[place] + 1]):
                out[place, indices[at]] = values[at]

    def reader(block: Block) -> Iterator[Answer]:
        for places in block.order:
            out = np.zeros((len(places), GENES), dtype=np.float32)
            scatter(out, block.start + places, values, indices, ends)
            yield (out,)

    return reader


def gather_bins(task: Task) -> Reader:
    windows = sliding_window_view(data.raw(task.folder, "track-bins"), BINS)
    return once(lambda query: windows[query.start // BIN])


def average_bases(task: Task) -> Reader:
    windows = sliding_window_view(data.raw(task.folder, "track-bases"), task.length)
    return once(lambda query: windows[query.start].reshape(-1, BINS, BIN).mean(axis=2))


CONTENDERS = (
    Contender(
        "memory map, one gather",
        WINDOWS,
        gather_windows,
        ("genome",),
        how="`sliding_window_view` of the raw file, one index a batch",
    ),
    Contender(
        "memory, one gather",
        WINDOWS,
        gather_windows_in_memory,
        ("genome",),
        how="the same on a copy in memory",
    ),
    Contender(
        "memory map, a slice a window",
        WINDOWS,
        slice_windows,
        ("genome",),
        how="a loop that copies slices of the raw file",
    ),
    Contender(
        "memory map",
        ("rows", "rows-compressed"),
        gather_rows,
        ("rows",),
        how="raw files, one index a batch and field; not compressed",
    ),
    Contender(
        "memory",
        ("rows",),
        gather_rows_in_memory,
        ("rows",),
        how="the same on a copy in memory",
    ),
    Contender(
        "readinto",
        ("rows",),
        read_rows,
        ("rows",),
        how="raw files, a block read into held buffers",
        whole=True,
    ),
    Contender(
        "memory map",
        ("matrix",),
        gather_matrix,
        ("matrix",),
        how="raw files, one index a batch and field",
    ),
    Contender(
        "memory map, compiled scatter",
        ("cells",),
        scatter_cells,
        ("cells",),
        packages=("numba", "numpy"),
        how="raw CSR, 16-bit genes and counts, one numba loop a batch",
    ),
    Contender(
        "memory map of bins, one gather",
        ("tracks",),
        gather_bins,
        ("track",),
        how="float16 bins made beforehand, given as float16",
    ),
    Contender(
        "memory map of bases, averaged",
        ("tracks",),
        average_bases,
        ("track",),
        how="float32 a base, averaged at reading",
    ),
)

"""HDF5 by h5py."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.task import (
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


def windows(task: Task) -> Reader:
    import h5py

    genome, length = h5py.File(task.folder / "genome.h5", "r")["genome"], task.length

    def read(query: Windows) -> npt.NDArray[Any]:
        out = np.empty((len(query.flat), length), dtype=np.uint8)
        for place, start in enumerate(query.flat.tolist()):
            genome.read_direct(out, np.s_[start : start + length], np.s_[place])
        return out

    return once(read)


def blocks(task: Task, *, file: str, group: str) -> Reader:
    import h5py

    opened = h5py.File(task.folder / file, "r")
    arrays = [opened[name] for name in _ARRAYS[group]]

    def read(block: Block) -> Answer:
        return tuple(array[block.start : block.stop] for array in arrays)

    return batches(read, as_is if group == "matrix" else unpacked)


def at_random(task: Task) -> Reader:
    import h5py

    file = h5py.File(task.folder / "rows.h5", "r")
    arrays = [file[name] for name in _ARRAYS["rows"]]

    def take(rows: npt.NDArray[np.int64]) -> Answer:
        rising = np.sort(rows)  # h5py takes no other order
        back = np.argsort(np.argsort(rows))
        return unpacked(tuple(array[rising][back] for array in arrays))

    return rows_at_random(take)


_ARRAYS = {
    "rows": ("rows-codes", "rows-labels"),
    "matrix": ("matrix-inputs", "matrix-targets"),
}
_H5PY = ("h5py",)

CONTENDERS = (
    Contender(
        "h5py",
        WINDOWS,
        windows,
        ("genome.h5",),
        packages=_H5PY,
        how="contiguous, `read_direct` a window",
    ),
    Contender(
        "h5py",
        ("rows",),
        partial(blocks, file="rows.h5", group="rows"),
        ("rows.h5",),
        packages=_H5PY,
        how="contiguous, a slice a block",
        whole=True,
    ),
    Contender(
        "h5py, rows at random",
        ("rows",),
        at_random,
        ("rows.h5",),
        packages=_H5PY,
        how="contiguous, one index a batch and field",
    ),
    Contender(
        "h5py, lzf",
        ("rows-compressed",),
        partial(blocks, file="rows-lzf.h5", group="rows"),
        ("rows-lzf.h5",),
        packages=_H5PY,
        how="chunks of 1,024 rows, a slice a block",
        whole=True,
    ),
    Contender(
        "h5py",
        ("matrix",),
        partial(blocks, file="matrix.h5", group="matrix"),
        ("matrix.h5",),
        packages=_H5PY,
        how="contiguous, a slice a block",
        whole=True,
    ),
)

"""data_shards itself, by the call that training makes: ``ShardedDataset.gather(field, rows)``."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from benchmarks.reading.task import (
    WINDOWS,
    Contender,
    Reader,
    Task,
    as_is,
    once,
    rows_at_random,
    unpacked,
)


def gatherer(task: Task, store: str) -> Any:
    """Return the gather of a data set; every array it uses is verified at first use."""
    from data_shards.dataset import ShardedDataset

    return ShardedDataset(task.folder / store).gather


def windows(task: Task) -> Reader:
    gather = gatherer(task, f"windows-{task.length}.zarr")
    return once(lambda query: gather("sequence", query.rows))


def rows(task: Task) -> Reader:
    return _rows(task, "rows.zarr")


def rows_lz4(task: Task) -> Reader:
    return _rows(task, "rows-lz4.zarr")


def _rows(task: Task, store: str) -> Reader:
    gather = gatherer(task, store)
    return rows_at_random(lambda rows: unpacked((gather("codes", rows), gather("labels", rows))))


def matrix(task: Task) -> Reader:
    gather = gatherer(task, "matrix.zarr")
    return rows_at_random(lambda rows: as_is((gather("inputs", rows), gather("targets", rows))))


def cells(task: Task) -> Reader:
    gather = gatherer(task, "cells.zarr")
    return rows_at_random(lambda rows: (gather("counts", rows),))


def tracks(task: Task) -> Reader:
    gather = gatherer(task, "track.zarr")

    def read(query: Any) -> npt.NDArray[Any]:
        signal: npt.NDArray[Any] = gather("signal", query.rows)
        return signal[:, :, 0]

    return once(read)


def _ours(group: str | tuple[str, ...], open_: Any, store: str, how: str) -> Contender:
    return Contender(
        "data_shards",
        (group,) if isinstance(group, str) else group,
        open_,
        (store,),
        packages=("replisome",),
        how=how,
        ours=True,
    )


CONTENDERS = (
    _ours(WINDOWS, windows, "windows-{length}.zarr", "`gather`: loci, then one gather; Zarr v3"),
    _ours("rows", rows, "rows.zarr", "`gather` of each field; Zarr v3 shards"),
    _ours("rows-compressed", rows_lz4, "rows-lz4.zarr", "`gather`; lz4 with bitshuffle"),
    _ours("matrix", matrix, "matrix.zarr", "`gather` of each field; Zarr v3 shards"),
    _ours("cells", cells, "cells.zarr", "`gather` of a sparse field; Zarr v3 shards"),
    _ours("tracks", tracks, "track.zarr", "`gather` of a track, float16; Zarr v3 shards"),
)

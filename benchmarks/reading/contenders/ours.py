"""data_shards itself, by the call that training makes: ``ShardedDataset.gather(field, rows)``."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

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

# Holds one shard of codes in eight, and all labels.
_STREAM_BUDGET = 80 << 20


def dataset(task: Task, store: str, **options: Any) -> Any:
    """Open a data set; every array is verified at first use."""
    from data_shards.dataset import ShardedDataset

    return ShardedDataset(task.folder / store, **options)


def gatherer(task: Task, store: str) -> Any:
    """Return the gather of a data set."""
    return dataset(task, store).gather


def windows(task: Task) -> Reader:
    gather = gatherer(task, f"windows-{task.length}.zarr")
    return once(lambda query: gather("sequence", query.rows))


def mapped_reference(task: Task) -> Reader:
    reference = dataset(task, f"windows-{task.length}.zarr").reference
    view = sliding_window_view(reference, task.length)
    return once(lambda query: view[query.flat])


def rows(task: Task) -> Reader:
    return _rows(gatherer(task, "rows.zarr"))


def rows_cached(task: Task) -> Reader:
    os.environ["REPLISOME_CACHE"] = str(task.folder / "node-cache")
    return _rows(gatherer(task, "rows-lz4.zarr"))


def rows_streamed(task: Task) -> Reader:
    os.environ["REPLISOME_CACHE"] = str(task.folder / "no-cache")
    os.environ["REPLISOME_CACHE_BYTES"] = "1"
    opened = dataset(task, "rows-lz4.zarr", stream_budget=_STREAM_BUDGET, notify=lambda text: None)
    return _rows(opened.gather)


def _rows(gather: Any) -> Reader:
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


def _ours(
    group: str | tuple[str, ...], open_: Any, store: str, how: str, suffix: str = ""
) -> Contender:
    return Contender(
        "data_shards" + suffix,
        (group,) if isinstance(group, str) else group,
        open_,
        (store,),
        packages=("replisome",),
        how=how,
        ours=True,
    )


CONTENDERS = (
    _ours(WINDOWS, windows, "windows-{length}.zarr", "`gather`: loci, then one gather; Zarr v3"),
    _ours(
        WINDOWS,
        mapped_reference,
        "windows-{length}.zarr",
        "one gather from `dataset.reference`: the mapped shards without the table of loci",
        ", mapped reference",
    ),
    _ours("rows", rows, "rows.zarr", "`gather` of each field; Zarr v3 shards"),
    _ours(
        "rows-compressed",
        rows_cached,
        "rows-lz4.zarr",
        "`gather`; lz4 with bitshuffle, decoded once into the node's cache and mapped from there",
        ", cached",
    ),
    _ours(
        "rows-compressed",
        rows_streamed,
        "rows-lz4.zarr",
        "`gather`; lz4 with bitshuffle, shards decoded as needed; 80 MiB an array: an eighth of "
        "the codes, all labels",
        ", streamed",
    ),
    _ours("matrix", matrix, "matrix.zarr", "`gather` of each field; Zarr v3 shards"),
    _ours("cells", cells, "cells.zarr", "`gather` of a sparse field; Zarr v3 shards"),
    _ours("tracks", tracks, "track.zarr", "`gather` of a track, float16; Zarr v3 shards"),
)

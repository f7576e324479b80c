"""Zarr v3 by zarr-python, by zarr-python with the zarrs pipeline, and by tensorstore."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

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

Library = Literal["zarr", "fused", "zarrs", "tensorstore"]
_CACHE = 1 << 30
_PIPELINES = {
    "fused": "zarr.core.codec_pipeline.FusedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


def open_array(library: Library, path: Path, cache: int = 0) -> Any:
    """Open an array, to be sliced; only tensorstore can hold decoded chunks, ``cache`` bytes."""
    if library == "tensorstore":
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        context = tensorstore.Context({"cache_pool": {"total_bytes_limit": cache}})
        return tensorstore.open(spec, context=context, open=True).result()
    import zarr

    if library in _PIPELINES:
        zarr.config.set({"codec_pipeline.path": _PIPELINES[library]})
    return zarr.open_array(str(path), mode="r")


def windows(task: Task, *, library: Library, store: str) -> Reader:
    array = open_array(library, task.folder / store.format(length=task.length), _CACHE)
    length = task.length

    def read(query: Windows) -> npt.NDArray[Any]:
        out = np.empty((len(query.flat), length), dtype=np.uint8)
        for place, start in enumerate(query.flat.tolist()):
            out[place] = array[start : start + length]
        return out

    def read_together(query: Windows) -> npt.NDArray[Any]:
        out = np.empty((len(query.flat), length), dtype=np.uint8)
        asked = [array[start : start + length].read() for start in query.flat.tolist()]
        for place, future in enumerate(asked):
            out[place] = future.result()
        return out

    return once(read_together if library == "tensorstore" else read)


def blocks(
    task: Task,
    *,
    library: Library,
    store: str,
    arrays: tuple[str, str],
    finish: Callable[[Answer], Answer],
) -> Reader:
    opened = [open_array(library, task.folder / store / name) for name in arrays]

    def read(block: Block) -> Answer:
        if library == "tensorstore":
            asked = [array[block.start : block.stop].read() for array in opened]
            return tuple(future.result() for future in asked)
        return tuple(array[block.start : block.stop] for array in opened)

    return batches(read, finish)


def at_random(task: Task) -> Reader:
    codes, labels = (open_array("zarr", task.folder / "rows.zarr" / n) for n in _FIELDS)
    return rows_at_random(lambda rows: unpacked((codes.oindex[rows], labels.oindex[rows])))


_FIELDS = ("codes", "labels")
_RAW = ("rows-codes", "rows-labels")
_LIBRARIES: tuple[tuple[str, Library, str, tuple[str, ...]], ...] = (
    ("zarr-python", "zarr", "main", ("zarr",)),
    ("zarr-python 3.4", "zarr", "next", ("zarr",)),
    ("zarr-python 3.4, fused", "fused", "next", ("zarr",)),
    ("zarrs", "zarrs", "common", ("zarrs", "zarr")),
    ("tensorstore", "tensorstore", "common", ("tensorstore",)),
)


def _family(
    name: str, library: Library, environment: str, packages: tuple[str, ...]
) -> list[Contender]:
    """All ways that one library takes part."""
    loop = (
        "a batch of futures, decoded genome cached"
        if library == "tensorstore"
        else "a slice a window"
    )

    def one(
        suffix: str, groups: tuple[str, ...], open_: Any, stores: tuple[str, ...], how: str
    ) -> Contender:
        return Contender(
            name + suffix,
            groups,
            open_,
            stores,
            environment=environment,
            packages=packages,
            how=how,
            whole=groups[0] not in WINDOWS,
            threads="many",
        )

    def of_blocks(store: str, arrays: tuple[str, str], finish: Callable[[Answer], Answer]) -> Any:
        return partial(blocks, library=library, store=store, arrays=arrays, finish=finish)

    ours = "windows-{length}.zarr"
    return [
        one(
            ", our store",
            WINDOWS,
            partial(windows, library=library, store=ours + "/reference"),
            (ours,),
            f"{loop}; inner chunks of 1 MiB",
        ),
        one(
            ", 64 KiB chunks",
            WINDOWS,
            partial(windows, library=library, store="genome-64k.zarr/genome"),
            ("genome-64k.zarr",),
            f"{loop}; not sharded",
        ),
        one(
            "",
            ("rows",),
            of_blocks("rows.zarr", _FIELDS, unpacked),
            ("rows.zarr",),
            "a slice a block, from our store",
        ),
        one(
            ", our store",
            ("rows-compressed",),
            of_blocks("rows-lz4.zarr", _FIELDS, unpacked),
            ("rows-lz4.zarr",),
            "a slice a block; lz4 with bitshuffle",
        ),
        one(
            ", lz4 chunks",
            ("rows-compressed",),
            of_blocks("rows-lz4-chunks.zarr", _RAW, unpacked),
            ("rows-lz4-chunks.zarr",),
            "a slice a block; lz4 with bitshuffle, 1,024 rows a chunk, not sharded",
        ),
        one(
            "",
            ("matrix",),
            of_blocks("matrix.zarr", ("inputs", "targets"), as_is),
            ("matrix.zarr",),
            "a slice a block, from our store",
        ),
    ]


CONTENDERS = (
    *(contender for library in _LIBRARIES for contender in _family(*library)),
    Contender(
        "zarr-python, rows at random",
        ("rows",),
        at_random,
        ("rows.zarr",),
        packages=("zarr",),
        how="`oindex` of each batch",
        threads="many",
    ),
)

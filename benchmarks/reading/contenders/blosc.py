"""The limit of the compressed tier: chunk files read and decoded by blosc itself, no library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.task import (
    LABEL_BYTES,
    ROW,
    Answer,
    Block,
    Contender,
    Reader,
    Task,
    batches,
    unpacked,
)

_CHUNK = 1_024


def chunks(task: Task) -> Reader:
    from numcodecs import blosc

    blosc.set_nthreads(1)
    store = task.folder / "rows-lz4-chunks.zarr"
    fields = (("rows-codes", ROW), ("rows-labels", LABEL_BYTES))
    buffers = [np.empty((task.block, width), dtype=np.uint8) for _, width in fields]
    read_into = np.empty(_CHUNK * ROW * 2, dtype=np.uint8)

    def decode(path: Path, out: npt.NDArray[Any]) -> None:
        with path.open("rb", buffering=0) as stream:
            size = stream.readinto(read_into.data) or 0
        blosc.decompress(read_into[:size], out)

    def read(block: Block) -> Answer:
        for (name, _), buffer in zip(fields, buffers, strict=True):
            for place in range(0, task.block, _CHUNK):
                number = (block.start + place) // _CHUNK
                decode(store / name / "c" / str(number) / "0", buffer[place : place + _CHUNK])
        return tuple(buffers)

    return batches(read, unpacked)


CONTENDERS = (
    Contender(
        "blosc alone",
        ("rows-compressed",),
        chunks,
        ("rows-lz4-chunks.zarr",),
        packages=("numcodecs",),
        how="`readinto` a chunk file, decode into a held buffer, one thread",
        whole=True,
    ),
)

"""Formats made for streaming: mosaicml-streaming (MDS) and WebDataset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.formats_peers import streaming
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
    batches,
    once,
    rows_at_random,
    unpacked,
)


def open_mds(task: Task, name: str) -> Any:
    """Open a local MDS folder; samples are asked for by number."""
    return streaming().StreamingDataset(local=str(task.folder / name), shuffle=False, batch_size=1)


def join(samples: list[dict[str, bytes]], field: str, width: int) -> npt.NDArray[Any]:
    """Lay the bytes of samples end to end, as rows."""
    together = b"".join([sample[field] for sample in samples])
    return np.frombuffer(together, dtype=np.uint8).reshape(-1, width)


def mds_windows(task: Task) -> Reader:
    dataset = open_mds(task, f"windows-{task.length}.mds")

    def read(query: Windows) -> npt.NDArray[Any]:
        return join([dataset[row] for row in query.rows.tolist()], "codes", task.length)

    return once(read)


def mds_rows(task: Task, *, blocked: bool) -> Reader:
    if not blocked:
        singles = open_mds(task, "rows-samples.mds")

        def take(rows: npt.NDArray[np.int64]) -> Answer:
            samples = [singles[row] for row in rows.tolist()]
            return unpacked((join(samples, "codes", ROW), join(samples, "labels", LABEL_BYTES)))

        return rows_at_random(take)
    dataset = open_mds(task, "rows-blocks.mds")

    def read(block: Block) -> Answer:
        samples = [dataset[i] for i in range(block.start // 256, block.stop // 256)]
        return join(samples, "codes", ROW), join(samples, "labels", LABEL_BYTES)

    return batches(read, unpacked)


def tars(task: Task) -> Reader:
    import webdataset

    files = [str(path) for path in sorted((task.folder / "rows.tars").glob("*.tar"))]
    dataset = webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False)
    samples = iter(dataset.shuffle(4096).repeat())

    def reader(block: Block) -> Iterator[Answer]:
        for _ in block.order:
            batch = [next(samples) for _ in range(task.batch)]
            keys = np.array([int(sample["__key__"]) for sample in batch])
            codes, labels = join(batch, "codes", ROW), join(batch, "labels", LABEL_BYTES)
            yield *unpacked((codes, labels)), keys

    return reader


def _mds(name: str, groups: tuple[str, ...], open_: Any, store: str, how: str) -> Contender:
    return Contender(
        name,
        groups,
        open_,
        (store,),
        environment="streaming",
        packages=("mosaicml-streaming", "torch"),
        how=how,
        whole="blocks" in name,
    )


CONTENDERS = (
    _mds(
        "MDS, windows cut out",
        WINDOWS,
        mds_windows,
        "windows-{length}.mds",
        "a sample a window, by number; windows are stored whole, overlaps twice",
    ),
    _mds(
        "MDS, blocks of 256 rows",
        ("rows",),
        partial(mds_rows, blocked=True),
        "rows-blocks.mds",
        "a sample is 256 rows, by number",
    ),
    _mds(
        "MDS, a sample a row",
        ("rows",),
        partial(mds_rows, blocked=False),
        "rows-samples.mds",
        "by number",
    ),
    Contender(
        "WebDataset",
        ("rows",),
        tars,
        ("rows.tars",),
        environment="common",
        packages=("webdataset",),
        how="tar files in shuffled order, buffer of 4,096 samples",
        form="keyed",
        threads="many",
    ),
)

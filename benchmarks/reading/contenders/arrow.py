"""Arrow IPC and Parquet by pyarrow."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.data import INPUTS, TARGETS
from benchmarks.reading.task import (
    LABEL_BYTES,
    ROW,
    Answer,
    Block,
    Contender,
    Reader,
    Task,
    as_is,
    batches,
    unpacked,
)


def bytes_column(column: Any, width: int) -> npt.NDArray[Any]:
    """View a column of fixed-size binary as rows of bytes, not copied."""
    flat = np.frombuffer(column.buffers()[1], dtype=np.uint8)
    begin = column.offset * width
    return flat[begin : begin + len(column) * width].reshape(-1, width)


def floats_column(column: Any, width: int) -> npt.NDArray[Any]:
    """View a column of fixed-size lists of floats as rows, not copied."""
    values: npt.NDArray[Any] = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(-1, width)


def ipc_rows(task: Task) -> Reader:
    import pyarrow as pa

    file = pa.ipc.open_file(pa.memory_map(str(task.folder / "rows.arrow")))

    def read(block: Block) -> Answer:
        batch = file.get_batch(block.start // task.block)
        return bytes_column(batch.column(0), ROW), bytes_column(batch.column(1), LABEL_BYTES)

    return batches(read, unpacked)


def ipc_matrix(task: Task) -> Reader:
    import pyarrow as pa

    file = pa.ipc.open_file(pa.memory_map(str(task.folder / "matrix.arrow")))

    def read(block: Block) -> Answer:
        batch = file.get_batch(block.start // task.block)
        return floats_column(batch.column(0), INPUTS), floats_column(batch.column(1), TARGETS)

    return batches(read, as_is)


def parquet(task: Task, *, file: str) -> Reader:
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(task.folder / file, memory_map=True, pre_buffer=False)

    def read(block: Block) -> Answer:
        table = opened.read_row_group(block.start // task.block, use_threads=False)
        table = table.combine_chunks()
        codes, labels = (table.column(i).chunk(0) for i in range(2))
        return bytes_column(codes, ROW), bytes_column(labels, LABEL_BYTES)

    return batches(read, unpacked)


_PYARROW = ("pyarrow",)


def _parquet(name: str, group: str, file: str, how: str) -> Contender:
    return Contender(
        name,
        (group,),
        partial(parquet, file=file),
        (file,),
        packages=_PYARROW,
        how=how,
        whole=True,
    )


CONTENDERS = (
    Contender(
        "Arrow IPC",
        ("rows",),
        ipc_rows,
        ("rows.arrow",),
        packages=_PYARROW,
        how="mapped, a record batch a block, not copied",
    ),
    Contender(
        "Arrow IPC",
        ("matrix",),
        ipc_matrix,
        ("matrix.arrow",),
        packages=_PYARROW,
        how="mapped, a record batch a block, not copied",
    ),
    _parquet("Parquet", "rows", "rows.parquet", "a row group a block, not compressed"),
    _parquet("Parquet, lz4", "rows-compressed", "rows-lz4.parquet", "a row group a block"),
    _parquet("Parquet, zstd", "rows-compressed", "rows-zstd.parquet", "a row group a block"),
)

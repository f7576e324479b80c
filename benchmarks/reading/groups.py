"""What is measured: a group asks all its contenders for the same batches.

Queries are a pure function of group and round, so that in a round everybody reads the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.reading import data
from benchmarks.reading.data import BINS, GENES, SEED, Sizes
from benchmarks.reading.formats import BLOCK_CELLS, BLOCK_MATRIX, BLOCK_ROWS
from benchmarks.reading.task import Answer, Block, Form, Query, Task, Windows, unpacked

_WINDOW_QUERIES, _BLOCK_QUERIES = 512, 32


@dataclass(frozen=True)
class Group:
    """One table.

    Attributes:
        name: as flags say it.
        title: as the table is headed.
        unit: what is counted.
        raw: the raw files that the truth is computed from.
        truth: computes with numpy what a batch must be.
        limit: name of the contender that the others are held against.
        batch: samples of a batch.
        length: bp of a window.
        block: rows of a block.
        clock: what a unit costs: seconds of CPU, or by the clock on the wall.
    """

    name: str
    title: str
    unit: str
    raw: str
    truth: Callable[[Task, npt.NDArray[np.int64]], Answer]
    limit: str
    batch: int
    length: int = 0
    block: int = 0
    clock: Literal["cpu", "wall"] = "cpu"

    def task(self, folder: Path, sizes: Sizes) -> Task:
        """Say what the group asks, of files in a folder."""
        return Task(self.name, folder, sizes, self.length, self.batch, self.block)

    def queries(self, task: Task, round_: int) -> list[Query]:
        """Draw the queries of a round; round 0 warms up and its first batch is checked."""
        generator = np.random.default_rng([SEED, round_])
        if self.block:
            places = np.arange(self.block, dtype=np.int64)
            queries: list[Query] = []
            for block in generator.integers(0, _total(task) // self.block, _BLOCK_QUERIES):
                order = generator.permutation(places).reshape(-1, self.batch)
                queries.append(Block(int(block) * self.block, order))
            return queries
        samples, offsets = _samples(task), data.offsets(task.sizes)
        names = list(data.contig_lengths(task.sizes))
        return [
            Windows(
                rows,
                tuple(names[i] for i in samples.contig[rows]),
                samples.contig[rows],
                samples.start[rows],
                offsets[samples.contig[rows]] + samples.start[rows],
            )
            for rows in generator.integers(0, len(samples.start), (_WINDOW_QUERIES, self.batch))
        ]


def _total(task: Task) -> int:
    return {"matrix": task.sizes.matrix, "cells": task.sizes.cells}.get(task.group, task.sizes.rows)


def _samples(task: Task) -> data.Samples:
    if task.group == "tracks":
        starts = data.track_starts(task.sizes)
        return data.Samples(np.zeros(len(starts), dtype=np.int32), starts)
    return data.samples(task.sizes, task.length)


def _codes(task: Task, rows: npt.NDArray[np.int64]) -> Answer:
    genome = data.raw(task.folder, "genome")
    samples = _samples(task)
    flat = data.offsets(task.sizes)[samples.contig[rows]] + samples.start[rows]
    return (np.stack([genome[start : start + task.length] for start in flat]),)


def _rows(task: Task, rows: npt.NDArray[np.int64]) -> Answer:
    return unpacked(tuple(data.raw(task.folder, f"rows-{field}")[rows] for field in _ROW_FIELDS))


def _matrix(task: Task, rows: npt.NDArray[np.int64]) -> Answer:
    return tuple(data.raw(task.folder, f"matrix-{field}")[rows] for field in ("inputs", "targets"))


def _cells(task: Task, rows: npt.NDArray[np.int64]) -> Answer:
    ends = data.raw(task.folder, "cells-offsets")
    dense = np.zeros((len(rows), GENES), dtype=np.float32)
    for place, row in enumerate(rows):
        part = slice(int(ends[row]), int(ends[row + 1]))
        indices = data.raw(task.folder, "cells-indices")[part]
        dense[place, indices] = data.raw(task.folder, "cells-values")[part]
    return (dense,)


def _tracks(task: Task, rows: npt.NDArray[np.int64]) -> Answer:
    starts = data.track_starts(task.sizes)[rows] // data.BIN
    bins = data.raw(task.folder, "track-bins")
    return (np.stack([bins[start : start + BINS] for start in starts]).astype(np.float32),)


def _nothing(task: Task, rows: npt.NDArray[np.int64]) -> Answer:
    return ()


_ROW_FIELDS = ("codes", "labels")


def fault(task: Task, query: Query, answer: Answer, form: Form) -> str | None:
    """Compare a contender's answer to the first batch of a query with numpy's.

    Returns:
        How it differs, or None.
    """
    if form == "keyed":
        rows, answer = answer[-1], answer[:-1]
    elif isinstance(query, Block):
        rows = query.start + query.order[0]
    else:
        rows = query.rows
    expected = GROUPS[task.group].truth(task, rows)
    if not expected:
        return None
    if len(answer) != len(expected):
        return f"{len(answer)} fields instead of {len(expected)}"
    for found, right in zip(answer, expected, strict=True):
        wanted = _in_form(right, form)
        if found.shape != wanted.shape:
            return f"shape {found.shape} instead of {wanted.shape}"
        different = int((found != wanted).sum())
        if different:
            return f"{different:,} of {wanted.size:,} values differ from numpy's"
    return None


def _in_form(codes: npt.NDArray[Any], form: Form) -> npt.NDArray[Any]:
    if form == "letters":
        letters: npt.NDArray[Any] = np.frombuffer(b"ACGTN", dtype=np.uint8)[codes]
        return letters
    if form == "one-hot":  # as selene-sdk has it: a quarter of each for N
        table = np.concatenate([np.eye(4), np.full((1, 4), 0.25)]).astype(np.float32)
        columns: npt.NDArray[Any] = table[codes]
        return columns
    return codes


def _windows(name: str, length: int, batch: int) -> Group:
    title = f"Windows of {length:,} bp in batches of {batch}"
    limit = "memory map, one gather"
    return Group(name, title, "windows", "genome", _codes, limit, batch, length=length)


def _prefetch(name: str, batch: int) -> Group:
    title = f"A prefetch thread against reading in process: rows, labels packed, {batch:,} a batch"
    limit = "in process"
    return Group(
        name, title, "rows", "rows", _nothing, limit, batch, block=BLOCK_ROWS, clock="wall"
    )


_DECODED = "1,000 codes and 919 labels (bits, given as zeros and ones), shuffled within blocks"
_MAP = "memory map"

GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        _windows("windows-1k", 1_000, 256),
        _windows("windows-131k", 131_072, 8),
        _windows("windows-196k", 196_608, 8),
        Group("rows", f"Rows of {_DECODED}", "rows", "rows", _rows, _MAP, 256, block=BLOCK_ROWS),
        Group(
            "rows-compressed",
            f"Compressed rows of {_DECODED}",
            "rows",
            "rows",
            _rows,
            _MAP,
            256,
            block=BLOCK_ROWS,
        ),
        Group(
            "matrix",
            "Dense float32 rows of 943 and 9,520, shuffled within blocks",
            "rows",
            "matrix",
            _matrix,
            _MAP,
            256,
            block=BLOCK_MATRIX,
        ),
        Group(
            "cells",
            "Cells of 20,000 genes (sparse, about 2,000 nonzero), made dense",
            "cells",
            "cells",
            _cells,
            "memory map, compiled scatter",
            128,
            block=BLOCK_CELLS,
        ),
        Group(
            "tracks",
            "Windows of 131,072 bp of a signal in 1,024 bins",
            "windows",
            "track",
            _tracks,
            "memory map of bins, one gather",
            8,
            length=131_072,
        ),
        _prefetch("prefetch", 256),
        _prefetch("prefetch-2k", 2_048),
        Group(
            "step",
            "A training step with its reading (small convolutional network, batch of 256 rows)",
            "samples",
            "rows",
            _nothing,
            "step alone, batch in memory",
            256,
            block=BLOCK_ROWS,
            clock="wall",
        ),
    )
}

"""How often each label of a split is there, and how often it is positive.

Labels are fields of bits (every label is there), of numbers, one a task (NaN is a missing label),
or of classes (each class counts as a task, and a sample is positive for its own).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.bits import unpack
from data_shards.dataset import ShardedDataset
from data_shards.errors import CorruptDataError, InputError
from data_shards.store.cache import fetch_shard
from data_shards.store.manifest import ShardRecord
from data_shards.store.schema import FieldEntry
from data_shards.store.shards import ArrayLayout, decode_shard, in_order, read_layout

Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_BLOCK_LABELS = 1 << 24  # labels unpacked at a time, a byte each


@dataclass(frozen=True, eq=False)
class LabelStatistics:
    """Counts over the samples of a split.

    Attributes:
        names: of the tasks; their numbers, where the field names none.
        samples: of the split.
        present: labels that are there, int64, shape (tasks,).
        positives: labels that are 1, int64, shape (tasks,).
        binary: whether each label that is there is 0 or 1.
        complete: whether no label of the field is missing, in this split and all others.
    """

    names: tuple[str, ...]
    samples: int
    present: Counts
    positives: Counts
    binary: bool
    complete: bool

    @property
    def negatives(self) -> Counts:
        """Labels that are there and not 1, int64, shape (tasks,)."""
        return self.present - self.positives

    @property
    def share(self) -> float:
        """Labels that are there as a part of samples x tasks."""
        places = self.samples * len(self.names)
        return float(self.present.sum()) / places if places else 0.0

    def task(self, name: str) -> int:
        """Return the number of a task.

        Raises:
            InputError: there is no such task.
        """
        if name not in self.names:
            known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
            raise InputError(f"no task {name!r} among the labels", remedy=f"there are: {known}")
        return self.names.index(name)


@dataclass(frozen=True, eq=False)
class LabelBlock:
    """Labels of consecutive samples. Arrays have shape (n, tasks).

    Attributes:
        start: first sample, as the data set numbers them.
        positive: bool, whether the label is 1.
        present: bool, whether it is there.
        binary: whether each that is there is 0 or 1.
    """

    start: int
    positive: Flags
    present: Flags
    binary: bool


def label_statistics(data: ShardedDataset, field: str, split: str) -> LabelStatistics:
    """Count the labels of a split.

    For bits the manifest knows the positives of each shard; only shards that reach into another
    split are read, each by one request. Numbers and classes are read once, in blocks.

    Args:
        data: the data set.
        field: of labels.
        split: name of the split.

    Raises:
        InputError: no such field or split, or the field holds no labels.
        CorruptDataError: a shard is missing or changed, or the manifest lacks one.
    """
    names = label_names(data, field)
    entry, rows = data.schema.field(field), data.schema.split(split)
    present = np.full(len(names), rows.samples, dtype=np.int64)
    if entry.kind == "bits":
        positives = _bit_sums(data, entry, rows.start, rows.stop)
        return LabelStatistics(names, rows.samples, present, positives, binary=True, complete=True)
    present, positives, binary = np.zeros_like(present), np.zeros_like(present), True
    for block in label_blocks(data, field, split):
        present += block.present.sum(axis=0, dtype=np.int64)
        positives += block.positive.sum(axis=0, dtype=np.int64)
        binary &= block.binary
    nans = sum(shard.nan_count for shard in data.shards if shard.array == field)
    complete = nans == 0 and entry.missing is None
    return LabelStatistics(names, rows.samples, present, positives, binary, complete)


def label_names(data: ShardedDataset, field: str) -> tuple[str, ...]:
    """Name the tasks of a field of labels.

    Raises:
        InputError: no such field, or it holds no labels.
    """
    entry = data.schema.field(field)
    if entry.kind == "bits" or _is_class(entry):
        return entry.names
    if entry.kind != "dense" or len(entry.shape) > 1:
        raise InputError(
            f"field {field!r} holds no labels: a sample of it is {entry.kind}, shape {entry.shape}",
            remedy="name a field of bits, of classes, or of one number a task",
        )
    tasks = entry.shape[0] if entry.shape else 1
    return entry.names or tuple(str(task) for task in range(tasks))


def label_blocks(data: ShardedDataset, field: str, split: str) -> Iterator[LabelBlock]:
    """Read the labels of a split, in stored order, about 16 million at a time.

    Raises:
        InputError: no such field or split, or the field holds no labels.
        CorruptDataError: a shard is missing or changed.
    """
    tasks = len(label_names(data, field))
    entry, rows = data.schema.field(field), data.schema.split(split)
    at_once = max(1, _BLOCK_LABELS // max(1, tasks))
    for start in range(rows.start, rows.stop, at_once):
        stop = min(start + at_once, rows.stop)
        values = data.gather(field, np.arange(start, stop, dtype=np.int64))
        yield _block(entry, start, values, tasks)


def _block(entry: FieldEntry, start: int, values: npt.NDArray[Any], tasks: int) -> LabelBlock:
    """Tell which labels of some samples are there, and which are positive."""
    if entry.kind == "bits":
        positive = unpack(values, tasks).view(np.bool_)
        return LabelBlock(start, positive, np.broadcast_to(True, positive.shape), binary=True)
    columns = values.reshape(len(values), -1)
    present = np.ones(columns.shape, dtype=np.bool_)
    if columns.dtype.kind == "f":
        present &= ~np.isnan(columns)
    if entry.missing is not None:
        present &= columns != entry.missing
    if _is_class(entry):
        positive = (columns == np.arange(tasks)) & present
        return LabelBlock(start, positive, np.broadcast_to(present, positive.shape), binary=True)
    positive = (columns == 1) & present
    binary = bool((positive | (columns == 0) | ~present).all())
    return LabelBlock(start, positive, present, binary)


def _is_class(entry: FieldEntry) -> bool:
    return entry.kind == "dense" and not entry.shape and bool(entry.names)


def _bit_sums(data: ShardedDataset, entry: FieldEntry, first: int, end: int) -> Counts:
    """Add up the positives of rows ``first`` to ``end`` (exclusive)."""
    where = data.place.url(entry.name)
    layout = read_layout(data.place.read(f"{entry.name}/zarr.json"), where)
    records = [shard for shard in data.shards if shard.array == entry.name]
    sums = np.zeros(len(entry.names), dtype=np.int64)
    for record in in_order(layout, records, where):
        start, stop = max(first, record.start), min(end, record.stop)
        if start >= stop:
            continue
        if len(record.sums) != len(sums):
            problem = f"{len(record.sums)} label sums for {len(sums)} tasks"
            raise CorruptDataError(f"{data.place.url(record.path)}: the manifest has {problem}")
        if (start, stop) == (record.start, record.stop):
            sums += np.array(record.sums, dtype=np.int64)
        else:
            sums += _part_sums(data, layout, record, start, stop)
    return sums


def _part_sums(
    data: ShardedDataset, layout: ArrayLayout, record: ShardRecord, start: int, stop: int
) -> Counts:
    """Count the positives of a part of a shard, without opening the array: that reads all of it."""
    raw = np.empty(record.bytes, dtype=np.uint8)
    fetch_shard(data.place, record, raw)
    place = data.place.url(record.path)
    rows = decode_shard(raw, layout, record.shard, place=place)[
        start - record.start : stop - record.start
    ]
    sums = np.zeros(len(record.sums), dtype=np.int64)
    at_once = max(1, _BLOCK_LABELS // max(1, len(sums)))
    for first in range(0, len(rows), at_once):
        sums += unpack(rows[first : first + at_once], len(sums)).sum(axis=0, dtype=np.int64)
    return sums

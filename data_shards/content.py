"""Checks of what fields hold: numbers, labels, classes, the bounds of ragged rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.dataset import ShardedDataset
from data_shards.sequence import UNKNOWN
from data_shards.store.schema import FieldEntry

_BYTES = 64 << 20  # looked at together: bounds memory


@dataclass(frozen=True)
class Finding:
    """Result of one check: ``ok``, or a fault."""

    check: str
    ok: bool
    detail: str


def check_field(data: ShardedDataset, field: FieldEntry) -> list[Finding]:
    """Check one field, by its kind."""
    if field.kind == "bits":
        return _bits(data, field)
    if field.kind in ("ragged", "sparse"):
        return _pooled(data, field)
    if field.dtype == "int64" and field.names and not field.shape:
        return _classes(data, field)
    array = "reference" if field.kind == "window" else field.name
    look = _codes if field.missing == UNKNOWN else _numbers
    return [look(field.name, data, array)]


def _pooled(data: ShardedDataset, field: FieldEntry) -> list[Finding]:
    """Check where the rows of a ragged or sparse field lie, and what is in them."""
    bounds = _bounds(data, field)
    if not bounds.ok or field.name == "id":
        return [bounds]
    look = _numbers if field.kind == "sparse" else _codes
    return [bounds, look(field.name, data, f"{field.name}.values")]


def _blocks(array: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    rows = max(1, _BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _codes(name: str, data: ShardedDataset, array: str) -> Finding:
    codes = data.whole(array)
    unknown = 0
    for start, block in _blocks(codes):
        if (block > UNKNOWN).any():
            return Finding(name, False, f"a code above {UNKNOWN} after row {start:,} of {array}")
        unknown += int((block == UNKNOWN).sum())
    share = unknown / max(1, codes.size)
    return Finding(name, True, f"{codes.size:,} bases, {share:.2%} unknown (N)")


def _numbers(name: str, data: ShardedDataset, array: str) -> Finding:
    """Look for infinite values, and for NaN that the manifest does not know of."""
    values = data.whole(array)
    if values.dtype.kind != "f":
        low, high = (values.min(), values.max()) if values.size else (0, 0)
        return Finding(name, True, f"{values.size:,} {values.dtype} from {low} to {high}")
    low, high, missing = np.inf, -np.inf, 0
    for start, block in _blocks(values):
        finite = np.isfinite(block)
        nans = int(np.isnan(block).sum())
        if nans + int(finite.sum()) < block.size:
            row = start + int(np.argwhere(np.isinf(block))[0][0])
            return Finding(name, False, f"an infinite value in row {row:,} of {array} (overflow?)")
        missing += nans
        if finite.any():
            low = min(low, float(block.min(where=finite, initial=np.inf)))
            high = max(high, float(block.max(where=finite, initial=-np.inf)))
    known = sum(shard.nan_count for shard in data.shards if shard.array == array)
    if missing != known:
        return Finding(name, False, f"{missing:,} NaN values, the manifest knows of {known:,}")
    detail = f"{values.size:,} {values.dtype} from {low:.6g} to {high:.6g}"
    return Finding(name, True, f"{detail}, {missing:,} missing (NaN)")


def _bits(data: ShardedDataset, field: FieldEntry) -> list[Finding]:
    for shard in data.shards:
        if shard.array == field.name:
            rows = np.arange(shard.start, shard.stop, dtype=np.int64)
            counted = data.bits(field.name, rows).sum(axis=0, dtype=np.int64)
            if counted.tolist() != list(shard.sums):
                detail = f"{shard.path}: label sums differ from the manifest's"
                return [Finding(field.name, False, detail)]
    faults: list[Finding] = []
    for split, entry in data.schema.splits.items():
        positives = _positives(data, field, entry.start, entry.stop)
        for name, count in zip(field.names, positives.tolist(), strict=True):
            if count in (0, entry.samples):
                lacking = "positive" if count == 0 else "negative"
                detail = f"task {name!r} has no {lacking} sample in {split}"
                faults.append(Finding(field.name, False, detail))
    detail = f"{len(field.names)} tasks, each with both classes in each split"
    return faults or [Finding(field.name, True, detail)]


def _positives(
    data: ShardedDataset, field: FieldEntry, start: int, stop: int
) -> npt.NDArray[np.int64]:
    step = max(1, _BYTES // max(1, len(field.names)))
    total = np.zeros(len(field.names), dtype=np.int64)
    for first in range(start, stop, step):
        rows = np.arange(first, min(first + step, stop), dtype=np.int64)
        total += data.bits(field.name, rows).sum(axis=0, dtype=np.int64)
    return total


def _classes(data: ShardedDataset, field: FieldEntry) -> list[Finding]:
    codes = data.whole(field.name)
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(field.names):
        detail = f"a class number is none of the {len(field.names)} classes"
        return [Finding(field.name, False, detail)]
    faults: list[Finding] = []
    counts = {
        split: np.bincount(codes[entry.start : entry.stop], minlength=len(field.names))
        for split, entry in data.schema.splits.items()
    }
    for number, name in enumerate(field.names):
        absent = [split for split, count in counts.items() if count[number] == 0]
        if absent:
            detail = f"class {name!r} has no sample in {' and '.join(absent)}"
            faults.append(Finding(field.name, False, detail))
    shares = counts["train"] / max(1, int(counts["train"].sum()))
    detail = f"{len(field.names)} classes in each split, the rarest {shares.min():.2%} of train"
    return faults or [Finding(field.name, True, detail)]


def _bounds(data: ShardedDataset, field: FieldEntry) -> Finding:
    """Prove that every row of a ragged or sparse field lies in its pool."""
    starts, lengths = (data.whole(f"{field.name}.{part}") for part in ("start", "length"))
    total = len(data.whole(f"{field.name}.values"))
    good = (starts >= 0) & (lengths >= 0) & (starts + lengths <= total)
    if field.kind == "ragged":
        good &= lengths <= field.shape[0]
    if not good.all():
        row = int(np.argmin(good))
        return Finding(field.name, False, f"row {row:,}: its values do not lie in the pool")
    if field.kind == "sparse":
        for start, block in _blocks(data.whole(f"{field.name}.indices")):
            if len(block) and not 0 <= block.min() <= block.max() < field.shape[0]:
                detail = (
                    f"an index after element {start:,} is beyond the {field.shape[0]:,} columns"
                )
                return Finding(field.name, False, detail)
    mean = total / max(1, len(lengths))
    detail = f"{len(lengths):,} rows of {int(lengths.min() if len(lengths) else 0):,} to "
    return Finding(field.name, True, f"{detail}{int(lengths.max(initial=0)):,}, mean {mean:,.1f}")

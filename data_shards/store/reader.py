"""Arrays of a data set as a reader sees them, wherever their bytes are.

Local uncompressed shards are mapped where they lie. Remote or compressed ones are mapped from the
node's cache, or, where that has no room, streamed: fetched whole and kept decoded within a budget.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data_shards.errors import CorruptDataError, InputError
from data_shards.progress import Progress, silent
from data_shards.store.cache import CacheFullError, ShardCache, fetch_shard
from data_shards.store.location import Location, MissingObjectError
from data_shards.store.manifest import ShardRecord, verify
from data_shards.store.mapped import checked, map_array, runs
from data_shards.store.schema import ArrayEntry
from data_shards.store.shards import ArrayLayout, decode_shard, in_order, read_layout

Rows = npt.NDArray[np.int64]


class ArrayReader(Protocol):
    """One array, read by gathers along its first axis. What they return is the caller's own."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        ...

    def take(self, rows: Rows) -> npt.NDArray[Any]:
        """Gather rows, shape (n, *row); IndexError for a row below 0 or past the end."""
        ...

    def slices(self, starts: Rows, length: int) -> npt.NDArray[Any]:
        """Gather runs of ``length`` rows, shape (n, length, *row); IndexError as above."""
        ...


@dataclass(frozen=True)
class StreamCounts:
    """What streaming cost so far: bytes fetched, and shards found in memory or not."""

    bytes: int = 0
    hits: int = 0
    misses: int = 0


class StreamedArray:
    """An array whose shards are fetched whole when they are needed, and kept while there is room.

    Each call fetches a shard that it needs once. The decoded shards that were used last are kept;
    memory is reused from shard to shard. Threads may share it: one call runs at a time. A forked
    child can't use it, a spawned one gets an empty copy.

    Args:
        location: the data set.
        name: of the array.
        layout: of the array.
        records: its manifest records; each fetched shard is verified against its own.
        budget: bytes of memory that it may hold, besides what it returns.

    Attributes:
        counts: what streaming cost so far.

    Raises:
        InputError: the budget is less than one shard needs.
    """

    def __init__(
        self,
        location: Location,
        name: str,
        layout: ArrayLayout,
        records: Sequence[ShardRecord],
        budget: int,
    ) -> None:
        self._location, self._name, self._layout, self._budget = location, name, layout, budget
        self._records = in_order(layout, records, location.url(name))
        largest = max((record.bytes for record in self._records), default=0)
        packed = layout.compression != "none"
        self._slot = layout.data_bytes(0) if packed else largest
        scratch = largest if packed else 0
        self._slots = (budget - scratch) // max(self._slot, 1)
        if self._slots < 1 and self._records:
            raise InputError(
                f"a budget of {budget:,} bytes where streaming one shard takes "
                f"{self._slot + scratch:,}",
                path=location.url(name),
                remedy="allow more memory for streaming, or build with smaller shards",
            )
        self._scratch = np.empty(scratch, dtype=np.uint8)
        self._kept: OrderedDict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]] = OrderedDict()
        self._free: list[npt.NDArray[np.uint8]] = []
        self._lock, self._process = Lock(), os.getpid()
        self.counts = StreamCounts()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self._layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        return self._layout.dtype

    def take(self, rows: Rows) -> npt.NDArray[Any]:
        """Gather rows, shape (n, *row)."""
        self._refuse_fork()
        rows = checked(rows, self.shape[0])
        size = self._layout.shard_rows
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        shards = rows // size
        with self._lock:
            for shard in np.unique(shards).tolist():
                places = np.flatnonzero(shards == shard)
                out[places] = self._shard(shard)[rows[places] - shard * size]
        return out

    def slices(self, starts: Rows, length: int) -> npt.NDArray[Any]:
        """Gather runs of ``length`` rows, shape (n, length, *row); they may cross shards."""
        self._refuse_fork()
        starts = checked(starts, self.shape[0], length)
        size = self._layout.shard_rows
        out = np.empty((len(starts), length, *self.shape[1:]), dtype=self.dtype)
        first, last = starts // size, (starts + length - 1) // size
        with self._lock:
            for shard in _touched(first, last):
                rows, origin = self._shard(shard), shard * size
                inside = np.flatnonzero((first == shard) & (last == shard))
                if len(inside):
                    out[inside] = runs(rows, length)[starts[inside] - origin]
                crossing = (first <= shard) & (last >= shard) & (first < last)
                for place in np.flatnonzero(crossing).tolist():
                    start = int(starts[place]) - origin
                    low, high = max(start, 0), min(start + length, len(rows))
                    out[place, low - start : high - start] = rows[low:high]
        return out

    def __reduce__(self) -> tuple[object, ...]:
        place = (self._location, self._name, self._layout)
        return StreamedArray, (*place, self._records, self._budget)

    def _shard(self, shard: int) -> npt.NDArray[Any]:
        """Return the rows of a shard, fetched if it is not in memory. The lock is held."""
        if shard in self._kept:
            self.counts = replace(self.counts, hits=self.counts.hits + 1)
            self._kept.move_to_end(shard)
            return self._kept[shard][1]
        self.counts = replace(self.counts, misses=self.counts.misses + 1)
        if len(self._kept) >= self._slots:
            self._free.append(self._kept.popitem(last=False)[1][0])
        memory = self._free.pop() if self._free else np.empty(self._slot, dtype=np.uint8)
        try:
            rows = self._fetch(shard, memory)
        except BaseException:
            self._free.append(memory)
            raise
        self._kept[shard] = memory, rows
        return rows

    def _fetch(self, shard: int, memory: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        record = self._records[shard]
        raw = (self._scratch if len(self._scratch) else memory)[: record.bytes]
        fetch_shard(self._location, record, raw)
        self.counts = replace(self.counts, bytes=self.counts.bytes + record.bytes)
        return decode_shard(raw, self._layout, shard, memory, self._location.url(record.path))

    def _refuse_fork(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"{self._location.url(self._name)}: streamed by process {self._process}, which "
                "forked this one; open the data set in the child, or start it with 'spawn'"
            )


def open_array(
    place: Location | Path,
    entry: ArrayEntry,
    records: Sequence[ShardRecord],
    *,
    fingerprint: str,
    cache: ShardCache | None,
    stream_budget: int,
    notify: Callable[[str], None],
    progress: Progress = silent,
) -> ArrayReader:
    """Open an array by the quickest way that its place and codec allow; verifies its content.

    Args:
        place: the data set.
        entry: the array, as the data set's schema has it.
        records: its manifest records.
        fingerprint: of the data set; the key in the cache.
        cache: of this node, or None to do without.
        stream_budget: bytes of memory for an array that has to be streamed.
        notify: told in one sentence when the array is streamed, and why.
        progress: told how many shards are in the cache.

    Returns:
        A :class:`MappedArray` where possible, else a :class:`StreamedArray`.

    Raises:
        CorruptDataError: a shard is missing or changed, or the array is not as the schema says.
        InputError: the place can't be reached, or the stream budget is less than one shard needs.
    """
    location = Location.parse(str(place)) if isinstance(place, Path) else place
    where = location.url(entry.name)
    try:
        metadata = location.read(f"{entry.name}/zarr.json")
    except MissingObjectError as error:
        raise CorruptDataError(f"{where}: the array is missing") from error
    layout = read_layout(metadata, where)
    stored = ArrayEntry(
        name=entry.name,
        dtype=layout.dtype.name,
        shape=layout.shape,
        shard_rows=layout.shard_rows,
        compression=layout.compression,
    )
    if stored != entry:
        raise CorruptDataError(f"{where}: stored as {stored}, where the schema says {entry}")
    ordered = in_order(layout, records, where)
    if location.folder is not None and layout.compression == "none":
        for record in ordered:
            if fault := verify(location.folder, record, content=True):
                raise CorruptDataError(fault)
        return map_array(location.folder, entry.name, ordered)
    reason = "there is no cache"
    if cache is not None:
        try:
            cached = cache.ensure(location, fingerprint, entry.name, metadata, ordered, progress)
            return map_array(cached.folder, entry.name, cached.records, cached.lease)
        except CacheFullError as error:
            reason = str(error)
    streamed = StreamedArray(location, entry.name, layout, ordered, stream_budget)
    notify(f"{where}: streamed in {stream_budget:,} bytes of memory, because {reason}")
    return streamed


def _touched(first: Rows, last: Rows) -> list[int]:
    """List, in order, the shards of runs that begin in ``first`` and end in ``last``."""
    steps = np.arange((last - first).max(initial=0) + 1)
    found: list[int] = np.unique(np.minimum(first[:, None] + steps, last[:, None])).tolist()
    return found

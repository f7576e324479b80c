"""Arrays of a data set as a reader sees them, wherever their bytes are.

Local uncompressed shards are mapped where they lie. Remote or compressed ones are mapped from the
node's cache, or, where that has no room, streamed: fetched whole and kept decoded within a budget.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from types import FunctionType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data_shards.errors import CorruptDataError, InputError
from data_shards.progress import Progress, silent
from data_shards.store.cache import CacheFullError, Lease, ShardCache, fetch_shard
from data_shards.store.location import Location, MissingObjectError
from data_shards.store.manifest import ShardRecord, verify
from data_shards.store.schema import ArrayEntry
from data_shards.store.shards import ArrayLayout, decode_shard, in_order, map_shards, read_layout

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


class MappedFiles:
    """The shard files under a mapped array, watched.

    Touching memory whose file was shortened ends the process by a bus error, which Python can't
    catch. So :meth:`glance`, called before each gather, compares the sizes of the files with the
    manifest about once a second; and for what happens in between, faulthandler is switched on and
    the gathering function bears the array's name, which is the first line of its traceback.

    Args:
        folder, array, records: the data set, the name of the array, its manifest records.
        lease: keeps the files in the node's cache, if that is where they are.
    """

    def __init__(
        self, folder: Path, array: str, records: Sequence[ShardRecord], lease: Lease | None = None
    ) -> None:
        self.folder, self.array, self.records, self.lease = folder, array, tuple(records), lease
        place = folder / array
        self.gather = _renamed(_index, f"gathering from {place} (a shard shortened under its map?)")
        self._next = 0.0
        if not faulthandler.is_enabled():
            faulthandler.enable(file=2)  # sys.stderr may be no real file

    def verify(self) -> None:
        """Compare presence and size of every file with its record; about 3 us a file.

        Raises:
            CorruptDataError: names the file.
        """
        begin = time.monotonic()
        for record in self.records:
            try:
                size = os.stat(f"{self.folder}/{record.path}").st_size  # noqa: PTH116 (3x faster)
            except OSError:
                size = -1
            if size != record.bytes:
                fault = verify(self.folder, record, content=False)
                raise CorruptDataError(f"{fault or record.path}, while it was in use")
        now = time.monotonic()
        self._next = now + max(1.0, 100 * (now - begin))  # at most 1 % of the time

    def glance(self) -> None:
        """Verify the files if that was a second ago or longer."""
        if time.monotonic() >= self._next:
            self.verify()


@dataclass(frozen=True)
class MappedArray:
    """An array in memory, usually mapped shards; can be used in forked and in spawned children.

    Attributes:
        array: the whole array, contiguous; read-only where it is mapped. Who uses it directly
            should call ``files.glance()`` now and then.
        files: what it is mapped from, or None. Pickled, it is mapped again and not copied.
    """

    array: npt.NDArray[Any]
    files: MappedFiles | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        return self.array.dtype

    def take(self, rows: Rows) -> npt.NDArray[Any]:
        """Gather rows, shape (n, *row)."""
        return self._gather(self.array, _inside(rows, len(self.array)))

    def slices(self, starts: Rows, length: int) -> npt.NDArray[Any]:
        """Gather runs of ``length`` rows, shape (n, length, *row)."""
        starts = _inside(starts, len(self.array), length)
        return self._gather(_runs(self.array, length), starts)

    def __reduce__(self) -> tuple[object, ...]:
        if self.files is None:
            return MappedArray, (self.array,)
        files = self.files
        return map_array, (files.folder, files.array, files.records, files.lease)

    def _gather(self, memory: npt.NDArray[Any], rows: Rows) -> npt.NDArray[Any]:
        if self.files is None:
            return _index(memory, rows)
        self.files.glance()
        return self.files.gather(memory, rows)


def map_array(
    folder: Path, name: str, records: Sequence[ShardRecord], lease: Lease | None = None
) -> MappedArray:
    """Map an uncompressed array of a local data set.

    The caller has verified the content of its shards.

    Raises:
        CorruptDataError: a shard is missing, has another size, or is not laid out for mapping.
    """
    files = MappedFiles(folder, name, records, lease)
    files.verify()
    return MappedArray(map_shards(folder, name, records), files)


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
        rows = _inside(rows, self.shape[0])
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
        starts = _inside(starts, self.shape[0], length)
        size = self._layout.shard_rows
        out = np.empty((len(starts), length, *self.shape[1:]), dtype=self.dtype)
        first, last = starts // size, (starts + length - 1) // size
        with self._lock:
            for shard in _touched(first, last):
                rows, origin = self._shard(shard), shard * size
                inside = np.flatnonzero((first == shard) & (last == shard))
                if len(inside):
                    out[inside] = _runs(rows, length)[starts[inside] - origin]
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


def _index(memory: npt.NDArray[Any], rows: Rows) -> npt.NDArray[Any]:
    return memory[rows]


def _renamed(
    function: Callable[[npt.NDArray[Any], Rows], npt.NDArray[Any]], name: str
) -> Callable[[npt.NDArray[Any], Rows], npt.NDArray[Any]]:
    """Return a copy of a function with another name, which is what tracebacks show."""
    return FunctionType(function.__code__.replace(co_name=name, co_qualname=name), globals(), name)


def _runs(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """View all runs of ``length`` rows, shape (len - length + 1, length, *row)."""
    # A tenth of the cost of sliding_window_view, and several columns are gathered twice as fast.
    shape = (len(array) - length + 1, length, *array.shape[1:])
    strides = (array.strides[0], *array.strides)
    return np.ndarray(shape, array.dtype, buffer=array, strides=strides)


def _inside(starts: Rows, size: int, length: int = 1) -> Rows:
    """Refuse runs that are not within rows 0 to ``size`` - 1; numpy would count from the end."""
    starts = np.asarray(starts, dtype=np.int64)
    if not 1 <= length <= max(size, 1):
        raise IndexError(f"runs of {length} rows from an array of {size}")
    if starts.size and starts.view(np.uint64).max() > size - length:
        wrong = starts[(starts < 0) | (starts > size - length)][0]
        raise IndexError(f"rows {wrong} to {wrong + length} from an array of {size}")
    return starts


def _touched(first: Rows, last: Rows) -> list[int]:
    """List, in order, the shards of runs that begin in ``first`` and end in ``last``."""
    steps = np.arange((last - first).max(initial=0) + 1)
    found: list[int] = np.unique(np.minimum(first[:, None] + steps, last[:, None])).tolist()
    return found

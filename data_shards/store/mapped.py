"""Arrays mapped from the shards of a local data set, and what happens when a shard is shortened."""

from __future__ import annotations

import faulthandler
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from data_shards.errors import CorruptDataError
from data_shards.kernels import compiled, copy_runs
from data_shards.store.cache import Lease
from data_shards.store.manifest import ShardRecord, verify
from data_shards.store.shards import map_shards

Rows = npt.NDArray[np.int64]
T = TypeVar("T")


class MappedFiles:
    """The shard files under a mapped array, watched.

    Touching memory whose file was shortened ends the process by a bus error, which Python can't
    catch. So :meth:`glance`, called before each gather, looks at the files about once a second:
    sizes must be those of the manifest, and a file that was written to is verified again. For what
    happens in between, faulthandler is switched on and the gathering function bears the array's
    name, which is the first line of its traceback.

    Args:
        folder, array, records: the data set, the name of the array, its manifest records.
        lease: keeps the files in the node's cache, if that is where they are.
    """

    def __init__(
        self, folder: Path, array: str, records: Sequence[ShardRecord], lease: Lease | None = None
    ) -> None:
        self.folder, self.array, self.records, self.lease = folder, array, tuple(records), lease
        place = folder / array
        name = f"gathering from {place} (a shard shortened under its map?)"
        self.run = _renamed(_call, name)
        self._next = 0.0
        self._stamps: dict[str, tuple[int, int]] = {}
        if not faulthandler.is_enabled():
            faulthandler.enable(file=2)  # sys.stderr may be no real file

    def verify(self) -> None:
        """Compare presence and size of every file with its record; about 3 us a file.

        A file that was written to or replaced since the last call is read and compared whole.

        Raises:
            CorruptDataError: names the file.
        """
        begin = time.monotonic()
        for record in self.records:
            try:
                status = os.stat(f"{self.folder}/{record.path}")  # noqa: PTH116 (3x faster)
                size, stamp = status.st_size, (status.st_mtime_ns, status.st_ino)
            except OSError:
                size, stamp = -1, (0, 0)
            written = self._stamps.setdefault(record.path, stamp) != stamp
            if size != record.bytes or written:
                fault = verify(self.folder, record, content=written)
                if fault or not written:
                    raise CorruptDataError(f"{fault or record.path}, while it was in use")
                self._stamps[record.path] = stamp
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
        return self._gather(rows, 1).reshape(len(rows), *self.array.shape[1:])

    def slices(self, starts: Rows, length: int) -> npt.NDArray[Any]:
        """Gather runs of ``length`` rows, shape (n, length, *row)."""
        return self._gather(starts, length).reshape(len(starts), length, *self.array.shape[1:])

    def glance(self) -> None:
        """Verify the files if that was a second ago or longer."""
        if self.files is not None:
            self.files.glance()

    def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run what reads the array, so that a bus error in it names the array."""
        if self.files is None:
            return function(*arguments)
        self.files.glance()
        result: T = self.files.run(function, *arguments)
        return result

    def __reduce__(self) -> tuple[object, ...]:
        if self.files is None:
            return MappedArray, (self.array,)
        files = self.files
        return map_array, (files.folder, files.array, files.records, files.lease)

    def _gather(self, starts: Rows, length: int) -> npt.NDArray[Any]:
        """Gather runs, shape (n, elements of a run)."""
        source, starts = self._bytes, np.ascontiguousarray(starts, dtype=np.int64)
        if length < 1 or (length > 1 and length > len(source)):
            raise IndexError(f"runs of {length} rows from an array of {len(source)}")
        out = np.empty((len(starts), length * source.shape[1]), dtype=np.uint8)
        if self.run(compiled(copy_runs), source, starts, out) >= 0:
            checked(starts, len(source), length)
        return out.view(self.array.dtype)

    @cached_property
    def _bytes(self) -> npt.NDArray[np.uint8]:
        """The rows as bytes, read-only: so kernels see one type, whatever the array is."""
        array = self.array
        width = array.dtype.itemsize * math.prod(array.shape[1:])
        memory = np.ndarray((len(array), width), np.uint8, buffer=array)
        memory.flags.writeable = False
        return memory


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


def checked(starts: Rows, size: int, length: int = 1) -> Rows:
    """Refuse runs that are not within rows 0 to ``size`` - 1; numpy would count from the end."""
    starts = np.asarray(starts, dtype=np.int64)
    if not 1 <= length <= max(size, 1):
        raise IndexError(f"runs of {length} rows from an array of {size}")
    if starts.size and starts.view(np.uint64).max() > size - length:
        wrong = starts[(starts < 0) | (starts > size - length)][0]
        raise IndexError(f"rows {wrong} to {wrong + length} from an array of {size}")
    return starts


def _call(function: Callable[..., Any], *arguments: object) -> Any:
    return function(*arguments)


def _renamed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a copy of a function with another name, which is what tracebacks show."""
    return FunctionType(function.__code__.replace(co_name=name, co_qualname=name), globals(), name)


def runs(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """View all runs of ``length`` rows, shape (len - length + 1, length, *row)."""
    # A tenth of the cost of sliding_window_view, and several columns are gathered twice as fast.
    shape = (len(array) - length + 1, length, *array.shape[1:])
    strides = (array.strides[0], *array.strides)
    return np.ndarray(shape, array.dtype, buffer=array, strides=strides)

"""The node's cache: arrays fetched once, kept uncompressed on a local disk, mapped by all workers.

Under the cache's folder lies one data set a fingerprint. Each is a Zarr group with the arrays that
were asked for, so that :func:`~data_shards.store.shards.map_shards` maps it as any other::

    capacity              bytes that the cache may take, decided at its first use
    .lock                 held while room is made, for moments
    FINGERPRINT.lock      held shared by those who use the data set; its time is that of last use
    FINGERPRINT/labels/   zarr.json, c/0/0, ...
    FINGERPRINT/.state/   labels.jsonl: a line for each finished shard; labels.bytes: room it was
                          promised; labels.lock: held by the one process that fetches it

A shard gets its line when it was fetched, verified, written, synced and renamed: what a killed
process leaves is finished shards, which count, and a few ``*.partial`` files, which do not.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import queue
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import google_crc32c
import numpy as np

from data_shards.errors import CorruptDataError, InputError
from data_shards.progress import Progress, silent
from data_shards.store.location import Location, MissingObjectError
from data_shards.store.manifest import ShardRecord, verify
from data_shards.store.shards import (
    ArrayLayout,
    Memory,
    decode_shard,
    in_order,
    plain_index,
    read_layout,
)

_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
_LOCK, _STATE, _EVICTED = ".lock", ".state", ".evicted"
_FETCHES = 4  # at once; each holds one shard as fetched and one decoded


class CacheFullError(Exception):
    """The cache has no room for an array; the message says why. Stream it instead."""


class Lease:
    """Keeps a data set in the cache for as long as this object lives.

    A forked child shares its parent's; pickled, it is taken again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Room is made under this lock, so what is leased under it is not about to be removed.
        with _locked(path.parent / _LOCK):
            self._file = path.open("a")
            fcntl.flock(self._file, fcntl.LOCK_SH)
            os.utime(path)

    def release(self) -> None:
        """End it now."""
        self._file.close()

    def __reduce__(self) -> tuple[object, ...]:
        return Lease, (self._path,)


@dataclass(frozen=True)
class CachedArray:
    """An array in the cache: the local data set, its records there (no sha256), the lease."""

    folder: Path
    records: tuple[ShardRecord, ...]
    lease: Lease


@dataclass(frozen=True)
class ShardCache:
    """A folder on a local disk that holds at most so many bytes of decoded shards.

    Attributes:
        folder: of the cache; the processes of a node share it.
        capacity_bytes: of all arrays in it together.
    """

    folder: Path
    capacity_bytes: int

    @classmethod
    def of_node(cls) -> ShardCache:
        """Return the cache that the environment names.

        Its folder is REPLISOME_CACHE, else ~/.cache/replisome; its capacity REPLISOME_CACHE_BYTES,
        else half of what was free on that disk when it was first used.

        Raises:
            InputError: the capacity is no number, or the folder can't be written.
        """
        folder = Path(os.environ.get("REPLISOME_CACHE") or Path.home() / ".cache" / "replisome")
        stated = os.environ.get("REPLISOME_CACHE_BYTES", "")
        if stated and not (stated.isascii() and stated.isdigit()):
            raise InputError(
                f"REPLISOME_CACHE_BYTES = {stated!r} is no number of bytes",
                remedy="set it to a whole number, such as 200000000000",
            )
        noted = folder / "capacity"
        with _usable(folder), _locked(folder / _LOCK):
            if not stated and not noted.exists():
                _write(noted, str(shutil.disk_usage(folder).free // 2).encode())
            return cls(folder, int(stated or noted.read_text()))

    def ensure(
        self,
        location: Location,
        fingerprint: str,
        array: str,
        metadata: bytes,
        records: Sequence[ShardRecord],
        progress: Progress = silent,
    ) -> CachedArray:
        """Return an array as local, uncompressed, verified shards, fetched if they are not here.

        Of several processes that ask at once one fetches, the others wait for it.

        Args:
            location: the data set.
            fingerprint: of the data set; equal content, equal fingerprint.
            array: name of the array.
            metadata: content of its ``zarr.json``.
            records: its manifest records; every fetched shard is verified against its own.
            progress: told how many shards are here.

        Raises:
            CacheFullError: there is no room, even if what nobody uses were removed.
            CorruptDataError: a shard is missing at the location, or changed.
            InputError: the location can't be reached, or the cache's folder can't be written.
        """
        if not fingerprint.isalnum():
            raise ValueError(f"{fingerprint!r} is no fingerprint")
        with _usable(self.folder), ExitStack() as failing:
            lease = Lease(self.folder / f"{fingerprint}.lock")
            failing.callback(lease.release)
            shelf = _Shelf(self.folder / fingerprint, array, metadata, tuple(records))
            found = shelf.finished()
            if not shelf.complete(found):
                shelf.state.mkdir(parents=True, exist_ok=True)
                progress(f"caching {array}", len(found), len(records))
                with _locked(shelf.file("lock")):  # waits for a process that is fetching it
                    found = shelf.finished()
                    if not shelf.complete(found):
                        self._fill(location, shelf, found, progress)
            failing.pop_all()
        return CachedArray(shelf.home, tuple(found[record.shard] for record in records), lease)

    def _fill(
        self, location: Location, shelf: _Shelf, found: dict[int, ShardRecord], progress: Progress
    ) -> None:
        """Fetch the shards that are not there; adds them to ``found``."""
        url = location.url(shelf.array)
        layout = read_layout(shelf.metadata, url)
        ordered = in_order(layout, shelf.records, url)
        sizes = {record.shard: _plain_bytes(layout, record) for record in ordered}
        waiting = [record for record in ordered if record.shard not in found]
        self._reserve(shelf, sum(sizes.values()), sum(sizes[record.shard] for record in waiting))
        try:
            shelf.note(found.values(), "w")
            with closing(_fetch_all(location, shelf.home, layout, waiting)) as fetched:
                for record in fetched:
                    shelf.note([record], "a")
                    found[record.shard] = record
                    progress(f"caching {shelf.array}", len(found), len(ordered))
            _write(shelf.plain, _plain_metadata(shelf.metadata))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            shelf.clear()
            raise CacheFullError(f"the disk of the cache {self.folder} is full") from error

    def _reserve(self, shelf: _Shelf, total: int, missing: int) -> None:
        """Promise an array its room; removes data sets that nobody uses, the oldest use first."""
        with _locked(self.folder / _LOCK), ExitStack() as held:
            for leftover in self.folder.glob(f"{_EVICTED}*"):
                shutil.rmtree(leftover)
            homes = [path.parent for path in self.folder.glob(f"*/{_STATE}")]
            promised = {home: _promised(home) for home in homes}
            idle = [home for home in homes if _lock_if_idle(home, held)]
            own = shelf.file("bytes")
            used = sum(promised.values()) - (int(own.read_text()) if own.exists() else 0)
            kept = used - sum(promised[home] for home in idle)
            if kept + total > self.capacity_bytes:
                raise CacheFullError(
                    f"its {total:,} bytes do not fit into the cache {self.folder}, where "
                    f"{kept:,} of {self.capacity_bytes:,} bytes are in use (REPLISOME_CACHE_BYTES)"
                )
            idle.sort(key=lambda home: _lease_file(home).stat().st_mtime, reverse=True)
            free = shutil.disk_usage(self.folder).free
            while used + total > self.capacity_bytes or free < missing:
                if not idle:
                    raise CacheFullError(f"{missing:,} bytes do not fit on the disk of the cache")
                used -= promised[idle[-1]]
                _evict(idle.pop())
                free = shutil.disk_usage(self.folder).free
            _write(own, str(total).encode())
            _write(shelf.home / "zarr.json", _GROUP)  # of all its arrays, so under this lock


@dataclass(frozen=True)
class _Shelf:
    """The place of one array in the cache: its data set there, and what it is at the source."""

    home: Path
    array: str
    metadata: bytes
    records: tuple[ShardRecord, ...]

    @property
    def state(self) -> Path:
        return self.home / _STATE

    @property
    def plain(self) -> Path:
        return self.home / self.array / "zarr.json"

    def file(self, kind: str) -> Path:
        return self.state / f"{self.array}.{kind}"

    def finished(self) -> dict[int, ShardRecord]:
        """Return the local records of the shards that are here, with content as it was written."""
        try:
            lines = self.file("jsonl").read_text().splitlines()
        except FileNotFoundError:
            return {}
        notes = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be cut
        local = {note["shard"]: note for note in notes}
        found = {}
        for record in self.records:
            if note := local.get(record.shard):
                here = replace(record, bytes=note["bytes"], crc32c=note["crc32c"], sha256="")
                if verify(self.home, here, content=True) is None:
                    found[record.shard] = here
        return found

    def complete(self, found: dict[int, ShardRecord]) -> bool:
        """Tell whether nothing is missing."""
        return len(found) == len(self.records) and self.plain.exists()

    def note(self, records: Iterable[ShardRecord], mode: Literal["w", "a"]) -> None:
        """Note that shards are finished: these alone, or these too."""
        with self.file("jsonl").open(mode) as stream:
            for record in records:
                note = {"shard": record.shard, "bytes": record.bytes, "crc32c": record.crc32c}
                stream.write(json.dumps(note) + "\n")

    def clear(self) -> None:
        """Remove the array and its promise of room."""
        for kind in ("jsonl", "bytes"):
            self.file(kind).unlink(missing_ok=True)
        shutil.rmtree(self.home / self.array, ignore_errors=True)


def fetch_shard(location: Location, record: ShardRecord, memory: Memory) -> None:
    """Fetch a whole shard into memory of its size, and verify it.

    Raises:
        CorruptDataError: it is missing, or size or checksum are not its record's.
    """
    try:
        location.read_into(record.path, memory)
    except MissingObjectError as error:
        raise CorruptDataError(f"{location.url(record.path)}: the shard is missing") from error
    crc = google_crc32c.value(memory)
    if crc != record.crc32c:
        raise CorruptDataError(
            f"{location.url(record.path)}: the content changed "
            f"(crc32c {crc:08x}, was {record.crc32c:08x})"
        )


def _fetch_all(
    location: Location, home: Path, layout: ArrayLayout, records: Sequence[ShardRecord]
) -> Generator[ShardRecord]:
    """Fetch, decode and write shards, several at once; yields the local record of each."""
    if not records:
        return
    largest = max(record.bytes for record in records)
    room = max(_plain_bytes(layout, record) for record in records)
    free: queue.SimpleQueue[tuple[Memory, Memory]] = queue.SimpleQueue()
    for _ in range(min(_FETCHES, len(records))):  # reused: large allocations are slow
        free.put((np.empty(largest, np.uint8), np.empty(room, np.uint8)))

    def fetch(record: ShardRecord) -> ShardRecord:
        raw, plain = free.get()
        try:
            content = raw[: record.bytes]
            fetch_shard(location, record, content)
            if layout.compression != "none":
                decode_shard(content, layout, record.shard, plain, location.url(record.path))
                data = layout.data_bytes(record.shard)
                content = plain[: data + layout.index_bytes]
                content[data:] = np.frombuffer(plain_index(layout, record.shard), np.uint8)
            _write(home / record.path, content.data)
            crc = google_crc32c.value(content)
            return replace(record, bytes=len(content), crc32c=crc, sha256="")
        finally:
            free.put((raw, plain))

    with ThreadPoolExecutor(_FETCHES) as pool:
        futures = [pool.submit(fetch, record) for record in records]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _plain_bytes(layout: ArrayLayout, record: ShardRecord) -> int:
    """Bytes of a shard's file, uncompressed."""
    if layout.compression == "none":
        return record.bytes
    return layout.data_bytes(record.shard) + layout.index_bytes


def _plain_metadata(metadata: bytes) -> bytes:
    """Return the ``zarr.json`` of the same array, uncompressed."""
    content = json.loads(metadata)
    settings = content["codecs"][0]["configuration"]
    settings["codecs"] = [codec for codec in settings["codecs"] if codec["name"] == "bytes"]
    return json.dumps(content, indent=2).encode()


def _lease_file(home: Path) -> Path:
    return home.with_name(f"{home.name}.lock")


def _promised(home: Path) -> int:
    return sum(int(path.read_text()) for path in (home / _STATE).glob("*.bytes"))


def _lock_if_idle(home: Path, held: ExitStack) -> bool:
    """Lock a data set that nobody uses, until the stack unwinds; False if somebody does."""
    lock = held.enter_context(_lease_file(home).open("a"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _evict(home: Path) -> None:
    """Remove a data set; renamed first, so that half of one is never taken for it."""
    gone = home.with_name(f"{_EVICTED}-{home.name}")
    home.rename(gone)
    _lease_file(home).unlink()
    shutil.rmtree(gone)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Make the cache's folder; say what to do where the disk does not let us."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(
            f"the cache can't be used: {error.strerror}",
            path=error.filename or folder,
            remedy="set REPLISOME_CACHE to a folder on a local disk that you may write",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; waits for it."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is whole and on the disk once it has its name. One writer at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)

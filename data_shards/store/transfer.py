"""Moving a finished data set whole: from a folder to an object store, or back.

The receiving side is not a data set until the last object, the group's metadata, is there. A copy
that was killed, begun again, skips what has arrived.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from data_shards.errors import CorruptDataError, InputError
from data_shards.progress import Progress, silent
from data_shards.store.cache import fetch_shard
from data_shards.store.location import Location, MissingObjectError
from data_shards.store.manifest import FILE_NAME, ShardRecord, read_manifest, verify
from data_shards.store.schema import PARTIAL_SUFFIX, Attributes, read_attributes

_GROUP, _LOCK = "zarr.json", ".lock"
_AT_ONCE = 8  # requests: a store answers each slowly and many quickly


def refuse_taken(place: Location) -> None:
    """Refuse a prefix that holds a data set; a finished data set is never changed.

    Raises:
        InputError: there is one, or the store can't be reached.
    """
    if place.size(_GROUP) is not None:
        raise InputError(
            "the output exists",
            path=str(place),
            remedy="give another URL, or remove it first; a finished data set is never changed",
        )


def publish(folder: Path, place: Location, progress: Progress = silent) -> Attributes:
    """Copy a finished local data set to an object store.

    Args:
        folder: the data set.
        place: where it shall be.
        progress: told how many shards have arrived.

    Returns:
        Its attributes.

    Raises:
        InputError: something is there, another data set is just being written there, or the store
            can't be reached.
        CorruptDataError: a shard of the local data set is not as its manifest says.
    """
    source = Location.parse(str(folder))
    attributes, records = read_attributes(source), read_manifest(source)
    refuse_taken(place)
    _take_lock(place, attributes.fingerprint)

    def send(record: ShardRecord) -> None:
        if place.size(record.path) == record.bytes:
            return  # by an earlier attempt: the lock says that it was of this data set
        if fault := verify(folder, record, content=True):
            raise CorruptDataError(fault)
        place.write(record.path, source.read(record.path))

    _each(records, send, progress, "sending")
    for entry in attributes.schema_.arrays:
        place.write(f"{entry.name}/{_GROUP}", source.read(f"{entry.name}/{_GROUP}"))
    place.write(FILE_NAME, source.read(FILE_NAME))
    if not place.create(_GROUP, source.read(_GROUP)) and (
        read_attributes(place).fingerprint != attributes.fingerprint
    ):
        refuse_taken(place)
    place.delete(_LOCK)
    return attributes


def fetch(place: Location, folder: Path, progress: Progress = silent) -> Attributes:
    """Copy a data set of an object store into a folder, byte for byte.

    Args:
        place: the data set.
        folder: where it shall be; its parent exists.
        progress: told how many shards have arrived.

    Returns:
        Its attributes.

    Raises:
        InputError: the folder exists, or the store can't be reached or has no data set there.
        CorruptDataError: a shard is not as the manifest says.
    """
    if folder.exists():
        raise InputError("the output path exists", path=folder, remedy="give another path")
    attributes, records = read_attributes(place), read_manifest(place)
    work = folder.with_name(folder.name + PARTIAL_SUFFIX)
    mark = work / ".fetching"
    if work.exists() and (not mark.exists() or mark.read_text() != attributes.fingerprint):
        raise InputError(
            "an unfinished build or copy of another data set is in the way",
            path=work,
            remedy=f"remove it (rm -r {work}), or give another path",
        )
    work.mkdir(exist_ok=True)
    mark.write_text(attributes.fingerprint)
    here = Location.parse(str(work))

    def receive(record: ShardRecord) -> None:
        if verify(work, record, content=True) is not None:
            memory = np.empty(record.bytes, dtype=np.uint8)
            fetch_shard(place, record, memory)
            here.write(record.path, memory.data)

    _each(records, receive, progress, "fetching")
    for name in (*(f"{e.name}/{_GROUP}" for e in attributes.schema_.arrays), FILE_NAME, _GROUP):
        here.write(name, place.read(name))
    mark.unlink()
    work.rename(folder)
    return attributes


def _take_lock(place: Location, fingerprint: str) -> None:
    """Claim the prefix for one data set; a killed attempt at the same one may be continued."""
    claim = json.dumps({"fingerprint": fingerprint}).encode()
    if place.create(_LOCK, claim):
        return
    try:
        holder = place.read(_LOCK)
    except MissingObjectError:
        holder = b""  # finished a moment ago
    if holder != claim:
        refuse_taken(place)
        raise InputError(
            "another data set is being written here",
            path=str(place),
            remedy=f"wait for it, give another URL, or, if its writer is dead, remove "
            f"{place.url(_LOCK)}",
        )


def _each(
    records: list[ShardRecord], work: Callable[[ShardRecord], None], progress: Progress, what: str
) -> None:
    """Do something for every shard, several at once; the first failure ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = [pool.submit(work, record) for record in records]
        try:
            for done, one in enumerate(as_completed(running), start=1):
                one.result()
                progress(what, done, len(records))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

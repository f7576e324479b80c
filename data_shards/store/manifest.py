"""The manifest: one line a shard file, with what it must be byte for byte.

A missing or changed shard of a Zarr array reads as fill value, without a word, in every library.
So the manifest holds size and checksums of each, and readers compare before they trust.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from data_shards.errors import CorruptDataError
from data_shards.store.location import Location, MissingObjectError

FILE_NAME = "manifest.parquet"
_BLOCK = 1 << 22


@dataclass(frozen=True)
class ShardRecord:
    """One shard file.

    Attributes:
        array: name of the array in the group.
        shard: number of the shard along axis 0.
        path: path of the file, relative to the data set.
        start: first row in the array, 0-based.
        stop: end row, exclusive.
        bytes: size of the file.
        crc32c: checksum of the whole file (Castagnoli), for quick verification.
        sha256: checksum of the whole file, for the fingerprint.
        nan_count: NaN values in the rows (0 for integers).
        sums: for packed labels the number of positives of each task, else empty.
    """

    array: str
    shard: int
    path: str
    start: int
    stop: int
    bytes: int
    crc32c: int
    sha256: str
    nan_count: int
    sums: tuple[int, ...]

    def content(self) -> dict[str, Any]:
        """Return the record as plain values, for hashing and writing."""
        return {**asdict(self), "sums": list(self.sums)}


_SCHEMA = pa.schema(
    [
        ("array", pa.string()),
        ("shard", pa.int64()),
        ("path", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("bytes", pa.int64()),
        ("crc32c", pa.uint32()),
        ("sha256", pa.string()),
        ("nan_count", pa.int64()),
        ("sums", pa.list_(pa.int64())),
    ]
)


def checksums(path: Path) -> tuple[int, int, str]:
    """Read a file once; return its size in bytes, crc32c and sha256."""
    crc, digest, size = 0, hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            crc = google_crc32c.extend(crc, block)
            digest.update(block)
            size += len(block)
    return size, crc, digest.hexdigest()


def write_manifest(folder: Path, shards: Iterable[ShardRecord]) -> None:
    """Write the manifest of a data set."""
    ordered = sorted(shards, key=lambda s: (s.array, s.shard))
    table = pa.Table.from_pylist([shard.content() for shard in ordered], schema=_SCHEMA)
    pq.write_table(table, folder / FILE_NAME)


def read_manifest(place: Location) -> list[ShardRecord]:
    """Read the manifest of a data set.

    Raises:
        CorruptDataError: it is missing or damaged.
    """
    try:
        content = pa.BufferReader(place.read(FILE_NAME))
        rows = pq.read_table(content, schema=_SCHEMA).to_pylist()
    except (LookupError, OSError, pa.ArrowException) as error:
        raise CorruptDataError(f"{place.url(FILE_NAME)}: can't be read: {error}") from error
    return [ShardRecord(**{**row, "sums": tuple(row["sums"])}) for row in rows]


def verify(folder: Path, shard: ShardRecord, *, content: bool) -> str | None:
    """Compare a shard file with its record.

    Args:
        folder: the data set.
        shard: its record.
        content: also compare the crc32c of all its bytes (several GB/s).

    Returns:
        What is wrong, or None.
    """
    path = folder / shard.path
    if not path.is_file():
        return f"{path}: the shard is missing"
    size = path.stat().st_size
    if size != shard.bytes:
        return f"{path}: {size:,} bytes where the manifest has {shard.bytes:,}"
    if content:
        crc = 0
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                crc = google_crc32c.extend(crc, block)
        if crc != shard.crc32c:
            return f"{path}: the content changed (crc32c {crc:08x}, was {shard.crc32c:08x})"
    return None


def verify_stored(place: Location, shard: ShardRecord) -> str | None:
    """Compare all bytes of a shard with its record, wherever it is stored; says what is wrong."""
    if place.folder is not None:
        return verify(place.folder, shard, content=True)
    try:
        content = place.read(shard.path)
    except MissingObjectError:
        return f"{place.url(shard.path)}: the shard is missing"
    if len(content) != shard.bytes:
        return f"{place.url(shard.path)}: {len(content):,} bytes, the manifest has {shard.bytes:,}"
    crc = google_crc32c.value(content)
    if crc != shard.crc32c:
        was = f"(crc32c {crc:08x}, was {shard.crc32c:08x})"
        return f"{place.url(shard.path)}: the content changed {was}"
    return None

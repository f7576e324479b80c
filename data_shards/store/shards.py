"""Shard files of a Zarr v3 array: created and written whole, mapped back as one numpy array.

All arrays are split along axis 0 only, into shards of chunks of about 1 MB, the index of a shard at
its end. Any Zarr v3 library can read them. There are two tiers:

- uncompressed ("none"): the data part of a shard is the raw rows, and :func:`map_shards` lays the
  data parts of all shards end to end in memory without copying;
- compressed ("lz4", blosc with bitshuffle): for object stores and cold disks;
  :func:`decode_shard` turns a whole shard, fetched whole, into rows.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Sequence
from ctypes import CDLL, c_int, c_long, c_size_t, c_void_p, get_errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]
from zarr.codecs import BloscCname, BloscCodec, BytesCodec, Crc32cCodec, Endian, ShardingCodec
from zarr.core.metadata.v3 import ArrayV3Metadata

from data_shards.errors import CorruptDataError
from data_shards.store.manifest import ShardRecord
from data_shards.store.schema import Compression

Memory = npt.NDArray[np.uint8]
Place = Path | str

# Mapping needs data parts that are whole memory pages (4 KiB, on some machines 16 or 64 KiB).
PAGE_BYTES = 4096
ROW_QUANTUM = PAGE_BYTES  # so many rows are whole pages, whatever the row
CHUNK_BYTES = 1 << 20
SMALL_CHUNK_BYTES = 1 << 16

_INDEX_ENTRY = np.dtype([("offset", "<u8"), ("bytes", "<u8")])
_ABSENT, _CRC_BYTES, _BLOSC_HEADER = np.uint64(2**64 - 1), 4, 16
_PLAIN = "whole uncompressed shards along axis 0"
_MAP_FIXED, _PROT_NONE = 0x10, 0  # missing from the mmap module of Python 3.11


@dataclass(frozen=True)
class ArrayLayout:
    """How an array is cut and stored, as its ``zarr.json`` says.

    Attributes:
        shape: of the array.
        dtype: of its elements.
        shard_rows: rows of each shard but the last.
        chunk_rows: rows of a chunk; the last chunk of the array is stored full.
        compression: of the chunks.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shard_rows: int
    chunk_rows: int
    compression: Compression

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk, decoded."""
        return self.chunk_rows * self.row_bytes

    @property
    def index_bytes(self) -> int:
        """Bytes of a shard's index with its checksum, at the end of the file."""
        return self.shard_rows // self.chunk_rows * _INDEX_ENTRY.itemsize + _CRC_BYTES

    def rows(self, shard: int) -> int:
        """Rows of one shard."""
        return min(self.shard_rows, self.shape[0] - shard * self.shard_rows)

    def chunks(self, shard: int) -> int:
        """Chunks that one shard holds."""
        return -(-self.rows(shard) // self.chunk_rows)

    def data_bytes(self, shard: int) -> int:
        """Bytes of one shard's data part, decoded: whole chunks."""
        return self.chunks(shard) * self.chunk_bytes

    def view(self, memory: Memory, shard: int) -> npt.NDArray[Any]:
        """Look at a decoded data part, uint8, as the rows of a shard; no copy."""
        flat = memory[: self.rows(shard) * self.row_bytes].view(self.dtype)
        return flat.reshape(self.rows(shard), *self.shape[1:])


def create_array(
    folder: Path,
    name: str,
    rows: int,
    row_shape: tuple[int, ...],
    dtype: str,
    shard_rows: int,
    compression: Compression = "none",
) -> None:
    """Create the metadata of an array; no data are written.

    Args:
        folder: the Zarr group.
        name: of the array.
        rows: length of axis 0.
        row_shape: shape of one row.
        dtype: numpy dtype name.
        shard_rows: rows a shard; their bytes must be whole pages (:data:`PAGE_BYTES`).
        compression: "none" to map the shards in place, "lz4" for object stores.
    """
    itemsize = np.dtype(dtype).itemsize
    row_bytes = itemsize * math.prod(row_shape)
    if shard_rows < 1 or shard_rows * row_bytes % PAGE_BYTES:
        raise ValueError(f"bytes of {shard_rows} rows of {row_bytes}: no multiple of {PAGE_BYTES}")
    wanted = min(CHUNK_BYTES, max(rows * row_bytes, SMALL_CHUNK_BYTES))  # whole ones are stored
    chunk_rows = shard_rows
    while chunk_rows % 2 == 0 and chunk_rows * row_bytes > wanted:
        chunk_rows //= 2
    packed = BloscCodec(typesize=itemsize, cname="lz4", clevel=5, shuffle="bitshuffle", blocksize=0)
    zarr.open_group(str(folder), mode="r+").create_array(
        name,
        shape=(rows, *row_shape),
        shards=(shard_rows, *row_shape),
        chunks=(chunk_rows, *row_shape),
        dtype=dtype,
        compressors=packed if compression == "lz4" else None,
        filters=None,
        fill_value=0,
    )


def write_shard(folder: Path, array: str, start: int, rows: npt.NDArray[Any]) -> Path:
    """Write one whole shard, durably; the only writer of that shard.

    Args:
        folder: the Zarr group.
        array: name of the array.
        start: first row, a multiple of the shard's rows.
        rows: all rows of the shard (the last shard of the array may be short).

    Returns:
        Path of the shard file, relative to ``folder``.
    """
    # An all-zero chunk must lie in the file too, or the shard is no longer contiguous. The setting
    # is not stored with the array, and zarr 3.1.6 ignores it as an argument of open_array.
    target = zarr.open_array(str(folder / array), mode="r+").with_config(
        {"write_empty_chunks": True}
    )
    shards = target.shards
    if shards is None or start % shards[0]:
        raise ValueError(f"row {start} does not begin a shard of {array!r}")
    if len(rows) != min(shards[0], target.shape[0] - start):
        raise ValueError(f"{len(rows)} rows are not the whole shard at row {start} of {array!r}")
    target[start : start + len(rows)] = rows
    # Zarr v3 names a chunk file by its grid position; ours differ along axis 0 only.
    relative = Path(array, "c", str(start // shards[0]), *["0"] * (target.ndim - 1))
    with (folder / relative).open("rb") as stream:
        os.fsync(stream.fileno())
    return relative


def read_layout(metadata: bytes, place: Place) -> ArrayLayout:
    """Read how an array is stored.

    Args:
        metadata: content of the array's ``zarr.json``.
        place: where it lies, for messages.

    Raises:
        CorruptDataError: it is no array that :func:`create_array` could have made.
    """
    try:
        stored = ArrayV3Metadata.from_dict(json.loads(metadata))
        shape, shards, chunks = stored.shape, stored.shards, stored.chunks
        dtype = stored.data_type.to_native_dtype()
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError) as error:
        raise CorruptDataError(f"{place}: the metadata can't be read: {error}") from error
    compression = _compression(stored.codecs)
    if compression is None or shards is None or not shards[1:] == shape[1:] == chunks[1:]:
        raise CorruptDataError(f"{place}: not stored as {_PLAIN}, nor as lz4 ones")
    return ArrayLayout(shape, dtype, shards[0], chunks[0], compression)


def _compression(codecs: tuple[object, ...]) -> Compression | None:
    """Tell a tier by its codecs; None if it is neither."""
    sharding = codecs[0] if len(codecs) == 1 else None
    if not isinstance(sharding, ShardingCodec) or sharding.index_location.value != "end":
        return None
    chunk, index = sharding.codecs, sharding.index_codecs
    orders = {codec.endian for codec in (*chunk, *index) if isinstance(codec, BytesCodec)}
    if [type(codec) for codec in index] != [BytesCodec, Crc32cCodec] or Endian.big in orders:
        return None
    kinds, last = [type(codec) for codec in chunk], chunk[-1]
    if kinds == [BytesCodec, BloscCodec] and isinstance(last, BloscCodec):
        return "lz4" if last.cname is BloscCname.lz4 else None
    return "none" if kinds == [BytesCodec] else None


def in_order(
    layout: ArrayLayout, records: Sequence[ShardRecord], place: Place
) -> list[ShardRecord]:
    """Return the records of an array in the order of its rows.

    Raises:
        CorruptDataError: they don't cover the array's rows, each exactly once.
    """
    ordered = sorted(records, key=lambda record: record.shard)
    starts = range(0, layout.shape[0], layout.shard_rows)
    expected = [(n, start, start + layout.rows(n)) for n, start in enumerate(starts)]
    if [(record.shard, record.start, record.stop) for record in ordered] != expected:
        raise CorruptDataError(f"{place}: the manifest does not cover its rows")
    return ordered


def decode_shard(
    raw: bytes | memoryview | Memory,
    layout: ArrayLayout,
    shard: int,
    out: Memory | None = None,
    place: Place = "shard",
) -> npt.NDArray[Any]:
    """Turn the bytes of a whole shard into its rows.

    Args:
        raw: the whole object or file.
        layout: of the array.
        shard: number of the shard along axis 0.
        out: memory to decode into, uint8, at least ``layout.data_bytes(shard)`` long. Reuse it from
            shard to shard: allocations of this size fault in every page anew.
        place: name of the shard, for messages.

    Returns:
        The rows, shape ``(layout.rows(shard), *row)``: a view of ``out``, or of ``raw`` if that is
        not compressed.

    Raises:
        CorruptDataError: the index or a chunk is damaged.
    """
    memory = np.frombuffer(raw, dtype=np.uint8)
    index = _read_index(memory[-layout.index_bytes :], layout, shard, place)
    if layout.compression == "none":
        _check_end_to_end(index, len(memory) - layout.index_bytes, layout, place)
        return layout.view(memory, shard)
    _check_chunks(memory, index, layout, place)
    out = np.empty(layout.data_bytes(shard), dtype=np.uint8) if out is None else out
    size = layout.chunk_bytes
    begins, counts = index["offset"].tolist(), index["bytes"].tolist()
    # zarr turns blosc's own threads off, so this runs in the calling thread alone, without the GIL.
    for number, (begin, count) in enumerate(zip(begins, counts, strict=True)):
        target = out[number * size : (number + 1) * size]
        try:
            blosc.decompress(memory[begin : begin + count], target)
        except RuntimeError as error:
            raise CorruptDataError(f"{place}: chunk {number} is damaged: {error}") from error
    return layout.view(out, shard)


def plain_index(layout: ArrayLayout, shard: int) -> bytes:
    """Return the index, with its checksum, of a shard whose chunks lie end to end, uncompressed."""
    used, size = layout.chunks(shard), np.uint64(layout.chunk_bytes)
    index = np.full(layout.shard_rows // layout.chunk_rows, _ABSENT, dtype=_INDEX_ENTRY)
    index["offset"][:used] = np.arange(used, dtype=np.uint64) * size
    index["bytes"][:used] = size
    content = index.tobytes()
    crc: int = google_crc32c.value(content)
    return content + crc.to_bytes(_CRC_BYTES, "little")


def map_shards(folder: Path, array: str, shards: Sequence[ShardRecord]) -> npt.NDArray[Any]:
    """Map all shards of an uncompressed array into one read-only numpy array.

    The caller has verified the shard files against the manifest.

    Args:
        folder: the data set.
        array: name of the array.
        shards: its manifest records.

    Returns:
        The array, shape and dtype as stored; pages are read from disk when touched.

    Raises:
        CorruptDataError: the shards are not laid out as :func:`write_shard` lays them out.
    """
    place = folder / array
    try:
        layout = read_layout((place / "zarr.json").read_bytes(), place)
    except OSError as error:
        raise CorruptDataError(f"{place}: the metadata can't be read: {error}") from error
    if layout.compression != "none":
        raise CorruptDataError(f"{place}: not stored as {_PLAIN}")
    ordered = in_order(layout, shards, place)
    if not ordered:
        return np.zeros(layout.shape, dtype=layout.dtype)
    pieces: list[tuple[Path, int]] = []
    for record in ordered:
        path = folder / record.path
        with path.open("rb") as stream:
            room = stream.seek(0, os.SEEK_END) - layout.index_bytes
            stream.seek(max(0, room))
            tail = np.frombuffer(stream.read(), dtype=np.uint8)
        index = _read_index(tail, layout, record.shard, path)
        _check_end_to_end(index, room, layout, path)
        pieces.append((path, layout.data_bytes(record.shard)))
    flat = np.asarray(_Stitched(pieces, layout.shard_rows * layout.row_bytes))
    rows: npt.NDArray[Any] = flat[: layout.shape[0] * layout.row_bytes].view(layout.dtype)
    return rows.reshape(layout.shape)


def _read_index(tail: Memory, layout: ArrayLayout, shard: int, place: Place) -> npt.NDArray[Any]:
    """Return the entries of the chunks that a shard holds, from the end of its bytes."""
    content = tail[:-_CRC_BYTES]
    stated = int.from_bytes(tail[-_CRC_BYTES:].tobytes(), "little")
    if len(tail) != layout.index_bytes or google_crc32c.value(content.tobytes()) != stated:
        raise CorruptDataError(f"{place}: the shard's index is damaged")
    used = layout.chunks(shard)
    index = np.frombuffer(content.tobytes(), dtype=_INDEX_ENTRY)
    if (index["offset"][:used] == _ABSENT).any():
        raise CorruptDataError(f"{place}: a chunk is missing from the shard")
    return index[:used]


def _check_end_to_end(
    index: npt.NDArray[Any], room: int, layout: ArrayLayout, place: Place
) -> None:
    """Prove by the shard's own index that its chunks lie end to end from byte 0."""
    size = np.uint64(layout.chunk_bytes)
    expected = np.arange(len(index), dtype=np.uint64) * size
    plain = np.array_equal(index["offset"], expected) and (index["bytes"] == size).all()
    if not plain or room < len(index) * layout.chunk_bytes:
        raise CorruptDataError(f"{place}: the shard's chunks do not lie end to end")


def _check_chunks(
    memory: Memory, index: npt.NDArray[Any], layout: ArrayLayout, place: Place
) -> None:
    """Prove that each compressed chunk lies in the shard and will fill exactly its place."""
    room = np.uint64(len(memory) - layout.index_bytes)
    begin, count = index["offset"], index["bytes"]
    inside = (begin <= room) & (count <= room - np.minimum(begin, room)) & (count >= _BLOSC_HEADER)
    if not inside.all():
        raise CorruptDataError(f"{place}: the shard's index points outside of it")
    places = begin.astype(np.int64)[:, None] + np.arange(_BLOSC_HEADER)
    _, plain, _, packed = memory[places].view("<u4").T
    if (plain != layout.chunk_bytes).any() or (packed != count).any():
        raise CorruptDataError(f"{place}: a chunk has not the size that it should have")


class _Stitched:
    """Memory over which the data parts of several files are mapped, end to end, read-only.

    Reserves one range of addresses, then maps each file over its part of it. numpy keeps this
    object alive through ``__array_interface__``; the range is released with it.
    """

    def __init__(self, pieces: list[tuple[Path, int]], stride: int) -> None:
        self._libc = CDLL(None, use_errno=True)
        self._libc.mmap.restype = c_void_p
        self._libc.mmap.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
        self._libc.munmap.argtypes = [c_void_p, c_size_t]
        self._size = stride * (len(pieces) - 1) + pieces[-1][1]
        if len(pieces) > 1 and stride % mmap.PAGESIZE:
            raise CorruptDataError(
                f"{pieces[0][0]}: shards of {stride} bytes can't be mapped with pages of "
                f"{mmap.PAGESIZE} bytes; build the data set with more rows a shard"
            )
        self._address = 0
        self._address = self._map(None, self._size, _PROT_NONE, mmap.MAP_ANONYMOUS, -1)
        for number, (path, size) in enumerate(pieces):
            with path.open("rb") as stream:
                place = self._address + number * stride
                self._map(place, size, mmap.PROT_READ, _MAP_FIXED, stream.fileno())
        self.__array_interface__ = {
            "shape": (self._size,),
            "typestr": "|u1",
            "data": (self._address, True),
            "version": 3,
        }

    def _map(self, place: int | None, size: int, protection: int, flags: int, file: int) -> int:
        address: int = self._libc.mmap(place, size, protection, mmap.MAP_PRIVATE | flags, file, 0)
        if address == c_void_p(-1).value:
            code = get_errno()
            raise OSError(code, f"mapping {size:,} bytes of shards: {os.strerror(code)}")
        return address

    def __del__(self) -> None:
        if self._address:
            self._libc.munmap(self._address, self._size)

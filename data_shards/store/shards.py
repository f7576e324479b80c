"""Shard files of a Zarr v3 array: created and written whole, mapped back as one numpy array.

All arrays are split along axis 0 only and stored uncompressed, so the data part of a shard is the
raw rows, followed by the chunk index. That keeps them readable by any Zarr v3 library, and lets
:func:`map_shards` lay the data parts of all shards end to end in memory without copying.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BytesCodec, ShardingCodec

from data_shards.errors import CorruptDataError
from data_shards.store.manifest import ShardRecord

# Mapping needs data parts that are whole memory pages (4 KiB, on some machines 16 or 64 KiB).
ROW_QUANTUM = 4096
CHUNK_BYTES = 1 << 20
SHARD_BYTES = 32 << 20

_INDEX_ENTRY = np.dtype([("offset", "<u8"), ("bytes", "<u8")])
_MAP_FIXED, _PROT_NONE = 0x10, 0  # missing from the mmap module of Python 3.11


def create_array(
    folder: Path, name: str, rows: int, row_shape: tuple[int, ...], dtype: str, shard_rows: int
) -> None:
    """Create the metadata of an array; no data are written.

    Args:
        folder: the Zarr group.
        name: of the array.
        rows: length of axis 0.
        row_shape: shape of one row.
        dtype: numpy dtype name.
        shard_rows: rows a shard, a multiple of :data:`ROW_QUANTUM`.
    """
    if shard_rows % ROW_QUANTUM:
        raise ValueError(f"shard_rows ({shard_rows}) must be a multiple of {ROW_QUANTUM}")
    row_bytes = np.dtype(dtype).itemsize * int(np.prod(row_shape, dtype=np.int64))
    chunk_rows = shard_rows
    while chunk_rows % 2 == 0 and chunk_rows * row_bytes > CHUNK_BYTES:
        chunk_rows //= 2
    zarr.open_group(str(folder), mode="r+").create_array(
        name,
        shape=(rows, *row_shape),
        shards=(shard_rows, *row_shape),
        chunks=(chunk_rows, *row_shape),
        dtype=dtype,
        compressors=None,
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


def map_shards(folder: Path, array: str, shards: list[ShardRecord]) -> npt.NDArray[Any]:
    """Map all shards of an array into one read-only numpy array.

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
    stored = zarr.open_array(str(folder / array), mode="r")
    shard_rows, chunk_rows = _layout(folder / array, stored)
    dtype, shape = stored.dtype, stored.shape
    row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    if shape[0] == 0:
        return np.zeros(shape, dtype=dtype)
    pieces: list[tuple[Path, int]] = []
    for number, shard in enumerate(sorted(shards, key=lambda s: s.shard)):
        rows = min(shard_rows, shape[0] - number * shard_rows)
        if (shard.shard, shard.start, shard.stop - shard.start) != (
            number,
            number * shard_rows,
            rows,
        ):
            raise CorruptDataError(f"{folder / array}: the manifest does not cover its rows")
        chunks = -(-rows // chunk_rows)
        _check_index(folder / shard.path, shard_rows // chunk_rows, chunks, chunk_rows * row_bytes)
        pieces.append((folder / shard.path, chunks * chunk_rows * row_bytes))
    if sum(shard.stop - shard.start for shard in shards) != shape[0]:
        raise CorruptDataError(f"{folder / array}: the manifest does not cover its rows")
    flat = np.asarray(_Stitched(pieces, shard_rows * row_bytes))
    return flat[: shape[0] * row_bytes].view(dtype).reshape(shape)


def _layout(path: Path, stored: zarr.Array[Any]) -> tuple[int, int]:
    """Return rows a shard and rows a chunk, or refuse a layout that can't be mapped."""
    codecs = stored.metadata.codecs  # type: ignore[union-attr]
    plain = (
        len(codecs) == 1
        and isinstance(codecs[0], ShardingCodec)
        and all(isinstance(codec, BytesCodec) for codec in codecs[0].codecs)
        and codecs[0].index_location.value == "end"
        and stored.shards is not None
        and stored.shards[1:] == stored.shape[1:] == stored.chunks[1:]
    )
    if not plain or stored.shards is None:
        raise CorruptDataError(f"{path}: not stored as whole uncompressed shards along axis 0")
    return stored.shards[0], stored.chunks[0]


def _check_index(path: Path, entries: int, used: int, chunk_bytes: int) -> None:
    """Prove by the shard's own index that its chunks lie end to end from byte 0."""
    size = entries * _INDEX_ENTRY.itemsize
    with path.open("rb") as stream:
        stream.seek(-(size + 4), os.SEEK_END)
        raw = stream.read()
    if google_crc32c.value(raw[:size]) != int.from_bytes(raw[size:], "little"):
        raise CorruptDataError(f"{path}: the shard's index is damaged")
    index = np.frombuffer(raw[:size], dtype=_INDEX_ENTRY)[:used]
    expected = np.arange(used, dtype=np.uint64) * np.uint64(chunk_bytes)
    if not (np.array_equal(index["offset"], expected) and (index["bytes"] == chunk_bytes).all()):
        raise CorruptDataError(f"{path}: the shard's chunks do not lie end to end")


class _Stitched:
    """Memory over which the data parts of several files are mapped, end to end, read-only.

    Reserves one range of addresses, then maps each file over its part of it. numpy keeps this
    object alive through ``__array_interface__``; the range is released with it.
    """

    def __init__(self, pieces: list[tuple[Path, int]], stride: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            *[ctypes.c_int] * 3,
            ctypes.c_long,
        ]
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
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
        if address == ctypes.c_void_p(-1).value:
            code = ctypes.get_errno()
            raise OSError(code, f"mapping {size:,} bytes of shards: {os.strerror(code)}")
        return address

    def __del__(self) -> None:
        if self._address:
            self._libc.munmap(self._address, self._size)

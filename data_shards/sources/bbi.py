"""The container of bigWig and bigBed: header, contig table, index and data blocks, all checked.

The library that reads the values trusts the file: a damaged block panics, a damaged index asks for
exabytes of memory (which ends the process) or hides values without a word. So a file is walked
here once before it is handed on.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError

Kind = Literal["bigWig", "bigBed"]

_MAGIC: dict[Kind, int] = {"bigWig": 0x888FFC26, "bigBed": 0x8789F2EB}
_TABLE_MAGIC = 0x78CA8C91
_INDEX_MAGIC = 0x2468ACE0
_HEADER = "<IHHQQQHHQQIQ"
_HEADER_BYTES = 64
_RANGE = [("first", "<u4"), ("start", "<u4"), ("last", "<u4"), ("end", "<u4")]
_LEAF = np.dtype([*_RANGE, ("offset", "<u8"), ("size", "<u8")])
_BRANCH = np.dtype([*_RANGE, ("offset", "<u8")])
_LONGEST_NAME = 1 << 16


@dataclass(frozen=True)
class Bbi:
    """What the header, contig table and index of a bigWig or bigBed file say.

    Attributes:
        path: the file.
        inflated: largest size of a data block in bytes once inflated; 0 if blocks are not packed.
        fields: columns of a record (bigBed).
        defined: how many of them, from the left, are those of BED (bigBed).
        names: the contig's name by the file's own number for it.
        lengths: name -> length in bp.
        blocks: structured array, shape (blocks,), in the order of the file: ``first``, ``start``,
            ``last``, ``end`` (file's contig number and 0-based position where the block's records
            begin and end), ``offset`` and ``size`` in bytes.
    """

    path: Path
    inflated: int
    fields: int
    defined: int
    names: dict[int, str]
    lengths: dict[str, int]
    blocks: npt.NDArray[np.void]


def read_bbi(path: Path, kind: Kind) -> Bbi:
    """Read and check everything of a bigWig or bigBed file but its data blocks.

    Raises:
        InputError: not a file of this kind, truncated, without data, or with a damaged contig
            table or index.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        _check_magic(path, stream, kind, size)
        fields = struct.unpack(_HEADER, _read(path, stream, 0, _HEADER_BYTES))
        _, _, _, table, _, index, columns, defined, _, _, inflated, _ = fields
        names, lengths = _contig_table(path, stream, table)
        blocks = _index(path, stream, index, size)
    if not len(blocks):
        raise InputError("the file has no records", path=path, remedy="give a file with records")
    return Bbi(path, inflated, columns, defined, names, lengths, blocks)


def data_blocks(bbi: Bbi) -> Iterator[bytes]:
    """Yield the content of each data block, unpacked, in the order of the file.

    Memory is one block. Packed blocks carry a checksum, which is checked.

    Raises:
        InputError: a block is damaged.
    """
    with bbi.path.open("rb") as stream:
        for offset, size in zip(
            bbi.blocks["offset"].tolist(), bbi.blocks["size"].tolist(), strict=True
        ):
            packed = _read(bbi.path, stream, offset, size)
            yield _inflate(bbi, packed, offset) if bbi.inflated else packed


def damaged(path: Path, what: str) -> InputError:
    """Return the error for a file whose bytes contradict each other."""
    return InputError(
        f"damaged file: {what}",
        path=path,
        remedy="copy or download the file again, or make it anew",
    )


def _check_magic(path: Path, stream: IO[bytes], kind: Kind, size: int) -> None:
    """Check the magic number, which stands at both ends of the file."""
    first = stream.read(4)
    found = next((k for k, magic in _MAGIC.items() if first == struct.pack("<I", magic)), None)
    if found is None:
        raise InputError(
            f"not a {kind} file: it begins with {first!r}",
            path=path,
            remedy=f"give a {kind} file, not packed; text has its own readers (bedGraph, BED)",
        )
    if found != kind:
        raise InputError(
            f"this is a {found} file, not {kind}",
            path=path,
            remedy=f"give it as {found}, or give a {kind} file",
        )
    stream.seek(max(size - 4, 0))
    if size < _HEADER_BYTES or stream.read(4) != first:
        raise InputError(
            f"the {kind} file is truncated: its end mark is missing",
            path=path,
            remedy="copy or download the file again",
        )


def _contig_table(path: Path, stream: IO[bytes], at: int) -> tuple[dict[int, str], dict[str, int]]:
    """Walk the B+ tree of contig names."""
    magic, _, key_bytes, value_bytes, count, _ = struct.unpack(
        "<IIIIQQ", _read(path, stream, at, 32)
    )
    if magic != _TABLE_MAGIC or value_bytes != 8 or not 0 < key_bytes < _LONGEST_NAME:
        raise damaged(path, "no contig table where the header says")
    item = np.dtype([("key", f"S{key_bytes}"), ("id", "<u4"), ("length", "<u4")])
    branch = np.dtype([("key", f"S{key_bytes}"), ("offset", "<u8")])
    names: dict[int, str] = {}
    lengths: dict[str, int] = {}
    for leaf, items in _nodes(path, stream, at + 32, item, branch):
        if leaf:
            for key, number, length in items.tolist():
                name = key.decode("utf-8", "replace")
                if number in names or name in lengths or not name or "\0" in name:
                    raise damaged(path, f"contig {name!r} in the contig table")
                names[number], lengths[name] = name, length
    if len(names) != count:
        raise damaged(path, f"the contig table has {len(names)} entries where it states {count:,}")
    return names, lengths


def _index(path: Path, stream: IO[bytes], at: int, size: int) -> npt.NDArray[np.void]:
    """Walk the R tree over the data blocks; return its leaves in the order of the file."""
    magic, _, count = struct.unpack("<IIQ", _read(path, stream, at, 48)[:16])
    if magic != _INDEX_MAGIC:
        raise damaged(path, "no index where the header says")
    leaves: list[npt.NDArray[np.void]] = [np.zeros(0, dtype=_LEAF)]
    covers: dict[int, tuple[int, int, int, int]] = {}
    for leaf, items in _nodes(path, stream, at + 48, _LEAF, _BRANCH, covers):
        if leaf:
            leaves.append(items)
    blocks = np.concatenate(leaves)
    if len(blocks) != count:
        raise damaged(path, f"the index has {len(blocks):,} entries where it states {count:,}")
    blocks = blocks[np.argsort(blocks["offset"], kind="stable")]
    offset = blocks["offset"].astype(np.float64)  # as a float, a wild 64-bit sum can't wrap
    ends = offset + blocks["size"].astype(np.float64)
    if len(blocks) and (
        offset[0] < _HEADER_BYTES or ends[-1] > size or (ends[:-1] > offset[1:]).any()
    ):
        raise damaged(path, "the index points outside the data")
    return blocks


def _nodes(
    path: Path,
    stream: IO[bytes],
    root: int,
    leaf_type: np.dtype[np.void],
    branch_type: np.dtype[np.void],
    covers: dict[int, tuple[int, int, int, int]] | None = None,
) -> Iterator[tuple[bool, npt.NDArray[np.void]]]:
    """Yield the nodes of a tree from its root on: whether it is a leaf, and its items.

    With ``covers``, each node must lie within the range that its parent states: a reader that
    descends by ranges would pass over it otherwise.
    """
    pending, seen = [root], {root}
    while pending:
        at = pending.pop()
        is_leaf, _, count = struct.unpack("<BBH", _read(path, stream, at, 4))
        if is_leaf > 1:
            raise damaged(path, "a node of a tree is neither leaf nor branch")
        kind = leaf_type if is_leaf else branch_type
        items = np.frombuffer(_read(path, stream, at + 4, count * kind.itemsize), dtype=kind)
        if covers is not None and at in covers and not _inside(items, covers[at]):
            raise damaged(path, "a part of the index lies outside the range of its parent")
        if not is_leaf:
            for child, item in zip(items["offset"].tolist(), items.tolist(), strict=True):
                if child in seen:
                    raise damaged(path, "a tree of the file refers to itself")
                if covers is not None:
                    covers[child] = item[:4]
                seen.add(child)
                pending.append(child)
        yield bool(is_leaf), items


def _inside(items: npt.NDArray[np.void], cover: tuple[int, int, int, int]) -> bool:
    first, start, last, end = cover
    return all(
        (first, start) <= (item[0], item[1]) and (item[2], item[3]) <= (last, end)
        for item in items.tolist()
    )


def _inflate(bbi: Bbi, packed: bytes, offset: int) -> bytes:
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(packed, bbi.inflated + 1)
    except zlib.error as error:
        raise damaged(bbi.path, f"the data block at byte {offset:,} ({error})") from error
    if not decoder.eof or len(content) > bbi.inflated:
        raise damaged(bbi.path, f"the data block at byte {offset:,} is incomplete or too large")
    return content


def _read(path: Path, stream: IO[bytes], at: int, count: int) -> bytes:
    """Read exactly so many bytes, or say that the file ends before them."""
    if at + count > os.fstat(stream.fileno()).st_size:
        raise damaged(path, f"it refers to byte {at + count:,}, beyond its end")
    stream.seek(at)
    return stream.read(count)

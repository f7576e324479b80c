"""What every source file is checked for before it is read: present, whole, and which bytes."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from data_shards.errors import InputError

_BLOCK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class SourceFile:
    """Identity of an input file: its name, size in bytes and sha256 of the bytes on disk."""

    name: str
    bytes: int
    sha256: str


def identify(path: Path) -> SourceFile:
    """Read a file once: hash it and, if it is gzip, prove that it is complete.

    Raises:
        InputError: missing, a directory, empty, or a truncated or damaged gzip file.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise InputError(what, path=path, remedy="give the path of a file that exists")
    digest = hashlib.sha256()
    inflated = 0
    compressed = is_gzip(path)
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                while compressed and block:
                    inflated += len(decoder.decompress(block))
                    block = decoder.unused_data
                    if decoder.eof and block:  # another gzip member follows (as in bgzip files)
                        decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
    except zlib.error as error:
        raise InputError(
            f"damaged gzip data ({error})", path=path, remedy="copy or download the file again"
        ) from error
    if compressed and not decoder.eof:
        raise InputError(
            f"the gzip data stop in the middle, after {inflated:,} bytes of content",
            path=path,
            remedy="the file is truncated: copy or download it again",
        )
    size = path.stat().st_size
    if size == 0 or (compressed and inflated == 0):
        raise InputError("the file is empty", path=path, remedy="give a file that has records")
    return SourceFile(path.name, size, digest.hexdigest())


def is_gzip(path: Path) -> bool:
    """Tell by the first two bytes whether a file is gzip (bgzip is gzip too)."""
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzip file for reading its content as bytes."""
    if is_gzip(path):
        with gzip.open(path, "rb") as packed:
            yield cast("IO[bytes]", packed)
    else:
        with path.open("rb") as plain:
            yield plain

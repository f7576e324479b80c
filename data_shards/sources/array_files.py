"""Where an array lies in a .npy or .npz file, and how samples are read from it."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError

ReadSamples = Callable[[int, int], npt.NDArray[Any]]
Opened = Callable[[], AbstractContextManager[ReadSamples]]

AGAIN = "copy or download the file again"
_LISTED = 12  # names in a message


@dataclass(frozen=True)
class StoredArray:
    """An array that was found in a file.

    Attributes:
        name: in the file; None for .npy.
        shape: in the order of the file's axes (MATLAB 7.3: turned back to MATLAB's order).
        dtype: as stored.
        chunk: samples that are stored together.
        opened: opens the file to read samples [start, stop), which come on axis 0.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: int
    opened: Opened


@dataclass(frozen=True)
class _Layout:
    """What the header of a .npy file says; ``start`` is the offset of the values in it."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def find_npy(path: Path, name: str | None, axis: int) -> StoredArray:
    """Find the array of a .npy file.

    Raises:
        InputError: a broken header, or values missing or left over.
    """
    if name is not None:
        raise InputError(
            f"array {name!r} is asked for, but a .npy file has one array without a name",
            path=path,
            remedy="leave the name out",
        )
    with path.open("rb") as stream:
        layout = _npy_layout(path, stream, path.stat().st_size)
    return StoredArray(None, layout.shape, layout.dtype, 1, partial(_mapped, path, 0, layout, axis))


def find_npz(path: Path, name: str | None, axis: int) -> StoredArray:
    """Find an array of a .npz file: mapped if it is stored, inflated as a stream if compressed.

    Raises:
        InputError: no sound zip file, no such member, or a broken one.
    """
    with _zip(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        names = [member.filename.removesuffix(".npy") for member in members]
        member = members[chosen_array(path, names, name)]
        with archive.open(member) as stream:
            layout = _npy_layout(path, stream, member.file_size)
        plain = member.compress_type == zipfile.ZIP_STORED
        if plain:
            _check_stored(archive, member)
    found = member.filename.removesuffix(".npy")
    opened: Opened
    if plain:
        offset = _member_offset(path, member)
        opened = partial(_mapped, path, offset, layout, axis)
    else:
        opened = partial(_inflated, path, member.filename, layout, axis)
    return StoredArray(found, layout.shape, layout.dtype, 1, opened)


@contextmanager
def _mapped(path: Path, offset: int, layout: _Layout, axis: int) -> Iterator[ReadSamples]:
    values = np.memmap(
        path,
        layout.dtype,
        "r",
        offset + layout.start,
        layout.shape,
        "F" if layout.fortran else "C",
    )
    turned = np.moveaxis(values, axis, 0)
    yield lambda start, stop: np.array(turned[start:stop])


@contextmanager
def _inflated(path: Path, member: str, layout: _Layout, axis: int) -> Iterator[ReadSamples]:
    """Read from a compressed member, which can only be inflated from its beginning.

    The values are (outer, samples, inner) in the order of the file. With one ``outer`` the samples
    follow each other and reading them in order inflates once; else each read inflates all.
    """
    shape = layout.shape[::-1] if layout.fortran else layout.shape
    within = len(shape) - 1 - axis if layout.fortran else axis
    outer, inner = math.prod(shape[:within]), math.prod(shape[within + 1 :])
    item = layout.dtype.itemsize
    with _zip(path) as archive, archive.open(member) as stream:

        def read(start: int, stop: int) -> npt.NDArray[Any]:
            values = np.empty((outer, (stop - start) * inner), dtype=layout.dtype)
            for part in range(outer):
                at = layout.start + (part * shape[within] + start) * inner * item
                content = _stretch(stream, at, values.shape[1] * item)
                values[part] = np.frombuffer(content, dtype=layout.dtype)
            if start < stop == shape[within]:
                # The checksum is only looked at when the member has been read beyond its end.
                stream.read(1)
            whole = values.reshape(*shape[:within], stop - start, *shape[within + 1 :])
            return np.moveaxis(whole.T if layout.fortran else whole, axis, 0)

        yield read


def _npy_layout(path: Path, stream: IO[bytes], size: int) -> _Layout:
    """Read the header of a .npy file, and check that its values fill the file."""
    formats = np.lib.format
    try:
        version = formats.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = formats.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = formats.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version} of the format")
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}")
    except (ValueError, tokenize.TokenError) as error:
        raise InputError(
            f"the header of the array can't be read ({error})", path=path, remedy=AGAIN
        ) from error
    layout = _Layout(shape, fortran, dtype, stream.tell())
    if not dtype.hasobject and layout.stop != size:
        raise InputError(
            f"an array of shape {shape} and type {dtype} ends at byte {layout.stop:,}, but the "
            f"file at byte {size:,}",
            path=path,
            remedy=AGAIN if layout.stop > size else "save one array in a file",
        )
    return layout


def chosen_array(path: Path, names: Sequence[str], name: str | None) -> int:
    """Return the number of the named array, or of the only one.

    Raises:
        InputError: there is none of that name, or a choice without a name; lists what is there.
    """
    shown = ", ".join(sorted(names)[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    if not names:
        raise InputError("there is no array in the file", path=path, remedy="give another file")
    if name is None:
        if len(names) == 1:
            return 0
        raise InputError(
            f"which of the {len(names)} arrays is meant?", path=path, remedy=f"name one of: {shown}"
        )
    name = name.strip("/")
    if names.count(name) != 1:
        problem = "is there twice" if name in names else "is not in the file"
        raise InputError(f"array {name!r} {problem}", path=path, remedy=f"there is: {shown}")
    return list(names).index(name)


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        raise InputError(f"damaged .npz ({error})", path=path, remedy=AGAIN) from error


def _check_stored(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Read a stored member once, so that its checksum is looked at: later it is only mapped."""
    with archive.open(member) as stream:
        while stream.read(1 << 20):
            pass


def _member_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the content of a stored member begins in the .npz file."""
    with path.open("rb") as stream:
        stream.seek(member.header_offset + 26)
        name, extra = struct.unpack("<2H", stream.read(4))
    return int(member.header_offset + 30 + name + extra)


def _stretch(stream: IO[bytes], start: int, size: int) -> bytes:
    stream.seek(start)
    content = stream.read(size)
    if len(content) != size:
        raise EOFError(f"{len(content):,} bytes at {start:,} where {size:,} should be")
    return content

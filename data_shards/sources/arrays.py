"""Arrays of numbers or short text in NumPy, HDF5 and MATLAB files, read by samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.sequence import ALPHABET, UNKNOWN, Codes
from data_shards.sources.array_files import StoredArray, find_npy, find_npz
from data_shards.sources.array_hdf5 import find_hdf5, find_matlab, is_hdf5

BUDGET = 32 << 20
"""Bytes of a block."""

_KINDS = "biufUS"


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array in a file, with the samples on its first axis whatever axis they have there.

    Attributes:
        path: the file.
        name: of the array in the file; None for .npy.
        shape: samples first, then the other axes in the order of the file.
        dtype: of the values, in the byte order of this machine.
        chunk: samples that are stored together: reading fewer costs as much.
        opened: opens the file; inside, a function reads samples [start, stop).
    """

    path: Path
    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: int
    opened: Callable[[], AbstractContextManager[Callable[[int, int], npt.NDArray[Any]]]]

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read samples ``start`` to ``stop`` (exclusive), shape ``(stop - start, *shape[1:])``.

        In a compressed .npz everything before ``start`` is inflated too: use :meth:`blocks` to
        read all.

        Raises:
            InputError: the range is not within the array, or the file is damaged.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise InputError(
                f"samples {start} to {stop} are asked for where there are {self.shape[0]}",
                path=self.path,
                remedy="ask for samples that exist",
            )
        with self.opened() as read:
            return self._native(read(start, stop))

    def blocks(self, budget_bytes: int = BUDGET) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Read all samples in order.

        Args:
            budget_bytes: of a block, which holds whole chunks where a chunk's samples fit; up to
                three times as much memory is used for a moment. One sample is read in any case.

        Yields:
            Number of the block's first sample, and the samples.

        Raises:
            InputError: the file is damaged.
        """
        step = max(budget_bytes // max(self.row_bytes, 1), 1)
        if step >= self.chunk:
            step -= step % self.chunk
        with self.opened() as read:
            for start in range(0, self.shape[0], step):
                yield start, self._native(read(start, min(start + step, self.shape[0])))

    def _native(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.ascontiguousarray(values, dtype=self.dtype)


def open_array(path: Path, name: str | None = None, sample_axis: int = 0) -> ArraySource:
    """Find an array in a file and check that it can be read; its values are not read yet.

    The kind of the file is told by its first bytes: .npy; .npz (stored or compressed); HDF5;
    MATLAB 5 (read whole) and 7.3. MATLAB files give the axes as MATLAB's ``size`` does: a 7.3 file
    is HDF5 with all axes reversed, and they are turned back. So DeepSEA's ``trainxdata``, which
    h5py shows as (1000, 4, N), is (N, 4, 1000) with samples on axis 0, as in its MATLAB 5 files.

    Args:
        path: the file.
        name: of the array (in HDF5 the path of a data set). May be left out if there is only one.
        sample_axis: which axis of the array, counted from 0, has the samples.

    Raises:
        InputError: not such a file, truncated or damaged; no such array (the message lists those
            that are there); objects, pickles, records, complex numbers or times; no sample axis,
            or no value; values that were never written or that lie in other files.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise InputError(what, path=path, remedy="give the path of a file that exists")
    with path.open("rb") as stream:
        head = stream.read(20)
    if head.startswith(b"\x93NUMPY"):
        found = find_npy(path, name, sample_axis)
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        found = find_npz(path, name, sample_axis)
    elif head.startswith(b"MATLAB 5.0 MAT-file"):
        found = find_matlab(path, name, sample_axis)
    elif is_hdf5(path):
        found = find_hdf5(path, name, sample_axis, matlab=head.startswith(b"MATLAB 7.3 MAT-"))
    else:
        raise InputError(
            f"begins with {head[:8]!r}, which is no array file",
            path=path,
            remedy="give .npy, .npz, HDF5, or .mat of MATLAB 5 or 7.3 (MATLAB 4: save it again)",
        )
    _check(path, found, sample_axis)
    shape = (found.shape[sample_axis], *found.shape[:sample_axis], *found.shape[sample_axis + 1 :])
    return ArraySource(
        path=path,
        name=found.name,
        shape=shape,
        dtype=found.dtype.newbyteorder("="),
        chunk=found.chunk,
        opened=found.opened,
    )


def onehot_to_codes(
    block: npt.NDArray[Any], channels: str = "ACGT", axis: int = 1, first: int = 0
) -> Codes:
    """Turn one-hot DNA into codes.

    Args:
        block: numbers or booleans, samples on axis 0.
        channels: the base of each channel, in order; DeepSEA has "AGCT".
        axis: of the four channels; not 0.
        first: number of the block's first sample, for the message.

    Returns:
        uint8 codes, the shape of ``block`` without ``axis``; 4 where all four are zero.

    Raises:
        InputError: the axis has not four channels; or four values that are neither one 1 and three
            0 nor all 0, with sample and position.
    """
    if sorted(channels) != sorted(ALPHABET[:4]):
        raise InputError(
            f"channels are {channels!r}", remedy="give each of A, C, G and T once, as in 'AGCT'"
        )
    if not 0 < axis < block.ndim or block.shape[axis] != len(channels):
        raise InputError(
            f"axis {axis} of a block of shape {block.shape} has not the four channels of DNA",
            remedy="axis 0 has the samples; give the axis that has length 4",
        )
    codes = np.full(np.delete(block.shape, axis), UNKNOWN, dtype=np.uint8)
    ones = np.zeros(codes.shape, dtype=np.uint8)
    odd = np.zeros(codes.shape, dtype=np.bool_)
    for channel, letter in enumerate(channels):
        values = np.take(block, channel, axis=axis)
        one = values == 1
        codes[one] = ALPHABET.index(letter)
        ones += one
        odd |= ~one & (values != 0)
    faults = np.argwhere(odd | (ones > 1))
    if len(faults):
        place = faults[0].tolist()
        values = np.moveaxis(block, axis, -1)[tuple(place)]
        where = place[1] if len(place) == 2 else tuple(place[1:])
        raise InputError(
            f"sample {first + place[0]}, position {where}: {values.tolist()} is not one-hot "
            f"({len(faults):,} places are not)",
            remedy="each position has one 1 and three 0, or four 0 for an unknown base",
        )
    return codes


def _check(path: Path, found: StoredArray, sample_axis: int) -> None:
    called = f"array {found.name!r}" if found.name else "the array"
    if found.dtype.kind not in _KINDS:
        raise InputError(
            f"{called} holds {found.dtype}",
            path=path,
            remedy="only integers, real numbers, booleans and text of fixed width are read "
            "(objects are pickles, which can run code: save plain arrays)",
        )
    if not 0 <= sample_axis < len(found.shape):
        raise InputError(
            f"{called} has shape {found.shape}, so no axis {sample_axis} for the samples",
            path=path,
            remedy="set sample_axis to one of its axes, counted from 0",
        )
    if 0 in found.shape:
        raise InputError(
            f"{called} has shape {found.shape}: no value", path=path, remedy="give another array"
        )

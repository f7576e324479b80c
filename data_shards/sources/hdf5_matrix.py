"""Matrices in HDF5, read with h5py in blocks along the axis in which the file lies.

Dense ones are cut along their chunks, so that no chunk is decompressed for each of many blocks.
Compressed sparse ones are cut along their major axis: CSR by samples, CSC by features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_shards.errors import InputError
from data_shards.sources.matrix import (
    BUDGET,
    Axis,
    Block,
    Place,
    checked_block,
    native_dtype,
)
from data_shards.sources.sparse_blocks import compressed_block, major_ranges
from data_shards.sources.tables import Table
from data_shards.sources.text_lines import require_file

if TYPE_CHECKING:
    import h5py

_DIRECTION = {"samples": 0, "features": 1}


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """A dense HDF5 data set, samples x features; see :class:`~.matrix.MatrixSource`.

    Attributes:
        dataset: its name in the file.
    """

    path: Path
    samples: tuple[str, ...]
    features: tuple[str, ...]
    dtype: np.dtype[Any]
    dataset: str
    sample_table: Table | None = None
    feature_table: Table | None = None
    sparse: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def blocks(self, budget_bytes: int = BUDGET) -> Iterator[Block]:
        """Read the values along the chunks of the data set.

        Raises:
            InputError: an infinite value, or damaged data.
        """
        with open_hdf5(self.path) as file:
            stored = file[self.dataset]
            axis, step = dense_step(stored.shape, stored.chunks, self.dtype.itemsize, budget_bytes)
            for start in range(0, stored.shape[_DIRECTION[axis]], step):
                part = slice(start, start + step)
                values = stored[part] if axis == "samples" else stored[:, part]
                yield checked_block(self, axis, start, values)


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A compressed sparse HDF5 group of samples x features; see :class:`~.matrix.MatrixSource`.

    Attributes:
        group: its name in the file; holds ``data``, ``indices`` and ``indptr``.
        major: which axis ``indptr`` runs along: "samples" (CSR) or "features" (CSC).
    """

    path: Path
    samples: tuple[str, ...]
    features: tuple[str, ...]
    dtype: np.dtype[Any]
    group: str
    major: Axis
    sample_table: Table | None = None
    feature_table: Table | None = None
    sparse: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def blocks(self, budget_bytes: int = BUDGET) -> Iterator[Block]:
        """Read the stored values, a range of the major axis at a time.

        Raises:
            InputError: an infinite value, an index outside the matrix or there twice, or damaged
                data.
        """
        minor = len(self.features if self.major == "samples" else self.samples)
        names = self.samples if self.major == "samples" else self.features
        with open_hdf5(self.path) as file:
            group = file[self.group]
            indptr = np.asarray(group["indptr"], dtype=np.int64)
            item = self.dtype.itemsize + group["indices"].dtype.itemsize
            for start, stop in major_ranges(indptr, max(budget_bytes // item, 1)):
                lo, hi = int(indptr[start]), int(indptr[stop])
                values = compressed_block(
                    self.path,
                    self.major,
                    group["data"][lo:hi],
                    group["indices"][lo:hi],
                    indptr[start : stop + 1] - lo,
                    minor,
                    names[start:stop],
                )
                yield checked_block(self, self.major, start, values)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; what h5py raises inside becomes an InputError.

    Raises:
        InputError: missing, no HDF5, truncated or damaged.
    """
    import h5py

    require_file(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        # Damage that HDF5 doesn't see itself comes out of h5py as a type or value that can't be.
        raise InputError(
            f"can't be read as HDF5 ({str(error)[:200]})",
            path=path,
            remedy="copy or download the file again, or say its format",
        ) from error


def member(path: Path, file: h5py.File, name: str, what: type | None = None) -> Any:
    """Return a data set or group of a file.

    Args:
        path: of the file, for the message.
        file: open file.
        name: of the member.
        what: ``h5py.Group`` for a group; a data set by default.

    Raises:
        InputError: there is none; lists what is there instead.
    """
    import h5py

    found = file.get(name)
    if isinstance(found, what or h5py.Dataset):
        return found
    parent: Any = file
    for part in name.split("/")[:-1]:
        inner = parent.get(part)
        if not isinstance(inner, h5py.Group):
            break
        parent = inner
    there = ", ".join(list(parent)[:12]) or "nothing"
    raise InputError(
        f"no {'group' if what else 'data set'} {name!r} in the file",
        path=path,
        remedy=f"in {parent.name!r} there is {there}: give a file of the stated format",
    )


def read_texts(path: Path, dataset: h5py.Dataset) -> tuple[str, ...]:
    """Read a 1-D data set of text (or of integers, as digits).

    Raises:
        InputError: another shape or type, or text that isn't UTF-8.
    """
    import h5py

    text = h5py.check_string_dtype(dataset.dtype) is not None
    if dataset.ndim != 1 or not (text or dataset.dtype.kind in "iu"):
        raise InputError(
            f"{dataset.name!r} is {dataset.dtype} of shape {dataset.shape}, not a list of text",
            path=path,
            remedy="give a file of the stated format",
        )
    values = dataset[()].tolist()
    try:
        return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in values)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{dataset.name!r} holds text that is not UTF-8: {error.object[:40]!r}",
            path=path,
            remedy="write the file again with names in UTF-8",
        ) from None


def list_place(name: str) -> Place:
    """Say where a name stands in a list of an HDF5 file; see ``matrix.check_names``."""
    return lambda number: (f"entry {number + 1} of {name}", None)


def dense_step(
    shape: tuple[int, int], chunks: tuple[int, int] | None, itemsize: int, budget: int
) -> tuple[Axis, int]:
    """Choose the axis and the length of dense blocks.

    Args:
        shape: samples and features.
        chunks: shape of the stored chunks; None if the values lie in one piece.
        itemsize: bytes a value.
        budget: bytes a block.

    Returns:
        Samples in whole chunks where the budget holds a chunk's height of them, else features in
        whole chunks where it holds a chunk's width of those, else as many samples as it holds:
        then chunks are decompressed more than once.
    """
    high, wide = chunks or (1, shape[1])
    samples = budget // max(shape[1] * itemsize, 1)
    features = budget // max(shape[0] * itemsize, 1)
    if samples >= min(high, shape[0]):
        return "samples", max(samples // high * high, min(high, shape[0]))
    if features >= min(wide, shape[1]):
        return "features", max(features // wide * wide, min(wide, shape[1]))
    return "samples", max(samples, 1)


def check_compressed(path: Path, file: h5py.File, group: str, major: int) -> np.dtype[Any]:
    """Check the outline of a compressed sparse group, and return the type of its values.

    Args:
        path: of the file, for the message.
        file: open file.
        group: name of the group.
        major: rows (CSR) or columns (CSC) that it must have.

    Raises:
        InputError: ``indptr`` doesn't rise from 0 to the number of stored values in steps of
            one per row, or ``data`` and ``indices`` differ in length.
    """
    data, indices, pointers = (
        member(path, file, f"{group}/{name}") for name in ("data", "indices", "indptr")
    )
    if any(part.ndim != 1 for part in (data, indices, pointers)) or any(
        part.dtype.kind not in "iu" for part in (indices, pointers)
    ):
        raise InputError(
            f"{group!r} is no compressed sparse matrix: data, indices and indptr must be lists, "
            "the last two of integers",
            path=path,
            remedy="write the file again",
        )
    indptr = np.asarray(pointers, dtype=np.int64)
    stored = len(indices)
    sound = (
        len(indptr) == major + 1
        and indptr[0] == 0
        and indptr[-1] == stored == len(data)
        and bool((np.diff(indptr) >= 0).all())
    )
    if not sound:
        raise InputError(
            f"{group!r} is damaged: its indptr doesn't fit {major:,} rows, {len(data):,} values "
            f"and {stored:,} indices",
            path=path,
            remedy="write the file again",
        )
    return native_dtype(path, data.dtype)

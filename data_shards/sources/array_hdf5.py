"""Where an array lies in an HDF5 or MATLAB file, and how samples are read from it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.sources.array_files import AGAIN, ReadSamples, StoredArray, chosen_array

if TYPE_CHECKING:
    import h5py

_SMALL_CACHE, _LARGE_CACHE = 1 << 20, 256 << 20  # bytes of inflated HDF5 chunks that are kept
_SLOTS = 100_003  # a prime, far above the number of chunks that a cache holds
_MATLAB = {"double": "float64", "single": "float32", "logical": "uint8"} | {
    kind: kind for bits in (8, 16, 32, 64) for kind in (f"int{bits}", f"uint{bits}")
}


def find_hdf5(path: Path, name: str | None, axis: int, *, matlab: bool) -> StoredArray:
    """Find a data set of an HDF5 file.

    Args:
        path: the file.
        name: of the data set.
        axis: of the samples, in the order of axes that is given back.
        matlab: the file is of MATLAB 7.3. A data set with the attribute ``MATLAB_class`` counts as
            one of MATLAB in any file.

    Raises:
        InputError: not readable, no such data set, values that were never written (HDF5 would give
            its fill value) or that lie in other files, or of a MATLAB class that has no numbers.
    """
    with _hdf5(path) as file:
        names = _datasets(file)
        chosen = names[chosen_array(path, names, name)]
        stored = file[chosen]
        kind = stored.attrs.get("MATLAB_class")
        reverse = matlab or kind is not None
        _check_dataset(path, chosen, stored)
        if kind is not None:
            _matlab_dtype(path, chosen, bytes(kind).decode("latin-1"))
        shape = tuple(stored.shape[::-1] if reverse else stored.shape)
        within = len(shape) - 1 - axis if reverse else axis
        chunk = stored.chunks[within] if stored.chunks and 0 <= axis < len(shape) else 1
        cache = _cache(stored, within)
        opened = partial(_dataset, path, chosen, within, reverse, cache)
        return StoredArray(chosen, shape, stored.dtype, chunk, opened)


def find_matlab(path: Path, name: str | None, axis: int) -> StoredArray:
    """Find an array of a MATLAB 5 file.

    Raises:
        InputError: not readable, no such array, or one without plain numbers.
    """
    import scipy.io

    with _scipy(path):
        listed = scipy.io.whosmat(str(path))
    found, shape, kind = listed[chosen_array(path, [entry[0] for entry in listed], name)]
    dtype = _matlab_dtype(path, found, kind)
    return StoredArray(found, tuple(shape), dtype, 1, partial(_loaded, path, found, axis))


def is_hdf5(path: Path) -> bool:
    """Tell whether a file is HDF5 (perhaps behind a block of the user's, as MATLAB has)."""
    import h5py

    return bool(h5py.is_hdf5(path))


@contextmanager
def _dataset(
    path: Path, name: str, within: int, reverse: bool, cache: int
) -> Iterator[ReadSamples]:
    with _hdf5(path, cache) as file:
        stored = file[name]

        def read(start: int, stop: int) -> npt.NDArray[Any]:
            values: npt.NDArray[Any] = stored[(slice(None),) * within + (slice(start, stop),)]
            turned = np.moveaxis(values, within, 0)
            # Behind the samples the axes are in the order of the file, which MATLAB reverses.
            others = range(turned.ndim - 1, 0, -1) if reverse else range(1, turned.ndim)
            return turned.transpose(0, *others)

        yield read


@contextmanager
def _loaded(path: Path, name: str, axis: int) -> Iterator[ReadSamples]:
    import scipy.io

    with _scipy(path):
        whole = scipy.io.loadmat(str(path), variable_names=[name])[name]
    if whole.dtype.kind == "c":  # scipy's list of arrays doesn't tell
        raise InputError(
            f"array {name!r} holds complex numbers", path=path, remedy="save its real part"
        )
    values = np.moveaxis(whole, axis, 0)
    yield lambda start, stop: values[start:stop]


@contextmanager
def _hdf5(path: Path, cache: int = _SMALL_CACHE) -> Iterator[h5py.File]:
    import h5py

    try:
        with h5py.File(path, "r", rdcc_nbytes=cache, rdcc_nslots=_SLOTS) as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"damaged HDF5 ({error})", path=path, remedy=AGAIN) from error


def _cache(stored: h5py.Dataset, within: int) -> int:
    """Return bytes of cache that hold all chunks of the same samples, if they are not too many.

    Reads of fewer samples than a chunk has then inflate it once, not again and again.
    """
    if not stored.chunks or not 0 <= within < stored.ndim:
        return _SMALL_CACHE
    others = [
        -(-n // c)
        for axis, (n, c) in enumerate(zip(stored.shape, stored.chunks, strict=True))
        if axis != within
    ]
    band = math.prod(stored.chunks) * stored.dtype.itemsize * math.prod(others)
    return band if _SMALL_CACHE < band <= _LARGE_CACHE else _SMALL_CACHE


def _datasets(file: h5py.File) -> list[str]:
    """List the data sets, without what MATLAB keeps for itself."""
    import h5py

    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            found.append(name)

    file.visititems(visit)
    return found


def _check_dataset(path: Path, name: str, stored: h5py.Dataset) -> None:
    import h5py

    called = f"data set {name!r}"
    if stored.shape is None or "MATLAB_empty" in stored.attrs:
        raise InputError(f"{called} has no value", path=path, remedy="give another array")
    if stored.dtype.hasobject:
        raise InputError(
            f"{called} holds references or text of variable width",
            path=path,
            remedy="write it as numbers, or as text of fixed width",
        )
    if stored.is_virtual or stored.external:
        raise InputError(
            f"the values of {called} lie in other files",
            path=path,
            remedy="copy them into one file (h5repack)",
        )
    creation = stored.id.get_create_plist()
    for number in range(creation.get_nfilters()):
        code, _, _, label = creation.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise InputError(
                f"{called} is compressed with a filter that is not installed: "
                f"{label.decode(errors='replace')} ({code})",
                path=path,
                remedy="write it again with gzip (h5repack -f GZIP=4)",
            )
    if stored.chunks:
        whole = math.prod(-(-n // c) for n, c in zip(stored.shape, stored.chunks, strict=True))
        written = stored.id.get_num_chunks()
    else:
        whole, written = int(stored.size > 0), int(stored.id.get_storage_size() > 0)
    if written < whole:
        raise InputError(
            f"{whole - written:,} of {whole:,} chunks of {called} were never written; HDF5 would "
            f"read them as {stored.fillvalue}",
            path=path,
            remedy="write the missing values",
        )


def _matlab_dtype(path: Path, name: str, kind: str) -> np.dtype[Any]:
    if kind not in _MATLAB:
        raise InputError(
            f"array {name!r} is of MATLAB's class {kind}",
            path=path,
            remedy=f"only full arrays of numbers are read ({', '.join(_MATLAB)})",
        )
    return np.dtype(_MATLAB[kind])


@contextmanager
def _scipy(path: Path) -> Iterator[None]:
    from scipy.io.matlab import MatReadError

    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, MatReadError, zlib.error) as error:
        raise InputError(f"damaged MATLAB file ({error})", path=path, remedy=AGAIN) from error

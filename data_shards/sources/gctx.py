"""GCTX, the Connectivity Map's HDF5 matrices: COL are the samples, though stored as rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data_shards.errors import InputError
from data_shards.sources.hdf5_matrix import (
    DenseMatrix,
    list_place,
    member,
    open_hdf5,
    read_texts,
)
from data_shards.sources.matrix import MatrixSource, check_names, native_dtype
from data_shards.sources.tables import Table

if TYPE_CHECKING:
    import h5py

_MATRIX = "0/DATA/0/matrix"
_SAMPLES = "0/META/COL"
_FEATURES = "0/META/ROW"
_ID = "id"


def open_gctx(path: Path, keep_duplicates: bool) -> MatrixSource:
    """Open a GCTX file.

    Args:
        path: HDF5 with ``/0/DATA/0/matrix`` (samples x features), ``/0/META/COL/id`` (samples)
            and ``/0/META/ROW/id`` (features).
        keep_duplicates: accept repeated names of features.

    Returns:
        The matrix; its tables hold the other metadata, as they are stored (``-666``, the
        Connectivity Map's word for a missing one, is left as it is).

    Raises:
        InputError: no GCTX, a matrix that doesn't fit the names, names that are empty or repeated.
    """
    with open_hdf5(path) as file:
        matrix = member(path, file, _MATRIX)
        samples = read_texts(path, member(path, file, f"{_SAMPLES}/{_ID}"))
        features = read_texts(path, member(path, file, f"{_FEATURES}/{_ID}"))
        wanted = (len(samples), len(features))
        if matrix.shape != wanted:
            turned = matrix.shape == wanted[::-1]
            raise InputError(
                f"the matrix has shape {matrix.shape}, but there are {wanted[0]} samples (COL) "
                f"and {wanted[1]} features (ROW)",
                path=path,
                remedy="GCTX stores samples x features: transpose the matrix"
                if turned
                else "the file is damaged: copy or write it again",
            )
        check_names(path, samples, "sample", list_place(f"{_SAMPLES}/{_ID}"))
        check_names(
            path, features, "feature", list_place(f"{_FEATURES}/{_ID}"), keep=keep_duplicates
        )
        return DenseMatrix(
            path,
            samples,
            features,
            native_dtype(path, matrix.dtype),
            _MATRIX,
            _metadata(path, file, _SAMPLES, len(samples)),
            _metadata(path, file, _FEATURES, len(features)),
        )


def _metadata(path: Path, file: h5py.File, name: str, rows: int) -> Table | None:
    """Read the lists beside the names."""
    columns: dict[str, pa.Array] = {}
    for field in file[name]:
        if field == _ID:
            continue
        stored = member(path, file, f"{name}/{field}")
        if stored.shape != (rows,):
            raise InputError(
                f"{name}/{field} has shape {stored.shape} where {rows} values are needed",
                path=path,
                remedy="write the file again",
            )
        if stored.dtype.kind in "fb":
            values = pa.array(np.asarray(stored, dtype=stored.dtype.newbyteorder("=")))
        else:
            values = pa.array(read_texts(path, stored), pa.string())
        columns[field] = values
    return Table(path, pa.table(columns)) if columns else None

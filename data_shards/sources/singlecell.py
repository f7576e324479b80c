"""Single cells: h5ad (anndata) and Cell Ranger's HDF5; cells are samples, sparse stays sparse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_shards.errors import InputError
from data_shards.sources.hdf5_matrix import (
    DenseMatrix,
    SparseMatrix,
    check_compressed,
    list_place,
    member,
    open_hdf5,
    read_texts,
)
from data_shards.sources.matrix import Axis, MatrixSource, check_names, native_dtype
from data_shards.sources.tables import Table

if TYPE_CHECKING:
    import h5py
    import pandas as pd

_RAW = "raw.X"
_MAJOR: dict[str, Axis] = {"csr_matrix": "samples", "csc_matrix": "features"}


def open_h5ad(path: Path, layer: str | None, keep_duplicates: bool) -> MatrixSource:
    """Open the X of an h5ad file, or one of its layers.

    Args:
        path: the file; nothing but its names and tables is read.
        layer: name of a layer, or "raw.X" for what anndata keeps under ``raw``; X by default.
        keep_duplicates: accept repeated names of features.

    Returns:
        Observations are samples, variables are features; ``sample_table`` is obs and
        ``feature_table`` is var. Dense stays dense. CSR is read by samples and CSC by features,
        each in bounded memory.

    Raises:
        InputError: no h5ad, no such layer, an encoding that is none of these three, a matrix that
            doesn't fit obs and var, names that are empty or repeated.
    """
    name = "X" if layer is None else "raw/X" if layer == _RAW else f"layers/{layer}"
    with open_hdf5(path) as file:
        var = "raw/var" if layer == _RAW else "var"
        samples, sample_table = _frame(path, file, "obs")
        features, feature_table = _frame(path, file, var)
        stored = file.get(name)
        if stored is None:
            raise _no_layer(path, file, name)
        encoding = _encoding(path, stored, name)
        shape = stored.attrs.get("shape", ()) if encoding in _MAJOR else stored.shape
        if tuple(shape) != (len(samples), len(features)):
            raise InputError(
                f"{name} has shape {tuple(int(n) for n in shape)}, but there are {len(samples)} "
                f"observations and {len(features)} variables",
                path=path,
                remedy="write the file again with anndata",
            )
        check_names(path, samples, "sample", list_place("obs"))
        check_names(path, features, "feature", list_place(var), keep=keep_duplicates)
        tables = (sample_table, feature_table)
        if encoding not in _MAJOR:
            return DenseMatrix(
                path, samples, features, native_dtype(path, stored.dtype), name, *tables
            )
        major = _MAJOR[encoding]
        rows = len(samples if major == "samples" else features)
        dtype = check_compressed(path, file, name, rows)
        return SparseMatrix(path, samples, features, dtype, name, major, *tables)


def open_10x_h5(path: Path, keep_duplicates: bool) -> MatrixSource:
    """Open Cell Ranger's HDF5 matrix (version 3, or version 2 with one genome).

    Args:
        path: the file.
        keep_duplicates: accept repeated names of features.

    Returns:
        Barcodes are samples, features (by their ids) are features; ``feature_table`` holds name,
        type and genome where the file has them.

    Raises:
        InputError: not such a file, several genomes, a damaged matrix, names that are empty or
            repeated.
    """
    with open_hdf5(path) as file:
        group = _cellranger_group(path, file)
        fields = (
            {"id": "features/id", "name": "features/name", "type": "features/feature_type"}
            | {"genome": "features/genome"}
            if group == "matrix"
            else {"id": "genes", "name": "gene_names"}
        )
        samples = read_texts(path, member(path, file, f"{group}/barcodes"))
        features = read_texts(path, member(path, file, f"{group}/{fields.pop('id')}"))
        shape = tuple(int(n) for n in np.asarray(member(path, file, f"{group}/shape")).ravel())
        if shape != (len(features), len(samples)):
            raise InputError(
                f"{group}/shape is {shape}, but there are {len(features)} features and "
                f"{len(samples)} barcodes",
                path=path,
                remedy="the file is damaged: copy it again",
            )
        check_names(path, samples, "sample", list_place(f"{group}/barcodes"))
        check_names(path, features, "feature", list_place(group), keep=keep_duplicates)
        columns = {
            title: pa.array(read_texts(path, file[f"{group}/{name}"]), pa.string())
            for title, name in fields.items()
            if name in file[group]
        }
        if any(len(column) != len(features) for column in columns.values()):
            raise InputError(
                f"the lists under {group}/features differ in length",
                path=path,
                remedy="the file is damaged: copy it again",
            )
        dtype = check_compressed(path, file, group, len(samples))
        table = Table(path, pa.table(columns)) if columns else None
        return SparseMatrix(path, samples, features, dtype, group, "samples", None, table)


def _frame(path: Path, file: h5py.File, name: str) -> tuple[tuple[str, ...], Table | None]:
    """Read obs or var: its names, and its columns if it has any."""
    import anndata
    import h5py

    group = member(path, file, name, h5py.Group)
    try:
        frame: pd.DataFrame = anndata.io.read_elem(group)
        names = tuple(str(label) for label in frame.index)
        data = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    except Exception as error:  # anndata passes on whatever its many readers raise
        raise InputError(
            f"{name} can't be read ({str(error)[:200]})",
            path=path,
            remedy="write the file again with a present anndata",
        ) from error
    return names, Table(path, data) if data.num_columns else None


def _encoding(path: Path, stored: Any, name: str) -> str:
    import h5py

    if isinstance(stored, h5py.Dataset) and stored.ndim == 2:
        return "array"
    encoding = str(stored.attrs.get("encoding-type", "of an old anndata"))
    if isinstance(stored, h5py.Dataset) or encoding not in _MAJOR:
        raise InputError(
            f"{name} is neither a dense, a CSR nor a CSC matrix ({encoding})",
            path=path,
            remedy="read it with a present anndata and write it again",
        )
    return encoding


def _no_layer(path: Path, file: h5py.File, name: str) -> InputError:
    layers = [*file.get("layers", ()), *([_RAW] if "raw/X" in file else [])]
    return InputError(
        f"no {name} in the file",
        path=path,
        remedy=f"say layer= one of {', '.join(layers)}"
        if layers
        else "give a file with a matrix: this one has no layer either",
    )


def _cellranger_group(path: Path, file: h5py.File) -> str:
    if "matrix" in file:
        return "matrix"
    genomes = [name for name in file if f"{name}/barcodes" in file]
    if len(genomes) == 1:
        return str(genomes[0])
    raise InputError(
        f"there are several genomes in it: {', '.join(genomes)}"
        if genomes
        else "no Cell Ranger matrix in the file",
        path=path,
        remedy="write one file for each genome"
        if genomes
        else 'a .h5 file is read as Cell Ranger\'s; for others say format="h5ad" or "gctx"',
    )

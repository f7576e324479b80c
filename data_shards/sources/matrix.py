"""Matrices of samples and features, whatever file they come from, in blocks of bounded memory.

Which axis of a file holds the samples is stated by its format or by the caller, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.sources.tables import Header, Table

MatrixFormat = Literal["tsv", "csv", "gct", "pcl", "gctx", "parquet", "h5ad", "mtx", "10x-h5"]
SampleAxis = Literal["rows", "columns"]
Axis = Literal["samples", "features"]
TextDtype = Literal["float32", "float64", "int32", "int64"]
Duplicates = Literal["error", "keep"]
Place = Callable[[int], tuple[str, int | None]]
"""Says where a name stands: in words, and by its 1-based line where that is a line."""

BUDGET = 64 << 20
"""Bytes that a block may take, unless told."""

_EXTENSIONS: dict[str, MatrixFormat] = {
    ".tsv": "tsv",
    ".txt": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".gct": "gct",
    ".pcl": "pcl",
    ".mtx": "mtx",
    ".gctx": "gctx",
    ".parquet": "parquet",
    ".h5ad": "h5ad",
    ".h5": "10x-h5",
}
_TEXT = {"tsv", "csv", "gct", "pcl", "mtx"}
_AXES: dict[MatrixFormat, SampleAxis] = {
    "gct": "columns",
    "pcl": "columns",
    "gctx": "columns",
    "mtx": "columns",
    "10x-h5": "columns",
    "h5ad": "rows",
}
_OPTIONS: dict[str, set[MatrixFormat]] = {
    "dtype": {"tsv", "csv", "gct", "pcl", "parquet"},
    "header": {"tsv", "csv"},
    "names": {"parquet"},
    "layer": {"h5ad"},
}


@dataclass(frozen=True, eq=False)
class Block:
    """Some samples with all features, or some features with all samples.

    Attributes:
        axis: "samples" or "features": what the block holds a range of.
        start: number of its first sample (or feature), counted from 0.
        values: shape ``(samples, features)``, restricted along ``axis``, in any memory order;
            an array, or a ``scipy.sparse.csr_array`` where the source is sparse. Floats are
            finite or NaN (missing).
        missing: how many values are NaN.
    """

    axis: Axis
    start: int
    values: Any
    missing: int

    @property
    def stop(self) -> int:
        """End of the range, exclusive."""
        return self.start + int(self.values.shape[0 if self.axis == "samples" else 1])


class MatrixSource(Protocol):
    """A matrix in a file: its names in memory, its values on disk."""

    @property
    def path(self) -> Path:
        """The file or folder that was opened."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of the samples; none is empty or there twice."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features (genes, probes); none is empty."""

    @property
    def sparse(self) -> bool:
        """Whether blocks hold ``scipy.sparse.csr_array`` rather than arrays."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values in all blocks: float32, float64 or an integer type."""

    @property
    def sample_table(self) -> Table | None:
        """What the file says about the samples, one row each; None if nothing but names."""

    @property
    def feature_table(self) -> Table | None:
        """What the file says about the features, one row each; None if nothing but names."""

    def blocks(self, budget_bytes: int = BUDGET) -> Iterator[Block]:
        """Read the values.

        All blocks have the same axis; in order, they cover each sample (or feature) once.

        Args:
            budget_bytes: bytes that a block takes at most, where one sample (or feature) is not
                more by itself; memory at work is a small multiple of it.

        Raises:
            InputError: a value that is no number, infinite, or damaged data.
        """


def open_matrix(
    path: Path,
    format: MatrixFormat | None = None,
    samples: SampleAxis | None = None,
    *,
    duplicates: Duplicates = "error",
    dtype: TextDtype | None = None,
    header: Header | None = None,
    names: str | None = None,
    layer: str | None = None,
) -> MatrixSource:
    """Open a matrix and read its names.

    Args:
        path: a file, or for 10x a folder with ``matrix.mtx``, ``barcodes.tsv`` and
            ``features.tsv`` (or ``genes.tsv``), each plain or ``.gz``.
        format: by default told from the extension (a folder is "mtx").
        samples: whether samples are the file's "rows" or "columns": needed for TSV, CSV and
            Parquet; other formats define it, and the contrary is refused.
        duplicates: "keep" accepts features of the same name (probe sets); samples never repeat.
        dtype: of the values, for text (float64 by default) and Parquet (the columns' own type by
            default). Integers have no missing value.
        header: for TSV and CSV: "full" if the first line names every column, "short" if it leaves
            out the first, as R's ``write.table`` does.
        names: for Parquet: the column that holds the names of the rows; by default the only
            column of text.
        layer: for h5ad: a layer, or "raw.X", instead of X.

    Raises:
        InputError: no such file, unknown format, samples not stated, an option that the format
            doesn't have, or what the format's reader finds wrong.
    """
    if not path.exists():
        raise InputError("no such file", path=path, remedy="give the path of a file that exists")
    kind = format or _format_of(path)
    _check_options(path, kind, {"dtype": dtype, "header": header, "names": names, "layer": layer})
    axis = _sample_axis(path, kind, samples)
    keep = duplicates == "keep"
    # Each reader loads its own library, and only when it is needed.
    if kind in {"tsv", "csv"}:
        from data_shards.sources.text_matrix import open_delimited

        delimiter = b"\t" if kind == "tsv" else b","
        return open_delimited(path, delimiter, axis, dtype or "float64", header or "full", keep)
    if kind == "gct":
        from data_shards.sources.gct import open_gct

        return open_gct(path, dtype or "float64", keep)
    if kind == "pcl":
        from data_shards.sources.pcl import open_pcl

        return open_pcl(path, dtype or "float64", keep)
    if kind == "parquet":
        from data_shards.sources.parquet import open_parquet

        return open_parquet(path, axis, dtype, names, keep)
    return _open_binary(path, kind, layer, keep)


def _open_binary(path: Path, kind: MatrixFormat, layer: str | None, keep: bool) -> MatrixSource:
    if kind == "gctx":
        from data_shards.sources.gctx import open_gctx

        return open_gctx(path, keep)
    if kind == "mtx":
        from data_shards.sources.mtx import open_mtx

        return open_mtx(path, keep)
    from data_shards.sources.singlecell import open_10x_h5, open_h5ad

    return open_h5ad(path, layer, keep) if kind == "h5ad" else open_10x_h5(path, keep)


def matrix_files(path: Path, format: MatrixFormat | None = None) -> tuple[Path, ...]:
    """Name the files that :func:`open_matrix` will read: one, or the three of a 10x matrix.

    Raises:
        InputError: unknown format, or a missing or ambiguous part of a 10x matrix.
    """
    if (format or _format_of(path)) != "mtx":
        return (path,)
    from data_shards.sources.mtx import mtx_files

    return mtx_files(path)


def check_names(
    path: Path, names: tuple[str, ...], what: str, place: Place, *, keep: bool = False
) -> None:
    """Refuse no names at all, an empty name, and, unless told to keep them, repeated names.

    Args:
        path: the file, for the message.
        names: of the samples or features.
        what: "sample" or "feature".
        place: where name i stands.
        keep: accept repeated names.

    Raises:
        InputError: names both places of a repeated name.
    """
    if not names:
        raise InputError(f"the matrix has no {what}", path=path, remedy="give a matrix with values")
    if "" in names:
        where, line = place(names.index(""))
        raise InputError(
            f"a {what} has no name ({where})",
            path=path,
            line=line,
            remedy="name it; a delimiter too many at the end of a line makes such a column",
        )
    if keep or len(set(names)) == len(names):
        return
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        first = seen.setdefault(name, number)
        if first != number:
            where, line = place(number)
            raise InputError(
                f"{what} {name!r} is there twice ({place(first)[0]} and {where})",
                path=path,
                line=line,
                remedy="remove or rename one of the two"
                + (', or say duplicates="keep"' if what == "feature" else ""),
            )


def checked_block(source: MatrixSource, axis: Axis, start: int, values: Any) -> Block:
    """Make a block of values: cast to the source's type, none infinite, missing ones counted.

    Args:
        source: whose values they are.
        axis: what the block holds a range of.
        start: number of the first one.
        values: array or ``csr_array``, shape ``(samples, features)``.

    Raises:
        InputError: an infinite value; names sample and feature.
    """
    values = values.astype(source.dtype, copy=False)
    stored: npt.NDArray[Any] = values.data if source.sparse else values
    missing = 0
    if stored.dtype.kind == "f":
        infinite = np.isinf(stored)
        if infinite.any():
            raise _infinite(source, axis, start, values, infinite)
        missing = int(np.count_nonzero(np.isnan(stored)))
    return Block(axis, start, values, missing)


def native_dtype(path: Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which stored values are given out; float16 becomes float32.

    Raises:
        InputError: the values are neither integers nor floats of at most 64 bits.
    """
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
    if dtype.kind in "iu":
        return dtype.newbyteorder("=")
    raise InputError(
        f"values are of type {dtype}",
        path=path,
        remedy="store them as integers, float32 or float64",
    )


def _infinite(
    source: MatrixSource, axis: Axis, start: int, values: Any, infinite: npt.NDArray[np.bool_]
) -> InputError:
    at = int(np.flatnonzero(infinite)[0])
    if source.sparse:
        sample = int(np.searchsorted(values.indptr, at, side="right")) - 1
        feature = int(values.indices[at])
    else:
        sample, feature = (int(i) for i in np.unravel_index(at, values.shape))
    if axis == "samples":
        sample += start
    else:
        feature += start
    return InputError(
        f"the value of sample {source.samples[sample]!r}, feature {source.features[feature]!r} "
        "is infinite",
        path=source.path,
        remedy="write NaN where a value is not known",
    )


def _format_of(path: Path) -> MatrixFormat:
    if path.is_dir():
        return "mtx"
    name = path.name.lower()
    kind = _EXTENSIONS.get(Path(name.removesuffix(".gz")).suffix)
    if kind is None:
        raise InputError(
            f"the extension of {path.name!r} tells no format",
            path=path,
            remedy=f"say the format: one of {', '.join(get_args(MatrixFormat))}",
        )
    if name.endswith(".gz") and kind not in _TEXT:
        raise InputError(
            f"a gzipped {kind} file can't be read in place", path=path, remedy="unpack it: gunzip"
        )
    return kind


def _check_options(path: Path, kind: MatrixFormat, options: dict[str, str | None]) -> None:
    for option, value in options.items():
        if value is not None and kind not in _OPTIONS[option]:
            raise InputError(
                f"{option}={value!r} means nothing for {kind}",
                path=path,
                remedy=f"leave it out: it is for {', '.join(sorted(_OPTIONS[option]))}",
            )


def _sample_axis(path: Path, kind: MatrixFormat, stated: SampleAxis | None) -> SampleAxis:
    defined = _AXES.get(kind)
    if defined is not None and stated not in {None, defined}:
        raise InputError(
            f"samples={stated!r}, but in {kind} files the samples are the {defined}",
            path=path,
            remedy=f'leave it out, or say samples="{defined}"',
        )
    axis = defined or stated
    if axis is None:
        raise InputError(
            f"which axis holds the samples is not said, and {kind} doesn't define it",
            path=path,
            remedy='say samples="columns" if each row is a gene (as expression tables often are), '
            'or samples="rows" if each row is a sample; a wrong guess would train on genes',
        )
    return axis

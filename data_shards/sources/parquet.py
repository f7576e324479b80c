"""Matrices in Parquet: a column of row names, all others values.

Read by row groups where one fits into the budget, else by some columns at a time, which Parquet
stores apart: either way nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_shards.errors import InputError
from data_shards.sources.matrix import (
    BUDGET,
    Axis,
    Block,
    MatrixSource,
    Place,
    SampleAxis,
    TextDtype,
    check_names,
    checked_block,
    native_dtype,
)
from data_shards.sources.text_lines import require_file

_FAULTS = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow says of damaged files


@dataclass(frozen=True, eq=False)
class ParquetMatrix:
    """A matrix in a Parquet file; see :class:`data_shards.sources.matrix.MatrixSource`.

    Attributes:
        axis: whether the file's rows or columns are the samples.
    """

    path: Path
    samples: tuple[str, ...]
    features: tuple[str, ...]
    dtype: np.dtype[Any]
    axis: SampleAxis
    sample_table: None = None
    feature_table: None = None
    sparse: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def blocks(self, budget_bytes: int = BUDGET) -> Iterator[Block]:
        """Read the values, by rows or by columns of the file as its row groups allow.

        Raises:
            InputError: an infinite value; a value that the type can't hold, with its column; a
                missing value where the type is an integer; damaged data.
        """
        by_rows = self.axis == "rows"
        names, columns = (self.samples, self.features) if by_rows else (self.features, self.samples)
        file = _open(self.path)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        row_bytes = len(columns) * self.dtype.itemsize
        axis: Axis
        start = 0
        if max(groups) * row_bytes <= budget_bytes or len(columns) == 1:
            axis = "samples" if by_rows else "features"
            for group, rows in enumerate(groups):
                values = self._read(partial(file.read_row_group, group), columns, names[start:])
                yield checked_block(self, axis, start, values if by_rows else values.T)
                start += rows
            return
        axis = "features" if by_rows else "samples"
        step = max(budget_bytes // (len(names) * self.dtype.itemsize), 1)
        for start in range(0, len(columns), step):
            values = self._read(file.read, columns[start : start + step], names)
            yield checked_block(self, axis, start, values if by_rows else values.T)

    def _read(
        self, read: Any, columns: tuple[str, ...], names: tuple[str, ...]
    ) -> npt.NDArray[Any]:
        """Read some columns; shape ``(rows, columns)``, columns contiguous."""
        try:
            table = read(columns=list(columns), use_threads=False)
        except _FAULTS as error:
            raise _unreadable(self.path, error) from error
        values = np.empty((len(columns), table.num_rows), dtype=self.dtype)
        for number, column in enumerate(columns):
            values[number] = self._convert(table.column(number), column, names)
        return values.T

    def _convert(self, stored: Any, column: str, names: tuple[str, ...]) -> npt.NDArray[Any]:
        if stored.null_count and self.dtype.kind != "f":
            row = stored.is_null().to_pylist().index(True)
            raise InputError(
                f"the value of row {names[row]!r}, column {column!r} is missing, "
                f"which {self.dtype} can't say",
                path=self.path,
                remedy='say dtype="float64": then it is NaN',
            )
        try:
            # Checked: a value that the type can't hold is an error, not another value.
            return np.asarray(stored.cast(pa.from_numpy_dtype(self.dtype)).to_numpy())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"column {column!r} ({stored.type}) can't be read as {self.dtype}: "
                f"{str(error)[:100]}",
                path=self.path,
                remedy="say a dtype that holds all values",
            ) from None


def open_parquet(
    path: Path,
    axis: SampleAxis,
    dtype: TextDtype | None,
    names: str | None,
    keep_duplicates: bool,
) -> MatrixSource:
    """Open a Parquet file of one column of row names and columns of numbers.

    Args:
        path: the file.
        axis: whether rows or columns are the samples.
        dtype: of the values; by default the type that holds all columns.
        names: the column of row names; by default the only column of text (as pandas writes the
            index).
        keep_duplicates: accept repeated names of features.

    Raises:
        InputError: no Parquet; none or several columns that could be the names; a column that
            isn't numbers; names that are missing, empty or repeated.
    """
    require_file(path)
    file = _open(path)
    schema = file.schema_arrow
    key = _names_column(path, schema, names)
    place: dict[str, Place] = {
        "rows": lambda row: (f"row {row + 1}", None),
        "columns": lambda column: (f"column {column + 1} of values", None),
    }
    columns = tuple(field.name for field in schema if field.name != key)
    common = _common_dtype(path, schema, key)
    kind = np.dtype(dtype) if dtype else common
    rows = _row_names(path, file, key)
    sides = {"rows": rows, "columns": columns}
    other = "columns" if axis == "rows" else "rows"
    check_names(path, sides[axis], "sample", place[axis])
    check_names(path, sides[other], "feature", place[other], keep=keep_duplicates)
    if len(set(columns)) != len(columns):
        raise InputError(
            "two columns have the same name, and Parquet reads columns by name",
            path=path,
            remedy="rename one of them",
        )
    return ParquetMatrix(path, sides[axis], sides[other], kind, axis)


def _row_names(path: Path, file: Any, key: str) -> tuple[str, ...]:
    try:
        labels = file.read(columns=[key], use_threads=False).column(0).cast(pa.string())
        labels.validate(full=True)
    except _FAULTS as error:
        raise _unreadable(path, error) from error
    if labels.null_count:
        raise InputError(
            f"row {labels.is_null().to_pylist().index(True) + 1} has no name in column {key!r}",
            path=path,
            remedy="name every row",
        )
    return tuple(labels.to_pylist())


def _open(path: Path) -> Any:
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
        file.schema_arrow  # noqa: B018 - read here, where its faults are told
    except _FAULTS as error:
        raise _unreadable(path, error) from error
    return file


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"can't be read as Parquet ({str(error)[:200]})",
        path=path,
        remedy="copy the file again, or say its format",
    )


def _names_column(path: Path, schema: pa.Schema, stated: str | None) -> str:
    texts: list[str] = [field.name for field in schema if _is_text(field.type)]
    if stated is not None:
        if schema.names.count(stated) != 1:
            raise InputError(
                f"no column {stated!r}, or more than one",
                path=path,
                remedy=f"the columns of text are: {', '.join(texts[:12]) or 'none'}",
            )
        return stated
    if len(texts) != 1:
        found = ", ".join(texts[:12]) or "none"
        raise InputError(
            f"which column names the rows is not said, and the columns of text are: {found}",
            path=path,
            remedy="say names= the column of names; pandas writes its index if it is not a range",
        )
    return texts[0]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _common_dtype(path: Path, schema: pa.Schema, key: str) -> np.dtype[Any]:
    kinds = []
    for field in schema:
        if field.name == key:
            continue
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            raise InputError(
                f"column {field.name!r} holds {field.type}, not numbers",
                path=path,
                remedy=f"keep only the names ({key!r}) and columns of values in the file",
            )
        kinds.append(np.dtype(field.type.to_pandas_dtype()))
    if not kinds:
        raise InputError(
            "no column of values", path=path, remedy="give a matrix with columns of numbers"
        )
    return native_dtype(path, np.result_type(*set(kinds)))

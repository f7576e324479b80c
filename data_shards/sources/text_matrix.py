"""Matrices in delimited text: a name and values on each line, read twice and never held whole.

Opening reads the file once for the names and the widths of all lines; the values are parsed when
blocks are asked for. A block is a range of the file's rows: samples or features, as stated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
)
from data_shards.sources.tables import Header, Table
from data_shards.sources.text_lines import (
    MISSING,
    fields_of,
    first_fault,
    line_of_record,
    parse_values,
    quote_error,
    shown,
    split_fields,
    text_blocks,
    text_lines,
    utf8_error,
)

_SMALLEST_READ = 1 << 16
_LARGEST_READ = 32 << 20
# "0," is two bytes of text and eight of float64; lines and fields are copied on the way.
_BUDGET_TO_TEXT = 16


@dataclass(frozen=True)
class TextLayout:
    """Where names and values stand in a text matrix.

    Attributes:
        delimiter: one byte.
        lead: names of the columns of text at the start of each line; the first names the row.
        columns: names of the columns of values that follow.
        head_line: 1-based line that names the columns.
        first_line: 1-based line of the first row of values.
    """

    delimiter: bytes
    lead: tuple[str, ...]
    columns: tuple[str, ...]
    head_line: int
    first_line: int


@dataclass(frozen=True, eq=False)
class TextMatrix:
    """A matrix in delimited text; see :class:`data_shards.sources.matrix.MatrixSource`.

    Attributes:
        axis: whether the file's rows or columns are the samples.
        layout: where names and values stand.
    """

    path: Path
    samples: tuple[str, ...]
    features: tuple[str, ...]
    dtype: np.dtype[np.generic]
    axis: SampleAxis
    layout: TextLayout
    sample_table: Table | None = None
    feature_table: Table | None = None
    sparse: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def blocks(self, budget_bytes: int = BUDGET) -> Iterator[Block]:
        """Parse the values; a block is a range of the file's rows.

        Raises:
            InputError: names line, column and value of what is no number, infinite, or (for an
                integer type) missing; or the file changed since it was opened.
        """
        size = min(max(budget_bytes // _BUDGET_TO_TEXT, _SMALLEST_READ), _LARGEST_READ)
        width, delimiter = len(self.layout.columns), self.layout.delimiter
        axis: Axis = "samples" if self.axis == "rows" else "features"
        start = 0
        for rows in _read_rows(self.path, self.layout, size):
            values = parse_values(rows.texts, width, delimiter, self.dtype)
            if values is None:
                raise _bad_value(self.path, self.layout, rows, self.dtype)
            oriented = values if axis == "samples" else values.T
            yield checked_block(self, axis, start, oriented)
            start += len(rows.texts)
        if start != len(self.samples if axis == "samples" else self.features):
            raise InputError(
                f"{start:,} rows now, another number when it was opened",
                path=self.path,
                remedy="the file changed while it was read: start again",
            )


@dataclass(frozen=True)
class _Rows:
    """Some rows: 1-based lines, fields of the lead, and the text of the values."""

    lines: list[int]
    leads: list[list[bytes]]
    texts: list[bytes]


def open_delimited(
    path: Path,
    delimiter: bytes,
    axis: SampleAxis,
    dtype: TextDtype,
    header: Header,
    keep_duplicates: bool,
) -> MatrixSource:
    """Open a TSV or CSV matrix: a header of names, then a name and values on each line.

    Args:
        path: plain or gzip text.
        delimiter: one byte.
        axis: whether rows or columns are the samples.
        dtype: of the values.
        header: "full", or "short" where it leaves out the first column.
        keep_duplicates: accept repeated names of features.

    Raises:
        InputError: see :func:`open_rows`; or a header without delimiter.
    """
    head = next(((n, line) for n, line in enumerate(text_lines(path), start=1) if line), None)
    if head is None:
        raise InputError("no line in the file", path=path, remedy="give a matrix with values")
    number, line = head
    fields = fields_of(path, number, line, delimiter)
    lead, columns = ("", tuple(fields)) if header == "short" else (fields[0], tuple(fields[1:]))
    if not columns:
        what = "tab" if delimiter == b"\t" else "comma"
        raise InputError(
            f"the header has no {what}: {shown(line)}",
            path=path,
            line=number,
            remedy='say format="tsv" for tabs or "csv" for commas; '
            "semicolons and spaces don't separate columns",
        )
    layout = TextLayout(delimiter, (lead,), columns, number, number + 1)
    return open_rows(path, layout, axis, dtype, keep_duplicates=keep_duplicates)


def open_rows(
    path: Path,
    layout: TextLayout,
    axis: SampleAxis,
    dtype: TextDtype,
    *,
    keep_duplicates: bool,
    column_table: Table | None = None,
) -> TextMatrix:
    """Read the names of all rows, and check that every row has all columns.

    Args:
        path: plain or gzip text.
        layout: where names and values stand.
        axis: whether rows or columns are the samples.
        dtype: of the values.
        keep_duplicates: accept repeated names of features.
        column_table: what the file says about its columns.

    Returns:
        The matrix. Columns of the lead after the first are the table of the rows.

    Raises:
        InputError: a row with another number of columns, no row, an empty or repeated name, text
            that isn't UTF-8.
    """
    if not layout.columns:
        raise InputError(
            "the header names no column of values",
            path=path,
            line=layout.head_line,
            remedy="give a matrix with values",
        )
    names, row_table = _read_names(path, layout)

    def row_place(row: int) -> tuple[str, int | None]:
        line = line_of_record(path, layout.first_line, row)
        return f"line {line}", line

    def column_place(column: int) -> tuple[str, int | None]:
        return f"column {len(layout.lead) + column + 1}", layout.head_line

    by_axis: dict[str, tuple[tuple[str, ...], Place, Table | None]] = {
        "rows": (names, row_place, row_table),
        "columns": (layout.columns, column_place, column_table),
    }
    other = "columns" if axis == "rows" else "rows"
    samples, sample_place, sample_table = by_axis[axis]
    features, feature_place, feature_table = by_axis[other]
    check_names(path, samples, "sample", sample_place)
    check_names(path, features, "feature", feature_place, keep=keep_duplicates)
    kind: np.dtype[np.generic] = np.dtype(dtype)
    return TextMatrix(path, samples, features, kind, axis, layout, sample_table, feature_table)


def _read_names(path: Path, layout: TextLayout) -> tuple[tuple[str, ...], Table | None]:
    """Read the text of all rows: their names, and the columns that follow the name, if any."""
    leads: list[list[str]] = [[] for _ in layout.lead]
    for rows in _read_rows(path, layout, _SMALLEST_READ * 16):
        for number, fields in zip(rows.lines, rows.leads, strict=True):
            for texts, field in zip(leads, fields, strict=True):
                texts.append(_decoded(path, number, field))
    if len(leads) == 1:
        return tuple(leads[0]), None
    data = pa.table([pa.array(texts, pa.string()) for texts in leads[1:]], layout.lead[1:])
    return tuple(leads[0]), Table(path, data, layout.first_line)


def _read_rows(path: Path, layout: TextLayout, size: int) -> Iterator[_Rows]:
    """Cut the file into rows, a block of text at a time, and check their widths."""
    delimiter, lead = layout.delimiter, len(layout.lead)
    delimiters = len(layout.columns) - 1
    number = 0
    for block in text_blocks(path, size):
        rows = _Rows([], [], [])
        for line in block.splitlines():
            number += 1
            if number < layout.first_line or not line:
                continue
            try:
                fields = split_fields(line, delimiter, lead)
            except ValueError as error:
                raise quote_error(path, number, error) from None
            if len(fields) <= lead or fields[lead].count(delimiter) != delimiters:
                raise _bad_width(path, layout, number, line)
            rows.lines.append(number)
            rows.leads.append(fields[:lead])
            rows.texts.append(fields[lead])
        if rows.lines:
            yield rows


def _bad_width(path: Path, layout: TextLayout, number: int, line: bytes) -> InputError:
    fields = fields_of(path, number, line, layout.delimiter)
    lead, width = len(layout.lead), len(layout.lead) + len(layout.columns)
    if len(fields) == width:  # a delimiter inside quotes: no number, then
        at = next(i for i in range(lead, width) if layout.delimiter.decode() in fields[i])
        return _value_error(path, layout, number, at - lead, f"value {fields[at]!r} is no number")
    remedy = "every line needs a name and a value for each column; write NA for a missing value"
    if lead == 1 and len(fields) == width + 1 and number == layout.first_line:
        remedy = 'if R wrote the file without a name over the row names, say header="short"'
    return InputError(
        f"{len(fields)} columns where the header has {width}",
        path=path,
        line=number,
        remedy=remedy,
    )


def _bad_value(
    path: Path, layout: TextLayout, rows: _Rows, dtype: np.dtype[np.generic]
) -> InputError:
    """Find the value for which parsing failed."""
    fault = first_fault(rows.texts, layout.delimiter, dtype)
    if fault is None:
        return InputError(
            f"a value of lines {rows.lines[0]} to {rows.lines[-1]} can't be read as {dtype}",
            path=path,
            line=rows.lines[0],
            remedy="write plain numbers",
        )
    row, column, problem = fault
    return _value_error(path, layout, rows.lines[row], column, problem)


def _value_error(
    path: Path, layout: TextLayout, number: int, column: int, problem: str
) -> InputError:
    return InputError(
        f"{problem} (column {len(layout.lead) + column + 1}, {layout.columns[column]!r})",
        path=path,
        line=number,
        remedy="correct the value; what is missing is written as one of "
        f"{', '.join(MISSING[1:])}, or nothing, and needs a float dtype",
    )


def _decoded(path: Path, number: int, field: bytes) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError:
        raise utf8_error(path, number, field) from None

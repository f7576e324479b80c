"""Sample sheets and other small tables: every column as written, numbers only where asked for.

No column's type is guessed: a label ``001`` stays ``001``, and a gene called ``NAN`` stays a gene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv

from data_shards.errors import InputError
from data_shards.sources.files import open_binary
from data_shards.sources.text_lines import (
    fields_of,
    line_of_record,
    require_file,
    text_blocks,
    text_lines,
)

TableFormat = Literal["tsv", "csv", "parquet"]
Header = Literal["full", "short"]

ROW_NAME = "row_name"
"""Name of a first column that has none in the header."""

_DELIMITERS = {"tsv": b"\t", "csv": b","}
_FORMATS: dict[str, TableFormat] = {
    ".tsv": "tsv",
    ".txt": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
}
_BLOCK = 64 << 20  # pyarrow reads no line longer than this


@dataclass(frozen=True, eq=False)
class Table:
    """A table in memory, with its origin for messages.

    Attributes:
        path: the file.
        data: all columns (of text files: as strings, as they were written), one row a record.
        first_line: 1-based line of the first record; None where rows are no lines of the file.
    """

    path: Path
    data: pa.Table
    first_line: int | None = None

    def __len__(self) -> int:
        return int(self.data.num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.data.column_names)

    def error(self, row: int, problem: str, remedy: str) -> InputError:
        """Return an error that names a row (counted from 0) by its line, if it has one."""
        if self.first_line is None:
            return InputError(f"row {row + 1}: {problem}", path=self.path, remedy=remedy)
        line = line_of_record(self.path, self.first_line, row)
        return InputError(problem, path=self.path, line=line, remedy=remedy)


def read_table(
    path: Path,
    format: TableFormat | None = None,
    *,
    names: Sequence[str] | None = None,
    header: Header = "full",
) -> Table:
    """Read a whole table.

    Args:
        path: plain or gzip text, or Parquet.
        format: by default told from the extension: ``.tsv``, ``.txt``, ``.tab``, ``.csv``
            (each also with ``.gz``) or ``.parquet``.
        names: of the columns, for a text file whose first line is a record already.
        header: "full" if the first line names every column; "short" if it names all but the
            first, as R's ``write.table`` leaves it. A first column without name, or with an
            empty one, is called ``row_name``.

    Returns:
        The table. Text is kept as it is written; blank lines are passed over.

    Raises:
        InputError: unknown format, empty file, no record, a column without name or named twice,
            a line with another number of columns, an unclosed quote, or text that isn't UTF-8.
    """
    require_file(path)
    kind = format or _format_of(path)
    if kind == "parquet":
        if names is not None or header != "full":
            raise InputError(
                "a Parquet file names its columns itself",
                path=path,
                remedy="leave out names and header",
            )
        return _read_parquet(path)
    delimiter = _DELIMITERS[kind]
    if names is None:
        columns, head = _header(path, delimiter, header)
    elif header != "full":
        raise InputError(
            f'names are given, and header="{header}"',
            path=path,
            remedy="give names for a file without header only",
        )
    else:
        columns, head = list(names), 0
        _check_width(path, columns, delimiter)
    _check_columns(path, columns, head)
    return _read_text(path, columns, head, delimiter)


def _format_of(path: Path) -> TableFormat:
    name = path.name.lower().removesuffix(".gz")
    kind = _FORMATS.get(Path(name).suffix)
    if kind is None:
        raise InputError(
            f"the extension of {path.name!r} tells no format",
            path=path,
            remedy='say format="tsv", "csv" or "parquet"',
        )
    return kind


def _header(path: Path, delimiter: bytes, header: Header) -> tuple[list[str], int]:
    """Read the header; return the names of the columns and its line."""
    for number, line in enumerate(text_lines(path), start=1):
        if line:
            names = fields_of(path, number, line, delimiter)
            if header == "short":
                return [ROW_NAME, *names], number
            return [names[0] or ROW_NAME, *names[1:]], number
    raise InputError("no line in the file", path=path, remedy="give a table with records")


def _check_width(path: Path, names: list[str], delimiter: bytes) -> None:
    for number, line in enumerate(text_lines(path), start=1):
        if line:
            width = len(fields_of(path, number, line, delimiter))
            if width != len(names):
                raise InputError(
                    f"{width} columns, but {len(names)} names are given",
                    path=path,
                    line=number,
                    remedy="name every column, in the order of the file",
                )
            return


def _check_columns(path: Path, names: list[str], head: int) -> None:
    line = head or None
    for number, name in enumerate(names, start=1):
        first = names.index(name) + 1
        if not name or first < number:
            raise InputError(
                f"columns {first} and {number} are both called {name!r}"
                if name
                else f"column {number} has no name",
                path=path,
                line=line,
                remedy="name every column, each by its own name; "
                "for a file without header give the names",
            )


def _read_text(path: Path, names: list[str], head: int, delimiter: bytes) -> Table:
    """Read all columns as text."""
    _check_quotes(path, delimiter)
    wrong: list[int] = []

    def note(row: pa.csv.InvalidRow) -> str:
        wrong.append(row.actual_columns)
        return "skip"

    try:
        with open_binary(path) as stream:
            data = pa.csv.read_csv(
                stream,
                pa.csv.ReadOptions(
                    column_names=names, skip_rows=head, use_threads=False, block_size=_BLOCK
                ),
                pa.csv.ParseOptions(delimiter=delimiter.decode(), invalid_row_handler=note),
                pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid as error:
        raise _bad_line(path, len(names), head, delimiter) from error
    if wrong:
        raise _bad_line(path, len(names), head, delimiter)
    if data.num_rows == 0:
        raise InputError("no record in the file", path=path, remedy="give a table with records")
    return Table(path, data, head + 1)


def _check_quotes(path: Path, delimiter: bytes) -> None:
    """Refuse quotes that pyarrow would pass over: an open one swallows the lines that follow."""
    number = 0
    for block in text_blocks(path, 1 << 20):
        lines = block.splitlines()
        if b'"' in block:
            for offset, line in enumerate(lines, start=1):
                if b'"' in line:
                    fields_of(path, number + offset, line, delimiter)
        number += len(lines)


def _bad_line(path: Path, width: int, head: int, delimiter: bytes) -> InputError:
    """Find the line that pyarrow stumbled over."""
    for number, line in enumerate(text_lines(path), start=1):
        if number <= head or not line:
            continue
        try:
            found = len(fields_of(path, number, line, delimiter))
        except InputError as error:
            return error
        if found != width:
            return InputError(
                f"{found} columns where {width} are named",
                path=path,
                line=number,
                remedy="every line needs the same columns"
                + ('; for R\'s layout say header="short"' if found == width + 1 else ""),
            )
    return InputError(
        f"not a table, or a line is longer than {_BLOCK:,} bytes",
        path=path,
        remedy="give a table of delimited text",
    )


def _read_parquet(path: Path) -> Table:
    from pyarrow import parquet

    try:
        data = parquet.ParquetFile(path, page_checksum_verification=True).read()
        data.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"can't be read as Parquet ({str(error)[:200]})",
            path=path,
            remedy="copy the file again, or say its format",
        ) from error
    _check_columns(path, data.column_names, 0)
    if data.num_rows == 0:
        raise InputError("no record in the file", path=path, remedy="give a table with records")
    return Table(path, data)

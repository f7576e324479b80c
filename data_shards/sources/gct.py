"""GCT 1.2 and 1.3, the Broad Institute's text matrices: rows are features, columns are samples."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pyarrow as pa

from data_shards.errors import InputError
from data_shards.sources.matrix import MatrixSource, TextDtype
from data_shards.sources.tables import Table
from data_shards.sources.text_lines import fields_of, text_lines
from data_shards.sources.text_matrix import TextLayout, open_rows

_TAB = b"\t"


def open_gct(path: Path, dtype: TextDtype, keep_duplicates: bool) -> MatrixSource:
    """Open a GCT file.

    Args:
        path: plain or gzip text.
        dtype: of the values.
        keep_duplicates: accept repeated names of features.

    Returns:
        The matrix. ``feature_table`` holds the description (1.2) or the row metadata (1.3),
        ``sample_table`` the column metadata (1.3), all as text.

    Raises:
        InputError: another version, dimensions on line 2 that the file doesn't have, and what
            :func:`data_shards.sources.text_matrix.open_rows` refuses.
    """
    version = _version(path)
    rows, columns, row_fields, column_fields = _dimensions(path, version)
    head = _line(path, 3)
    header = fields_of(path, 3, head, _TAB)
    lead = 1 + row_fields
    if len(header) != lead + columns:
        raise InputError(
            f"{len(header)} columns, but line 2 says {columns} samples after {lead} of text",
            path=path,
            line=3,
            remedy="correct line 2, or restore the columns that are lost",
        )
    if len(set(header[1:lead])) != row_fields or "" in header[1:lead]:
        raise InputError(
            f"the columns of row metadata are called {', '.join(header[1:lead])}",
            path=path,
            line=3,
            remedy="name each of them, by its own name",
        )
    names = tuple(header[lead:])
    layout = TextLayout(_TAB, tuple(header[:lead]), names, 3, 4 + column_fields)
    table = _column_table(path, layout, column_fields)
    matrix = open_rows(
        path, layout, "columns", dtype, keep_duplicates=keep_duplicates, column_table=table
    )
    if len(matrix.features) != rows:
        raise InputError(
            f"{len(matrix.features)} rows of values, but line 2 says {rows}",
            path=path,
            line=2,
            remedy="correct line 2, or copy the file again: it may be cut short",
        )
    return matrix


def _version(path: Path) -> str:
    first = _line(path, 1).rstrip(b"\t ")
    if first not in {b"#1.2", b"#1.3"}:
        raise InputError(
            f"the first line is {first[:40]!r}, not '#1.2' or '#1.3'",
            path=path,
            line=1,
            remedy="give a GCT file, or say its format",
        )
    return first.decode()


def _dimensions(path: Path, version: str) -> tuple[int, int, int, int]:
    """Read rows, columns, fields of row metadata and fields of column metadata from line 2."""
    fields = _line(path, 2).rstrip(b"\t ").split(_TAB)
    wanted = 2 if version == "#1.2" else 4
    if len(fields) != wanted or not all(f.isdigit() and len(f) < 16 for f in fields):
        what = "rows and columns" if wanted == 2 else "rows, columns and both counts of metadata"
        raise InputError(
            f"line 2 of a GCT {version[1:]} gives {what} as {wanted} whole numbers",
            path=path,
            line=2,
            remedy="write them with tabs between",
        )
    if wanted == 2:  # then one column of text follows the name: the description
        fields += [b"1", b"0"]
    rows, columns, row_fields, column_fields = (int(field) for field in fields)
    return rows, columns, row_fields, column_fields


def _column_table(path: Path, layout: TextLayout, fields: int) -> Table | None:
    """Read the rows of metadata that stand between the header and the values."""
    if not fields:
        return None
    lead, width = len(layout.lead), len(layout.lead) + len(layout.columns)
    found: dict[str, list[str]] = {}
    for number, line in enumerate(islice(text_lines(path), 3, 3 + fields), start=4):
        texts = fields_of(path, number, line, _TAB)
        if len(texts) != width or not texts[0] or texts[0] in found:
            raise InputError(
                f"{len(texts)} columns where the header has {width}"
                if len(texts) != width
                else f"a field of column metadata is called {texts[0]!r}, as no or another one is",
                path=path,
                line=number,
                remedy="line 2 says how many lines of column metadata there are: correct either",
            )
        found[texts[0]] = texts[lead:]
    if len(found) != fields:
        raise InputError(
            f"{len(found)} lines of column metadata, but line 2 says {fields}",
            path=path,
            line=2,
            remedy="the file is cut short: copy it again",
        )
    data = pa.table({name: pa.array(texts, pa.string()) for name, texts in found.items()})
    return Table(path, data)


def _line(path: Path, number: int) -> bytes:
    for line in islice(text_lines(path), number - 1, number):
        return line
    raise InputError(f"the file ends before line {number}", path=path, remedy="copy the file again")

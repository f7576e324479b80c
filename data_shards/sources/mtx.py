"""10x matrices as text: ``matrix.mtx`` with its barcodes (samples) and features beside it.

Opening reads all entries once, to check them and to see how they are sorted; blocks are then read
in that order, whole samples or whole features at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from data_shards.errors import InputError
from data_shards.sources.matrix import (
    BUDGET,
    Axis,
    Block,
    MatrixSource,
    Place,
    check_names,
    checked_block,
)
from data_shards.sources.sparse_blocks import compressed_block, major_ranges
from data_shards.sources.tables import Table, read_table
from data_shards.sources.text_lines import (
    fields_of,
    line_of_record,
    require_file,
    shown,
    text_blocks,
    text_lines,
)

_FEATURE_FIELDS = ("id", "name", "type", "contig", "start", "end")
_READ = 1 << 20
_BUDGET_TO_TEXT = 8
_SPACES = re.compile(rb"[ \t]+")
_EDGES = re.compile(rb"(?m)^ | (?=\r?$)")
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?nan|[+-]?inf", re.IGNORECASE)
_INTEGER = re.compile(rb"-?\d{1,18}")

Ints = npt.NDArray[np.int64]
Entries = tuple[Ints, Ints, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Header:
    """What the file says before its entries; ``first_line`` is 1-based, of the first entry."""

    rows: int
    columns: int
    entries: int
    dtype: np.dtype[Any]
    first_line: int


@dataclass(frozen=True, eq=False)
class MtxMatrix:
    """A 10x matrix as text; see :class:`data_shards.sources.matrix.MatrixSource`.

    Attributes:
        major: what the entries are sorted by: "samples" or "features".
        indptr: int64, number of entries before each of them.
        first_line: 1-based line of the first entry.
    """

    path: Path
    files: tuple[Path, ...]
    samples: tuple[str, ...]
    features: tuple[str, ...]
    dtype: np.dtype[Any]
    major: Axis
    indptr: Ints
    first_line: int
    sample_table: Table | None
    feature_table: Table | None
    sparse: bool = True

    def blocks(self, budget_bytes: int = BUDGET) -> Iterator[Block]:
        """Read the entries, whole samples or whole features at a time.

        Raises:
            InputError: an entry that is there twice or is infinite; or the file changed.
        """
        size = max(budget_bytes // _BUDGET_TO_TEXT, 1 << 16)
        entries = _read_entries(self.files[0], self.dtype, self.first_line, min(size, _READ))
        by_samples = self.major == "samples"
        names = self.samples if by_samples else self.features
        minor = len(self.features if by_samples else self.samples)
        held: Entries = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, self.dtype))
        # An entry of text becomes two int64 and a value, and then the same again as a block.
        for start, stop in major_ranges(self.indptr, max(budget_bytes // 24, 1)):
            need = int(self.indptr[stop] - self.indptr[start])
            parts = [held]
            while sum(len(part[0]) for part in parts) < need:
                part = next(entries, None)
                if part is None:
                    raise _changed(self.files[0])
                parts.append(part)
            rows, columns, values = (np.concatenate(p) for p in zip(*parts, strict=True))
            held = rows[need:], columns[need:], values[need:]
            majors, minors = (columns, rows) if by_samples else (rows, columns)
            indptr = self.indptr[start : stop + 1] - self.indptr[start]
            if not np.array_equal(
                majors[:need], np.repeat(np.arange(start, stop), np.diff(indptr))
            ):
                raise _changed(self.files[0])
            block = compressed_block(
                self.files[0],
                self.major,
                values[:need],
                minors[:need],
                indptr,
                minor,
                names[start:stop],
            )
            yield checked_block(self, self.major, start, block)


def open_mtx(path: Path, keep_duplicates: bool) -> MatrixSource:
    """Open a 10x matrix: features x barcodes in a Matrix Market file, with both lists beside it.

    Args:
        path: the folder, or the .mtx file in it.
        keep_duplicates: accept repeated names of features.

    Returns:
        Barcodes are samples, features (by their ids) are features; ``feature_table`` holds id,
        name, type and what else stands in the list.

    Raises:
        InputError: a missing or ambiguous file; a header other than "matrix coordinate
            integer|real general"; entries that are malformed, outside the matrix, more or fewer
            than announced, or sorted neither by barcode nor by feature; lists that don't fit.
    """
    files = mtx_files(path)
    header = _read_header(files[0])
    barcodes = _read_list(files[1], ("barcode",))
    genes = _read_list(files[2], _FEATURE_FIELDS)
    samples = tuple(barcodes.data.column(0).to_pylist())
    features = tuple(genes.data.column(0).to_pylist())
    if (header.rows, header.columns) != (len(features), len(samples)):
        turned = (header.rows, header.columns) == (len(samples), len(features))
        raise InputError(
            f"the matrix is {header.rows} x {header.columns}, but there are {len(features)} "
            f"features and {len(samples)} barcodes",
            path=files[0],
            line=header.first_line - 1,
            remedy="10x matrices are features x barcodes: transpose the matrix"
            if turned
            else "the three files don't belong together",
        )
    check_names(files[1], samples, "sample", _line_place(files[1]))
    check_names(files[2], features, "feature", _line_place(files[2]), keep=keep_duplicates)
    major, counts = _scan(files[0], header)
    return MtxMatrix(
        path,
        files,
        samples,
        features,
        header.dtype,
        major,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        header.first_line,
        barcodes if len(barcodes.columns) > 1 else None,
        genes if len(genes.columns) > 1 else None,
    )


def _line_place(path: Path) -> Place:
    def place(row: int) -> tuple[str, int | None]:
        line = line_of_record(path, 1, row)
        return f"line {line}", line

    return place


def mtx_files(path: Path) -> tuple[Path, Path, Path]:
    """Find matrix, barcodes and features of a folder or of a .mtx file.

    A file ``PREFIXmatrix.mtx`` goes with ``PREFIXbarcodes.tsv`` and ``PREFIXfeatures.tsv`` (or
    ``PREFIXgenes.tsv``); any of them may be gzipped.

    Raises:
        InputError: a part is missing, or there twice.
    """
    if path.is_dir():
        folder, prefix = path, ""
        matrix = _part(folder, ("matrix.mtx",))
    else:
        require_file(path)
        folder, matrix = path.parent, path
        stem = path.name.removesuffix(".gz").removesuffix(".mtx")
        prefix = stem.removesuffix("matrix") if stem.endswith("matrix") else ""
    barcodes = _part(folder, (f"{prefix}barcodes.tsv",))
    features = _part(folder, (f"{prefix}features.tsv", f"{prefix}genes.tsv"))
    return matrix, barcodes, features


def _part(folder: Path, names: tuple[str, ...]) -> Path:
    there = [
        folder / (n + end) for n in names for end in ("", ".gz") if (folder / (n + end)).is_file()
    ]
    if len(there) == 1:
        return there[0]
    if there:
        raise InputError(
            f"both {there[0].name} and {there[1].name} are there",
            path=folder,
            remedy="keep the one that belongs to the matrix",
        )
    raise InputError(
        f"no {' or '.join(names)} (or .gz) in the folder",
        path=folder,
        remedy="a 10x matrix is a folder of matrix.mtx, barcodes.tsv and features.tsv; files with "
        "a prefix are opened by the path of their .mtx",
    )


def _read_list(path: Path, fields: tuple[str, ...]) -> Table:
    """Read barcodes or features; columns without a known name are called by number."""
    for number, line in enumerate(text_lines(path), start=1):
        if line:
            width = len(fields_of(path, number, line, b"\t"))
            names = [*fields[:width], *(f"column{i + 1}" for i in range(len(fields), width))]
            return read_table(path, "tsv", names=names)
    raise InputError("no line in the file", path=path, remedy="copy the file again")


def _read_header(path: Path) -> _Header:
    kinds = {"integer": np.dtype(np.int64), "real": np.dtype(np.float64)}
    kind = ""
    for number, line in enumerate(text_lines(path), start=1):
        if number == 1:
            words = line.decode("latin-1").lower().split()
            kind = words[3] if len(words) == 5 else ""
            stated = ["%%matrixmarket", "matrix", "coordinate", kind, "general"]
            if words != stated or kind not in kinds:
                raise InputError(
                    f"the first line is {shown(line)}",
                    path=path,
                    line=1,
                    remedy="it must be '%%MatrixMarket matrix coordinate integer general' "
                    "(or real); write other kinds again in this one",
                )
        elif line.strip() and not line.startswith(b"%"):
            sizes = line.split()
            if len(sizes) != 3 or not all(s.isdigit() and len(s) < 16 for s in sizes):
                raise InputError(
                    f"the sizes are {shown(line)}",
                    path=path,
                    line=number,
                    remedy="write rows, columns and entries as three whole numbers",
                )
            rows, columns, entries = (int(size) for size in sizes)
            return _Header(rows, columns, entries, kinds[kind], number + 1)
    raise InputError("the file ends in its header", path=path, remedy="copy the file again")


def _scan(path: Path, header: _Header) -> tuple[Axis, Ints]:
    """Check all entries; return what they are sorted by, and how many each of those has."""
    counts = (np.zeros(header.rows, np.int64), np.zeros(header.columns, np.int64))
    limits = (header.rows, header.columns)
    ordered = [True, True]
    last = [-1, -1]
    seen = 0
    for entries in _read_entries(path, header.dtype, header.first_line, _READ):
        for side in (0, 1):
            index = entries[side]
            outside = np.flatnonzero((index < 0) | (index >= limits[side]))
            if outside.size:
                entry = int(outside[0])
                raise InputError(
                    f"{('row', 'column')[side]} {int(index[entry]) + 1} is outside the matrix of "
                    f"{header.rows} x {header.columns}",
                    path=path,
                    line=line_of_record(path, header.first_line, seen + entry),
                    remedy="entries count from 1; the file is damaged or its header is wrong",
                )
            counts[side][:] += np.bincount(index, minlength=limits[side])
            ordered[side] &= bool(index[0] >= last[side] and (index[1:] >= index[:-1]).all())
            last[side] = int(index[-1])
        seen += len(entries[0])
    if seen != header.entries:
        raise InputError(
            f"{seen:,} entries, but the header announces {header.entries:,}",
            path=path,
            line=header.first_line - 1,
            remedy="the file is cut short or its header is wrong: copy it again",
        )
    if ordered[1]:
        return "samples", counts[1]
    if ordered[0]:
        return "features", counts[0]
    raise InputError(
        "the entries are sorted neither by barcode (column) nor by feature (row)",
        path=path,
        remedy="sort them, or read the matrix with scipy and write it as h5ad",
    )


def _read_entries(
    path: Path, dtype: np.dtype[Any], first_line: int, size: int
) -> Iterator[Entries]:
    """Parse entries: 0-based rows and columns, and values; none of a block is empty."""
    number = 1
    for text in text_blocks(path, size):
        block = text
        if number < first_line:
            lines = block.splitlines(keepends=True)
            block = b"".join(lines[first_line - number :])
            number += len(lines)
            if not block.strip():
                continue
        entries = _parse(block, dtype)
        if entries is None:  # as from other writers: tabs, or several spaces
            entries = _parse(_EDGES.sub(b"", _SPACES.sub(b" ", block)), dtype)
        if entries is None:
            raise _bad_entry(path, dtype, first_line)
        if len(entries[0]):
            yield entries


def _parse(block: bytes, dtype: np.dtype[Any]) -> Entries | None:
    if b"x" in block or b"X" in block or b"(" in block:  # 0x1f and nan(1): pyarrow takes them
        return None
    if not block.strip():
        empty = np.empty(0, np.int64)
        return empty, empty, np.empty(0, dtype)
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(
                column_names=["row", "column", "value"],
                use_threads=False,
                block_size=len(block) + 1,
            ),
            pa.csv.ParseOptions(delimiter=" ", quote_char=False),
            pa.csv.ConvertOptions(
                column_types={
                    "row": pa.int64(),
                    "column": pa.int64(),
                    "value": pa.from_numpy_dtype(dtype),
                },
                null_values=[],
            ),
        )
    except pa.ArrowInvalid:
        return None
    rows, columns, values = (table.column(i).to_numpy() for i in range(3))
    return rows - 1, columns - 1, values


def _bad_entry(path: Path, dtype: np.dtype[Any], first_line: int) -> InputError:
    value = _INTEGER if dtype.kind == "i" else _NUMBER
    for number, line in enumerate(text_lines(path), start=1):
        words = line.split()
        if number < first_line or not words:
            continue
        grammars = (_INTEGER, _INTEGER, value)
        if len(words) != 3 or not all(g.fullmatch(w) for g, w in zip(grammars, words, strict=True)):
            break
    else:
        number, line = first_line, b"?"
    what = "an integer" if dtype.kind == "i" else "a number"
    return InputError(
        f"entry {shown(line)}",
        path=path,
        line=number,
        remedy=f"an entry is a row, a column and {what}, with a space between",
    )


def _changed(path: Path) -> InputError:
    return InputError(
        "other entries than when it was opened",
        path=path,
        remedy="the file changed while it was read: start again",
    )

"""The BED family: tab-separated intervals, 0-based and half-open.

Column layouts come from bioframe, parsing from pyarrow, and every refusal names the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from data_shards.contigs import Contigs, Naming, naming_hint
from data_shards.errors import InputError
from data_shards.sources.files import open_binary

IntervalFormat = Literal["bed3", "bed4", "bed5", "bed6", "bed12", "narrowPeak", "broadPeak"]

_EXTENSIONS: dict[str, IntervalFormat] = {"narrowpeak": "narrowPeak", "broadpeak": "broadPeak"}
_FRAGMENTS = {"bedpe", "fragments"}
_COMMENTS = (b"#", b"track", b"browser")


@dataclass(frozen=True)
class Intervals:
    """Intervals on known contigs, in the order of the file. All arrays have shape (intervals,).

    Attributes:
        contig: int32, number of the contig in the reference.
        start: int64, 0-based, inclusive.
        end: int64, exclusive.
        strand: int8, +1, -1, or 0 where the file gives none.
        score: float64, NaN where the file gives none.
    """

    contig: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    strand: npt.NDArray[np.int8]
    score: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start)

    def take(self, keep: npt.NDArray[np.bool_]) -> Intervals:
        """Keep the intervals where the mask is true."""
        return Intervals(
            self.contig[keep],
            self.start[keep],
            self.end[keep],
            self.strand[keep],
            self.score[keep],
        )


def read_intervals(
    path: Path, contigs: Contigs, naming: Naming, layout: IntervalFormat | None = None
) -> Intervals:
    """Read a BED-like file and check every line against the reference.

    Args:
        path: plain or gzip file, tab-separated. ``#``, ``track`` and ``browser`` lines at the top
            are passed over.
        contigs: of the reference.
        naming: how this file names them.
        layout: column layout; by default told from the extension, else from the column count.

    Returns:
        One interval a line, in file order.

    Raises:
        InputError: names file and line of: a wrong column count, a position that is no number,
            an unknown contig, start < 0, start >= end, end beyond the contig, a bad strand or
            score; or an empty file.
    """
    table, header = _read_text(path)
    columns = _columns(path, table.num_columns, layout)
    locate = _Locator(path, header)
    start = _positions(table.column(1), "start", locate)
    end = _positions(table.column(2), "end", locate)
    contig = _contig_numbers(table.column(0), contigs, naming, locate)
    _check_bounds(contig, start, end, contigs, locate)
    strand = np.zeros(len(start), dtype=np.int8)
    if "strand" in columns:
        strand = _strands(table.column(columns.index("strand")), locate)
    score = np.full(len(start), np.nan)
    if "score" in columns:
        text = table.column(columns.index("score"))
        score = _scores(text, locate)
    return Intervals(contig, start, end, strand, score)


@dataclass(frozen=True)
class _Locator:
    """Turns a 0-based record number into a line number, and that into an error."""

    path: Path
    header: int

    def error(self, record: int, problem: str, remedy: str) -> InputError:
        seen = -1
        with open_binary(self.path) as stream:
            for number, line in enumerate(stream, start=1):
                if number > self.header and line.strip():
                    seen += 1
                    if seen == record:
                        return InputError(problem, path=self.path, line=number, remedy=remedy)
        return InputError(problem, path=self.path, remedy=remedy)


def _read_text(path: Path) -> tuple[pa.Table, int]:
    """Read all columns as text; return them with the number of header lines."""
    header = 0
    with open_binary(path) as stream:
        for line in stream:
            if not line.startswith(_COMMENTS) and line.strip():
                width = line.rstrip(b"\r\n").count(b"\t") + 1
                break
            header += 1
        else:
            raise InputError(
                "no interval in the file", path=path, remedy="give a file that has records"
            )
    if width < 3:
        raise InputError(
            f"{width} tab-separated column(s) where at least 3 are needed",
            path=path,
            line=header + 1,
            remedy="a line is contig, start, end, ... with tabs between (spaces don't count)",
        )
    names = [f"c{i}" for i in range(width)]
    wrong: list[tuple[int, int]] = []

    def note(row: pa.csv.InvalidRow) -> str:
        wrong.append((row.number, row.actual_columns))
        return "skip"

    with open_binary(path) as stream:
        table = pa.csv.read_csv(
            stream,
            pa.csv.ReadOptions(column_names=names, skip_rows=header, use_threads=False),
            pa.csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=note),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    if wrong:
        number, actual = wrong[0]
        # pyarrow counts rows from 1 and includes the skipped header
        raise _Locator(path, header).error(
            number - 1 - header,
            f"{actual} columns where the first record has {width}",
            "every line needs the same columns, with tabs between",
        )
    return table, header


def _columns(path: Path, width: int, layout: IntervalFormat | None) -> list[str]:
    """Return the column names of a file by its stated layout, extension or width."""
    import bioframe  # half a second that readers of finished data sets need not wait for

    suffixes = [s.lstrip(".").lower() for s in path.suffixes if s.lower() not in {".gz", ".bgz"}]
    extension = suffixes[-1] if suffixes else ""
    if layout is None:
        layout = _EXTENSIONS.get(extension)
    if layout is None and extension in _FRAGMENTS:
        layout = "bed3"  # fragments: contig, start, end; what follows is a barcode or a count
    if layout is None:
        widths: dict[int, IntervalFormat] = {3: "bed3", 4: "bed4", 5: "bed5", 12: "bed12"}
        layout = widths.get(width, "bed6")
    columns: list[str] = list(bioframe.SCHEMAS[layout])
    if width < len(columns):
        raise InputError(
            f"{width} columns, but {layout} has {len(columns)}: {', '.join(columns)}",
            path=path,
            remedy=f"set the task's format to one of {', '.join(get_args(IntervalFormat))}",
        )
    return columns


def _positions(text: pa.ChunkedArray, what: str, locate: _Locator) -> npt.NDArray[np.int64]:
    try:
        return np.asarray(pc.cast(text, pa.int64()).to_numpy(), dtype=np.int64)
    except pa.ArrowInvalid as error:
        raise _no_number(text, what, int, locate, error) from error


def _scores(text: pa.ChunkedArray, locate: _Locator) -> npt.NDArray[np.float64]:
    no_score = pa.scalar(None, pa.string())  # BED writes "."
    text = pc.if_else(pc.equal(text, "."), no_score, text)
    try:
        values = np.asarray(pc.cast(text, pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowInvalid as error:
        raise _no_number(text, "score", float, locate, error) from error
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise locate.error(int(infinite[0]), "score is infinite", "give a finite number or '.'")
    return values


def _no_number(
    text: pa.ChunkedArray,
    what: str,
    kind: type[int] | type[float],
    locate: _Locator,
    cause: Exception,
) -> Exception:
    """Find the value that is no number, for the message."""
    for record, value in enumerate(text.to_pylist()):
        if value is not None and not _parses(kind, value):
            return locate.error(
                record,
                f"{what} is {value!r}, not a number",
                "columns are contig, start, end, ...; positions are 0-based integers",
            )
    return cause


def _parses(kind: type[int] | type[float], value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return "_" not in value and value == value.strip()


def _contig_numbers(
    text: pa.ChunkedArray, contigs: Contigs, naming: Naming, locate: _Locator
) -> npt.NDArray[np.int32]:
    encoded = pc.dictionary_encode(text).combine_chunks()
    names: list[str] = encoded.dictionary.to_pylist()
    codes: npt.NDArray[np.int32] = encoded.indices.to_numpy()
    numbers = np.array([contigs.index.get(naming.translate(n), -1) for n in names], dtype=np.int32)
    unknown = np.flatnonzero(numbers[codes] < 0)
    if unknown.size:
        name = names[codes[unknown[0]]]
        raise locate.error(
            int(unknown[0]),
            f"contig {name!r} is not in the reference",
            naming_hint(name, contigs),
        )
    return numbers[codes]


def _check_bounds(
    contig: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    contigs: Contigs,
    locate: _Locator,
) -> None:
    lengths = np.array(contigs.lengths, dtype=np.int64)
    faults = (start < 0) | (start >= end) | (end > lengths[contig])
    if not faults.any():
        return
    record = int(np.flatnonzero(faults)[0])
    first, last = int(start[record]), int(end[record])
    name, length = contigs.names[contig[record]], contigs.lengths[contig[record]]
    if first < 0:
        raise locate.error(record, f"start is {first}, below 0", "BED positions are 0-based")
    if first >= last:
        raise locate.error(
            record,
            f"start {first} is not below end {last}",
            "BED intervals are half-open: a single base at 5 is written 5, 6",
        )
    raise locate.error(
        record,
        f"end {last} is past the end of contig {name!r} ({length:,} bp)",
        "the file belongs to another assembly, or the line is wrong",
    )


def _strands(text: pa.ChunkedArray, locate: _Locator) -> npt.NDArray[np.int8]:
    encoded = pc.dictionary_encode(text).combine_chunks()
    symbols: list[str] = encoded.dictionary.to_pylist()
    codes: npt.NDArray[np.int32] = encoded.indices.to_numpy()
    values = np.array([{"+": 1, "-": -1, ".": 0}.get(s, 99) for s in symbols], dtype=np.int8)
    strand = values[codes]
    bad = np.flatnonzero(strand == 99)
    if bad.size:
        symbol = symbols[codes[bad[0]]]
        raise locate.error(int(bad[0]), f"strand is {symbol!r}", "write '+', '-' or '.'")
    return strand

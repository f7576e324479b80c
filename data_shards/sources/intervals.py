"""Interval files: the BED family, peaks, read pairs, fragments. All are 0-based and half-open.

Files are read in blocks of bounded memory, and every refusal names the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.tabular import (
    BLOCK_BYTES,
    TRACK_LINES,
    RecordError,
    check_bounds,
    contig_numbers,
    convert,
    first_record,
    integers,
    numbers,
    read_blocks,
    strands,
)

IntervalFormat = Literal[
    "bed3",
    "bed4",
    "bed5",
    "bed6",
    "bed7",
    "bed8",
    "bed9",
    "bed12",
    "narrowPeak",
    "broadPeak",
    "bedGraph",
    "bedpe",
    "fragments",
    "tagAlign",
]

_BED = (
    *("chrom", "start", "end", "name", "score", "strand"),
    *("thickStart", "thickEnd", "itemRgb", "blockCount", "blockSizes", "blockStarts"),
)
_PEAK = (*_BED[:6], "signalValue", "pValue", "qValue")
_MATES = ("chrom1", "start1", "end1", "chrom2", "start2", "end2")

COLUMNS: Mapping[IntervalFormat, tuple[str, ...]] = {
    "bed3": _BED[:3],
    "bed4": _BED[:4],
    "bed5": _BED[:5],
    "bed6": _BED[:6],
    "bed7": _BED[:7],
    "bed8": _BED[:8],
    "bed9": _BED[:9],
    "bed12": _BED,
    "narrowPeak": (*_PEAK, "peak"),
    "broadPeak": _PEAK,
    "bedGraph": (*_BED[:3], "value"),
    "bedpe": (*_MATES, "name", "score", "strand1", "strand2"),
    "fragments": (*_BED[:3], "barcode", "count"),
    "tagAlign": (*_BED[:3], "sequence", "score", "strand"),
}

_EXTENSIONS: dict[str, IntervalFormat] = {
    "narrowpeak": "narrowPeak",
    "broadpeak": "broadPeak",
    "bedgraph": "bedGraph",
    "bdg": "bedGraph",
    "bg": "bedGraph",
    "fragments": "fragments",
    "tagalign": "tagAlign",
}
# Any other width is bed6 and more: what follows the strand is not read.
_BY_WIDTH: dict[int, IntervalFormat] = {3: "bed3", 4: "bed4", 5: "bed5", 12: "bed12"}
_POSITIONS = "columns are contig, start, end, ...; positions are 0-based integers"
_OTHERS = "columns are contig, start, end, name, score, strand; set the task's format if not so"


@dataclass(frozen=True)
class Intervals:
    """Intervals on known contigs, in the order of the file. All arrays have shape (intervals,).

    Attributes:
        contig: int32, number of the contig in the reference.
        start: int64, 0-based, inclusive.
        end: int64, exclusive.
        strand: int8, +1, -1, or 0 where the file gives none.
        score: float64, NaN where the file gives none. The value of a bedGraph, the count of a
            fragment.
        summit: int64, 0-based position of the highest base, -1 where the peak has none; None
            where the layout has no summits (all but narrowPeak).
    """

    contig: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    strand: npt.NDArray[np.int8]
    score: npt.NDArray[np.float64]
    summit: npt.NDArray[np.int64] | None = None

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
            None if self.summit is None else self.summit[keep],
        )


def concatenate(parts: Sequence[Intervals]) -> Intervals:
    """Join one or more parts of one file, in their order."""
    summits = [part.summit for part in parts if part.summit is not None]
    return Intervals(
        np.concatenate([part.contig for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
        np.concatenate([part.strand for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate(summits) if summits else None,
    )


def read_intervals(
    path: Path, contigs: Contigs, naming: Naming, layout: IntervalFormat | None = None
) -> Intervals:
    """Read a whole interval file; see :func:`stream_intervals`, which takes less memory.

    Returns:
        One interval a line, in file order.
    """
    return concatenate(list(stream_intervals(path, contigs, naming, layout)))


def stream_intervals(
    path: Path,
    contigs: Contigs,
    naming: Naming,
    layout: IntervalFormat | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Intervals]:
    """Read an interval file block by block and check every line against the reference.

    The pair of mates of a bedpe line is one interval without a strand, from the smaller start to
    the larger end. Columns that no attribute of :class:`Intervals` holds are counted but not read.

    Args:
        path: plain or gzip file, tab-separated. Blank lines, ``#`` lines, and ``track`` and
            ``browser`` lines at the top are passed over.
        contigs: of the reference.
        naming: how this file names them.
        layout: column layout; by default told from the extension, else from the column count.
            The bed layouts and bedpe may have more columns than they need, the others may not.
        block_bytes: text a block, in bytes.

    Yields:
        One interval a line, in file order, at least one a block.

    Raises:
        InputError: names file and line of: a wrong column count, a position that is no number,
            an unknown contig, start < 0, start >= end, end beyond the contig, a bad strand,
            score, count or summit, mates on two contigs, a damaged or binary file; or an empty
            file. It is always the first faulty line.
    """
    line, width = _first_record(path)
    layout = _layout(path, width, layout)
    wanted = _wanted(layout, width)

    def parse(table: pa.Table) -> Intervals:
        if layout == "bedpe":
            return _pairs(table, contigs, naming)
        return _singles(table, contigs, naming, layout)

    for block in read_blocks(path, line, width, wanted, block_bytes):
        if len(found := convert(block, parse)):
            yield found


@dataclass(frozen=True)
class BedBlocks:
    """The blocks (exons) of bed12 records, in the order of the file.

    Attributes:
        intervals: one a block, with strand and score of its record.
        record: int64, shape (blocks,), 0-based number of the record in the file.
    """

    intervals: Intervals
    record: npt.NDArray[np.int64]


def stream_bed12_blocks(
    path: Path, contigs: Contigs, naming: Naming, block_bytes: int = BLOCK_BYTES
) -> Iterator[BedBlocks]:
    """Read a bed12 file and expand every record into its blocks.

    Args:
        path: as in :func:`stream_intervals`; 12 columns or more.
        contigs: of the reference.
        naming: how this file names them.
        block_bytes: text read at a time, in bytes.

    Yields:
        Blocks of whole records.

    Raises:
        InputError: as :func:`stream_intervals`, and names the line where blockCount, blockSizes
            and blockStarts disagree, where blocks are empty, overlap or aren't in order, or where
            they don't reach from the start of the record to its end.
    """
    line, width = _first_record(path)
    wanted = _wanted(_layout(path, width, "bed12"), width)
    wanted |= {name: _BED.index(name) for name in ("blockCount", "blockSizes", "blockStarts")}
    records = 0
    for block in read_blocks(path, line, width, wanted, block_bytes):
        found = convert(block, lambda table: _expand(table, contigs, naming))
        if len(found.record):
            yield BedBlocks(found.intervals, found.record + records)
        records += block.table.num_rows


def _first_record(path: Path) -> tuple[int, int]:
    line, width = first_record(path, TRACK_LINES)
    if width < 3:
        raise InputError(
            f"{width} tab-separated column(s) where at least 3 are needed",
            path=path,
            line=line,
            remedy="a line is contig, start, end, ... with tabs between (spaces don't count)",
        )
    return line, width


def _layout(path: Path, width: int, layout: IntervalFormat | None) -> IntervalFormat:
    """Return the layout of a file by what is stated, its extension or its width."""
    suffixes = [s.lstrip(".").lower() for s in path.suffixes if s.lower() not in {".gz", ".bgz"}]
    extension = suffixes[-1] if suffixes else ""
    if layout is None and extension == "bedpe":
        # Tools call files of whole fragments so too (MACS does); they have no second mate.
        layout = "fragments" if width <= 5 else "bedpe"
    if layout is None:
        layout = _EXTENSIONS.get(extension)
    if layout is None:
        layout = _BY_WIDTH.get(width, "bed6")
    columns = COLUMNS[layout]
    fewest = 3 if layout == "fragments" else len(columns)
    open_ended = layout.startswith("bed") and layout != "bedGraph"
    if width < fewest or (width > len(columns) and not open_ended):
        has = f"3 to {len(columns)}" if layout == "fragments" else str(len(columns))
        raise InputError(
            f"{width} columns, but {layout} has {has}: {', '.join(columns)}",
            path=path,
            remedy=f"set the task's format to one of {', '.join(get_args(IntervalFormat))}",
        )
    return layout


def _wanted(layout: IntervalFormat, width: int) -> dict[str, int]:
    """Return name and position of the columns that are read."""
    names = {"chrom", "start", "end", "score", "strand", "peak", "value", "count"}
    if layout == "bedpe":
        names = {*_MATES, "score", "strand1", "strand2"}
    return {name: i for i, name in enumerate(COLUMNS[layout][:width]) if name in names}


def _singles(
    table: pa.Table, contigs: Contigs, naming: Naming, layout: IntervalFormat
) -> Intervals:
    """Convert lines that begin with contig, start and end."""
    present = set(table.column_names)
    start = integers(table["start"], "start", _POSITIONS)
    end = integers(table["end"], "end", _POSITIONS)
    contig = contig_numbers(table["chrom"], contigs, naming)
    check_bounds(contig, start, end, contigs)
    strand = np.zeros(len(start), dtype=np.int8)
    if "strand" in present:
        strand = strands(table["strand"], required=layout == "tagAlign")
    score = np.full(len(start), np.nan)
    if "score" in present:
        score = numbers(table["score"], "score", _OTHERS)
    elif "value" in present:
        remedy = "columns are contig, start, end, value; take lines without a value out"
        score = numbers(table["value"], "value", remedy, missing=None)
    elif "count" in present:
        score = _counts(table["count"]).astype(np.float64)
    summit = _summits(table["peak"], start, end) if "peak" in present else None
    return Intervals(contig, start, end, strand, score, summit)


def _counts(text: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    counts = integers(text, "count", "columns are contig, start, end, barcode, count")
    if (low := np.flatnonzero(counts < 1)).size:
        problem = f"count is {counts[low[0]]}, below 1"
        raise RecordError(int(low[0]), problem, "column 5 counts the reads of a fragment")
    return counts


def _summits(
    text: pa.ChunkedArray, start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the position of each summit, -1 for none, from its offset in the peak."""
    remedy = "peak is the summit's distance from start, below the peak's length, or -1 for none"
    offset = integers(text, "peak", remedy)
    length = end - start
    if (wrong := np.flatnonzero((offset < -1) | (offset >= length))).size:
        record = int(wrong[0])
        problem = f"peak is {offset[record]}, but the interval has {length[record]} bp"
        raise RecordError(record, problem, remedy)
    return np.where(offset < 0, -1, start + offset)


def _pairs(table: pa.Table, contigs: Contigs, naming: Naming) -> Intervals:
    """Convert bedpe lines: one interval from the smaller start to the larger end."""
    ends = []
    for mate in ("1", "2"):
        unmapped = pc.index(table[f"chrom{mate}"], ".").as_py()
        if unmapped >= 0:
            remedy = "keep only pairs of which both mates are mapped"
            raise RecordError(unmapped, f"mate {mate} is not mapped (chrom{mate} is '.')", remedy)
        start = integers(table[f"start{mate}"], f"start{mate}", _POSITIONS)
        end = integers(table[f"end{mate}"], f"end{mate}", _POSITIONS)
        contig = contig_numbers(table[f"chrom{mate}"], contigs, naming)
        check_bounds(contig, start, end, contigs, which=mate)
        strands(table[f"strand{mate}"])
        ends.append((contig, start, end))
    (contig, start, end), (other, start2, end2) = ends
    if (apart := np.flatnonzero(contig != other)).size:
        record = int(apart[0])
        names = (contigs.names[contig[record]], contigs.names[other[record]])
        raise RecordError(
            record,
            f"the mates lie on two contigs, {names[0]!r} and {names[1]!r}",
            "keep only pairs of which both mates lie on one contig (columns 1 and 4 are equal)",
        )
    score = numbers(table["score"], "score", "column 8 is the score, '.' for none")
    strand = np.zeros(len(start), dtype=np.int8)
    return Intervals(contig, np.minimum(start, start2), np.maximum(end, end2), strand, score)


def _expand(table: pa.Table, contigs: Contigs, naming: Naming) -> BedBlocks:
    whole = _singles(table, contigs, naming, "bed12")
    count = integers(table["blockCount"], "blockCount", "column 10 is the number of blocks")
    size, record = _listed(table["blockSizes"], "blockSizes", count)
    offset, _ = _listed(table["blockStarts"], "blockStarts", count)
    length = (whole.end - whole.start)[record]
    first = np.diff(record, prepend=-1) != 0
    last = np.diff(record, append=len(count)) != 0
    # Sizes and offsets are within the record before they are added: no overflow.
    outside = (size < 1) | (offset < 0) | (size > length) | (offset > length - size)
    stop = np.where(outside, 0, offset + size)
    for faulty, problem in (
        (outside, "a block is empty or not within the record"),
        (~first & (offset < np.roll(stop, 1)), "blocks overlap or are not in order"),
        (first & (offset != 0), "the first block does not begin at the record's start"),
        (last & (stop != length), "the last block does not stop at the record's end"),
    ):
        if faulty.any():
            remedy = "blockStarts count from the record's start; blocks rise and cover both ends"
            raise RecordError(int(record[np.flatnonzero(faulty)[0]]), problem, remedy)
    start = whole.start[record] + offset
    blocks = Intervals(
        whole.contig[record], start, start + size, whole.strand[record], whole.score[record]
    )
    return BedBlocks(blocks, record)


def _listed(
    text: pa.ChunkedArray, what: str, count: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Parse a column of comma-separated integers; return them and the record of each."""
    remedy = f"{what} are blockCount integers with commas between"
    lists = pc.split_pattern(pc.replace_substring_regex(text, ",$", ""), ",").combine_chunks()
    lengths = pc.list_value_length(lists).to_numpy()
    if (wrong := np.flatnonzero(lengths != count)).size:
        record = int(wrong[0])
        problem = f"{what} has {lengths[record]} values where blockCount is {count[record]}"
        raise RecordError(record, problem, remedy)
    parents = np.repeat(np.arange(len(count), dtype=np.int64), lengths)
    try:
        return integers(pa.chunked_array([lists.flatten()]), what, remedy), parents
    except RecordError as fault:
        raise RecordError(int(parents[fault.record]), fault.problem, fault.remedy) from None

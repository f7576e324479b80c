"""Signal tracks, a number a base: bigWig (by pybigtools) and bedGraph, in bins.

Both formats go the same way: values of single bases (float32, NaN where the file has none), then
one binning in float64. A bedGraph and the bigWig made of it give the same bins to the last bit.
Zoom levels of a bigWig are never read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.bbi import Bbi, damaged, data_blocks, read_bbi
from data_shards.sources.contig_table import match_contigs
from data_shards.sources.intervals import Intervals

Summary = Literal["mean", "sum", "max", "min"]
FloatT = TypeVar("FloatT", bound=np.floating[Any])

_BLOCK_BASES = 1 << 20
_SECTION = "<IIIIIBBH"
_SECTION_BYTES = 24


@dataclass(frozen=True)
class BigWigHeader:
    """A bigWig file that has been checked against the reference. Can be pickled.

    Attributes:
        path: the file.
        contigs: of the reference.
        names: the file's name of each contig of the reference, None where the file lacks it.
    """

    path: Path
    contigs: Contigs
    names: tuple[str | None, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """Contigs of the reference that the file lacks: they have no value anywhere."""
        return tuple(
            name for name, own in zip(self.contigs.names, self.names, strict=True) if own is None
        )


@dataclass(frozen=True)
class BigWig:
    """An open bigWig file. Belongs to the process that opened it."""

    header: BigWigHeader
    reader: Any

    @property
    def path(self) -> Path:
        """The file."""
        return self.header.path

    @property
    def contigs(self) -> Contigs:
        """Contigs of the reference."""
        return self.header.contigs


@dataclass(frozen=True)
class BedGraph:
    """The disjoint intervals of a bedGraph, sorted by contig and start.

    Attributes:
        path: the file, for messages.
        contigs: of the reference.
        bounds: int64, shape (contigs + 1,): contig i has the intervals ``bounds[i]:bounds[i + 1]``.
        start: int64, shape (intervals,), 0-based.
        end: int64, shape (intervals,), exclusive.
        value: float32, shape (intervals,), finite.
    """

    path: Path
    contigs: Contigs
    bounds: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]


def scan_bigwig(path: Path, contigs: Contigs, naming: Naming) -> BigWigHeader:
    """Read a bigWig file once from end to end and check it, its index and its contigs.

    Memory is the index and one data block.

    Args:
        path: the file.
        contigs: of the reference.
        naming: how the file names them.

    Returns:
        What the readers need. A contig of the reference may be absent from the file.

    Raises:
        InputError: not a bigWig file, truncated or damaged; a contig that the reference does not
            have or that has another length there; values beyond a contig's end or given twice.
    """
    bbi = read_bbi(path, "bigWig")
    names = match_contigs(path, bbi.lengths, contigs, naming)
    _check_sections(bbi)
    header = BigWigHeader(path, contigs, names)
    with open_bigwig(header):  # the library reads parts of the header that nothing else needs
        return header


@contextmanager
def open_bigwig(header: BigWigHeader) -> Iterator[BigWig]:
    """Open a scanned bigWig file for reading, whatever its extension is.

    Raises:
        InputError: the file can't be opened any more.
    """
    import pybigtools

    try:
        stream = header.path.open("rb")
    except OSError as error:
        raise InputError(
            f"can't be opened: {error.strerror}", path=header.path, remedy="leave it in its place"
        ) from error
    with stream:
        with _library_errors(header.path):
            reader = pybigtools.open(stream)
        try:
            yield BigWig(header, reader)
        finally:
            reader.close()


def bedgraph(intervals: Intervals, contigs: Contigs, path: Path) -> BedGraph:
    """Turn the intervals of a bedGraph file, sorted or not, into a signal track.

    Args:
        intervals: all records of the file; ``score`` is the value. It is rounded to float32, which
            is what a bigWig holds.
        contigs: of the reference.
        path: the file, for messages.

    Raises:
        InputError: two intervals overlap (names both), or a value is missing, not finite or too
            large for float32.
    """
    with np.errstate(over="ignore"):
        value = intervals.score.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(value))
    if bad.size:
        record = int(bad[0])
        raise InputError(
            f"the value of {_shown(intervals, contigs, record)} is {intervals.score[record]}",
            path=path,
            remedy="a value is a finite number that fits float32; leave out bases without a value",
        )
    order = np.lexsort((intervals.start, intervals.contig))
    contig, start, end = intervals.contig[order], intervals.start[order], intervals.end[order]
    overlaps = np.flatnonzero((contig[1:] == contig[:-1]) & (start[1:] < end[:-1]))
    if overlaps.size:
        first, second = order[overlaps[0] : overlaps[0] + 2].tolist()
        raise InputError(
            f"{_shown(intervals, contigs, first)} and {_shown(intervals, contigs, second)} overlap",
            path=path,
            remedy="a base has one value: merge them (bedtools merge, bedtools genomecov)",
        )
    bounds = np.searchsorted(contig, np.arange(len(contigs.names) + 1)).astype(np.int64)
    return BedGraph(path, contigs, bounds, start, end, value[order])


def read_signal(
    track: BigWig | BedGraph, contig: int, start: int, stop: int
) -> npt.NDArray[np.float32]:
    """Read the values of single bases.

    Args:
        track: an open bigWig or a bedGraph.
        contig: number of the contig in the reference.
        start: first base, 0-based.
        stop: end, exclusive; not beyond the contig.

    Returns:
        float32, shape ``(stop - start,)``, NaN where the file has no value (or states NaN).

    Raises:
        InputError: the file is damaged, or has an infinite value in the stretch.
        ValueError: the stretch is not within the contig.
    """
    if not 0 <= start <= stop <= track.contigs.lengths[contig]:
        raise ValueError(
            f"{start}-{stop} is not within contig {track.contigs.names[contig]!r} "
            f"({track.contigs.lengths[contig]} bp)"
        )
    if isinstance(track, BedGraph):
        return _paint(track, contig, start, stop)
    name = track.header.names[contig]
    if name is None or start == stop:
        return np.full(stop - start, np.nan, dtype=np.float32)
    with _library_errors(track.path):
        values = track.reader.values(
            name, start, stop, uncovered=None, fillna=None, oob=float("nan")
        )
    return to_dtype(values, np.float32, track.path, track.contigs.names[contig], start)


def binned(
    track: BigWig | BedGraph,
    contig: int,
    start: int,
    stop: int,
    bin: int,
    summary: Summary,
    missing: float | None = None,
) -> npt.NDArray[np.float32]:
    """Summarise the signal of a stretch in bins, exactly, from the values of single bases.

    Args:
        track: an open bigWig or a bedGraph.
        contig: number of the contig in the reference.
        start: first base, 0-based; the first bin begins there.
        stop: end, exclusive; not beyond the contig. The last bin may be short.
        bin: bases in a bin, at least 1.
        summary: what a bin gets of its values.
        missing: the value that a base without one has. With None such bases don't count: the mean
            is over the others, and a bin that has no value at all is NaN.

    Returns:
        float32, shape ``(ceil((stop - start) / bin),)``. Memory beside it is about 1 M bases, or
        one bin where that is larger.

    Raises:
        InputError: the file is damaged, has an infinite value there, or a sum exceeds float32.
        ValueError: the stretch is not within the contig, or the bin is below 1.
    """
    if bin < 1:
        raise ValueError(f"a bin of {bin} bases")
    step = max(_BLOCK_BASES // bin, 1) * bin
    blocks = [
        bin_values(read_signal(track, contig, lo, min(lo + step, stop)), bin, summary, missing)
        for lo in range(start, stop, step)
    ] or [bin_values(read_signal(track, contig, start, stop), bin, summary, missing)]
    values = np.concatenate(blocks)
    return to_dtype(values, np.float32, track.path, track.contigs.names[contig], start, bin)


def bin_values(
    values: npt.NDArray[np.floating[Any]], bin: int, summary: Summary, missing: float | None = None
) -> npt.NDArray[np.float64]:
    """Summarise the values of single bases in bins.

    Args:
        values: shape (bases,); NaN is a base without a value.
        bin: bases in a bin; the last bin has what is left.
        summary: mean, sum, max or min.
        missing: as for :func:`binned`.

    Returns:
        float64, shape ``(ceil(bases / bin),)``; NaN for a bin without a value.
    """
    exact = values.astype(np.float64)
    if missing is not None:
        exact[np.isnan(exact)] = missing
    whole = len(exact) // bin * bin
    pieces = [_summarise(exact[:whole].reshape(-1, bin), summary)]
    if whole < len(exact):
        pieces.append(_summarise(exact[None, whole:], summary))
    return np.concatenate(pieces)


def to_dtype(
    values: npt.NDArray[np.floating[Any]],
    dtype: type[FloatT] | np.dtype[FloatT],
    path: Path,
    contig: str,
    start: int,
    bin: int = 1,
) -> npt.NDArray[FloatT]:
    """Convert to another float type; refuse what would become infinite, never clip it.

    Args:
        values: shape (bins,); NaN stays NaN.
        dtype: float16, float32 or float64. Values are rounded to the nearest that it has.
        path: the file, for the message.
        contig: the contig's name, for the message.
        start: 0-based position of the first value, for the message.
        bin: bases that a value stands for, for the message.

    Raises:
        InputError: names file, locus and value of the first that does not fit or is infinite.
    """
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    bad = np.flatnonzero(np.isinf(narrow))
    if bad.size:
        at, value = start + int(bad[0]) * bin, float(values[bad[0]])
        raise InputError(
            f"{contig}:{at}-{at + bin} (0-based): {value:g} does not fit {np.dtype(dtype).name}",
            path=path,
            remedy="scale the track down, summarise it otherwise, or store a wider type",
        )
    return narrow


def _summarise(rows: npt.NDArray[np.float64], summary: Summary) -> npt.NDArray[np.float64]:
    if summary == "max":
        return np.asarray(np.fmax.reduce(rows, axis=1), dtype=np.float64)
    if summary == "min":
        return np.asarray(np.fmin.reduce(rows, axis=1), dtype=np.float64)
    present = ~np.isnan(rows)
    count = present.sum(axis=1)
    total = np.where(count > 0, np.where(present, rows, 0.0).sum(axis=1), np.nan)
    return total / np.maximum(count, 1) if summary == "mean" else total


def _paint(track: BedGraph, contig: int, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Write the intervals that touch a stretch onto its bases."""
    lo, hi = track.bounds[contig], track.bounds[contig + 1]
    first = lo + np.searchsorted(track.end[lo:hi], start, side="right")
    last = lo + np.searchsorted(track.start[lo:hi], stop, side="left")
    begins = np.maximum(track.start[first:last], start)
    ends = np.minimum(track.end[first:last], stop)
    # Gap, interval, gap, interval, ..., gap: the lengths of these runs add up to the stretch.
    edges = np.concatenate([[start], np.stack([begins, ends], axis=1).ravel(), [stop]])
    runs = np.full(len(edges) - 1, np.nan, dtype=np.float32)
    runs[1::2] = track.value[first:last]
    return np.repeat(runs, np.diff(edges))


def _check_sections(bbi: Bbi) -> None:
    """Check every data block against the index, its contig and the block before it."""
    filled = dict.fromkeys(bbi.names, 0)
    lengths = {number: bbi.lengths[name] for number, name in bbi.names.items()}
    for content, entry in zip(data_blocks(bbi), bbi.blocks.tolist(), strict=True):
        if len(content) < _SECTION_BYTES:
            raise damaged(bbi.path, f"the data block at byte {entry[4]:,} is too short")
        number, start, end, _, _, _, _, count = struct.unpack_from(_SECTION, content)
        if count == 0:  # some writers leave an empty block behind, with any range
            continue
        name = bbi.names.get(number)
        if name is None:
            raise damaged(bbi.path, f"values for contig number {number}, which has no name")
        where = f"{name}:{start}-{end} (0-based)"
        if not entry[:2] <= (number, start) or not (number, end) <= entry[2:4]:
            raise damaged(bbi.path, f"the index is wrong about {where}")
        if not start < end <= lengths[number]:
            raise damaged(bbi.path, f"values at {where}; the contig has {lengths[number]:,} bp")
        if start < filled[number]:
            raise damaged(bbi.path, f"the values of {where} come twice or out of order")
        filled[number] = end


def _shown(intervals: Intervals, contigs: Contigs, record: int) -> str:
    name = contigs.names[intervals.contig[record]]
    return f"record {record + 1} ({name}:{intervals.start[record]}-{intervals.end[record]})"


@contextmanager
def _library_errors(path: Path) -> Iterator[None]:
    """Turn what pybigtools raises, Rust panics among it, into InputError."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        known = type(error).__module__ in {"pybigtools", "pyo3_runtime"}
        if not known and not isinstance(error, (OSError, KeyError)):
            raise
        raise damaged(path, f"pybigtools says: {error}") from error

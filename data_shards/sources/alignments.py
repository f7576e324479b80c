"""BAM and CRAM alignments by pysam: reads counted in bins, and depth by base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pysam

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.alignment_index import (
    alignment_kind,
    check_index,
    count_reads,
    index_of,
    quiet,
    stage_cram_reference,
)
from data_shards.sources.contig_table import match_contigs
from data_shards.sources.intervals import Intervals

_PROPER_PAIR, _UNMAPPED, _REVERSE = 0x2, 0x4, 0x10
_SECONDARY, _QC_FAIL, _DUPLICATE, _SUPPLEMENTARY = 0x100, 0x200, 0x400, 0x800
_SKIP = 3  # N of a CIGAR
_TAKES_REFERENCE = frozenset({0, 2, 3, 7, 8})  # M, D, N, = and X
_BLOCKS_AT_ONCE = 1 << 16

_Blocks = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Start, end, and number of the read, of each block of aligned bases; a read's are sorted."""


@dataclass(frozen=True)
class Filters:
    """Which reads count. The defaults are those of ``bedtools multicov``, but for ``unmapped``.

    Attributes:
        min_mapq: least mapping quality.
        duplicates: count reads marked as duplicates.
        qc_fail: count reads that failed quality control.
        secondary: count secondary alignments.
        supplementary: count supplementary alignments.
        proper_pairs: count only reads of proper pairs.
        strand: +1 or -1 to count the reads of that strand only, 0 for both.
        unmapped: in bins, count also reads that have a position but no aligned base (a mate of an
            aligned read), as one base. bedtools 2.30 does so; we don't unless told.
    """

    min_mapq: int = 0
    duplicates: bool = False
    qc_fail: bool = False
    secondary: bool = True
    supplementary: bool = True
    proper_pairs: bool = False
    strand: Literal[-1, 0, 1] = 0
    unmapped: bool = False

    @property
    def excluded(self) -> int:
        """Flags of the reads that don't count."""
        return (
            (0 if self.duplicates else _DUPLICATE)
            | (0 if self.qc_fail else _QC_FAIL)
            | (0 if self.secondary else _SECONDARY)
            | (0 if self.supplementary else _SUPPLEMENTARY)
            | (0 if self.unmapped else _UNMAPPED)
            | (_REVERSE if self.strand > 0 else 0)
        )

    @property
    def required(self) -> int:
        """Flags that a read must have to count."""
        return (_PROPER_PAIR if self.proper_pairs else 0) | (_REVERSE if self.strand < 0 else 0)


MULTICOV = Filters(unmapped=True)
"""Counts exactly what ``bedtools multicov`` 2.30 counts."""

DEPTH = Filters(secondary=False)
"""Counts exactly what ``samtools depth`` counts."""


@dataclass(frozen=True)
class AlignmentHeader:
    """A BAM or CRAM file that has been checked against the reference. Can be pickled.

    Attributes:
        path: the file.
        index: its index, beside it or in the scratch folder.
        fasta: the staged reference of a CRAM; None for a BAM.
        contigs: of the reference.
        names: the file's name of each contig of the reference, None where its header lacks it.
    """

    path: Path
    index: Path
    fasta: Path | None
    contigs: Contigs
    names: tuple[str | None, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """Contigs of the reference that the file's header lacks: they have no reads."""
        named = zip(self.contigs.names, self.names, strict=True)
        return tuple(name for name, own in named if own is None)


@dataclass(frozen=True)
class Alignments:
    """An open BAM or CRAM file. Belongs to the process and thread that opened it."""

    header: AlignmentHeader
    file: Any


def scan_alignments(
    path: Path, contigs: Contigs, naming: Naming, scratch: Path, fasta: Path | None = None
) -> AlignmentHeader:
    """Read a BAM or CRAM file once from end to end and check it, its index and its contigs.

    The header of such a file lists the contigs of the genome that the reads were aligned to. Those
    that have no reads need not be in the reference; every one that has must be, or its reads would
    be lost without a word.

    Args:
        path: the file, sorted by position.
        contigs: of the reference.
        naming: how the file names them.
        scratch: an existing folder for what has to be made: the index, if there is none beside the
            file, and the reference of a CRAM. Must stay as long as the result is in use.
        fasta: the reference; a CRAM can't be decoded without.

    Raises:
        InputError: neither BAM nor CRAM, truncated, damaged, unsorted, without contigs or reads; an
            index that is older than the file or belongs to another; a contig with reads that the
            reference does not have, or one that has another length there; a CRAM without its FASTA
            or with another.
    """
    kind = alignment_kind(path)
    lengths, checksums = _contig_lines(path)
    counts = count_reads(path, scratch)
    used = {name for name, count in counts.items() if count}
    if not used:
        raise InputError(
            "no read of the file has a position", path=path, remedy="give aligned reads"
        )
    names = match_contigs(path, lengths, contigs, naming, used)
    staged = None
    if kind == "cram":
        if fasta is None:
            raise InputError(
                "a CRAM file can't be decoded without its reference",
                path=path,
                remedy="give the FASTA that it was made with",
            )
        known = zip(contigs.names, names, strict=True)
        translated = {name: own for name, own in known if own in used}
        staged = stage_cram_reference(path, fasta, scratch, translated, checksums)
    index = index_of(path, kind, scratch, max(lengths.values()))
    check_index(path, index, kind, counts)
    return AlignmentHeader(path, index, staged, contigs, names)


@contextmanager
def open_alignments(header: AlignmentHeader) -> Iterator[Alignments]:
    """Open a scanned BAM or CRAM file for reading.

    Raises:
        InputError: the file, its index or its reference can't be opened any more.
    """
    try:
        file = pysam.AlignmentFile(
            str(header.path),
            filepath_index=str(header.index),
            reference_filename=None if header.fasta is None else str(header.fasta),
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"can't be opened: {error}",
            path=header.path,
            remedy="leave the file and what was made for it in their places",
        ) from error
    try:
        yield Alignments(header, file)
    finally:
        with suppress(
            OSError
        ):  # pysam repeats a fault of reading here, which has been told already
            file.close()


def bin_counts(
    alignments: Alignments,
    contig: int,
    start: int,
    stop: int,
    bin: int,
    filters: Filters,
    split: bool = False,
) -> npt.NDArray[np.int32]:
    """Count the reads that overlap each bin, as ``bedtools multicov`` counts them.

    A read counts once in every bin that it overlaps by a base or more. It reaches from its first
    to its last aligned base: deletions and introns (D and N of the CIGAR) are within, clipped ends
    are not. With ``split`` (``multicov -split``) introns are left out; deletions stay within.

    Args:
        alignments: the open file.
        contig: number of the contig in the reference.
        start: first base, 0-based; the first bin begins there.
        stop: end, exclusive; not beyond the contig. The last bin may be short.
        bin: bases in a bin, at least 1.
        filters: which reads count.
        split: leave introns out.

    Returns:
        int32, shape ``(ceil((stop - start) / bin),)``.

    Raises:
        InputError: the file is damaged.
        ValueError: the stretch is not within the contig, or the bin is below 1.
    """
    reads = records(alignments, contig, start, stop, filters)
    return _count(_gather(reads, _exons if split else _span(filters)), start, stop, bin)


def coverage(
    alignments: Alignments, contig: int, start: int, stop: int, filters: Filters
) -> npt.NDArray[np.int32]:
    """Count the reads over each base, as ``samtools depth`` does.

    A read counts on the bases that it is aligned to (M, = and X of the CIGAR), not in deletions and
    introns. Mates that overlap count twice. Base qualities are not looked at.

    Args:
        alignments: the open file.
        contig: number of the contig in the reference.
        start: first base, 0-based.
        stop: end, exclusive; not beyond the contig.
        filters: which reads count; :data:`DEPTH` for those of ``samtools depth``.

    Returns:
        int32, shape ``(stop - start,)``.

    Raises:
        InputError: the file is damaged.
        ValueError: the stretch is not within the contig.
    """
    aligned = replace(filters, unmapped=False)
    reads = records(alignments, contig, start, stop, aligned)
    return _count(_gather(reads, lambda read: read.get_blocks()), start, stop, 1)


def bin_intervals(
    intervals: Intervals, contig: int, start: int, stop: int, bin: int, strand: int = 0
) -> npt.NDArray[np.int32]:
    """Count the intervals (reads as tagAlign or BED) that overlap each bin.

    Args:
        intervals: any, in any order. The counts of the parts of a stream add up.
        contig: number of the contig in the reference.
        start: first base, 0-based; the first bin begins there.
        stop: end, exclusive. The last bin may be short.
        bin: bases in a bin, at least 1.
        strand: +1 or -1 to count the intervals of that strand only, 0 for all.

    Returns:
        int32, shape ``(ceil((stop - start) / bin),)``.

    Raises:
        ValueError: the bin is below 1.
    """
    keep = intervals.contig == contig
    if strand:
        keep &= intervals.strand == strand
    each = np.arange(np.count_nonzero(keep))
    return _count([(intervals.start[keep], intervals.end[keep], each)], start, stop, bin)


def records(
    alignments: Alignments, contig: int, start: int, stop: int, filters: Filters
) -> Iterator[Any]:
    """Yield pysam's record of each read that overlaps a stretch and passes the filters.

    Raises:
        InputError: the file is damaged.
        ValueError: the stretch is not within the contig.
    """
    header = alignments.header
    length = header.contigs.lengths[contig]
    if not 0 <= start <= stop <= length:
        name = header.contigs.names[contig]
        raise ValueError(f"{start}-{stop} is not within contig {name!r} ({length} bp)")
    own = header.names[contig]
    if own is None or start == stop:
        return
    excluded, required, least = filters.excluded, filters.required, filters.min_mapq
    try:
        for read in alignments.file.fetch(own, start, stop):
            flag = read.flag
            if flag & excluded or flag & required != required or read.mapping_quality < least:
                continue
            yield read
    except (OSError, ValueError) as error:
        raise InputError(
            f"the reads of {own}:{start}-{stop} (0-based) can't be read: {error}",
            path=header.path,
            remedy="the file was damaged or changed since it was checked: copy it again",
        ) from error


def _span(filters: Filters) -> Callable[[Any], list[tuple[int, int]]]:
    """Return what gives a read's stretch from its first to its last aligned base."""

    def span(read: Any) -> list[tuple[int, int]]:
        start, end = read.reference_start, read.reference_end
        if end is None:  # no aligned base: unmapped, or without a CIGAR
            return [(start, start + 1)] if filters.unmapped else []
        if end == start + 1 and not any(op in _TAKES_REFERENCE for op, _ in read.cigartuples):
            return []  # all of it is clipped; pysam says one base
        return [(start, end)]

    return span


def _exons(read: Any) -> list[tuple[int, int]]:
    """Cut a read's stretch at its introns."""
    blocks = []
    start = end = read.reference_start
    for op, length in read.cigartuples or ():
        if op == _SKIP:
            blocks.append((start, end))
            start = end = end + length
        elif op in _TAKES_REFERENCE:
            end += length
    return [(lo, hi) for lo, hi in (*blocks, (start, end)) if lo < hi]


def _gather(
    reads: Iterator[Any], blocks_of: Callable[[Any], Sequence[tuple[int, int]]]
) -> Iterator[_Blocks]:
    """Put the blocks of reads into arrays, many at a time, those of a read always together."""
    start: list[int] = []
    end: list[int] = []
    owner: list[int] = []
    for number, read in enumerate(reads):
        for lo, hi in blocks_of(read):
            start.append(lo)
            end.append(hi)
            owner.append(number)
        if len(start) >= _BLOCKS_AT_ONCE:
            yield np.array(start), np.array(end), np.array(owner)
            start, end, owner = [], [], []
    if start:
        yield np.array(start), np.array(end), np.array(owner)


def _count(parts: Iterable[_Blocks], start: int, stop: int, bin: int) -> npt.NDArray[np.int32]:
    """Count in each bin the owners of the blocks that overlap it."""
    if bin < 1:
        raise ValueError(f"a bin of {bin} bases")
    steps = np.zeros(-(-(stop - start) // bin) + 1, dtype=np.int32)
    for lo, hi, owner in parts:
        near = (lo < stop) & (hi > start)
        first = (np.maximum(lo[near], start) - start) // bin
        last = (np.minimum(hi[near], stop) - 1 - start) // bin
        # A bin that two blocks of one read share counts for the first of them.
        same = owner[near][1:] == owner[near][:-1]
        first[1:] = np.where(same, np.maximum(first[1:], last[:-1] + 1), first[1:])
        new = first <= last
        np.add.at(steps, first[new], 1)
        np.add.at(steps, last[new] + 1, -1)
    return np.cumsum(steps[:-1], dtype=np.int32)


def _contig_lines(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Return length and, where stated, MD5 of each contig of the header."""
    try:
        with quiet(), pysam.AlignmentFile(str(path)) as file:
            lines = file.header.to_dict()["SQ"]
    except (OSError, ValueError) as error:
        raise InputError(
            f"its header can't be read: {error}",
            path=path,
            remedy="give a file whose header lists the contigs (@SQ lines)",
        ) from error
    lengths = {line["SN"]: int(line["LN"]) for line in lines}
    return lengths, {line["SN"]: line["M5"] for line in lines if "M5" in line}

"""Aligned reads themselves, and fragments: what a pile-up, or a count of fragments, needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.sequence import Codes, encode
from data_shards.sources.alignments import Alignments, Filters, records
from data_shards.sources.intervals import Intervals

NO_QUALITY = 255
CIGAR_OPS = "MIDNSHP=XB"

_FIRST_OF_PAIR, _NOT_PRIMARY = 0x40, 0x900


@dataclass(frozen=True)
class Reads:
    """Aligned reads, sorted by start. Bases and CIGARs of all reads lie end to end.

    Read i has the bases ``base_offsets[i]:base_offsets[i + 1]``, and likewise its CIGAR.

    Attributes:
        start: int64, shape (reads,), 0-based, of the first aligned base.
        end: int64, shape (reads,), exclusive, of the last aligned base.
        strand: int8, shape (reads,), +1 or -1.
        mapq: uint8, shape (reads,), mapping quality, 255 where it is unknown.
        flag: uint16, shape (reads,), the SAM flags.
        base_offsets: int64, shape (reads + 1,).
        codes: uint8, shape (bases,), codes of the bases on the reference's forward strand, soft
            clipped ones among them. A read whose sequence is not stored ("*") has none.
        qualities: uint8, shape (bases,), Phred scale; NO_QUALITY where the file has none.
        cigar_offsets: int64, shape (reads + 1,).
        cigar_ops: uint8, shape (operations,), index of the letter in CIGAR_OPS.
        cigar_lengths: int32, shape (operations,), bases of each operation.
    """

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    strand: npt.NDArray[np.int8]
    mapq: npt.NDArray[np.uint8]
    flag: npt.NDArray[np.uint16]
    base_offsets: npt.NDArray[np.int64]
    codes: Codes
    qualities: npt.NDArray[np.uint8]
    cigar_offsets: npt.NDArray[np.int64]
    cigar_ops: npt.NDArray[np.uint8]
    cigar_lengths: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.start)


def read_reads(
    alignments: Alignments, contig: int, start: int, stop: int, filters: Filters
) -> Reads:
    """Read the reads with an aligned stretch that overlaps a stretch of a contig.

    Memory is that of the result: ask for a long contig in pieces.

    Args:
        alignments: the open file.
        contig: number of the contig in the reference.
        start: first base, 0-based.
        stop: end, exclusive; not beyond the contig.
        filters: which reads to take. Unmapped ones never are.

    Raises:
        InputError: the file is damaged, or a read (named) has a letter that is not IUPAC DNA.
        ValueError: the stretch is not within the contig.
    """
    table: list[tuple[int, int, int, int]] = []
    sequences: list[str] = []
    qualities: list[bytes] = []
    cigars: list[list[tuple[int, int]]] = []
    aligned = replace(filters, unmapped=False)
    for read in records(alignments, contig, start, stop, aligned):
        if not read.get_blocks():
            continue
        sequence = read.query_sequence or ""
        table.append((read.reference_start, read.reference_end, read.mapping_quality, read.flag))
        sequences.append(sequence)
        stored = read.query_qualities
        qualities.append(bytes([NO_QUALITY]) * len(sequence) if stored is None else bytes(stored))
        cigars.append(read.cigartuples)
    columns = np.array(table, dtype=np.int64).reshape(-1, 4)
    operations = np.array([pair for cigar in cigars for pair in cigar], dtype=np.int64)
    operations = operations.reshape(-1, 2)
    return Reads(
        start=columns[:, 0],
        end=columns[:, 1],
        strand=np.where(columns[:, 3] & 0x10, -1, 1).astype(np.int8),
        mapq=columns[:, 2].astype(np.uint8),
        flag=columns[:, 3].astype(np.uint16),
        base_offsets=_offsets([len(sequence) for sequence in sequences]),
        codes=_encode(alignments, sequences, columns[:, 0]),
        qualities=np.frombuffer(b"".join(qualities), dtype=np.uint8),
        cigar_offsets=_offsets([len(cigar) for cigar in cigars]),
        cigar_ops=operations[:, 0].astype(np.uint8),
        cigar_lengths=operations[:, 1].astype(np.int32),
    )


def read_fragments(
    alignments: Alignments, contig: int, start: int, stop: int, filters: Filters
) -> Intervals:
    """Read the fragments whose first base lies in a stretch: each proper pair of mates is one.

    A fragment begins where its leftmost mate does and is as long as the aligner states (TLEN).
    Every fragment belongs to exactly one of several stretches that lie end to end.

    Args:
        alignments: the open file.
        contig: number of the contig in the reference.
        start: first base, 0-based.
        stop: end, exclusive; not beyond the contig.
        filters: applied to the leftmost mate of a pair. Reads without a proper mate, secondary and
            supplementary alignments never count.

    Returns:
        Intervals sorted by start; the strand is that of the first read of the pair, the score NaN.

    Raises:
        InputError: the file is damaged, or a pair (named) has no length or ends beyond the contig.
        ValueError: the stretch is not within the contig.
    """
    found: list[tuple[int, int, int]] = []
    length = alignments.header.contigs.lengths[contig]
    for read in records(alignments, contig, start, stop, filters):
        first, leftmost = read.reference_start, _is_leftmost(read)
        if not (leftmost and read.is_proper_pair and start <= first < stop):
            continue
        end = first + abs(read.template_length)
        if not first < end <= length:
            raise InputError(
                f"the pair {read.query_name!r} at {first} (0-based) has the length "
                f"{read.template_length} on a contig of {length:,} bp",
                path=alignments.header.path,
                remedy="let samtools fixmate write the lengths of pairs anew",
            )
        own = bool(read.flag & _FIRST_OF_PAIR)
        reverse = read.is_reverse if own else read.mate_is_reverse
        found.append((first, end, -1 if reverse else 1))
    columns = np.array(found, dtype=np.int64).reshape(-1, 3)
    return Intervals(
        np.full(len(columns), contig, dtype=np.int32),
        columns[:, 0],
        columns[:, 1],
        columns[:, 2].astype(np.int8),
        np.full(len(columns), np.nan),
    )


def _is_leftmost(read: Any) -> bool:
    """Tell whether this record stands for its pair: the left mate, the first read in a tie."""
    if read.flag & _NOT_PRIMARY:
        return False
    mine, other = read.reference_start, read.next_reference_start
    return bool(mine < other or (mine == other and read.flag & _FIRST_OF_PAIR))


def _encode(alignments: Alignments, sequences: list[str], starts: npt.NDArray[np.int64]) -> Codes:
    try:
        return encode("".join(sequences))
    except ValueError as error:
        bad = next(i for i, sequence in enumerate(sequences) if "=" in sequence)
        raise InputError(
            f"the read at {starts[bad]} (0-based) has '=' for bases that equal the reference",
            path=alignments.header.path,
            remedy="let samtools calmd write the bases themselves",
        ) from error


def _offsets(sizes: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

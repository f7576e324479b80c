"""bigBed: the BED family in binary, as a stream of intervals.

The records are decoded here. pybigtools splits what follows a record's positions at any white
space, so that a name with a space in it, or an empty column, shifts every column behind it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.bbi import Bbi, damaged, data_blocks, read_bbi
from data_shards.sources.contig_table import match_contigs
from data_shards.sources.intervals import Intervals

_RECORD_BYTES = 12
_STRANDS = {b"+": 1, b"-": -1, b".": 0}
_SCORE_COLUMN, _STRAND_COLUMN = 4, 5


def stream_bigbed(
    path: Path, contigs: Contigs, naming: Naming, rows: int = 1 << 16
) -> Iterator[Intervals]:
    """Read a bigBed file in the order of the file, which is sorted by contig and start.

    The file declares how many of its columns are those of BED: score is taken where there are 5 or
    more, strand where there are 6. Further columns are passed over.

    Args:
        path: the file.
        contigs: of the reference.
        naming: how the file names them.
        rows: most intervals at a time.

    Yields:
        One or more intervals at a time; all of the file together.

    Raises:
        InputError: not a bigBed file, truncated, damaged or without records; a contig that the
            reference does not have or that has another length there; a record (named by its
            locus) that is empty, ends beyond its contig, has another number of columns than
            declared, or a bad score or strand.
    """
    bbi = read_bbi(path, "bigBed")
    names = match_contigs(path, bbi.lengths, contigs, naming)
    number = {name: i for i, name in enumerate(names) if name is not None}
    translation = {own: number[name] for own, name in bbi.names.items()}
    columns = bbi.defined or bbi.fields  # writers that are not told leave "defined" at 0
    if not 3 <= columns <= bbi.fields:
        raise damaged(path, f"it declares {bbi.fields} columns, {columns} of them BED's")
    filling = _Rows()
    for content in data_blocks(bbi):
        _decode(bbi, content, translation, columns, filling)
        while len(filling.start) >= rows:
            yield filling.pop(rows)
    if filling.start:
        yield filling.pop(rows)


@dataclass
class _Rows:
    """Columns of intervals that are being filled."""

    contig: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    strand: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def pop(self, rows: int) -> Intervals:
        """Take out the first rows."""
        taken = Intervals(
            np.array(self.contig[:rows], dtype=np.int32),
            np.array(self.start[:rows], dtype=np.int64),
            np.array(self.end[:rows], dtype=np.int64),
            np.array(self.strand[:rows], dtype=np.int8),
            np.array(self.score[:rows], dtype=np.float64),
        )
        for column in (self.contig, self.start, self.end, self.strand, self.score):
            del column[:rows]
        return taken


def _decode(
    bbi: Bbi, content: bytes, translation: dict[int, int], columns: int, into: _Rows
) -> None:
    """Append the records of one data block: three numbers, then text up to a zero byte."""
    positions = struct.Struct("<III")
    at = 0
    while at < len(content):
        stop = content.find(b"\0", at + _RECORD_BYTES)
        if stop < 0:
            raise damaged(bbi.path, "a record has no end")
        own, start, end = positions.unpack_from(content, at)
        text = content[at + _RECORD_BYTES : stop]
        at = stop + 1
        name = bbi.names.get(own)
        if name is None:
            raise damaged(bbi.path, f"a record on contig number {own}, which has no name")
        if not start < end <= bbi.lengths[name]:
            raise _bad_record(
                bbi,
                (name, start, end),
                f"is empty or ends beyond the contig ({bbi.lengths[name]:,} bp)",
                "a record has at least one base and lies within its contig",
            )
        rest = text.split(b"\t") if text else []
        if len(rest) + 3 != bbi.fields:
            raise _bad_record(
                bbi,
                (name, start, end),
                f"has {len(rest) + 3} columns where the file declares {bbi.fields}",
                "make the file anew with bedToBigBed -type=bedN+M and its columns declared",
            )
        into.contig.append(translation[own])
        into.start.append(start)
        into.end.append(end)
        into.score.append(_score(bbi, (name, start, end), rest, columns))
        into.strand.append(_strand(bbi, (name, start, end), rest, columns))


def _score(bbi: Bbi, place: tuple[str, int, int], rest: list[bytes], columns: int) -> float:
    if columns <= _SCORE_COLUMN:
        return float("nan")
    text = rest[_SCORE_COLUMN - 3]
    if text == b".":
        return float("nan")
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not math.isfinite(score) or b"_" in text:
        raise _bad_record(
            bbi, place, f"has the score {text.decode('utf-8', 'replace')!r}", "a score is a number"
        )
    return score


def _strand(bbi: Bbi, place: tuple[str, int, int], rest: list[bytes], columns: int) -> int:
    if columns <= _STRAND_COLUMN:
        return 0
    text = rest[_STRAND_COLUMN - 3]
    if text not in _STRANDS:
        raise _bad_record(
            bbi,
            place,
            f"has the strand {text.decode('utf-8', 'replace')!r}",
            "a strand is '+', '-' or '.'",
        )
    return _STRANDS[text]


def _bad_record(bbi: Bbi, place: tuple[str, int, int], problem: str, remedy: str) -> InputError:
    name, start, end = place
    return InputError(
        f"the record {name}:{start}-{end} (0-based) {problem}", path=bbi.path, remedy=remedy
    )

"""Leaks between the splits of a finished data set: samples that another split has too.

Splits are given as uint8 codes, shape (samples,); a smaller code is an earlier split. Sequences are
read block by block; what is kept of them is a hash: 8 bytes a sample, 20 while they are sorted.
Only samples whose hash is in two splits are read a second time, to compare the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.errors import CorruptDataError
from data_shards.hashing import key, mix
from data_shards.loci import SPLITS
from data_shards.sequence import COMPLEMENT, UNKNOWN, Codes

Rows = npt.NDArray[np.int64]
SplitCodes = npt.NDArray[np.uint8]
ReadCodes = Callable[[Rows], Codes]
"""From sample numbers, in any order, to their codes, uint8, shape (rows, width), width the same."""

EXAMPLES = 5
_BLOCK_BYTES = 1 << 24
_BLOCK_ROWS = 1 << 20
_PAD = 255  # no code, so that lengths tell sequences apart
_AS_IT_IS, _TURNED, _PALINDROME, _UNKNOWN_ROW = range(4)  # how a row was read


@dataclass(frozen=True)
class Leak:
    """Samples that are in more than one split in some sense.

    Attributes:
        affected: samples that have a partner in another split, in all splits together.
        fraction: affected over all samples.
        by_split: affected samples of each split, in the order of ``SPLITS``.
        examples: up to five pairs of rows (partner in an earlier split, affected sample).
        left_out: samples that were not compared, for they have no known base.
    """

    affected: int
    fraction: float
    by_split: tuple[int, ...]
    examples: tuple[tuple[int, int], ...]
    left_out: int = 0


def duplicate_sequences(
    read: ReadCodes, split: SplitCodes, *, lengths: npt.NDArray[np.integer] | None = None
) -> Leak:
    """Find sequences that are letter by letter in more than one split.

    Args:
        read: reads samples; what it returns is not changed.
        split: of each sample.
        lengths: of sequences that are padded at the end, shape (samples,); None if none is.
    """
    return _sequence_leak(_Reader(read, lengths, fold_strands=False), split)


def reverse_complement_duplicates(
    read: ReadCodes, split: SplitCodes, *, lengths: npt.NDArray[np.integer] | None = None
) -> Leak:
    """Find sequences whose reverse complement is in another split.

    A sequence that is its own reverse complement is one if another split has it too.

    Args:
        read: reads samples as codes 0 to 4; what it returns is not changed.
        split: of each sample.
        lengths: of sequences that are padded at the end, shape (samples,); None if none is.

    Raises:
        CorruptDataError: a code above 4.
    """
    return _sequence_leak(_Reader(read, lengths, fold_strands=True), split)


def same_loci(
    contig: npt.NDArray[np.integer], start: Rows, length: Rows | int, split: SplitCodes
) -> Leak:
    """Find windows that are in more than one split, on either strand.

    Args:
        contig: number of each window's contig, shape (samples,).
        start: first base, 0-based.
        length: bp, of each or of all.
        split: of each sample.
    """
    size = np.broadcast_to(np.asarray(length), split.shape)
    order = np.lexsort((size, start, contig))
    new = np.zeros(len(order), dtype=np.bool_)
    for column in (contig, start, size):
        new[1:] |= np.diff(column[order]) != 0
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(new)
    return shared_groups(group, split)


def shared_groups(groups: npt.NDArray[Any], split: SplitCodes) -> Leak:
    """Find groups (patients, genes, homologues) that have samples in more than one split.

    Args:
        groups: integer or text, shape (samples,).
        split: of each sample.
    """
    rows, group = _crossing(groups, np.arange(len(split)), split)
    nothing = np.zeros(len(rows), dtype=np.int64)
    return _leak(_Partners(rows, group, nothing, nothing), split, 0)


def overlapping_loci(
    contig: npt.NDArray[np.integer], start: Rows, length: Rows | int, split: SplitCodes
) -> Leak:
    """Find windows that share a base, on either strand, with a window of another split.

    Args:
        contig: number of each window's contig, 0 or more, shape (samples,).
        start: first base, 0-based.
        length: bp, 1 or more, of each or of all.
        split: of each sample.

    Raises:
        ValueError: a window without a base, or too far out for 64-bit integers.
    """
    size = np.broadcast_to(np.asarray(length, dtype=np.int64), split.shape)
    if len(split) and (size.min() < 1 or start.min() < 0 or contig.min() < 0):
        raise ValueError("a window without a base, or before the begin of the contigs")
    span = int(start.max()) + int(size.max()) if len(split) else 1
    if len(split) and span * (int(contig.max()) + 1) >= 1 << 63:
        raise ValueError(f"windows reach to base {span}: too far")
    begin = contig.astype(np.int64) * span + start  # contigs end to end, none touching the next
    end = begin + size
    affected, late = np.zeros((2, len(split)), dtype=np.bool_)
    for code in range(len(SPLITS)):
        mine = np.flatnonzero(split == code)
        affected[mine] = _overlaps(begin, end, mine, np.flatnonzero(split != code))
        late[mine] = _overlaps(begin, end, mine, np.flatnonzero(split < code))
    examples: list[tuple[int, int]] = []
    for row in np.flatnonzero(late)[:EXAMPLES].tolist():
        near = (split < split[row]) & (begin < end[row]) & (end > begin[row])
        examples.append((int(np.argmax(near)), row))
    return _counted(np.flatnonzero(affected), split, examples, 0)


def _overlaps(begin: Rows, end: Rows, mine: Rows, others: Rows) -> npt.NDArray[np.bool_]:
    """Tell which of my windows overlap one of the others."""
    # Those that begin before my end, less those that end before my begin, are those that overlap.
    started = np.searchsorted(np.sort(begin[others]), end[mine], side="left")
    ended = np.searchsorted(np.sort(end[others]), begin[mine], side="right")
    return np.asarray(started > ended)


@dataclass(frozen=True)
class _Partners:
    """Samples that may have a partner; arrays of shape (rows,).

    Attributes:
        rows: sample numbers, ascending.
        group: partners are of one group,
        kind: and of the kind, 0 or 1,
        wanted: that the sample wants.
    """

    rows: Rows
    group: Rows
    kind: Rows
    wanted: Rows


def _leak(some: _Partners, split: SplitCodes, left_out: int) -> Leak:
    """Count the samples that have a partner in another split."""
    code = split[some.rows].astype(np.int64)
    _, group = np.unique(some.group, return_inverse=True)
    table = np.zeros((2 * (int(group.max(initial=-1)) + 1), len(SPLITS) + 1), dtype=np.int64)
    np.add.at(table, (2 * group + some.kind, code + 1), 1)
    up_to = np.cumsum(table, axis=1)
    seat = 2 * group + some.wanted
    earlier = up_to[seat, code]
    others = up_to[seat, -1] - table[seat, code + 1]
    examples = []
    for at in np.flatnonzero(earlier)[:EXAMPLES].tolist():
        partner = (group == group[at]) & (some.kind == some.wanted[at]) & (code < code[at])
        examples.append((int(some.rows[np.argmax(partner)]), int(some.rows[at])))
    return _counted(some.rows[others > 0], split, examples, left_out)


def _counted(
    affected: Rows, split: SplitCodes, examples: list[tuple[int, int]], left_out: int
) -> Leak:
    counts = np.bincount(split[affected], minlength=len(SPLITS))
    fraction = len(affected) / max(len(split), 1)
    return Leak(len(affected), fraction, tuple(counts.tolist()), tuple(examples), left_out)


def _crossing(group: npt.NDArray[Any], rows: Rows, split: SplitCodes) -> tuple[Rows, Rows]:
    """Keep the rows whose group is in more than one split.

    Returns:
        The rows, ascending, and the number of the group of each.
    """
    if len(rows) == 0:
        return rows, np.empty(0, dtype=np.int64)
    order = np.argsort(group, kind="stable")
    ordered, codes = group[order], split[rows[order]]
    begin = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    crosses = np.minimum.reduceat(codes, begin) < np.maximum.reduceat(codes, begin)
    sizes = np.diff(np.append(begin, len(order)))
    kept, number = order[np.repeat(crosses, sizes)], np.repeat(begin[crosses], sizes[crosses])
    back = np.argsort(kept)
    return rows[kept[back]], number[back]


@dataclass(frozen=True)
class _Reader:
    """Reads samples in a form in which equal sequences are equal bytes.

    With ``fold_strands`` that is the sequence or its reverse complement, whichever comes first in
    the alphabet.
    """

    read: ReadCodes
    lengths: npt.NDArray[np.integer] | None
    fold_strands: bool

    def __call__(self, rows: Rows) -> tuple[Codes, npt.NDArray[np.int8]]:
        """Return the codes, shape (rows, width), and for each row how it was read."""
        codes = self.read(rows)
        inside = np.ones(codes.shape, dtype=np.bool_)
        if self.lengths is not None:
            inside = np.arange(codes.shape[1]) < self.lengths[rows][:, None]
            codes = np.where(inside, codes, np.uint8(_PAD))
        how = np.full(len(rows), _AS_IT_IS, dtype=np.int8)
        if self.fold_strands:
            other = self._reversed(codes, inside, rows)
            differs = codes != other
            first = np.argmax(differs, axis=1)[:, None]
            turn = np.take_along_axis(codes > other, first, axis=1)[:, 0]
            codes = np.where(turn[:, None], other, codes)
            how[turn] = _TURNED
            how[~differs.any(axis=1)] = _PALINDROME
        how[~(inside & (codes != UNKNOWN)).any(axis=1)] = _UNKNOWN_ROW
        return codes, how

    def _reversed(self, codes: Codes, inside: npt.NDArray[np.bool_], rows: Rows) -> Codes:
        if (strange := inside & (codes > UNKNOWN)).any():
            row = int(rows[np.argmax(strange.any(axis=1))])
            raise CorruptDataError(f"row {row:,} has a code above {UNKNOWN}")
        if self.lengths is None:
            return COMPLEMENT[codes[:, ::-1]]
        at = self.lengths[rows][:, None] - 1 - np.arange(codes.shape[1])
        turned = np.take_along_axis(codes, np.maximum(at, 0), axis=1)
        return np.where(at < 0, np.uint8(_PAD), COMPLEMENT[np.minimum(turned, UNKNOWN)])

    def blocks(self, rows: Rows | range) -> Iterator[tuple[Rows, Codes, npt.NDArray[np.int8]]]:
        """Read many rows, some at a time."""
        if len(rows) == 0:
            return
        width = self.read(np.asarray(rows[:1])).shape[1]
        size = max(1, _BLOCK_BYTES // max(width, 1))
        for first in range(0, len(rows), size):
            some = np.asarray(rows[first : first + size], dtype=np.int64)
            codes, how = self(some)
            if codes.shape != (len(some), width) or codes.dtype != np.uint8:
                raise ValueError(f"{codes.dtype} codes of shape {codes.shape} for {len(some)} rows")
            yield some, codes, how


def _sequence_leak(reader: _Reader, split: SplitCodes) -> Leak:
    hashes = np.empty(len(split), dtype=np.uint64)
    how = np.empty(len(split), dtype=np.int8)
    for rows, codes, mode in reader.blocks(range(len(split))):
        hashes[rows], how[rows] = _hash_rows(codes), mode
    rows = _in_two_splits(hashes, split, how != _UNKNOWN_ROW)
    rows, group = _equal(reader, *_crossing(hashes[rows], rows, split))
    seen = how[rows].astype(np.int64)
    kind = np.where(seen == _TURNED, 1, 0)
    # A palindrome wants another one; and so does any sequence if strands are not folded.
    wanted = np.where(seen == _PALINDROME, 0, 1 - kind) if reader.fold_strands else kind
    left_out = int(np.count_nonzero(how == _UNKNOWN_ROW))
    return _leak(_Partners(rows, group, kind, wanted), split, left_out)


def _in_two_splits(
    hashes: npt.NDArray[np.uint64], split: SplitCodes, known: npt.NDArray[np.bool_]
) -> Rows:
    """Return the known rows whose hash more than one split has, ascending, int64."""
    earlier = np.unique(hashes[(split == 0) & known])
    shared: list[npt.NDArray[np.uint64]] = []
    for code in range(1, len(SPLITS)):
        mine = np.unique(hashes[(split == code) & known])
        shared.append(mine[_among(mine, earlier)])
        if code < len(SPLITS) - 1:
            earlier = np.union1d(earlier, mine)
    both = np.unique(np.concatenate(shared))
    found = [
        first + np.flatnonzero(_among(hashes[first : first + _BLOCK_ROWS], both))
        for first in range(0, len(hashes), _BLOCK_ROWS)
    ]
    rows = np.concatenate([np.empty(0, dtype=np.int64), *found])
    return np.asarray(rows[known[rows]])


def _among(
    values: npt.NDArray[np.uint64], ordered: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Tell which values are in a sorted array."""
    if len(ordered) == 0:
        return np.zeros(len(values), dtype=np.bool_)
    at = np.searchsorted(ordered, values)
    return np.asarray(ordered[np.minimum(at, len(ordered) - 1)] == values)


def _hash_rows(codes: Codes) -> npt.NDArray[np.uint64]:
    """Hash each row, eight bytes at a time; uint64, shape (rows,)."""
    rows, width = codes.shape
    words = np.full((rows, -(-width // 8) * 8), _PAD, dtype=np.uint8)
    words[:, :width] = codes
    state = np.full(rows, key(width), dtype=np.uint64)
    for column in words.view("<u8").T:
        state = mix(state ^ column)
    return state


def _equal(reader: _Reader, rows: Rows, group: Rows) -> tuple[Rows, Rows]:
    """Divide groups of one hash into groups of the same bytes, named by their first row."""
    exact = np.empty(len(rows), dtype=np.int64)
    pending = np.arange(len(rows))
    while len(pending):
        _, first, which = np.unique(group[pending], return_index=True, return_inverse=True)
        leader = rows[pending[first]][which]
        pairs = zip(reader.blocks(rows[pending]), reader.blocks(leader), strict=True)
        equal = np.concatenate([(one[1] == two[1]).all(axis=1) for one, two in pairs])
        exact[pending[equal]] = leader[equal]
        pending = pending[~equal]
    return rows, exact

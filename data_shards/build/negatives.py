"""Negatives for positives: windows of the same length and GC content that are none of them.

All positions are 0-based and half-open. GC content is (G + C) / (A + C + G + T), in bins of 0.02.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_shards.contigs import Contigs
from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.sequence import UNKNOWN, Codes
from data_shards.sources.intervals import Intervals

Ints = npt.NDArray[np.int64]

BINS = 50
"""GC bins of equal width; the last one includes 1."""

_BLOCK = 1 << 21  # windows looked at together: some 200 MB
_SPARE = 8  # candidates kept for each negative, since some will overlap others


@dataclass(frozen=True)
class Negatives:
    """Windows drawn for positives, in the order of the positives. All arrays: (negatives,).

    Attributes:
        contig: int32, number of the contig.
        start: int64, first base, 0-based.
        positive: int64, row of the positive that it was drawn for: same contigs, same GC bin.
    """

    contig: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Spans:
    """Stretches of contigs, end exclusive; arrays of shape (stretches,)."""

    contig: npt.NDArray[np.integer]
    start: Ints
    end: Ints

    def on(self, contig: int) -> tuple[Ints, Ints]:
        """Starts and ends of the union of the stretches on one contig, sorted."""
        here = self.contig == contig
        start, end = self.start[here], self.end[here]
        order = np.argsort(start, kind="stable")
        start, end = start[order], np.maximum.accumulate(end[order])
        new = np.ones(len(start), dtype=np.bool_)
        new[1:] = start[1:] > end[:-1]
        return start[new], end[np.roll(new, -1)]


@dataclass(frozen=True)
class _Rules:
    """Which windows may be drawn; see :func:`gc_matched_negatives`."""

    length: int
    max_unknown: float
    may_overlap: bool
    forbidden: _Spans
    within: _Spans | None
    key: int


@dataclass(frozen=True)
class _Candidates:
    """Windows that may be drawn; arrays of shape (candidates,).

    Attributes:
        place: first base in the concatenated reference.
        bin: GC bin.
        priority: they are drawn from small to large.
    """

    place: Ints
    bin: Ints
    priority: npt.NDArray[np.uint64]

    def best(self, keep: Ints) -> _Candidates:
        """In the order of the draw, the first ``keep[b]`` of each bin b."""
        order = np.lexsort((self.priority, self.bin))
        bins = self.bin[order]
        rank = np.arange(len(bins)) - np.searchsorted(bins, bins)
        order = order[rank < keep[bins]]
        return self.take(order[np.argsort(self.priority[order])])

    def take(self, rows: npt.NDArray[np.integer | np.bool_]) -> _Candidates:
        return _Candidates(self.place[rows], self.bin[rows], self.priority[rows])


def gc_matched_negatives(
    reference: Codes,
    contigs: Contigs,
    contig: npt.NDArray[np.integer],
    start: Ints,
    length: int,
    *,
    allowed: Mapping[str, Sequence[int]],
    seed: int,
    per_positive: int = 1,
    excluded: Intervals | None = None,
    within: Intervals | None = None,
    max_unknown: float = 0.0,
    may_overlap: bool = False,
) -> Negatives:
    """Draw negatives with exactly the GC histogram of the positives, split by split.

    A candidate's place in the draw is a hash of the seed and its position in the reference, and
    candidates are taken in that order. So the draw is uniform over all allowed windows of a GC
    bin, and other block sizes or splits don't change it. The reference is read in blocks; a
    genome of 3 Gb takes about three minutes.

    Args:
        reference: uint8 codes of all contigs, end to end; may be a memory map.
        contigs: of the reference.
        contig: contig number of each positive, shape (positives,).
        start: first base of each positive, shape (positives,).
        length: bp of all windows.
        allowed: split -> numbers of its contigs. Negatives for the positives on them come from
            them. Give one entry with all contigs where splits play no part.
        seed: another seed, another draw.
        per_positive: negatives for each positive.
        excluded: no negative overlaps these, as it overlaps no positive.
        within: negatives lie wholly inside the union of these, if given.
        max_unknown: largest fraction of N in a negative, below 1.
        may_overlap: whether negatives may overlap each other.

    Returns:
        The negatives; those of positive i are rows ``i * per_positive`` and following.

    Raises:
        InputError: a positive off its contig, on a contig of no split, or without a known base; a
            contig of two splits; a bad setting; or too few candidates, with the number of GC bins
            that lack them.
    """
    _check(reference, contigs, length, allowed, per_positive, max_unknown)
    split_of = _split_of_positives(contigs, contig, start, length, allowed)
    origin = contigs.offsets[contig] + start
    bins = _positive_bins(reference, origin, length)
    forbidden = [(contig, start, start + length)]
    if excluded is not None:
        forbidden.append((excluded.contig, excluded.start, excluded.end))
    inside = None if within is None else _spans((within.contig, within.start, within.end))
    rules = _Rules(length, max_unknown, may_overlap, _spans(*forbidden), inside, key(seed))
    chosen = np.empty((len(start), per_positive), dtype=np.int64)
    for number, (split, members) in enumerate(allowed.items()):
        rows = np.flatnonzero(split_of == number)
        if rows.size == 0:
            continue
        need = np.bincount(bins[rows], minlength=BINS) * per_positive
        places, place_bins = _draw(reference, contigs, sorted(members), need, rules, split)
        for one in np.unique(bins[rows]).tolist():
            mine = rows[bins[rows] == one]
            chosen[mine] = places[place_bins == one].reshape(len(mine), per_positive)
    flat = chosen.ravel()
    home = np.searchsorted(contigs.offsets, flat, side="right") - 1
    return Negatives(
        contig=home.astype(np.int32),
        start=flat - contigs.offsets[home],
        positive=np.repeat(np.arange(len(start)), per_positive),
    )


def _check(
    reference: Codes,
    contigs: Contigs,
    length: int,
    allowed: Mapping[str, Sequence[int]],
    per_positive: int,
    max_unknown: float,
) -> None:
    if len(reference) != contigs.total:
        raise ValueError(f"{len(reference)} codes for contigs of {contigs.total} bases")
    if length < 1 or per_positive < 1:
        raise InputError(
            f"{per_positive} negatives of {length} bp for each positive",
            remedy="both are 1 or more",
        )
    if not 0 <= max_unknown < 1:
        raise InputError(
            f"max_unknown is {max_unknown}", remedy="it is a fraction of N, from 0 to below 1"
        )
    owner: dict[int, str] = {}
    for split, members in allowed.items():
        for number in members:
            if number in owner:
                raise InputError(
                    f"contig {contigs.names[number]!r} is in both {owner[number]} and {split}",
                    remedy="negatives of one split must not come from another's contigs",
                )
            owner[number] = split


def _split_of_positives(
    contigs: Contigs,
    contig: npt.NDArray[np.integer],
    start: Ints,
    length: int,
    allowed: Mapping[str, Sequence[int]],
) -> Ints:
    """Number of the split of each positive, int64, shape (positives,)."""
    if len(start) == 0:
        raise InputError("there is no positive", remedy="give positives to draw negatives for")
    if contig.min() < 0 or contig.max() >= len(contigs.names):
        raise ValueError(f"a positive's contig is none of {len(contigs.names)}")
    lengths = np.array(contigs.lengths, dtype=np.int64)[contig]
    outside = np.flatnonzero((start < 0) | (start > lengths - length))
    if outside.size:
        row = int(outside[0])
        raise InputError(
            f"positive {row} (counted from 0) is at {start[row]:,} to {start[row] + length:,} of "
            f"contig {contigs.names[contig[row]]!r}, which has {lengths[row]:,} bp",
            remedy="leave out positives that reach over the end of their contig",
        )
    split = np.full(len(contigs.names), -1, dtype=np.int64)
    for number, members in enumerate(allowed.values()):
        split[list(members)] = number
    lost = np.flatnonzero(split[contig] < 0)
    if lost.size:
        raise InputError(
            f"{lost.size} positives are on contigs of no split, first {int(lost[0])} on "
            f"{contigs.names[contig[lost[0]]]!r}",
            remedy="leave them out, or give their contigs to a split",
        )
    return np.asarray(split[contig])


def _positive_bins(reference: Codes, origin: Ints, length: int) -> Ints:
    """GC bin of each positive, int64, shape (positives,)."""
    windows = np.lib.stride_tricks.sliding_window_view(reference, length)
    parts: list[Ints] = []
    for first in range(0, len(origin), max(1, _BLOCK // length)):
        codes = windows[origin[first : first + max(1, _BLOCK // length)]]
        known = np.count_nonzero(codes != UNKNOWN, axis=1)
        if not known.all():
            raise InputError(
                f"positive {first + int(np.argmin(known))} (counted from 0) has no known base",
                remedy="leave out positives that lie in N",
            )
        parts.append(_bin(np.count_nonzero((codes == 1) | (codes == 2), axis=1), known))
    return np.concatenate(parts)


def _bin(strong: npt.NDArray[np.integer], known: npt.NDArray[np.integer]) -> Ints:
    """GC bin from the numbers of G or C and of known bases; in integers, so never off by one."""
    return np.asarray(np.minimum(strong.astype(np.int64) * BINS // known, BINS - 1))


def _draw(
    reference: Codes,
    contigs: Contigs,
    members: Sequence[int],
    need: Ints,
    rules: _Rules,
    split: str,
) -> tuple[Ints, Ints]:
    """Draw ``need[b]`` windows of each bin b from some contigs.

    Returns:
        Their places in the concatenated reference and their bins, both int64.
    """
    keep = need if rules.may_overlap else need * _SPARE
    while True:
        pool, available = _pool(reference, contigs, members, keep, rules)
        chosen = pool.take(_accepted(pool, need, rules))
        got = np.bincount(chosen.bin, minlength=BINS)
        short = got < need
        if not short.any():
            return chosen.place, chosen.bin
        if not (available > keep)[short].any():
            raise _too_few(need, got, split)
        keep = np.where(short, keep * _SPARE, keep)


def _too_few(need: Ints, got: Ints, split: str) -> InputError:
    short = np.flatnonzero(got < need)
    worst = short[np.argmax(need[short] - got[short])]
    return InputError(
        f"{len(short)} of {np.count_nonzero(need)} GC bins lack candidates for negatives of "
        f"{split}: at GC {worst / BINS:.2f} to {(worst + 1) / BINS:.2f} there are {got[worst]:,} "
        f"where {need[worst]:,} are needed",
        remedy="draw fewer for each positive, let them overlap each other, exclude less, allow "
        "more N, or leave out positives of rare GC content",
    )


def _accepted(pool: _Candidates, need: Ints, rules: _Rules) -> npt.NDArray[np.bool_]:
    """Take candidates in the order of the draw, leaving out what overlaps one taken before."""
    taken = np.zeros(len(pool.place), dtype=np.bool_)
    missing = need.tolist()
    # Taken windows are at least one length apart, so a cell of that size holds the start of one.
    cells: dict[int, int] = {}
    for row, (place, one) in enumerate(zip(pool.place.tolist(), pool.bin.tolist(), strict=True)):
        if missing[one] == 0:
            continue
        cell = place // rules.length
        if not rules.may_overlap:
            near = (cells.get(cell + step) for step in (-1, 0, 1))
            if any(other is not None and abs(other - place) < rules.length for other in near):
                continue
            cells[cell] = place
        missing[one] -= 1
        taken[row] = True
    return taken


def _pool(
    reference: Codes, contigs: Contigs, members: Sequence[int], keep: Ints, rules: _Rules
) -> tuple[_Candidates, Ints]:
    """Look at all windows of some contigs and keep the first ``keep[b]`` in the draw of each bin b.

    Returns:
        The candidates in the order of the draw, and the number of all there are in each bin.
    """
    nothing = np.empty(0, dtype=np.int64)
    pool = _Candidates(nothing, nothing, nothing.astype(np.uint64))
    available = np.zeros(BINS, dtype=np.int64)
    cutoff = np.where(keep > 0, np.iinfo(np.uint64).max, 0).astype(np.uint64)
    for member in members:
        for place, bins in _windows(reference, contigs, member, rules):
            available += np.bincount(bins, minlength=BINS)
            priority = mix(place.astype(np.uint64) ^ np.uint64(rules.key))
            fresh = _Candidates(place, bins, priority).take(priority <= cutoff[bins])
            pool = _merged(pool, fresh).best(keep)
            # Once a bin has enough, only what comes before its last candidate matters.
            full = np.bincount(pool.bin, minlength=BINS) >= keep
            last = np.zeros(BINS, dtype=np.uint64)
            np.maximum.at(last, pool.bin, pool.priority)
            cutoff = np.where(full, last, cutoff)
    return pool, available


def _windows(
    reference: Codes, contigs: Contigs, contig: int, rules: _Rules
) -> Iterator[tuple[Ints, Ints]]:
    """Yield the windows of a contig that may be drawn: place in the reference, and GC bin."""
    origin, length = int(contigs.offsets[contig]), rules.length
    forbidden = rules.forbidden.on(contig)
    within = None if rules.within is None else rules.within.on(contig)
    starts = contigs.lengths[contig] - length + 1
    for first in range(0, starts, _BLOCK):
        stop = min(first + _BLOCK, starts)
        free = ~_any_in(first, stop, forbidden[0] - length + 1, forbidden[1])
        if within is not None:
            free &= _any_in(first, stop, within[0], within[1] - length + 1)
        codes = reference[origin + first : origin + stop + length - 1]
        strong = _counts((codes == 1) | (codes == 2), length)
        known = _counts(codes != UNKNOWN, length)
        free &= (known > 0) & (length - known <= rules.max_unknown * length)
        place = np.flatnonzero(free)
        yield origin + first + place, _bin(strong[place], known[place])


def _any_in(first: int, stop: int, lo: Ints, hi: Ints) -> npt.NDArray[np.bool_]:
    """True for the positions from first to stop that lie in one of the stretches [lo, hi)."""
    lo, hi = np.clip(lo, first, stop), np.clip(hi, first, stop)
    some = lo < hi
    change = np.zeros(stop - first + 1, dtype=np.int32)
    np.add.at(change, lo[some] - first, 1)
    np.add.at(change, hi[some] - first, -1)
    return np.asarray(np.cumsum(change[:-1]) > 0)


def _counts(marked: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.int32]:
    """Marked bases in each window, by prefix sums; int32, shape (bases - length + 1,)."""
    total = np.zeros(len(marked) + 1, dtype=np.int32)
    np.cumsum(marked, out=total[1:])
    return total[length:] - total[:-length]


def _merged(one: _Candidates, two: _Candidates) -> _Candidates:
    return _Candidates(
        np.concatenate([one.place, two.place]),
        np.concatenate([one.bin, two.bin]),
        np.concatenate([one.priority, two.priority]),
    )


def _spans(*parts: tuple[npt.NDArray[np.integer], Ints, Ints]) -> _Spans:
    contig, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Spans(contig, start, end)

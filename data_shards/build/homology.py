"""Groups of homologous sequences, so that near copies of one sequence land in one split.

Two sequences are linked when they share enough k-mers, whichever strand they are read from, and a
group is everything that is linked directly or through others (single linkage). All pairs are
counted exactly, by a product of sparse matrices: no pair is missed by chance, and the groups
depend neither on a seed nor on the order of the sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.hashing import mix
from data_shards.sequence import UNKNOWN, Codes, reverse_complement

Ints = npt.NDArray[np.int64]
Measure = Literal["jaccard", "containment"]

_BLOCK_BASES = 1 << 22  # bases whose k-mers are made together
_BLOCK_WORK = 1 << 24  # shared k-mers counted together: some 200 MB


def homology_groups(
    values: Codes,
    start: Ints,
    length: Ints,
    *,
    k: int = 8,
    threshold: float = 0.1,
    measure: Measure = "jaccard",
) -> Ints:
    """Group sequences by the k-mers that they share.

    A k-mer and its reverse complement are one and the same; one with an unknown base is not
    counted. Identical and reverse-complement sequences always share a group.

    Substitutions break k-mers. Measured with the default k and threshold on pairs of random
    sequences, the share of homologues that is linked, by identity:

    ======== ===== ===== ===== =====
    length   95 %  90 %  85 %  80 %
    ======== ===== ===== ===== =====
    50 bp    1.00  1.00  0.67  0.36
    90 bp    1.00  1.00  0.81  0.30
    200 bp   1.00  1.00  0.97  0.38
    1,000 bp 1.00  1.00  1.00  0.69
    ======== ===== ===== ===== =====

    Memory is about 80 bytes a base. Time grows with the number of pairs that share a k-mer: 0.2 ms
    a sequence for 18,000 hairpins with k = 8 and a third of it with k = 10, which finds fewer
    distant homologues.

    Args:
        values: uint8 codes of all sequences, 0 to 4.
        start: int64, shape (sequences,), where each sequence begins in ``values``.
        length: int64, shape (sequences,), bases of each.
        k: length of the k-mers, 3 to 31.
        threshold: similarity from which two sequences are linked, above 0 up to 1.
        measure: of similarity. "jaccard": shared k-mers over all k-mers of the two;
            "containment": over those of the one that has fewer, so that a fragment is linked to
            the longer sequence it comes from.

    Returns:
        Number of each sequence's group, int64, shape (sequences,): the index of its first member.

    Raises:
        InputError: k or the threshold out of range, or k so small for these lengths that unrelated
            sequences share half of the threshold.
        ValueError: codes above 4, or sequences that lie outside ``values``.
    """
    _check(values, start, length, k, threshold, measure)
    if len(start) == 0:
        return np.empty(0, dtype=np.int64)
    sets = _kmer_sets(values, start, length, k)
    same = _equal_sets(sets)
    bare = _without_kmers(values, start, length, sets)
    # Copies count once: their representative stands for them.
    keep = np.setdiff1d(np.flatnonzero(sets.size), same[1])
    found = [keep[pairs] for pairs in _similar_pairs(sets.rows(keep), threshold, measure)]
    return _components(len(start), np.concatenate([same, bare, *found], axis=1))


@dataclass(frozen=True)
class _Sets:
    """Sets of k-mers, one after the other, each sorted.

    Attributes:
        kmers: int64, shape (sum of sizes,).
        size: int64, shape (sequences,).
    """

    kmers: Ints
    size: Ints

    @property
    def first(self) -> Ints:
        """Where each set begins."""
        return np.asarray(np.cumsum(self.size) - self.size)

    def rows(self, rows: Ints) -> _Sets:
        """Some of the sets."""
        return _Sets(self.kmers[_places(self.first[rows], self.size[rows])], self.size[rows])


def _places(start: Ints, length: Ints) -> Ints:
    """Places of all items of stretches, end to end."""
    before = np.cumsum(length) - length
    return np.asarray(np.arange(length.sum()) + np.repeat(start - before, length))


def _check(
    values: Codes, start: Ints, length: Ints, k: int, threshold: float, measure: Measure
) -> None:
    if not 3 <= k <= 31:
        raise InputError(f"k-mers of {k} bases", remedy="k is from 3 to 31")
    if not 0 < threshold <= 1:
        raise InputError(
            f"a similarity threshold of {threshold}", remedy="it is above 0 and at most 1"
        )
    if len(start) != len(length):
        raise ValueError(f"{len(start)} starts and {len(length)} lengths")
    if len(start) == 0:
        return
    if start.min() < 0 or length.min() < 0 or (start + length).max() > len(values):
        raise ValueError(f"a sequence lies outside the {len(values)} codes")
    if len(values) and values.max() > UNKNOWN:
        raise ValueError(f"code {values.max()} is above {UNKNOWN}")
    longest = int(length.max())
    for enough in range(k, 32):
        if _by_chance(longest, enough, measure) <= threshold / 2:
            break
    if enough > k:
        raise InputError(
            f"k-mers of {k} bases are too short: unrelated sequences of {longest:,} bp share "
            f"{_by_chance(longest, k, measure):.0%} of them, and the threshold is {threshold:.0%}",
            remedy=f"set k to {enough} or more, or raise the threshold",
        )


def _by_chance(length: int, k: int, measure: Measure) -> float:
    """Similarity that two random sequences of this length are expected to have."""
    contained = -float(np.expm1(-max(length - k + 1, 0) / (4**k / 2)))
    return contained if measure == "containment" else contained / (2 - contained)


def _kmer_sets(values: Codes, start: Ints, length: Ints, k: int) -> _Sets:
    """Collect the distinct canonical k-mers of each sequence."""
    kmers: list[Ints] = []
    sizes: list[Ints] = []
    for rows in _blocks(length, _BLOCK_BASES):
        owner, packed = _canonical(values, start[rows], length[rows], k)
        order = np.lexsort((packed, owner))
        owner, packed = owner[order], packed[order]
        new = np.ones(len(owner), dtype=np.bool_)
        new[1:] = (np.diff(owner) != 0) | (np.diff(packed) != 0)
        kmers.append(packed[new])
        sizes.append(np.bincount(owner[new], minlength=len(length[rows])))
    return _Sets(np.concatenate(kmers), np.concatenate(sizes))


def _blocks(weight: Ints, limit: int) -> Iterator[slice]:
    """Cut rows into runs of at most ``limit`` in weight, or of one row."""
    ends = np.cumsum(weight)
    row = 0
    while row < len(weight):
        before = int(ends[row]) - int(weight[row])
        stop = max(row + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield slice(row, stop)
        row = stop


def _canonical(values: Codes, start: Ints, length: Ints, k: int) -> tuple[Ints, Ints]:
    """Pack every k-mer of known bases, or its reverse complement if smaller, two bits a base.

    Returns:
        Number of the sequence and packed k-mer, both int64, shape (k-mers,).
    """
    codes = values[_places(start, length)].astype(np.int64)
    owner = np.repeat(np.arange(len(length)), length)
    count = max(len(codes) - k + 1, 0)
    forward = np.zeros(count, dtype=np.int64)
    backward = np.zeros(count, dtype=np.int64)
    whole = owner[:count] == owner[k - 1 :] if count else np.zeros(0, dtype=np.bool_)
    for place in range(k):
        letter = codes[place : place + count]
        forward = (forward << 2) | (letter & 3)
        backward |= (3 - (letter & 3)) << (2 * place)
        whole &= letter != UNKNOWN
    return owner[:count][whole], np.minimum(forward, backward)[whole]


def _equal_sets(sets: _Sets) -> Ints:
    """Link each sequence to the one before it that has the same k-mers; int64, (2, links)."""
    rows = np.flatnonzero(sets.size)
    first = sets.first
    if len(rows) == 0:
        return np.empty((2, 0), dtype=np.int64)
    with np.errstate(over="ignore"):
        hashes = np.add.reduceat(mix(sets.kmers.view(np.uint64)), first[rows])
    order = np.lexsort((rows, hashes, sets.size[rows]))
    before, after = rows[order[:-1]], rows[order[1:]]
    alike = (np.diff(hashes[order]) == 0) & (sets.size[before] == sets.size[after])
    before, after = before[alike], after[alike]
    if len(before) == 0:
        return np.empty((2, 0), dtype=np.int64)
    size = sets.size[before]
    equal = sets.kmers[_places(first[before], size)] == sets.kmers[_places(first[after], size)]
    truly = np.logical_and.reduceat(equal, np.cumsum(size) - size)
    return np.stack([before[truly], after[truly]])


def _without_kmers(values: Codes, start: Ints, length: Ints, sets: _Sets) -> Ints:
    """Link sequences too short or unknown to have a k-mer if they are the same; int64, (2, links).

    They are few; each is looked up by its own letters.
    """
    seen: dict[bytes, int] = {}
    links: list[tuple[int, int]] = []
    for row in np.flatnonzero(sets.size == 0).tolist():
        codes = values[start[row] : start[row] + length[row]]
        letters = min(codes.tobytes(), reverse_complement(codes).tobytes())
        links.append((seen.setdefault(letters, row), row))
    return np.array(links, dtype=np.int64).reshape(-1, 2).T


def _similar_pairs(sets: _Sets, threshold: float, measure: Measure) -> Iterator[Ints]:
    """Count the shared k-mers of all pairs and yield similar ones; int64, shape (2, pairs)."""
    from scipy.sparse import csr_array

    if len(sets.size) == 0:
        return
    known, column = np.unique(sets.kmers, return_inverse=True)
    edges = np.concatenate([[0], np.cumsum(sets.size)])
    ones = np.ones(len(column), dtype=np.int32)
    table: Any = csr_array((ones, column, edges), shape=(len(sets.size), len(known)))
    work = np.add.reduceat(np.bincount(column)[column], edges[:-1])
    least = threshold * sets.size.min()  # no similar pair shares fewer
    base, right = 0, table.T.tocsr()
    for rows in _blocks(work, _BLOCK_WORK):
        if rows.start - base > len(sets.size) // 16:
            base, right = rows.start, table[rows.start :].T.tocsr()  # earlier pairs are done
        shared = table[rows] @ right
        likely = np.flatnonzero(shared.data >= least)
        one = rows.start + np.searchsorted(shared.indptr, likely, side="right") - 1
        two = base + shared.indices[likely].astype(np.int64)
        count, sizes = shared.data[likely], np.stack([sets.size[one], sets.size[two]])
        whole = sizes.min(axis=0) if measure == "containment" else sizes.sum(axis=0) - count
        yield np.stack([one, two])[:, (one < two) & (count >= threshold * whole)]


def _components(count: int, links: Ints) -> Ints:
    """Number each sequence by the first member of its connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(links.shape[1], np.int8), tuple(links)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return np.asarray(first[label], dtype=np.int64)

"""GC-matched negatives against a naive draw over all windows, and on the yeast genome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.build import negatives
from data_shards.build.negatives import Negatives, gc_matched_negatives
from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.sequence import Codes, decode
from data_shards.sources.fasta import read_codes, scan_fasta, stage_fasta
from data_shards.sources.intervals import Intervals, read_intervals

CONTIGS = Contigs(("a", "b", "c"), (6000, 4000, 5000))
ALL = {"all": (0, 1, 2)}
BY_SPLIT = {"train": (2, 0), "valid": (1,)}


def draws(seed: int, size: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return mix(np.arange(size, dtype=np.uint64) ^ np.uint64(key(seed)))


def genome(seed: int, total: int, unknown: int = 20) -> Codes:
    """Bases whose GC content drifts, with an N in one of ``unknown``."""
    hashes = draws(seed, total)
    strong = (hashes % np.uint64(100)) < 50 + 30 * np.sin(np.arange(total) / 150)
    codes = np.where(strong, 1, 0) + np.where(hashes >> np.uint64(63), 1, 0) * np.where(
        strong, 1, 3
    )
    codes[(hashes >> np.uint64(8)) % np.uint64(unknown) == 0] = 4
    return codes.astype(np.uint8)


def spans(*rows: tuple[int, int, int]) -> Intervals:
    contig, start, end = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    zeros = np.zeros(len(rows))
    return Intervals(contig.astype(np.int32), start, end, zeros.astype(np.int8), zeros)


def gc_bin(codes: Codes) -> int | None:
    text = decode(codes)
    known = len(text) - text.count("N")
    if known == 0:
        return None
    gc = Fraction(text.count("G") + text.count("C"), known)
    return min(int(gc / Fraction(2, 100)), 49)


def naive(
    reference: Codes,
    contig: Sequence[int],
    start: Sequence[int],
    length: int,
    *,
    allowed: Mapping[str, Sequence[int]],
    seed: int,
    per_positive: int = 1,
    excluded: Intervals | None = None,
    within: Intervals | None = None,
    max_unknown: float = 0.0,
    may_overlap: bool = False,
) -> dict[int, list[tuple[int, int]]] | None:
    """Windows drawn for each positive, or None if there are too few. One window at a time."""
    offsets = CONTIGS.offsets.tolist()
    taboo = [(c, s, s + length) for c, s in zip(contig, start, strict=True)]
    if excluded is not None:
        taboo += zip(excluded.contig, excluded.start, excluded.end, strict=True)
    free: set[tuple[int, int]] | None = None
    if within is not None:
        free = set()
        for c, lo, hi in zip(within.contig, within.start, within.end, strict=True):
            free |= {(int(c), base) for base in range(lo, hi)}
    out: dict[int, list[tuple[int, int]]] = {}
    for members in allowed.values():
        candidates = []
        for c in members:
            for s in range(CONTIGS.lengths[c] - length + 1):
                codes = reference[offsets[c] + s : offsets[c] + s + length]
                if (codes == 4).sum() > max_unknown * length:
                    continue
                if any(c == t and s < hi and lo < s + length for t, lo, hi in taboo):
                    continue
                if free is not None and any((c, s + i) not in free for i in range(length)):
                    continue
                place = np.array([offsets[c] + s], dtype=np.uint64)
                priority = int(mix(place ^ np.uint64(key(seed)))[0])
                candidates.append((priority, c, s, gc_bin(codes)))
        wanted: dict[int, list[int]] = {}
        for row, (c, s) in enumerate(zip(contig, start, strict=True)):
            if c in members:
                one = gc_bin(reference[offsets[c] + s : offsets[c] + s + length])
                assert one is not None
                wanted.setdefault(one, []).extend([row] * per_positive)
        taken: list[tuple[int, int]] = []
        for _, c, s, one in sorted(candidates):
            near = any(c == t and abs(s - u) < length for t, u in taken)
            if one is None or not wanted.get(one) or (near and not may_overlap):
                continue
            taken.append((c, s))
            out.setdefault(wanted[one].pop(0), []).append((c, s))
        if any(wanted.values()):
            return None
    return out


def grouped(found: Negatives) -> dict[int, list[tuple[int, int]]]:
    out: dict[int, list[tuple[int, int]]] = {}
    for row, c, s in zip(found.positive, found.contig, found.start, strict=True):
        out.setdefault(int(row), []).append((int(c), int(s)))
    return out


SMALL = Contigs(("a", "b", "c"), (500, 350, 400))


@given(
    seed=st.integers(0, 1000),
    positives=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 330)), min_size=1, max_size=6, unique=True
    ),
    length=st.integers(5, 20),
    per_positive=st.integers(1, 3),
    max_unknown=st.sampled_from([0.0, 0.1, 0.5]),
    may_overlap=st.booleans(),
    by_split=st.booleans(),
    excluded=st.booleans(),
    within=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_negatives_are_those_of_a_naive_draw(
    seed: int,
    positives: list[tuple[int, int]],
    length: int,
    excluded: bool,
    within: bool,
    by_split: bool,
    **more: Any,
) -> None:
    globals_contigs = CONTIGS
    try:
        globals()["CONTIGS"] = SMALL
        reference = genome(seed, SMALL.total)
        contig, start = (list(column) for column in zip(*positives, strict=True))
        more |= {
            "allowed": BY_SPLIT if by_split else ALL,
            "seed": seed,
            "excluded": spans((0, 0, 60), (0, 50, 90), (2, 300, 301)) if excluded else None,
            "within": spans((0, 30, 200), (1, 0, 150), (1, 150, 340), (2, 0, 400))
            if within
            else None,
        }
        expected = naive(reference, contig, start, length, **more)
        arrays = np.array(contig), np.array(start)
        if expected is None:
            with pytest.raises(InputError, match="GC bins lack candidates"):
                gc_matched_negatives(reference, SMALL, *arrays, length, **more)
        else:
            found = gc_matched_negatives(reference, SMALL, *arrays, length, **more)
            assert grouped(found) == expected
    finally:
        globals()["CONTIGS"] = globals_contigs

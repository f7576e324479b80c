"""Sequence of a haplotype, of a genotype as base dosage, and of both alleles of a variant.

All functions are pure. Positions are 0-based within one contig. What an allele changes is what is
left of REF and ALT after their shared first bases: ``AT>A`` deletes the T, ``A>AC`` inserts a C
before the next base, and neither touches the A, which an SNV on the same haplotype may change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.sequence import UNKNOWN, Codes
from data_shards.sources.variant_table import (
    MISSING_HAPLOTYPE,
    NO_HAPLOTYPE,
    Kind,
    Variants,
    shown,
)

Outside = Literal["refuse", "unknown"]
"""What bases outside the contig are: a fault, or code 4 with position -1."""


@dataclass(frozen=True)
class ContigBases:
    """The reference sequence of one contig.

    Attributes:
        read: (start, stop), 0-based half-open, within the contig -> uint8 codes (stop - start,).
        length: bases of the contig.
    """

    read: Callable[[int, int], Codes]
    length: int

    @staticmethod
    def of(codes: Codes) -> ContigBases:
        """Take the codes of a whole contig."""
        return ContigBases(lambda start, stop: codes[start:stop], len(codes))


@dataclass(frozen=True)
class Policy:
    """What to do where a genotype doesn't say which sequence the haplotype has.

    Attributes:
        missing: genotype -1: refuse, keep the reference, or write the bases of REF as unknown.
        unphased: a heterozygous genotype without phase: refuse, or take the first allele for the
            first haplotype as the file has them.
        haploid: second haplotype of a haploid genotype: refuse, or take the first.
        symbolic: a carried allele without sequence (``<DEL>``, a breakend, ``*``): refuse or skip.
        indels: carried insertions and deletions: apply, refuse or skip.
    """

    missing: Literal["refuse", "reference", "unknown"] = "refuse"
    unphased: Literal["refuse", "as-written"] = "refuse"
    haploid: Literal["refuse", "first"] = "refuse"
    symbolic: Literal["refuse", "skip"] = "refuse"
    indels: Literal["apply", "refuse", "skip"] = "apply"


@dataclass(frozen=True)
class Changes:
    """What turns the reference of a contig into a haplotype: replaced spans, sorted and apart.

    Attributes:
        start: int64 (changes,), first base that is replaced.
        end: int64 (changes,), exclusive; equal to ``start`` where bases are only inserted.
        letters: what stands there instead, as uint8 codes laid end to end.
        offsets: int64 (changes + 1,), the extent of each in ``letters``.
        rows: int64 (changes,), row of the variants that makes the change.
        lost: int64, carried rows that overlap a change before them and are not applied.
        skipped: int64, carried rows that the policy skips.
    """

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    letters: Codes
    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    lost: npt.NDArray[np.int64]
    skipped: npt.NDArray[np.int64]


@dataclass(frozen=True)
class AlleleWindows:
    """Two windows for each variant, which begin at the same base of the reference.

    Attributes:
        start: int64 (rows,), first base; negative where a window begins before the contig.
        reference: uint8 codes (rows, length), the reference.
        alternative: uint8 codes (rows, length), the reference with the one variant in it.
    """

    start: npt.NDArray[np.int64]
    reference: Codes
    alternative: Codes


def haplotype_changes(
    variants: Variants, sample: int, haplotype: int, policy: Policy | None = None
) -> Changes:
    """Find the changes that one haplotype of one sample carries.

    Of two variants that change the same base, or insert at the same place, the first wins: by
    position, then insertion before replacement, then in the order of the rows.

    Args:
        variants: of one contig, in any order.
        sample: column of the genotypes.
        haplotype: 0 or 1.
        policy: for genotypes that don't say; by default all such are refused.

    Raises:
        InputError: names the variant that the policy refuses; or several contigs.
    """
    policy = policy or Policy()
    _refuse_contigs(variants)
    calls = variants.genotypes[:, sample, haplotype]
    none = calls == NO_HAPLOTYPE
    if policy.haploid == "refuse":
        _refuse(variants, none, "is haploid", 'haploid = "first" takes the one haplotype for both')
    calls = np.where(none, variants.genotypes[:, sample, 0], calls)
    unknown = calls == MISSING_HAPLOTYPE
    if policy.missing == "refuse":
        _refuse(variants, unknown, "has a missing genotype", 'missing = "reference" or "unknown"')
    carried = calls == 1
    pair = variants.genotypes[:, sample]
    if policy.unphased == "refuse":
        mixed = (pair[:, 0] != pair[:, 1]) & ~none & ~variants.phased[:, sample] & ~unknown
        _refuse(variants, mixed, "is heterozygous without phase", 'unphased = "as-written"')
    symbolic = carried & (variants.kind == Kind.SYMBOLIC)
    if policy.symbolic == "refuse":
        _refuse(variants, symbolic, "is carried but has no sequence", 'symbolic = "skip"')
    indels = carried & np.isin(variants.kind, (Kind.INSERTION, Kind.DELETION))
    if policy.indels == "refuse":
        _refuse(variants, indels, "is an insertion or deletion", 'indels = "apply" or "skip"')
    skipped = symbolic | (indels if policy.indels == "skip" else np.zeros_like(indels))
    if policy.missing == "unknown":
        # The alleles of one record are missing together, and hide the same bases.
        _, first = np.unique(variants.record, return_index=True)
        unknown &= np.isin(np.arange(len(variants)), first)
    else:
        unknown = np.zeros_like(unknown)
    return _resolved(variants, carried & ~skipped, unknown, np.flatnonzero(skipped))


def haplotype_window(
    bases: ContigBases, changes: Changes, start: int, length: int, outside: Outside = "refuse"
) -> tuple[Codes, npt.NDArray[np.int64]]:
    """Return a window of a haplotype.

    It begins with the haplotype's first base that lies at ``start`` of the reference or after it,
    and goes on along the haplotype (with its variants) until it has its length.

    Args:
        bases: reference of the contig.
        changes: of the haplotype.
        start: 0-based position in the reference.
        length: bases of the window.
        outside: what to do where the window leaves the contig.

    Returns:
        uint8 codes (length,), and the reference position of each base, int64 (length,), which
        never falls: inserted bases have the position of the base before them, bases beyond the
        length of what they replace that of its last base.

    Raises:
        InputError: the window leaves the contig and ``outside`` is "refuse".
    """
    filled = min(max(0, -start), length)
    codes = [np.full(filled, UNKNOWN, dtype=np.uint8)]
    positions = [np.full(filled, -1, dtype=np.int64)]
    cursor = min(max(start, 0), bases.length)
    for i in range(int(np.searchsorted(changes.end, cursor, side="right")), len(changes.start)):
        first, last = int(changes.start[i]), int(changes.end[i])
        if filled + max(first - cursor, 0) >= length:
            break
        written = changes.letters[changes.offsets[i] : changes.offsets[i + 1]]
        places = np.minimum(first + np.arange(len(written)), last - 1)
        before = np.arange(cursor, max(first, cursor))
        codes += [bases.read(cursor, cursor + len(before)), written[places >= start]]
        positions += [before, places[places >= start]]
        filled += len(before) + len(codes[-1])
        cursor = last
    tail = min(max(length - filled, 0), bases.length - cursor)
    beyond = max(length - filled - tail, 0)
    codes += [bases.read(cursor, cursor + tail), np.full(beyond, UNKNOWN, dtype=np.uint8)]
    positions += [np.arange(cursor, cursor + tail), np.full(beyond, -1, dtype=np.int64)]
    if outside == "refuse" and (start < 0 or beyond):
        raise _outside(bases, start, length)
    return np.concatenate(codes)[:length], np.concatenate(positions)[:length]


def dosage_changes(variants: Variants, sample: int, policy: Policy) -> tuple[Changes, Changes]:
    """Find the changes of both haplotypes of a sample, for :func:`dosage_window`.

    Phase doesn't matter here, and a haploid genotype counts for both haplotypes.

    Args:
        variants: of one contig, in any order.
        sample: column of the genotypes.
        policy: its ``indels`` must be "refuse" or "skip", because bases of the two haplotypes have
            to lie side by side. With ``missing`` "unknown" a missing haplotype has no dosage.

    Raises:
        InputError: names the variant that the policy refuses.
    """
    if policy.indels == "apply":
        raise InputError(
            "base dosage has no room for insertions and deletions",
            remedy='set indels to "skip" or "refuse"',
        )
    policy = replace(policy, unphased="as-written", haploid="first")
    first, second = (haplotype_changes(variants, sample, h, policy) for h in (0, 1))
    return first, second


def dosage_window(
    bases: ContigBases,
    changes: tuple[Changes, Changes],
    start: int,
    length: int,
    outside: Outside = "refuse",
) -> npt.NDArray[np.float32]:
    """Return a window as the share of each base, in the order ACGT, over the two haplotypes.

    Args:
        bases: reference of the contig.
        changes: from :func:`dosage_changes`.
        start: 0-based position in the reference.
        length: bases of the window.
        outside: what to do where the window leaves the contig.

    Returns:
        float32 (length, 4): 1 where both haplotypes have the base, 0.5 where one has it. An
        unknown base (N) of a haplotype adds nothing.

    Raises:
        InputError: the window leaves the contig and ``outside`` is "refuse".
    """
    dosage = np.zeros((length, 5), dtype=np.float32)
    for one in changes:
        codes, _ = haplotype_window(bases, one, start, length, outside)
        dosage[np.arange(length), codes] += 0.5
    return dosage[:, :UNKNOWN]


def variant_windows(
    bases: ContigBases, variants: Variants, length: int, outside: Outside = "refuse"
) -> AlleleWindows:
    """Return the windows with and without each variant, whoever carries it.

    The first base of REF is at index ``length // 2`` of both. Both begin at the same base; after a
    deletion the alternative goes on with bases downstream, after an insertion it ends earlier.

    Args:
        bases: reference of the contig.
        variants: of one contig; memory is 2 x rows x length bytes.
        length: bases of a window.
        outside: what to do where a window leaves the contig.

    Raises:
        InputError: an allele without sequence, several contigs, or a window that leaves the contig
            where ``outside`` is "refuse".
    """
    _refuse_contigs(variants)
    _refuse(
        variants, variants.kind == Kind.SYMBOLIC, "has no sequence", "take such alleles out first"
    )
    middle = length // 2
    reference = np.empty((len(variants), length), dtype=np.uint8)
    alternative = np.empty_like(reference)
    start = variants.position - middle
    for row in range(len(variants)):
        replaced = int(variants.ref.lengths[row])
        longest = max(length, length + replaced - int(variants.alt.lengths[row]))
        stretch = _padded(bases, int(start[row]), longest, length, outside)
        reference[row] = stretch[:length]
        parts = (stretch[:middle], variants.alt.codes(row), stretch[middle + replaced :])
        alternative[row] = np.concatenate(parts)[:length]
    return AlleleWindows(start, reference, alternative)


def _padded(bases: ContigBases, start: int, size: int, length: int, outside: Outside) -> Codes:
    """Read a stretch that may leave the contig; ``length`` is the window's, for the message."""
    low, high = max(start, 0), max(min(start + size, bases.length), 0)
    if outside == "refuse" and (low, high) != (start, start + size):
        raise _outside(bases, start, length)
    codes = np.full(size, UNKNOWN, dtype=np.uint8)
    if low < high:
        codes[low - start : high - start] = bases.read(low, high)
    return codes


def _resolved(
    variants: Variants,
    applied: npt.NDArray[np.bool_],
    unknown: npt.NDArray[np.bool_],
    skipped: npt.NDArray[np.int64],
) -> Changes:
    """Order the changes of the rows and drop those that overlap one before them."""
    rows = np.flatnonzero(applied | unknown)
    shared = np.zeros(len(rows), dtype=np.int64)
    written: list[Codes] = []
    for i, row in enumerate(rows.tolist()):
        if unknown[row]:
            size = int(variants.ref.lengths[row])
            written.append(np.full(size, UNKNOWN, dtype=np.uint8))
        else:
            shared[i] = _shared(variants.ref[row], variants.alt[row])
            written.append(variants.alt.codes(row)[shared[i] :])
    start = variants.position[rows] + shared
    end = variants.position[rows] + variants.ref.lengths[rows]
    kept, lost, reached, inserted = [], [], -1, -1
    for i in np.lexsort((rows, end, start)).tolist():
        low, high = int(start[i]), int(end[i])
        if low < reached or (low == high == inserted):
            lost.append(int(rows[i]))
            continue
        kept.append(i)
        reached = high
        if low == high:
            inserted = low
    order = np.array(kept, dtype=np.int64)
    lengths = [len(written[i]) for i in kept]
    return Changes(
        start=start[order],
        end=end[order],
        letters=np.concatenate([np.empty(0, dtype=np.uint8), *(written[i] for i in kept)]),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        rows=rows[order],
        lost=np.sort(np.array(lost, dtype=np.int64)),
        skipped=skipped,
    )


def _shared(ref: bytes, alt: bytes) -> int:
    """Count the first letters that two alleles share."""
    shortest = min(len(ref), len(alt))
    return next((i for i in range(shortest) if ref[i] != alt[i]), shortest)


def _refuse(variants: Variants, faults: npt.NDArray[np.bool_], problem: str, remedy: str) -> None:
    rows = np.flatnonzero(faults)
    if rows.size:
        row = int(rows[0])
        ref, alt = shown(variants.ref[row].decode()), shown(variants.alt[row].decode())
        raise InputError(
            f"record {variants.record[row] + 1}, position {variants.position[row] + 1} "
            f"({ref}>{alt}) {problem}; {rows.size:,} of {len(variants):,} alleles are so",
            remedy=remedy,
        )


def _refuse_contigs(variants: Variants) -> None:
    if np.unique(variants.contig).size > 1:
        raise InputError(
            "variants of several contigs where those of one are needed",
            remedy="take the rows of one contig at a time",
        )


def _outside(bases: ContigBases, start: int, length: int) -> InputError:
    return InputError(
        f"the window of {length:,} bases at {start:,} leaves the contig ({bases.length:,} bases)",
        remedy='take another window, or set outside = "unknown" to fill it with N',
    )

"""Variants as arrays, one row per alternative allele, and their check against the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.contigs import Contigs
from data_shards.errors import InputError
from data_shards.sequence import Codes, decode, encode

ReadBases = Callable[[int, int, int], Codes]
"""(contig number, start, stop), 0-based half-open -> uint8 codes, shape (stop - start,)."""

MISSING_HAPLOTYPE = -1
NO_HAPLOTYPE = -2

_GAP = 1 << 16  # bases between two variants that are worth a read of their own
_STRETCH = 1 << 22  # bases read at a time
_OUTSIDE = 254  # a code that no letter has
_SHOWN = 30  # letters of an allele in a message


class Kind(IntEnum):
    """What an allele does; by the lengths of REF and ALT where both are sequence.

    A replacement by a longer (shorter) sequence counts as insertion (deletion), also where no
    base is shared. SYMBOLIC is every ALT that is no sequence: ``<DEL>``, a breakend, ``*``.
    """

    SNV = 0
    INSERTION = 1
    DELETION = 2
    MNV = 3
    SYMBOLIC = 4


@dataclass(frozen=True)
class Alleles:
    """Texts one after another.

    Attributes:
        letters: uint8 (bytes,), ASCII; sequence is in upper case.
        offsets: int64 (alleles + 1,); text i is ``letters[offsets[i]:offsets[i + 1]]``.
    """

    letters: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        return self.letters[self.offsets[row] : self.offsets[row + 1]].tobytes()

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each text, int64, shape (alleles,)."""
        return np.diff(self.offsets)

    def codes(self, row: int) -> Codes:
        """Return the uint8 codes of an allele that is sequence; any ambiguity letter is 4."""
        return encode(self[row])

    def take(self, rows: npt.NDArray[np.int64]) -> Alleles:
        """Choose texts by their numbers, in that order."""
        lengths = self.lengths[rows]
        offsets = _offsets(lengths)
        source = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Alleles(self.letters[source], offsets)

    @staticmethod
    def of(texts: Sequence[bytes]) -> Alleles:
        """Lay texts end to end."""
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        return Alleles(np.frombuffer(b"".join(texts), dtype=np.uint8), _offsets(lengths))


@dataclass(frozen=True)
class Variants:
    """Variants on known contigs, one row per ALT allele, in the order of the file.

    The rows of one record of the file follow each other and are never parted into two blocks:
    rows with the same ``record`` are the alleles of one site.

    Attributes:
        contig: int32 (rows,), number of the contig in the reference.
        position: int64 (rows,), first base of REF, 0-based.
        end: int64 (rows,), end of what is replaced, exclusive: position + length of REF; of a
            ``<...>`` allele INFO/END where the file gives it.
        ref: the REF alleles.
        alt: the ALT alleles.
        kind: int8 (rows,), a :class:`Kind`.
        quality: float32 (rows,), QUAL; NaN where the file gives none.
        passed: bool (rows,), FILTER is PASS or ".".
        record: int64 (rows,), number of the record in the file (in a region: in the region),
            from 0.
        allele: int16 (rows,), which ALT of the record, from 1 as in GT.
        genotypes: int8 (rows, samples, 2): 1 where that haplotype carries this ALT, 0 where it
            carries REF or another ALT, -1 where it is missing, and -2 in place of the second
            haplotype of a haploid genotype. A lone "." tells no ploidy: both are -1.
        phased: bool (rows, samples). A haploid genotype is phased.
        skipped_records: records that hold no variant and gave no row (ALT is ".", ``<NON_REF>``,
            ``<*>`` or the same as REF).
        skipped_alleles: such alleles beside the variants of other records.
    """

    contig: npt.NDArray[np.int32]
    position: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    ref: Alleles
    alt: Alleles
    kind: npt.NDArray[np.int8]
    quality: npt.NDArray[np.float32]
    passed: npt.NDArray[np.bool_]
    record: npt.NDArray[np.int64]
    allele: npt.NDArray[np.int16]
    genotypes: npt.NDArray[np.int8]
    phased: npt.NDArray[np.bool_]
    skipped_records: int = 0
    skipped_alleles: int = 0

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Variants:
        """Choose rows by number or mask, in that order. What was skipped is counted no more."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        columns: dict[str, npt.NDArray[np.generic] | Alleles] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, Alleles):
                columns[field.name] = column.take(chosen)
            elif isinstance(column, np.ndarray):
                columns[field.name] = column[chosen]
        return Variants(**columns)  # type: ignore[arg-type]

    def place(self, row: int, contigs: Contigs) -> str:
        """Name a row for a message: contig of the reference, 1-based position and alleles."""
        name = contigs.names[self.contig[row]]
        ref, alt = shown(self.ref[row].decode()), shown(self.alt[row].decode())
        return f"{name}:{self.position[row] + 1} {ref}>{alt}"


def concatenate(blocks: Sequence[Variants]) -> Variants:
    """Join blocks, in order; they need the same samples. At least one is needed."""
    columns: dict[str, object] = {}
    for field in fields(Variants):
        parts = [getattr(block, field.name) for block in blocks]
        if isinstance(parts[0], Alleles):
            letters = np.concatenate([part.letters for part in parts])
            lengths = np.concatenate([part.lengths for part in parts])
            columns[field.name] = Alleles(letters, _offsets(lengths))
        elif isinstance(parts[0], np.ndarray):
            columns[field.name] = np.concatenate(parts)
        else:
            columns[field.name] = sum(parts)
    return Variants(**columns)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ReferenceFault:
    """A REF allele that is not what the reference has there.

    Attributes:
        row: of the variants that were checked.
        record: number of the record in the file, from 0.
        place: contig (its name in the reference), 1-based position and alleles.
        ref: REF of the file, as its codes are written.
        reference: letters of the reference at these bases.
        shifts: of -1 and +1, by how many bases the position would have to move to agree.
    """

    row: int
    record: int
    place: str
    ref: str
    reference: str
    shifts: tuple[int, ...]


def check_reference(
    variants: Variants, read_bases: ReadBases, contigs: Contigs
) -> list[ReferenceFault]:
    """Compare every REF allele with the reference sequence.

    Case does not matter; any ambiguity letter is N on either side, and N agrees with N only.

    Args:
        variants: in any order. Memory is about 5 MB for sequence whatever their number.
        read_bases: gives codes of the reference.
        contigs: of the reference.

    Returns:
        One fault for every row that disagrees, in row order; empty if all agree.
    """
    faults = []
    for rows in _stretches(variants):
        contig = int(variants.contig[rows[0]])
        ends = variants.position[rows] + variants.ref.lengths[rows]
        low = int(variants.position[rows[0]]) - 1
        high = int(ends.max()) + 1
        inside = (max(low, 0), min(high, contigs.lengths[contig]))
        bases = np.full(high - low, _OUTSIDE, dtype=np.uint8)
        bases[inside[0] - low : inside[1] - low] = read_bases(contig, *inside)
        chosen = variants.ref.take(rows)
        owner = np.repeat(np.arange(len(rows)), chosen.lengths)
        at = variants.position[rows][owner] - low
        at += np.arange(len(owner)) - chosen.offsets[:-1][owner]
        codes = encode(chosen.letters.tobytes())
        agrees = {
            shift: np.bincount(owner, bases[at + shift] != codes, len(rows)) == 0
            for shift in (-1, 0, 1)
        }
        for i in np.flatnonzero(~agrees[0]).tolist():
            first = int(variants.position[rows[i]]) - low
            there = bases[first : first + chosen.lengths[i]]
            faults.append(
                ReferenceFault(
                    row=int(rows[i]),
                    record=int(variants.record[rows[i]]),
                    place=variants.place(int(rows[i]), contigs),
                    ref=decode(chosen.codes(i)),
                    reference=decode(there),
                    shifts=tuple(shift for shift in (-1, 1) if agrees[shift][i]),
                )
            )
    return sorted(faults, key=lambda fault: fault.row)


def refuse_faults(path: Path, faults: Sequence[ReferenceFault], checked: int) -> None:
    """Refuse a file whose REF alleles disagree with the reference; do nothing without faults.

    Args:
        path: the file, for the message.
        faults: what :func:`check_reference` found.
        checked: rows that were compared.

    Raises:
        InputError: names the first record, both sequences and the likely cause.
    """
    if not faults:
        return
    first = faults[0]
    for shift in (-1, 1):
        # One base agrees by chance once in four; four such faults do so once in 256.
        if len(faults) >= 4 and all(shift in fault.shifts for fault in faults):
            remedy = (
                f"all of them agree {'one base earlier' if shift < 0 else 'one base later'}: "
                "POS is off by one (VCF counts from 1)"
            )
            break
    else:
        remedy = (
            "the file belongs to another assembly, or a rule of contig names maps it to the "
            "wrong contig: give the reference it was called on"
            if 4 * len(faults) >= checked
            else "most records agree, so the assembly is right: correct these records or "
            "take them out"
        )
    raise InputError(
        f"record {first.record + 1} ({first.place}): REF is {shown(first.ref)} where the "
        f"reference has {shown(first.reference)}; {len(faults):,} of {checked:,} alleles disagree",
        path=path,
        remedy=remedy,
    )


def shown(text: str) -> str:
    """Shorten a long allele for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} letters)"


def _stretches(variants: Variants) -> Iterator[npt.NDArray[np.int64]]:
    """Group rows, sorted by place, whose REF alleles are worth one read of the reference."""
    if not len(variants):
        return
    order = np.lexsort((variants.position, variants.contig))
    contig, position = variants.contig[order], variants.position[order]
    breaks = (np.diff(contig) != 0) | (np.diff(position) > _GAP)
    breaks |= np.diff(position // _STRETCH) != 0
    yield from np.split(order, np.flatnonzero(breaks) + 1)


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

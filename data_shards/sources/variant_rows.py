"""From records of cyvcf2 to rows of :class:`~data_shards.sources.variant_table.Variants`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_shards.contigs import Contigs
from data_shards.sequence import IUPAC_DNA
from data_shards.sources.variant_table import (
    MISSING_HAPLOTYPE,
    NO_HAPLOTYPE,
    Alleles,
    Kind,
    Variants,
    shown,
)

ReferenceRecords = Literal["refuse", "skip"]
Calls = npt.NDArray[np.int16]

_SEQUENCE = re.compile(rf"[{IUPAC_DNA}]+", re.IGNORECASE)
_NO_SEQUENCE = re.compile(
    r"\*|<[^<>\s]+>|[A-Za-z]*\[[^][\s]+\[[A-Za-z]*|[A-Za-z]*\][^][\s]+\][A-Za-z]*"
    r"|\.[A-Za-z]+|[A-Za-z]+\."
)
_REFERENCE_ALLELES = (b"<NON_REF>", b"<*>")
_SITE_BYTES = 500  # of Python's objects for a site


class RecordError(Exception):
    """What is wrong with a record, and the remedy; the reader adds file and place."""

    def __init__(self, problem: str, remedy: str, site: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.site = problem, remedy, site


@dataclass(frozen=True, slots=True)
class Site:
    """One record that has passed the checks. Sequence is in upper case, positions are 0-based.

    ``calls`` is int16 (samples, 3): both alleles (-1 missing, -2 no second haplotype) and whether
    they are phased; None where no sample is read.
    """

    contig: int
    position: int
    ref: bytes
    alts: tuple[bytes, ...]
    kinds: tuple[Kind, ...]
    ends: tuple[int, ...]
    quality: float
    passed: bool
    calls: Calls | None

    @property
    def bytes(self) -> int:
        """Memory of the site and of the rows that it gives, about."""
        rows, samples = max(len(self.alts), 1), 0 if self.calls is None else len(self.calls)
        letters = len(self.ref) * rows + sum(map(len, self.alts))
        return _SITE_BYTES + 100 * rows + letters + (6 + 3 * rows) * samples


def read_site(
    record: Any, contig: int, contigs: Contigs, samples: int, references: ReferenceRecords
) -> Site:
    """Check one record of cyvcf2 and take what is needed of it.

    Args:
        record: of cyvcf2, which reuses its memory: nothing of it is kept.
        contig: number of its contig.
        contigs: of the reference.
        samples: how many samples are read.
        references: whether a record without a variant may pass.

    Raises:
        RecordError: the record breaks the format or contradicts the reference.
    """
    ref = str(record.REF).upper()
    position = int(record.start)
    if not _SEQUENCE.fullmatch(ref):
        raise RecordError(f"REF is {shown(ref)!r}, not DNA", f"only {IUPAC_DNA} are letters of REF")
    if position < 0:
        raise RecordError(
            f"POS is {position + 1}", "bases count from 1; 0 is for telomeres, which have no bases"
        )
    length, end = contigs.lengths[contig], position + len(ref)
    if end > length:
        raise RecordError(
            f"REF ends at {end:,}, past the end of the contig ({length:,} bp)",
            "the file belongs to another assembly, or POS is wrong",
        )
    alts = tuple(_alternative(text) for text in record.ALT)
    _check_alternatives(ref.encode(), alts, references)
    kinds = tuple(_kind(len(ref), alt) for alt in alts)
    ends = tuple(
        _symbolic_end(record, position, end, length) if alt.startswith(b"<") else end
        for alt in alts
    )
    return Site(
        contig=contig,
        position=position,
        ref=ref.encode(),
        alts=alts,
        kinds=kinds,
        ends=ends,
        quality=_quality(record.QUAL),
        passed=_passed(record.FILTER),
        calls=_calls(record) if samples else None,
    )


def assemble(sites: Sequence[Site], first: int, columns: Sequence[int]) -> Variants:
    """Turn sites into arrays, one row per ALT allele.

    Args:
        sites: at least one, in order.
        first: number of the first site's record.
        columns: of the calls, one per sample, in the order of the result.

    Raises:
        RecordError: a genotype names an allele that the record lacks or that is skipped; its
            ``site`` is the number of the site.
    """
    counts = np.array([len(site.alts) for site in sites], dtype=np.int64)
    owner = np.repeat(np.arange(len(sites)), counts)
    allele = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + 1).astype(
        np.int16
    )
    genotypes, phased = _genotypes(sites, counts, owner, allele, columns)
    alts = [alt for site in sites for alt in site.alts]
    refs = [sites[i].ref for i in owner.tolist()]
    keep = np.array([not _is_reference(*pair) for pair in zip(refs, alts, strict=True)], dtype=bool)
    carried = (genotypes == 1).any(axis=(1, 2)) & ~keep
    if carried.any():
        raise RecordError(
            f"a genotype carries {alts[int(np.flatnonzero(carried)[0])].decode()}",
            "an allele without sequence can't be skipped where it is carried",
            site=int(owner[carried][0]),
        )
    emptied = np.bincount(owner[keep], minlength=len(sites)) == 0
    variants = Variants(
        contig=np.array([site.contig for site in sites], dtype=np.int32)[owner],
        position=np.array([site.position for site in sites], dtype=np.int64)[owner],
        end=np.array([end for site in sites for end in site.ends], dtype=np.int64),
        ref=Alleles.of(refs),
        alt=Alleles.of(alts),
        kind=np.array([kind for site in sites for kind in site.kinds], dtype=np.int8),
        quality=np.array([site.quality for site in sites], dtype=np.float32)[owner],
        passed=np.array([site.passed for site in sites], dtype=np.bool_)[owner],
        record=first + owner,
        allele=allele,
        genotypes=genotypes,
        phased=phased,
    )
    return replace(
        variants if keep.all() else variants.take(keep),
        skipped_records=int(emptied.sum()),
        skipped_alleles=int((~keep & ~emptied[owner]).sum()),
    )


def _alternative(text: str) -> bytes:
    if _SEQUENCE.fullmatch(text):
        return text.upper().encode()
    if _NO_SEQUENCE.fullmatch(text):
        return text.encode()
    raise RecordError(
        f"ALT is {shown(text)!r}",
        "an ALT is DNA letters, '*', '<NAME>', a breakend, or '.' alone",
    )


def _check_alternatives(ref: bytes, alts: tuple[bytes, ...], references: ReferenceRecords) -> None:
    if len(set(alts)) < len(alts):
        raise RecordError("an ALT is there twice", "join the two and renumber the genotypes")
    none = [alt.decode() for alt in alts if _is_reference(ref, alt)] if alts else ["."]
    if none and references == "refuse":
        same = " (the same as REF)" if none[0] == ref.decode() else ""
        raise RecordError(
            f"ALT {shown(none[0])}{same} is no variant",
            'take it out, or set reference_records = "skip" to pass over such alleles and count '
            "them (a gVCF is full of them)",
        )


def _is_reference(ref: bytes, alt: bytes) -> bool:
    return alt == ref or alt in _REFERENCE_ALLELES


def _kind(ref: int, alt: bytes) -> Kind:
    if not alt.isalpha():
        return Kind.SYMBOLIC
    if len(alt) == ref:
        return Kind.SNV if ref == 1 else Kind.MNV
    return Kind.INSERTION if len(alt) > ref else Kind.DELETION


def _symbolic_end(record: Any, position: int, end: int, length: int) -> int:
    stated = record.INFO.get("END")
    if stated is None:
        return end
    if not isinstance(stated, int) or not position < stated <= length:
        raise RecordError(
            f"INFO/END is {stated}",
            f"it must be a number from POS to the length of the contig ({length:,})",
        )
    return stated


def _quality(quality: float | None) -> float:
    if quality is None:
        return math.nan
    if not math.isfinite(quality):
        raise RecordError(
            f"QUAL is {quality}", "write a finite number that fits in 32 bits, or '.'"
        )
    return quality


def _passed(filters: str | None) -> bool:
    if filters is None or filters == "PASS":
        return True
    names = filters.split(";")
    if "PASS" in names or "0" in names or "." in names:
        raise RecordError(
            f"FILTER is {filters!r}",
            "write PASS, '.', or the names of the filters that failed ('0' is reserved)",
        )
    return False


def _calls(record: Any) -> Calls:
    """Return the genotypes of all columns, int16 (samples, 3), as :class:`Site` holds them."""
    try:
        raw: Calls = record.genotype.array()
    except Exception as error:
        raise RecordError(
            "the record has no genotypes (GT is not in FORMAT)",
            "read the file without samples, or take the record out",
        ) from error
    if raw.shape[1] > 3:
        if (raw[:, 2:-1] != NO_HAPLOTYPE).any():
            raise RecordError(
                "a genotype has more than two haplotypes", "only haploid and diploid ones are read"
            )
        raw = raw[:, [0, 1, -1]]
    if raw.shape[1] == 2:
        second = np.full(len(raw), NO_HAPLOTYPE, dtype=raw.dtype)
        raw = np.stack([raw[:, 0], second, raw[:, 1]], axis=1)
    return raw


def _genotypes(
    sites: Sequence[Site],
    counts: npt.NDArray[np.int64],
    owner: npt.NDArray[np.int64],
    allele: npt.NDArray[np.int16],
    columns: Sequence[int],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Return genotypes int8 (rows, samples, 2) and phases bool (rows, samples)."""
    if not columns:
        shape = (len(owner), 0)
        return np.zeros((*shape, 2), dtype=np.int8), np.zeros(shape, dtype=np.bool_)
    stacked = np.stack([site.calls for site in sites if site.calls is not None])
    stacked = stacked[:, list(columns)]
    calls, phased = stacked[:, :, :2], stacked[:, :, 2] != 0
    over = (calls > counts[:, None, None]).any(axis=(1, 2))
    if over.any():
        site = int(np.flatnonzero(over)[0])
        raise RecordError(
            f"a genotype names allele {int(calls[site].max())} of {counts[site]}",
            "correct the genotype, or add the ALT allele",
            site=site,
        )
    haploid = calls[:, :, 1] == NO_HAPLOTYPE
    unknown = haploid & (calls[:, :, 0] == MISSING_HAPLOTYPE)
    calls[unknown, 1] = MISSING_HAPLOTYPE
    phased = (phased | haploid) & ~unknown
    calls = calls[owner]
    carries = np.where(calls < 0, calls, calls == allele[:, None, None])
    return carries.astype(np.int8), phased[owner]

"""VCF and BCF read by cyvcf2 in blocks of arrays, behind the checks that htslib leaves out.

htslib warns on stderr where a file is wrong, reads "high" as quality 0, drops surplus columns, and
crashes on a blank line. So every line of a text file is looked at before htslib parses it.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_shards.contigs import Contigs, Naming, naming_hint
from data_shards.errors import InputError
from data_shards.sources.files import open_binary
from data_shards.sources.variant_header import VariantFile, check_line, scan_variants
from data_shards.sources.variant_index import indexed_file
from data_shards.sources.variant_rows import (
    RecordError,
    ReferenceRecords,
    Site,
    assemble,
    read_site,
)
from data_shards.sources.variant_table import Variants

Region = tuple[str, int, int]
"""(contig by its name in the reference, start, stop), 0-based half-open."""

_LONGEST = 256 << 20  # bytes of a line
# Names that htslib would take for an option or a list.
_SPECIAL = (",", "^", "-")


@dataclass(frozen=True)
class _Reading:
    """What a reading of one file is about; ``lines``: every line after the header is a record."""

    file: VariantFile
    contigs: Contigs
    naming: Naming
    samples: tuple[str, ...]
    references: ReferenceRecords
    lines: bool

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Numbers in the reference of the contigs that the header declares."""
        found = {n: self.contigs.index.get(self.naming.translate(n)) for n in self.file.names}
        return {name: number for name, number in found.items() if number is not None}


@dataclass(frozen=True)
class _Record:
    """A record of cyvcf2, and where it is: line in a text file, or number from 1."""

    content: Any
    number: int
    line: int | None


def stream_variants(
    path: Path,
    contigs: Contigs,
    naming: Naming,
    samples: Sequence[str] | None = None,
    region: Region | None = None,
    block: int = 16 << 20,
    reference_records: ReferenceRecords = "refuse",
    scratch: Path | None = None,
) -> Iterator[Variants]:
    """Read the variants of a VCF (plain, gzip, bgzip) or BCF file, one row per ALT allele.

    Args:
        path: the file. Records may be in any order unless a region is asked for.
        contigs: of the reference.
        naming: how this file names them.
        samples: whose genotypes to read, in that order; None for all, () for none.
        region: only the records whose REF (or INFO/END) reaches into it. Needs an index; one that
            is older than the file or was made for another is refused.
        block: bytes of a block, about; a block is larger only where one record is.
        reference_records: gVCF blocks (ALT ``<NON_REF>`` or ``<*>``), sites without ALT and an
            ALT that is the same as REF are no variants: refuse the file, or skip and count them in
            each block.
        scratch: an existing folder in which an index is built if the file has none.

    Yields:
        Blocks in the order of the file. One without rows comes only last, to count what was
        skipped. A region without variants yields none.

    Raises:
        InputError: names file and line (in BCF and regions: the record) of what breaks the format,
            contradicts the header or the reference, or would be read as something else. Header,
            samples, region and index are checked before this returns, records as they are read.
    """
    file = scan_variants(path, contigs, naming)
    chosen = _chosen_samples(file, samples)
    lines = region is None and not file.binary
    reading = _Reading(file, contigs, naming, chosen, reference_records, lines)
    if region is None:
        return _blocks(reading, path, None, None, block)
    _check_region(region, contigs)
    return _blocks(reading, *indexed_file(path, scratch), region, block)


def _blocks(
    reading: _Reading, source: Path, index: Path | None, region: Region | None, block: int
) -> Iterator[Variants]:
    vcf = _open(reading, source)
    columns = [list(vcf.samples).index(name) for name in reading.samples]
    sites: list[Site] = []
    size = first = 0
    try:
        if region is not None and index is not None:
            records = _region_records(reading, vcf, source, index, region)
        else:
            records = (_binary_records if reading.file.binary else _text_records)(reading, vcf)
        for record in records:
            sites.append(_site(reading, record))
            size += sites[-1].bytes
            if size >= block:
                yield _assembled(reading, sites, first, columns)
                first, sites, size = first + len(sites), [], 0
    finally:
        vcf.close()
    if sites:
        yield _assembled(reading, sites, first, columns)
    elif not first and region is None:
        raise InputError(
            "no record in the file", path=reading.file.path, remedy="give a file that has records"
        )


def _open(reading: _Reading, source: Path) -> Any:
    from cyvcf2 import VCF

    special = any(name.startswith(_SPECIAL) or "," in name for name in reading.samples)
    try:
        return VCF(str(source), samples=None if special else list(reading.samples))
    except Exception as error:
        raise InputError(
            f"htslib can't read the header ({error})",
            path=reading.file.path,
            remedy="its message is on stderr; correct the header",
        ) from error


def _text_records(reading: _Reading, vcf: Any) -> Iterator[_Record]:
    """Check each line, then let htslib parse the same line."""
    file, number = reading.file, 0
    try:
        with open_binary(file.path) as stream:
            while line := stream.readline(_LONGEST):
                number += 1
                if number <= file.header_lines:
                    continue
                if not line.endswith(b"\n"):
                    raise InputError(
                        "the line has no end",
                        path=file.path,
                        line=number,
                        remedy="the file is truncated: copy it again (or add the line end)",
                    )
                content = _parsed(reading, vcf, vcf, line.rstrip(b"\r\n"), number, number)
                yield _Record(content, number, number)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"damaged gzip data after line {number} ({error})",
            path=file.path,
            remedy="copy or download the file again",
        ) from error


def _binary_records(reading: _Reading, records: Any) -> Iterator[_Record]:
    iterator = iter(records)
    number = 0
    while True:
        number += 1
        try:
            content = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise _unparsed(reading.file, None, number, error) from error
        yield _Record(content, number, None)


def _region_records(
    reading: _Reading, vcf: Any, source: Path, index: Path, region: Region
) -> Iterator[_Record]:
    """Read what reaches into the region, under every name that the file has for the contig."""
    import pysam

    file = reading.file
    contig, start, stop = region
    within = f"{start + 1}-{stop}"
    if file.binary:
        for name in file.names:
            if reading.naming.translate(name) == contig:
                yield from _binary_records(reading, vcf(f"{{{name}}}:{within}"))
        return
    with pysam.TabixFile(str(source), index=str(index), encoding="latin-1") as lines:
        for name in lines.contigs:
            if reading.naming.translate(name) != contig:
                continue
            records = vcf(f"{{{name}}}:{within}")
            for number, text in enumerate(lines.fetch(name, start, stop), start=1):
                line = text.encode("latin-1")
                content = _parsed(reading, vcf, records, line, None, number)
                if content.start + 1 != int(line.split(b"\t", 2)[1]):
                    raise InputError(
                        f"htslib reads position {content.start + 1} where line {text[:40]!r} is",
                        path=file.path,
                        remedy="index the file again (bcftools index)",
                    )
                yield _Record(content, number, None)


def _parsed(
    reading: _Reading, vcf: Any, records: Any, content: bytes, line: int | None, number: int
) -> Any:
    """Check a line of text and take the record that htslib makes of it."""
    check_line(reading.file, content, line)
    name = content.split(b"\t", 1)[0].decode()
    if name not in reading.numbers:
        try:
            reading.numbers[name] = _contig_number(reading, name)
        except RecordError as fault:
            problem = fault.problem if line else f"record {number}: {fault.problem}"
            raise InputError(
                problem, path=reading.file.path, line=line, remedy=fault.remedy
            ) from None
        # htslib crashes where a record on a contig that it doesn't know has another fault.
        vcf.add_to_header(f"##contig=<ID={name}>")
    try:
        return next(records)
    except Exception as error:
        raise _unparsed(reading.file, line, number, error) from error


def _contig_number(reading: _Reading, name: str) -> int:
    if reading.file.names and name not in reading.file.names:
        raise RecordError(
            f"contig {name!r} is not in the header", "add its ##contig line to the header"
        )
    number = reading.contigs.index.get(reading.naming.translate(name))
    if number is None:
        raise RecordError(
            f"contig {name!r} is not in the reference", naming_hint(name, reading.contigs)
        )
    return number


def _unparsed(file: VariantFile, line: int | None, number: int, error: Exception) -> InputError:
    which = "the record" if line is not None else f"record {number}"
    reason = "it sees the end of the file" if isinstance(error, StopIteration) else str(error)
    return InputError(
        f"htslib can't parse {which} ({reason})",
        path=file.path,
        line=line,
        remedy="its message is on stderr; correct the record, or copy the file again",
    )


def _site(reading: _Reading, record: _Record) -> Site:
    content = record.content
    name = str(content.CHROM)
    try:
        contig = reading.numbers.get(name)
        if contig is None:
            contig = _contig_number(reading, name)
        samples = len(reading.samples)
        return read_site(content, contig, reading.contigs, samples, reading.references)
    except UnicodeDecodeError:
        fault = RecordError("text that is not UTF-8", "correct the record")
    except RecordError as error:
        fault = error
    place = f"record {record.number} ({name}:{content.start + 1})"
    problem = f"{place}: {fault.problem}" if record.line is None else fault.problem
    raise InputError(problem, path=reading.file.path, line=record.line, remedy=fault.remedy)


def _assembled(reading: _Reading, sites: list[Site], first: int, columns: list[int]) -> Variants:
    try:
        return assemble(sites, first, columns)
    except RecordError as fault:
        number = fault.site or 0
        site = sites[number]
        place = f"{reading.contigs.names[site.contig]}:{site.position + 1}"
        number += first + 1
        raise InputError(
            f"record {number} ({place}): {fault.problem}",
            path=reading.file.path,
            line=reading.file.header_lines + number if reading.lines else None,
            remedy=fault.remedy,
        ) from None


def _chosen_samples(file: VariantFile, samples: Sequence[str] | None) -> tuple[str, ...]:
    if samples is None:
        return file.samples
    for i, name in enumerate(samples):
        if name not in file.samples:
            near = difflib.get_close_matches(name, file.samples, n=1)
            known = ", ".join(file.samples[:8]) + (", ..." if len(file.samples) > 8 else "")
            raise InputError(
                f"there is no sample {name!r}",
                path=file.path,
                remedy=f"did you mean {near[0]!r}?" if near else f"it has {known or 'no samples'}",
            )
        if name in samples[:i]:
            raise InputError(
                f"sample {name!r} is asked for twice", path=file.path, remedy="name it once"
            )
    return tuple(samples)


def _check_region(region: Region, contigs: Contigs) -> None:
    contig, start, stop = region
    if contig not in contigs.index:
        raise InputError(
            f"region {contig}:{start}-{stop}: contig {contig!r} is not in the reference",
            remedy="a region names the contig as the reference does",
        )
    length = contigs.lengths[contigs.index[contig]]
    if not 0 <= start < stop <= length:
        raise InputError(
            f"region {contig}:{start}-{stop} is empty or outside the contig ({length:,} bp)",
            remedy="regions are 0-based and half-open",
        )

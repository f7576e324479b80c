"""The header of a VCF or BCF file, and what a line of records must be before htslib sees it."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_shards.contigs import Contigs, Naming, naming_hint
from data_shards.errors import InputError
from data_shards.sources.files import open_binary
from data_shards.sources.variant_index import require_end_block

_COLUMNS = ("CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
_BINARY = b"BCF\x02"
_LONGEST = 256 << 20  # bytes of a line or of a binary header

_CONTIG = re.compile(r"##contig=<(.*)>")
_ID = re.compile(r"(?:^|,)ID=([^,]+)")
_LENGTH = re.compile(r"(?:^|,)length=([^,]*)")
# What the specification allows; htslib crashes on a name that it can't add to the header.
_NAME = re.compile(rb"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
_FORMAT = re.compile(rb"\.|[A-Za-z_][0-9A-Za-z_.]*(:[A-Za-z_][0-9A-Za-z_.]*)*")
_POSITION = re.compile(rb"[0-9]{1,18}")
_QUALITY = re.compile(rb"\.|[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class VariantFile:
    """What the header of a VCF or BCF file says.

    Attributes:
        path: the file.
        binary: BCF.
        samples: names, in the order of the columns.
        names: contigs by their names in this file; empty if it declares none.
        lengths: of those, in bases; None where it gives none.
        foreign: those of ``names`` that the reference doesn't have.
        columns: tab-separated columns of a record.
        header_lines: lines before the first record.
    """

    path: Path
    binary: bool
    samples: tuple[str, ...]
    names: tuple[str, ...]
    lengths: tuple[int | None, ...]
    foreign: tuple[str, ...]
    columns: int
    header_lines: int


def scan_variants(path: Path, contigs: Contigs, naming: Naming) -> VariantFile:
    """Read the header of a VCF (plain, gzip, bgzip) or BCF file and check it.

    Args:
        path: the file.
        contigs: of the reference.
        naming: how this file names them.

    Returns:
        The header. Contigs that the reference lacks are listed, not refused: only a record on one
        is a fault.

    Raises:
        InputError: no VCF or BCF; a truncated bgzip file; no or a wrong ``#CHROM`` line; a sample
            twice; a contig of another length than in the reference; no contig in common with it.
    """
    require_end_block(path)
    binary, lines = _header_lines(path)
    names, lengths = _contigs(path, lines, contigs, naming)
    foreign = tuple(name for name in names if naming.translate(name) not in contigs.index)
    if names and len(foreign) == len(names):
        raise InputError(
            f"none of the {len(names)} contigs of the header is in the reference "
            f"(the first is {names[0]!r})",
            path=path,
            remedy=naming_hint(names[0], contigs),
        )
    return VariantFile(
        path=path,
        binary=binary,
        samples=_samples(path, len(lines), lines[-1]),
        names=names,
        lengths=lengths,
        foreign=foreign,
        columns=len(lines[-1].split("\t")),
        header_lines=len(lines),
    )


def check_line(file: VariantFile, line: bytes, number: int | None) -> None:
    """Refuse a line of a text file that htslib would crash on, skip or read as something else.

    Args:
        file: the header.
        line: a record without its line end.
        number: 1-based line number, None if it is not known.

    Raises:
        InputError: names the line and the fault.
    """
    fields = line.split(b"\t", 9)
    fault = _shape_fault(file, line) or _value_fault(fields)
    if fault is None:
        return
    problem, remedy = fault
    if number is None:
        at = b":".join(fields[:2]).decode("utf-8", "replace")
        problem = f"record at {at}: {problem}"
    raise InputError(problem, path=file.path, line=number, remedy=remedy)


def _shape_fault(file: VariantFile, line: bytes) -> tuple[str, str] | None:
    if not line.strip():
        return "a blank line", "remove it"
    if line.startswith(b"#"):
        return "a header line after the first record", "move it to the header, or remove it"
    columns = line.count(b"\t") + 1
    if columns != file.columns:
        return (
            f"{columns} columns where the header has {file.columns}",
            "every record needs the columns of the #CHROM line, with tabs between",
        )
    if b"\r" in line or b"\0" in line:
        return "a stray control character", "line ends must be \\n or \\r\\n throughout"
    return None


def _value_fault(fields: list[bytes]) -> tuple[str, str] | None:
    if b"" in fields[:8]:
        return f"column {_COLUMNS[fields.index(b'')]} is empty", "write '.' for what is missing"
    if not _NAME.fullmatch(fields[0]):
        return f"{_text(fields[0])!r} is no contig name", "correct the first column"
    if not _POSITION.fullmatch(fields[1]):
        return f"POS is {_text(fields[1])!r}, not a number", "POS counts bases from 1"
    if not _QUALITY.fullmatch(fields[5]):
        return f"QUAL is {_text(fields[5])!r}, not a number", "write a finite number, or '.'"
    alternatives = fields[4].split(b",")
    if b"" in alternatives or (b"." in alternatives and len(alternatives) > 1):
        return (
            f"ALT {_text(fields[4])!r} has an allele without text",
            "write the alleles, or a lone '.'",
        )
    return _format_fault(fields[8]) if len(fields) > 8 else None


def _format_fault(field: bytes) -> tuple[str, str] | None:
    """Check FORMAT: htslib ends the whole process over an odd one."""
    keys = field.split(b":")
    if not _FORMAT.fullmatch(field) or len(set(keys)) < len(keys) or b"GT" in keys[1:]:
        return f"FORMAT is {_text(field)!r}", "it is names with ':' between, each once, GT first"
    return None


def _text(field: bytes) -> str:
    return field[:40].decode("utf-8", "replace")


def _header_lines(path: Path) -> tuple[bool, list[str]]:
    """Return whether the file is BCF, and the lines of its header up to ``#CHROM``."""
    lines: list[str] = []
    try:
        with open_binary(path) as stream:
            packed = _binary_header(stream)
            if packed is None:
                stream.seek(0)
            for raw in _text_lines(stream) if packed is None else packed.split(b"\n"):
                text = raw.rstrip(b"\r\n").decode("utf-8")
                _refuse_header_line(path, len(lines) + 1, text)
                lines.append(text)
                if text.startswith("#CHROM"):
                    return packed is not None, lines
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"the header can't be read ({error})",
            path=path,
            remedy="give a VCF file (UTF-8 text, plain or gzip) or a BCF file, whole",
        ) from error
    raise InputError(
        "there is no #CHROM line",
        path=path,
        remedy="the header is cut off: copy or download the file again",
    )


def _binary_header(stream: IO[bytes]) -> bytes | None:
    """Read the text of a BCF header; None if the file is not BCF."""
    head = stream.read(9)
    if head[:4] != _BINARY:
        return None
    (length,) = struct.unpack("<I", head[5:].ljust(4, b"\xff"))
    text = stream.read(length) if length <= _LONGEST else b""
    if len(text) < length:
        raise EOFError("it is cut off")
    return text.rstrip(b"\0")


def _text_lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(_LONGEST):
        yield line


def _refuse_header_line(path: Path, number: int, text: str) -> None:
    if number == 1 and not text.startswith("##fileformat=VCF"):
        raise InputError(
            f"begins with {text[:40]!r}, not with '##fileformat=VCF'",
            path=path,
            line=1,
            remedy="give a VCF or BCF file",
        )
    if not text.startswith("#"):
        raise InputError(
            "a record before the #CHROM line",
            path=path,
            line=number,
            remedy="the header ends with a line of column names: #CHROM, POS, ID, ...",
        )
    if "\r" in text or "\0" in text:
        raise InputError(
            "a stray control character in the header",
            path=path,
            line=number,
            remedy="line ends must be \\n or \\r\\n throughout",
        )


def _samples(path: Path, number: int, text: str) -> tuple[str, ...]:
    columns = text.removeprefix("#").split("\t")
    wanted = [*_COLUMNS, "FORMAT"][: max(len(columns), 8)]
    if columns[: len(wanted)] != wanted:
        raise InputError(
            f"the columns are {' '.join(columns[:9])!r}",
            path=path,
            line=number,
            remedy=f"they must be {' '.join(wanted)}, with tabs between",
        )
    samples = columns[9:]
    for i, name in enumerate(samples):
        if not name or name in samples[:i]:
            problem = f"sample {name!r} is there twice" if name else f"sample {i + 1} has no name"
            raise InputError(
                problem, path=path, line=number, remedy="give each sample a name of its own"
            )
    return tuple(samples)


def _contigs(
    path: Path, lines: list[str], contigs: Contigs, naming: Naming
) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
    found: dict[str, int | None] = {}
    for number, text in enumerate(lines, start=1):
        declared = _CONTIG.fullmatch(text)
        if declared is None:
            continue
        name = _ID.search(declared[1])
        if name is None:
            raise InputError(
                "a contig without ID", path=path, line=number, remedy="write ##contig=<ID=name>"
            )
        length = _contig_length(path, number, declared[1])
        if found.get(name[1], length) != length:
            raise InputError(
                f"contig {name[1]!r} is there twice, with {found[name[1]]} and {length} bp",
                path=path,
                line=number,
                remedy="remove the wrong one",
            )
        found[name[1]] = length
        at = contigs.index.get(naming.translate(name[1]))
        if at is not None and length is not None and contigs.lengths[at] != length:
            raise InputError(
                f"contig {name[1]!r} has {length:,} bp here and {contigs.lengths[at]:,} bp in "
                "the reference",
                path=path,
                line=number,
                remedy="the file belongs to another assembly: give the reference it was called on",
            )
    return tuple(found), tuple(found.values())


def _contig_length(path: Path, number: int, text: str) -> int | None:
    length = _LENGTH.search(text)
    if length is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,17}", length[1]):
        raise InputError(
            f"a contig's length is {length[1]!r}",
            path=path,
            line=number,
            remedy="write it as a number of bases, or leave it out",
        )
    return int(length[1])

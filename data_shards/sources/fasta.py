"""FASTA: validated line by line once, then read at random by pysam."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pysam

from data_shards.contigs import Contigs, first_unsorted
from data_shards.errors import InputError
from data_shards.sequence import IUPAC_DNA, Codes, encode
from data_shards.sources.files import is_gzip, open_binary

ContigOrder = Literal["sorted", "file"]

_LETTERS = (IUPAC_DNA + IUPAC_DNA.lower()).encode()
_RNA = "uU"
_PIECE = 1 << 20  # bases read at a time


def scan_fasta(path: Path) -> Contigs:
    """Read a FASTA file (plain, gzip or bgzip) once and return its contigs.

    Memory is one line. The name of a contig is its header up to the first white space.

    Raises:
        InputError: names file and line of: text before the first header, a nameless or duplicated
            contig, a contig without sequence, a letter that is not IUPAC DNA.
    """
    first_line: dict[str, int] = {}
    lengths: list[int] = []
    number = 0
    with open_binary(path) as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.rstrip()
            if line.startswith(b">"):
                _refuse_empty_contig(path, first_line, lengths)
                name = _contig_name(path, number, line, first_line)
                first_line[name] = number
                lengths.append(0)
            elif line:
                if not lengths:
                    raise InputError(
                        f"text before the first header: {_shown(line)}",
                        path=path,
                        line=number,
                        remedy="a FASTA file begins with a line like '>chr1'",
                    )
                if foreign := line.translate(None, _LETTERS):
                    raise _bad_letter(path, number, line, chr(foreign[0]))
                lengths[-1] += len(line)
    if not lengths:
        raise InputError("no contig in the file", path=path, remedy="give a FASTA file")
    _refuse_empty_contig(path, first_line, lengths)
    return Contigs(tuple(first_line), tuple(lengths))


def check_order(path: Path, contigs: Contigs, tiled: Contigs, order: ContigOrder) -> None:
    """Refuse a reference whose contigs come in no known order, unless told to keep it.

    The same genome with its contigs shuffled is another data set with another sample order, which
    is how "same seed, another result" begins.

    Args:
        path: the FASTA file, for the message.
        contigs: all contigs of the file.
        tiled: those that take part in the data set; only their order matters.
        order: "sorted" to check, "file" to accept any order.

    Raises:
        InputError: names the contig that is out of order.
    """
    culprit = first_unsorted(tiled) if order == "sorted" else None
    if culprit is not None:
        name, before = tiled.names[culprit], tiled.names[culprit - 1]
        raise InputError(
            f"contigs are not sorted: {name!r} comes after {before!r}",
            path=path,
            line=_header_line(path, contigs.index[name]),
            remedy=(
                "sort the FASTA (by name, naturally, by Roman numeral or by length), "
                'or set [reference] order = "file" to keep the order of the file'
            ),
        )


def stage_fasta(path: Path, folder: Path) -> Path:
    """Put an indexed, uncompressed FASTA into ``folder`` for random access by pysam.

    A plain file is linked, a compressed one is unpacked. Nothing is written beside the source.

    Returns:
        Path of the FASTA; its ``.fai`` lies beside it.
    """
    staged = folder / "reference.fa"
    staged.unlink(missing_ok=True)
    if is_gzip(path):
        with open_binary(path) as packed, staged.open("wb") as plain:
            shutil.copyfileobj(packed, plain, length=1 << 20)
    else:
        staged.symlink_to(path.resolve())
    try:
        pysam.faidx(str(staged))
    except pysam.SamtoolsError as error:
        raise InputError(
            f"can't be indexed: {str(error).strip()}",
            path=path,
            remedy="all lines of a contig but the last must have the same length",
        ) from error
    return staged


def read_codes(staged: Path, contigs: Contigs, start: int, stop: int) -> Codes:
    """Read a stretch of the concatenated reference.

    Args:
        staged: what :func:`stage_fasta` returned.
        contigs: the contigs, in the order in which they are concatenated.
        start: first base, 0-based, in the concatenation.
        stop: end of the stretch, exclusive.

    Returns:
        uint8 codes, shape ``(stop - start,)``.
    """
    codes = np.empty(stop - start, dtype=np.uint8)
    with pysam.FastaFile(str(staged)) as fasta:
        for name, length, offset in zip(
            contigs.names, contigs.lengths, contigs.offsets.tolist(), strict=True
        ):
            for lo in range(max(start - offset, 0), min(stop - offset, length), _PIECE):
                hi = min(lo + _PIECE, stop - offset, length)
                codes[offset + lo - start : offset + hi - start] = encode(fasta.fetch(name, lo, hi))
    return codes


def _contig_name(path: Path, number: int, line: bytes, first_line: dict[str, int]) -> str:
    fields = line[1:].split(maxsplit=1)
    if not fields or line[1:2].isspace():
        raise InputError(
            "a header without a name", path=path, line=number, remedy="write it as '>name'"
        )
    name = fields[0].decode("utf-8", "replace")
    if name in first_line:
        raise InputError(
            f"contig {name!r} is there twice (first on line {first_line[name]})",
            path=path,
            line=number,
            remedy="remove or rename one of the two",
        )
    return name


def _refuse_empty_contig(path: Path, first_line: dict[str, int], lengths: list[int]) -> None:
    if lengths and lengths[-1] == 0:
        name, line = list(first_line.items())[-1]
        raise InputError(
            f"contig {name!r} has no sequence",
            path=path,
            line=line,
            remedy="remove the header or add its sequence",
        )


def _bad_letter(path: Path, number: int, line: bytes, letter: str) -> InputError:
    column = line.index(letter.encode("latin-1")) + 1
    remedy = (
        "this is RNA: write T for U"
        if letter in _RNA
        else f"only IUPAC DNA letters ({IUPAC_DNA}, either case) are sequence"
    )
    return InputError(
        f"{letter!r} in column {column} is not an IUPAC DNA letter",
        path=path,
        line=number,
        remedy=remedy,
    )


def _header_line(path: Path, contig: int) -> int:
    with open_binary(path) as stream:
        headers = (n for n, line in enumerate(stream, start=1) if line.startswith(b">"))
        return next(number for i, number in enumerate(headers) if i == contig)


def _shown(line: bytes) -> str:
    text = line[:40].decode("latin-1")
    return repr(text + ("..." if len(line) > 40 else ""))

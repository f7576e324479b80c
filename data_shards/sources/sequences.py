"""Sequences as samples: FASTA records of any length, a block of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.sequence import Codes, encode
from data_shards.sources.files import open_binary

Alphabet = Literal["dna", "rna"]

_RNA_TO_DNA = bytes.maketrans(b"Uu", b"Tt")


@dataclass(frozen=True)
class Records:
    """Some records, in the order of the file.

    Attributes:
        names: the headers, up to the first white space.
        codes: uint8, of all records end to end.
        lengths: int64, shape (records,).
    """

    names: tuple[str, ...]
    codes: Codes
    lengths: npt.NDArray[np.int64]


def encode_text(text: bytes, alphabet: Alphabet) -> Codes:
    """Encode letters of an alphabet as codes; for RNA, U is read as T.

    Raises:
        ValueError: a letter is not of the alphabet; names it and its 0-based position.
    """
    return encode(text.translate(_RNA_TO_DNA) if alphabet == "rna" else text)


def stream_records(
    path: Path, alphabet: Alphabet = "dna", block_bytes: int = 16 << 20
) -> Iterator[Records]:
    """Read a FASTA file (plain, gzip or bgzip) whose records are samples.

    Memory is about ``block_bytes``, and at least one record.

    Raises:
        InputError: names file and line of: text before the first header, a nameless record, a
            record without sequence, a letter that is not of the alphabet; or an empty file.
    """
    names: list[str] = []
    pieces: list[Codes] = []
    lengths: list[int] = []
    held, header = 0, 0
    with open_binary(path) as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.rstrip()
            if line.startswith(b">"):
                _refuse_empty(path, names, lengths, header)
                if held >= block_bytes:
                    yield _records(names, pieces, lengths)
                    names, pieces, lengths, held = [], [], [], 0
                names.append(_name(path, number, line))
                lengths.append(0)
                header = number
            elif line:
                if not names:
                    raise InputError(
                        "text before the first header",
                        path=path,
                        line=number,
                        remedy="a FASTA file begins with a line like '>name'",
                    )
                pieces.append(_codes(path, number, line, alphabet))
                lengths[-1] += len(line)
                held += len(line)
    _refuse_empty(path, names, lengths, header)
    if not names:
        raise InputError("no record in the file", path=path, remedy="give a FASTA file")
    yield _records(names, pieces, lengths)


def _records(names: list[str], pieces: list[Codes], lengths: list[int]) -> Records:
    return Records(tuple(names), np.concatenate(pieces), np.array(lengths, dtype=np.int64))


def _name(path: Path, number: int, line: bytes) -> str:
    fields = line[1:].split(maxsplit=1)
    if not fields or line[1:2].isspace():
        raise InputError(
            "a header without a name", path=path, line=number, remedy="write it as '>name'"
        )
    return fields[0].decode("utf-8", "replace")


def _codes(path: Path, number: int, line: bytes, alphabet: Alphabet) -> Codes:
    try:
        return encode_text(line, alphabet)
    except ValueError as error:
        remedy = 'set alphabet = "rna"' if set(line) & set(b"Uu") else "correct the line"
        raise InputError(str(error), path=path, line=number, remedy=remedy) from None


def _refuse_empty(path: Path, names: list[str], lengths: list[int], header: int) -> None:
    if lengths and lengths[-1] == 0:
        raise InputError(
            f"record {names[-1]!r} has no sequence",
            path=path,
            line=header,
            remedy="remove the header or add its sequence",
        )

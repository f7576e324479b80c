"""BAM and CRAM as files: whole or cut, with which index, against which reference sequence."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pysam

from data_shards.errors import InputError
from data_shards.sources.fasta import stage_fasta
from data_shards.sources.files import is_gzip, open_binary

AlignmentKind = Literal["bam", "cram"]

_BAM_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_CRAM_END = b"\xe0EOF"
_CRAM_END_BYTES = 38
_SUFFIXES: Mapping[AlignmentKind, tuple[str, ...]] = {"bam": (".bai", ".csi"), "cram": (".crai",)}
_BAI_LIMIT = 1 << 29  # positions from here on need a .csi


def alignment_kind(path: Path) -> AlignmentKind:
    """Tell BAM from CRAM by the bytes, and prove that the end of the file is there.

    Raises:
        InputError: neither of the two, or truncated.
    """
    with path.open("rb") as stream:
        magic = stream.read(4)
        stream.seek(max(path.stat().st_size - _CRAM_END_BYTES, 0))
        tail = stream.read()
    kind: AlignmentKind | None = "cram" if magic == b"CRAM" else None
    if kind is None and is_gzip(path) and _inflated_start(path) == b"BAM\1":
        kind = "bam"
    if kind is None:
        raise InputError(
            f"neither BAM nor CRAM: it begins with {magic!r}",
            path=path,
            remedy="make SAM text a sorted BAM: samtools sort -o reads.bam reads.sam",
        )
    whole = tail.endswith(_BAM_END) if kind == "bam" else _CRAM_END in tail
    if not whole:
        raise InputError(
            f"the {kind.upper()} file is truncated: its end mark is missing",
            path=path,
            remedy="copy or download the file again",
        )
    return kind


def index_of(path: Path, kind: AlignmentKind, scratch: Path, longest: int) -> Path:
    """Return the index of a BAM or CRAM file; build it in ``scratch`` if there is none beside it.

    Args:
        path: the alignments.
        kind: what :func:`alignment_kind` said.
        scratch: an existing folder.
        longest: length of the longest contig, bp; decides between .bai and .csi.

    Raises:
        InputError: the index is older than the file, or the file can't be indexed.
    """
    for suffix in _SUFFIXES[kind]:
        for index in (path.with_name(path.name + suffix), path.with_suffix(suffix)):
            if index.is_file():
                if index.stat().st_mtime_ns < path.stat().st_mtime_ns:
                    raise InputError(
                        f"the index is older than {path.name}, so it may belong to other data",
                        path=index,
                        remedy=f"make it anew: samtools index {path.name} (or only delete it)",
                    )
                return index
    suffix = ".csi" if kind == "bam" and longest >= _BAI_LIMIT else _SUFFIXES[kind][0]
    built = scratch_path(path, scratch).with_suffix(suffix)
    options = ["-c"] if suffix == ".csi" else []
    try:
        with quiet():
            pysam.index(*options, str(path), str(built))
    except pysam.SamtoolsError as error:
        built.unlink(missing_ok=True)
        raise _unsorted(path) from error
    return built


def count_reads(path: Path, scratch: Path) -> dict[str, int]:
    """Read all records once; count them by contig, those that have a position.

    Raises:
        InputError: a part of the file is damaged, or the reads of a contig are not together.
    """
    # By another name, beside which no index lies: with one, samtools would not read the file.
    link = scratch_path(path, scratch)
    link = link.with_name(f"whole-{link.name}")
    link.unlink(missing_ok=True)
    link.symlink_to(path.resolve())
    try:
        with quiet():
            table = pysam.idxstats(str(link))
    except pysam.SamtoolsError as error:
        if "not position sorted" in str(error):
            raise _unsorted(path) from error
        raise InputError(
            "damaged file: not all of its records can be read",
            path=path,
            remedy="copy or download the file again",
        ) from error
    finally:
        link.unlink()
    rows = [line.split("\t") for line in table.splitlines()]
    return {name: int(mapped) + int(placed) for name, _, mapped, placed in rows if name != "*"}


def check_index(path: Path, index: Path, kind: AlignmentKind, counts: Mapping[str, int]) -> None:
    """Check that an index was made for the file that it lies beside.

    Args:
        path: the alignments.
        index: its index.
        kind: BAM or CRAM.
        counts: reads by contig, in the order of the file's header, from the file itself.

    Raises:
        InputError: the index is unreadable or belongs to another file.
    """
    foreign = InputError(
        f"not the index of {path.name}",
        path=index,
        remedy=f"make it anew: samtools index {path.name} (or only delete it)",
    )
    try:
        if kind == "cram":
            with open_binary(index) as stream:
                numbers = {int(line.split(b"\t")[0]) for line in stream}
            same = numbers - {-1} == {i for i, count in enumerate(counts.values()) if count}
        else:
            with quiet(), pysam.AlignmentFile(str(path), filepath_index=str(index)) as file:
                stated = {row.contig: row.total for row in file.get_index_statistics()}
            same = stated == dict(counts)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise foreign from error
    if not same:
        raise foreign


def stage_cram_reference(
    path: Path, fasta: Path, scratch: Path, names: Mapping[str, str], checksums: Mapping[str, str]
) -> Path:
    """Lay out the reference that a CRAM file is decoded with, under the CRAM's own contig names.

    htslib takes a contig that this FASTA lacks from wherever the header points to, without a word.
    So the names and, where the header states them, the checksums are compared first.

    Args:
        path: the CRAM file, for messages.
        fasta: the reference, plain, gzip or bgzip.
        scratch: an existing folder.
        names: contig of the reference -> contig of the CRAM, of those that have reads.
        checksums: contig of the CRAM -> MD5 of its sequence, where the header has it.

    Returns:
        The FASTA to give to pysam.

    Raises:
        InputError: the FASTA lacks a contig, or the sequence of one is another.
    """
    folder = scratch_path(path, scratch).with_suffix(".reference")
    folder.mkdir(exist_ok=True)
    staged = stage_fasta(fasta, folder)
    with pysam.FastaFile(str(staged)) as sequences:
        for name, own in names.items():
            if name not in sequences:
                raise InputError(
                    f"no contig {name!r}, which {path.name} has reads on",
                    path=fasta,
                    remedy="give the FASTA that the CRAM was made with",
                )
            stated = checksums.get(own)
            if stated is not None and stated != _md5(sequences.fetch(name)):
                raise InputError(
                    f"contig {name!r} has another sequence than the one that {path.name} was made "
                    f"with (MD5 {stated})",
                    path=fasta,
                    remedy="give the FASTA that the CRAM was made with",
                )
    index = staged.with_name(staged.name + ".fai")
    rows = [line.split("\t", 1) for line in index.read_text().splitlines()]
    index.write_text("".join(f"{names.get(row[0], row[0])}\t{row[1]}\n" for row in rows))
    return staged


def scratch_path(path: Path, scratch: Path) -> Path:
    """Return a path in ``scratch`` that belongs to one source file alone."""
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return scratch / f"{place}-{path.name}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep htslib from printing what is told as an error anyway."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def _unsorted(path: Path) -> InputError:
    return InputError(
        "its reads are not sorted by position",
        path=path,
        remedy=f"sort it: samtools sort -o sorted{path.suffix} {path.name}",
    )


def _inflated_start(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as stream:
            return stream.read(4)
    except (OSError, EOFError, zlib.error):
        return b""


def _md5(sequence: str) -> str:
    return hashlib.md5(sequence.upper().encode(), usedforsecurity=False).hexdigest()

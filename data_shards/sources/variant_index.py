"""Block gzip (BGZF) files of variants and their .csi and .tbi indexes: whole, fresh, belonging."""

from __future__ import annotations

import gzip
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

from data_shards.errors import InputError
from data_shards.sources.files import open_binary

_END_BLOCK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_SUFFIXES = (".csi", ".tbi")
_AGAIN = "index the file again (bcftools index)"


def is_bgzf(path: Path) -> bool:
    """Tell block gzip (as bgzip writes it) from plain gzip and from other files."""
    with path.open("rb") as stream:
        head = stream.read(16)
    return head[:4] == b"\x1f\x8b\x08\x04" and head[12:16] == b"BC\x02\x00"


def require_end_block(path: Path) -> None:
    """Refuse a BGZF file without the empty block that ends it; other files pass.

    A file that is cut between two blocks is sound gzip, and htslib only warns.

    Raises:
        InputError: the block is missing.
    """
    if not is_bgzf(path):
        return
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - len(_END_BLOCK), 0))
        if stream.read() != _END_BLOCK:
            raise InputError(
                "the empty block that ends a bgzip file is missing",
                path=path,
                remedy="the file is truncated: copy or download it again",
            )


def indexed_file(path: Path, scratch: Path | None) -> tuple[Path, Path]:
    """Return a file that can be read by region, and its index.

    An index beside the file is used if it is newer and its last record ends where the file ends.
    Where there is none, one is built in ``scratch``, with a bgzip copy of a file that is not BGZF;
    nothing is written beside the source.

    Args:
        path: the VCF or BCF file.
        scratch: an existing folder, or None to refuse a file without index.

    Raises:
        InputError: a stale or foreign index, none and no scratch, or a file that can't be indexed.
    """
    beside = [
        index
        for suffix in _SUFFIXES
        if (index := path.with_name(path.name + suffix)).is_file() and is_bgzf(path)
    ]
    for index in beside:
        _refuse_stale(path, index)
    if beside:
        return path, beside[0]
    if scratch is None:
        raise InputError(
            "has no index, which reading a region needs",
            path=path,
            remedy="index it (bcftools index), or give a scratch folder to build one in",
        )
    return _build(path, scratch)


def _build(path: Path, scratch: Path) -> tuple[Path, Path]:
    import pysam
    import pysam.bcftools

    name = path.name if is_bgzf(path) else f"{path.name}.bgz"
    # A folder of its own: two sources may have the same name.
    staged = Path(tempfile.mkdtemp(prefix="index-", dir=scratch)) / name
    if is_bgzf(path):
        staged.symlink_to(path.resolve())
    else:
        with open_binary(path) as plain, pysam.BGZFile(str(staged), "wb") as packed:
            shutil.copyfileobj(plain, packed, length=1 << 20)
    index = staged.with_name(f"{name}.csi")
    try:
        pysam.bcftools.index("--force", "--csi", "--output", str(index), str(staged))
    except pysam.SamtoolsError as error:
        raise InputError(
            f"can't be indexed: {' '.join(str(error).split())}",
            path=path,
            remedy="sort the records by contig and position (bcftools sort)",
        ) from error
    return staged, index


def _refuse_stale(path: Path, index: Path) -> None:
    if index.stat().st_mtime_ns < path.stat().st_mtime_ns:
        raise InputError(
            f"is older than {path.name}, which it indexes",
            path=index,
            remedy=f"{_AGAIN}, or touch the index if you know that it is right",
        )
    try:
        with gzip.open(index) as stream:
            end = _last_offset(stream.read())
    except (OSError, EOFError, zlib.error, struct.error) as error:
        problem = f"is no .csi or .tbi index ({error})"
        raise InputError(problem, path=index, remedy=_AGAIN) from error
    if not _ends_at(path, end):
        raise InputError(
            f"was made for another file than {path.name}: its last record is not where the "
            "last record of the file is",
            path=index,
            remedy=_AGAIN,
        )


def _last_offset(index: bytes) -> int:
    """Return the greatest virtual offset at which a record ends, 0 if the index has none."""
    magic = index[:4]
    if magic == b"TBI\x01":
        references, at = struct.unpack_from("<i", index, 4)[0], 36
        at += struct.unpack_from("<i", index, 32)[0]
        bins = 37449
    elif magic == b"CSI\x01":
        depth, auxiliary = struct.unpack_from("<2i", index, 8)
        references = struct.unpack_from("<i", index, 16 + auxiliary)[0]
        at = 20 + auxiliary
        bins = ((1 << 3 * (depth + 1)) - 1) // 7
    else:
        raise OSError("wrong magic bytes")
    last = 0
    for _ in range(references):
        (count,) = struct.unpack_from("<i", index, at)
        at += 4
        for _ in range(count):
            (number,) = struct.unpack_from("<I", index, at)
            at += 4 if magic == b"TBI\x01" else 12
            (chunks,) = struct.unpack_from("<i", index, at)
            offsets = struct.unpack_from(f"<{2 * chunks}Q", index, at + 4)
            at += 4 + 16 * chunks
            if number < bins:  # the bin beyond the last holds counts, not places
                last = max((last, *offsets[1::2]))
        if magic == b"TBI\x01":
            (intervals,) = struct.unpack_from("<i", index, at)
            at += 4 + 8 * intervals
    return last


def _ends_at(path: Path, offset: int) -> bool:
    """Tell whether the content of a BGZF file ends at a virtual offset."""
    block, within = offset >> 16, offset & 0xFFFF
    if not 0 < block < path.stat().st_size:
        return False
    try:
        with path.open("rb") as stream:
            stream.seek(block)
            with gzip.GzipFile(fileobj=stream) as rest:
                return len(rest.read(within + 1)) == within
    except (OSError, EOFError, zlib.error):
        return False

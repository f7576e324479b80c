"""A binary file's own table of contigs, held against the reference's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from data_shards.contigs import Contigs, Naming, naming_hint
from data_shards.errors import InputError


def match_contigs(
    path: Path,
    lengths: Mapping[str, int],
    contigs: Contigs,
    naming: Naming,
    used: Collection[str] | None = None,
) -> tuple[str | None, ...]:
    """Find each contig of the reference in a file's table of contigs.

    Args:
        path: the file, for messages.
        lengths: the file's contigs, name -> length in bp.
        contigs: of the reference.
        naming: how the file names them.
        used: the file's contigs that have records; only these must be known. By default all must.

    Returns:
        The file's name for each contig of the reference, in the order of the reference; None where
        the file does not have the contig.

    Raises:
        InputError: a contig that must be known is not in the reference, two names mean the same
            contig, or a length differs.
    """
    found: list[str | None] = [None] * len(contigs.names)
    for name, length in lengths.items():
        number = contigs.index.get(naming.translate(name))
        if number is None:
            if used is None or name in used:
                raise InputError(
                    f"contig {name!r} is not in the reference",
                    path=path,
                    remedy=naming_hint(name, contigs),
                )
            continue
        twin = found[number]
        if twin is not None:
            raise InputError(
                f"{twin!r} and {name!r} both mean contig {contigs.names[number]!r}",
                path=path,
                remedy="correct [reference.renames]: each contig has one name in a file",
            )
        if length != contigs.lengths[number]:
            raise InputError(
                f"contig {name!r} has {length:,} bp, but {contigs.names[number]!r} has "
                f"{contigs.lengths[number]:,} bp in the reference",
                path=path,
                remedy="the file belongs to another assembly: give the one made for this reference",
            )
        found[number] = name
    return tuple(found)

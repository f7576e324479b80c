"""Checking a finished data set from its bytes up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_shards.content import Finding, check_field
from data_shards.dataset import ShardedDataset
from data_shards.errors import CorruptDataError
from data_shards.leaks import MAX_DUPLICATES, check_leaks
from data_shards.loci import SPLITS
from data_shards.progress import Progress, silent
from data_shards.store.manifest import verify_stored


def check(
    place: Path | str, progress: Progress = silent, max_duplicates: float = MAX_DUPLICATES
) -> list[Finding]:
    """Run every check on a data set; later ones are left out if earlier ones find damage.

    Args:
        place: the data set.
        progress: told how far it is.
        max_duplicates: see :func:`data_shards.leaks.check_leaks`.

    Raises:
        InputError: there is no finished data set at ``place``.
    """
    try:
        data = ShardedDataset(place)
        faults = []
        for number, shard in enumerate(data.shards, start=1):
            if fault := verify_stored(data.place, shard):
                faults.append(fault)
            progress("checksums", number, len(data.shards))
    except CorruptDataError as error:
        return [Finding("files", False, str(error))]
    if faults:
        return [Finding("files", False, fault) for fault in faults]
    size = sum(shard.bytes for shard in data.shards)
    findings = [
        Finding("files", True, f"{len(data.shards)} shards, {size:,} bytes, checksums agree")
    ]
    findings += _check_splits(data)
    if data.schema.kind == "windows":
        findings += _check_loci(data)
    for number, field in enumerate(data.schema.fields, start=1):
        findings += check_field(data, field)
        progress("fields", number, len(data.schema.fields))
    if all(finding.ok for finding in findings if finding.check != "labels"):
        findings += check_leaks(data, max_duplicates)
    return findings


def _check_loci(data: ShardedDataset) -> list[Finding]:
    loci, schema = data.loci, data.schema
    lengths = np.array(schema.reference.lengths, dtype=np.int64)
    known = (loci.contig >= 0) & (loci.contig < len(lengths))
    if not known.all():
        return [Finding("loci", False, f"row {int(np.argmin(known)):,}: unknown contig")]
    inside = (loci.start >= 0) & (loci.start + schema.window.length <= lengths[loci.contig])
    inside &= np.abs(loci.strand) == 1
    if not inside.all():
        row = int(np.argmin(inside))
        return [Finding("loci", False, f"row {row:,}: the window is not on its contig")]
    place = np.stack([loci.contig.astype(np.int64), loci.start, loci.strand.astype(np.int64)])
    twice = len(loci) - np.unique(place, axis=1).shape[1]
    detail = f"{len(loci):,} windows of {schema.window.length} bp, all on their contigs"
    if twice:
        return [Finding("loci", False, f"{twice:,} windows are there more than once")]
    return [Finding("loci", True, f"{detail}, none twice")]


def _check_splits(data: ShardedDataset) -> list[Finding]:
    """Prove that the splits cover all rows, once, and that windows keep to their contigs."""
    schema, stored = data.schema, data.whole("split")
    faults: list[Finding] = []
    at = 0
    for code, name in enumerate(SPLITS):
        split = schema.split(name)
        if split.start != at:
            faults.append(Finding("splits", False, f"{name} begins at {split.start:,}, not {at:,}"))
        at = split.stop
        if not (stored[split.start : split.stop] == code).all():
            faults.append(Finding("splits", False, f"{name}: rows marked as another split"))
    if at != schema.samples:
        faults.append(Finding("splits", False, f"they end at {at:,} of {schema.samples:,} rows"))
    if schema.kind == "windows":
        faults += _check_contigs(data)
    sizes = ", ".join(f"{name} {schema.split(name).samples:,}" for name in SPLITS)
    return faults or [Finding("splits", True, sizes)]


def _check_contigs(data: ShardedDataset) -> list[Finding]:
    schema, contig = data.schema, data.loci.contig
    faults: list[Finding] = []
    seen: dict[int, str] = {}
    for name in SPLITS:
        split = schema.split(name)
        numbers = [schema.reference.index[contig] for contig in split.contigs]
        shared = [seen[number] for number in numbers if number in seen]
        seen.update(dict.fromkeys(numbers, name))
        if shared:
            faults.append(Finding("splits", False, f"{name} shares contigs with {shared[0]}"))
        elif not np.isin(contig[split.start : split.stop], numbers).all():
            faults.append(Finding("splits", False, f"{name}: rows on another split's contig"))
    return faults

"""Checking a finished data set from its bytes up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.dataset import ShardedDataset
from data_shards.errors import CorruptDataError
from data_shards.loci import SPLITS
from data_shards.progress import Progress, silent
from data_shards.sequence import UNKNOWN
from data_shards.store.manifest import verify

_ROWS = 1 << 20  # rows looked at together: bounds memory


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    check: str
    ok: bool
    detail: str


def check(path: Path, progress: Progress = silent) -> list[Finding]:
    """Run every check on a data set; later ones are left out if the files are damaged.

    Raises:
        InputError: there is no finished data set at ``path``.
    """
    try:
        data = ShardedDataset(path)
        faults = []
        for number, shard in enumerate(data.shards, start=1):
            if fault := verify(path, shard, content=True):
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
    checks: tuple[Callable[[ShardedDataset], list[Finding]], ...] = (
        _check_codes,
        _check_loci,
        _check_splits,
        _check_labels,
    )
    for number, one in enumerate(checks, start=1):
        findings += one(data)
        progress("content", number, len(checks))
    return findings


def _check_codes(data: ShardedDataset) -> list[Finding]:
    reference = data.reference
    unknown = 0
    for start in range(0, len(reference), _ROWS):
        block = reference[start : start + _ROWS]
        if (block > UNKNOWN).any():
            return [Finding("reference", False, f"a code above {UNKNOWN} after base {start:,}")]
        unknown += int((block == UNKNOWN).sum())
    share = unknown / len(reference)
    return [Finding("reference", True, f"{len(reference):,} bases, {share:.2%} unknown (N)")]


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
    loci, schema = data.loci, data.schema
    findings: list[Finding] = []
    seen: dict[int, str] = {}
    for code, name in enumerate(SPLITS):
        split = schema.split(name)
        numbers = [schema.reference.index[contig] for contig in split.contigs]
        part = slice(split.start, split.stop)
        shared = [seen[number] for number in numbers if number in seen]
        seen.update(dict.fromkeys(numbers, name))
        if shared:
            findings.append(Finding("splits", False, f"{name} shares contigs with {shared[0]}"))
        elif not (loci.split[part] == code).all():
            findings.append(Finding("splits", False, f"{name}: rows marked as another split"))
        elif not np.isin(loci.contig[part], numbers).all():
            findings.append(Finding("splits", False, f"{name}: rows on another split's contig"))
    sizes = ", ".join(f"{name} {schema.split(name).samples:,}" for name in SPLITS)
    return findings or [
        Finding("splits", True, f"{sizes}; by whole contigs, so no window overlaps another split")
    ]


def _check_labels(data: ShardedDataset) -> list[Finding]:
    schema = data.schema
    findings: list[Finding] = []
    for shard in data.shards:
        if shard.array != "labels":
            continue
        rows = np.arange(shard.start, shard.stop, dtype=np.int64)
        counted = data.labels(rows).sum(axis=0, dtype=np.int64)
        if counted.tolist() != list(shard.sums):
            findings.append(
                Finding("labels", False, f"{shard.path}: label sums differ from the manifest's")
            )
    for name, positives in data.positives().items():
        samples = schema.split(name).samples
        for task, count in zip(schema.task_names, positives.tolist(), strict=True):
            if count in (0, samples):
                kind = "positive" if count == 0 else "negative"
                findings.append(
                    Finding("labels", False, f"task {task!r} has no {kind} sample in {name}")
                )
    return findings or [
        Finding("labels", True, f"{len(schema.tasks)} tasks, each with both classes in each split")
    ]

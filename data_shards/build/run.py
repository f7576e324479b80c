"""Building a data set: one Ray task a shard, resumable, committed by one rename.

The work goes on in ``X.zarr.partial``. A finished shard leaves a record under ``.done``; a build
that was killed, run again on the same input, does what is missing. When all shards are there the
manifest and the attributes are written and the folder is renamed to ``X.zarr``.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr

from data_shards.bits import pack
from data_shards.build.windows import label
from data_shards.build.windows_plan import BuildPlan
from data_shards.errors import InputError
from data_shards.progress import Progress, silent
from data_shards.sources.fasta import read_codes, stage_fasta
from data_shards.store.manifest import ShardRecord, checksums, verify, write_manifest
from data_shards.store.schema import (
    ATTRIBUTE,
    PARTIAL_SUFFIX,
    Attributes,
    Provenance,
    fingerprint,
)
from data_shards.store.shards import create_array, write_shard

_STAGING, _DONE, _LOCK, _IDENTITY = ".staging", ".done", ".lock", ".identity"
_LIBRARIES = ("replisome", "zarr", "numpy", "pysam", "bioframe", "pyarrow")


@dataclass(frozen=True)
class ShardJob:
    """One unit of work: a shard of the reference, or a row range of all per-sample arrays."""

    kind: Literal["reference", "rows"]
    shard: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of its record."""
        return f"{self.kind}-{self.shard:06d}.json"


def refuse_existing(out: Path) -> None:
    """Refuse an output path that is taken; a finished data set is immutable.

    Raises:
        InputError: something is at ``out``, or its parent folder is missing.
    """
    if out.exists():
        raise InputError(
            "the output path exists",
            path=out,
            remedy="give another --out, or remove it first; a finished data set is never changed",
        )
    if not out.parent.is_dir():
        raise InputError(
            "the output's folder does not exist", path=out, remedy=f"mkdir -p {out.parent}"
        )


def build(plan: BuildPlan, out: Path, *, command: str, progress: Progress = silent) -> Attributes:
    """Build a planned data set on the connected Ray cluster, or continue a killed build of it.

    Args:
        plan: from :func:`data_shards.build.windows_plan.plan_windows`.
        out: where the data set shall be; on storage that all nodes share.
        command: how the build was asked for, for the provenance.
        progress: told how many shards are done.

    Returns:
        The attributes of the finished data set.

    Raises:
        InputError: ``out`` exists, another build of it is running, or an unfinished build of
            other input is in the way.
    """
    refuse_existing(out)
    folder = out.with_name(out.name + PARTIAL_SUFFIX)
    with _locked(folder, out):
        _begin(folder, plan)
        records = _run(folder, plan, _jobs(plan), progress)
        attributes = Attributes(
            schema=plan.schema,
            provenance=Provenance(
                command=command,
                sources=plan.sources,
                versions={name: version(name) for name in _LIBRARIES},
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
            fingerprint=fingerprint(plan.schema, records),
        )
        _commit(folder, out, attributes, records)
    return attributes


@contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    """Hold the build's lock: a second builder of the same output is refused."""
    folder.mkdir(exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                "another build of this data set is running",
                path=out,
                remedy="wait for it, or give another --out",
            ) from None
        if out.exists():  # finished between the check and the lock
            shutil.rmtree(folder, ignore_errors=True)
            refuse_existing(out)
        yield


def _begin(folder: Path, plan: BuildPlan) -> None:
    """Prepare the working folder, or recognise it as an unfinished build of the same input."""
    identity = folder / _IDENTITY
    if identity.exists():
        if identity.read_text() != plan.identity:
            raise InputError(
                "an unfinished build of other input is in the way",
                path=folder,
                remedy=f"remove it (rm -r {folder}), or give another --out",
            )
        return
    for leftover in folder.iterdir():  # of a build killed before its first shard
        if leftover.name != _LOCK:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for name in (_STAGING, _DONE):
        (folder / name).mkdir()
    stage_fasta(plan.fasta, folder / _STAGING)
    schema = plan.schema
    zarr.open_group(str(folder), mode="a", zarr_format=3)
    for field in schema.fields:
        if field.name == "reference":
            create_array(
                folder, "reference", schema.reference.total, (), field.dtype, schema.bases_per_shard
            )
        else:
            row = (-(-len(schema.tasks) // 8),) if field.name == "labels" else ()
            create_array(
                folder, field.name, schema.samples, row, field.dtype, schema.rows_per_shard
            )
    _write_durably(identity, plan.identity)


def _jobs(plan: BuildPlan) -> list[ShardJob]:
    """Cut the work into whole shards."""
    schema = plan.schema
    jobs: list[ShardJob] = []
    sizes: tuple[tuple[Literal["reference", "rows"], int, int], ...] = (
        ("reference", schema.reference.total, schema.bases_per_shard),
        ("rows", schema.samples, schema.rows_per_shard),
    )
    for kind, total, size in sizes:
        jobs += [
            ShardJob(kind, number, start, min(start + size, total))
            for number, start in enumerate(range(0, total, size))
        ]
    return jobs


def _run(
    folder: Path, plan: BuildPlan, jobs: list[ShardJob], progress: Progress
) -> list[ShardRecord]:
    """Do the jobs that have no valid record yet, as Ray tasks; return all records."""
    import ray  # reads its settings on import: whoever connects to a cluster chooses them first

    records: list[ShardRecord] = []
    waiting: list[ShardJob] = []
    for job in jobs:
        done = _load_records(folder, job)
        records += done
        if not done:
            waiting.append(job)
    finished = len(jobs) - len(waiting)
    progress("building", finished, len(jobs))
    if not waiting:
        return records
    shared = ray.put(plan)
    work = ray.remote(_build_shard).options(num_cpus=1, max_retries=2)
    limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: list[ray.ObjectRef] = []
    while waiting or running:
        while waiting and len(running) < limit:
            running.append(work.remote(str(folder), waiting.pop(0), shared))
        ready, running = ray.wait(running, num_returns=1)
        records += ray.get(ready[0])
        finished += 1
        progress("building", finished, len(jobs))
    return records


def _build_shard(folder_name: str, job: ShardJob, plan: BuildPlan) -> list[ShardRecord]:
    """Write the shards of one job and leave its record. Runs in a Ray task."""
    folder = Path(folder_name)
    schema = plan.schema
    contigs = schema.reference
    if job.kind == "reference":
        staged = folder / _STAGING / "reference.fa"
        arrays: dict[str, npt.NDArray[Any]] = {
            "reference": read_codes(staged, contigs, job.start, job.stop)
        }
        sums: tuple[int, ...] = ()
    else:
        loci = plan.loci.rows(job.start, job.stop)
        present = {contigs.names[i] for i in np.unique(loci.contig)}
        columns = [
            label(loci, contigs, schema.window, task, frame[frame["chrom"].isin(present)])
            for task, frame in zip(plan.spec.tasks, plan.intervals, strict=True)
        ]
        labels = np.stack(columns, axis=1)
        sums = tuple(labels.sum(axis=0).tolist())
        arrays = {
            "contig": loci.contig,
            "start": loci.start,
            "strand": loci.strand,
            "split": loci.split,
            "labels": pack(labels),
        }
    records = []
    for array, rows in arrays.items():
        path = write_shard(folder, array, job.start, rows)
        size, crc, sha = checksums(folder / path)
        positives = sums if array == "labels" else ()
        records.append(
            ShardRecord(
                array, job.shard, str(path), job.start, job.stop, size, crc, sha, 0, positives
            )
        )
    text = json.dumps([record.content() for record in records])
    _write_durably(folder / _DONE / job.name, text)
    return records


def _load_records(folder: Path, job: ShardJob) -> list[ShardRecord]:
    """Return the records a finished job left, or none if its shards are not as they should be."""
    path = folder / _DONE / job.name
    if not path.exists():
        return []
    rows = json.loads(path.read_text())
    records = [ShardRecord(**{**row, "sums": tuple(row["sums"])}) for row in rows]
    if any(verify(folder, record, content=True) for record in records):
        return []
    return records


def _commit(folder: Path, out: Path, attributes: Attributes, records: list[ShardRecord]) -> None:
    """Write manifest and attributes, clear the workshop, and rename it into place."""
    expected = {record.path for record in records}
    for array in {record.array for record in records}:
        for path in (folder / array / "c").rglob("*"):
            if path.is_file() and str(path.relative_to(folder)) not in expected:
                path.unlink()  # a temporary file of a writer that was killed
    write_manifest(folder, records)
    zarr.open_group(str(folder), mode="r+").attrs[ATTRIBUTE] = attributes.model_dump(
        mode="json", by_alias=True
    )
    for name in (_STAGING, _DONE):
        shutil.rmtree(folder / name)
    (folder / _IDENTITY).unlink()
    (folder / _LOCK).unlink()
    _sync_folder(folder)
    folder.rename(out)
    _sync_folder(out.parent)


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

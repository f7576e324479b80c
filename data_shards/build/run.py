"""Building a data set: one Ray task a shard, resumable, committed by one rename.

The work goes on in ``X.zarr.partial``. A finished shard leaves a record under ``.done``; a build
that was killed, run again on the same input, does what is missing. When all shards are there the
manifest and the attributes are written and the folder is renamed to ``X.zarr``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from data_shards.bits import unpack
from data_shards.build.plan import Plan, ShardJob
from data_shards.errors import InputError
from data_shards.progress import Progress, silent
from data_shards.store.manifest import ShardRecord, checksums, verify, write_manifest
from data_shards.store.schema import (
    ATTRIBUTE,
    PARTIAL_SUFFIX,
    ArrayEntry,
    Attributes,
    Compression,
    Provenance,
    Schema,
    fingerprint,
)
from data_shards.store.shards import create_array, write_shard

_STAGING, _DONE, _LOCK, _IDENTITY = ".staging", ".done", ".lock", ".identity"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LIBRARIES = ("replisome", "zarr", "numpy", "pysam", "pyarrow")


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


def build(
    plan: Plan,
    out: Path,
    *,
    command: str,
    progress: Progress = silent,
    compression: Compression = "none",
) -> Attributes:
    """Build a planned data set on the connected Ray cluster, or continue a killed build of it.

    Args:
        plan: what to build, see :mod:`data_shards.build.plan`.
        out: where the data set shall be; on storage that all nodes share.
        command: how the build was asked for, for the provenance.
        compression: "none" is mapped in place; "lz4" is a third of the size for codes, and read
            through the node's cache.
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
        _begin(folder, f"{plan.identity} {compression}")
        schema = _compressed(_stage(plan, folder, progress), compression)
        _refuse_small_disk(folder, schema)
        for entry in schema.arrays:
            _create(folder, entry)
        records = _run(folder, plan, schema, progress)
        attributes = Attributes(
            schema=schema,
            provenance=Provenance(
                command=command,
                sources=plan.sources,
                versions={name: version(name) for name in _LIBRARIES},
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
            fingerprint=fingerprint(schema, records),
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


def _begin(folder: Path, identity: str) -> None:
    """Prepare the working folder, or recognise it as an unfinished build of the same input."""
    stated = folder / _IDENTITY
    if stated.exists():
        if stated.read_text() != identity:
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
    zarr.open_group(str(folder), mode="a", zarr_format=3)
    _write_durably(stated, identity)


def _compressed(schema: Schema, compression: Compression) -> Schema:
    """Say of every array how it is stored."""
    arrays = [entry.model_copy(update={"compression": compression}) for entry in schema.arrays]
    return schema.model_copy(update={"arrays": tuple(arrays)})


def _stage(plan: Plan, folder: Path, progress: Progress) -> Schema:
    """Prepare the sources; a fault in them leaves nothing behind that was not there before."""
    try:
        return plan.stage(folder / _STAGING, progress)
    except (InputError, OSError) as error:
        if not any((folder / _DONE).iterdir()):
            shutil.rmtree(folder)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise _no_room(folder) from error
        raise


def _create(folder: Path, entry: ArrayEntry) -> None:
    """Create an array's metadata, unless an earlier attempt did."""
    if not (folder / entry.name / "zarr.json").exists():
        create_array(
            folder,
            entry.name,
            entry.shape[0],
            entry.shape[1:],
            entry.dtype,
            entry.shard_rows,
            entry.compression,
        )


def _run(folder: Path, plan: Plan, schema: Schema, progress: Progress) -> list[ShardRecord]:
    """Do the jobs that have no valid record yet, as Ray tasks; return all records."""
    import ray  # reads its settings on import: whoever connects to a cluster chooses them first

    jobs = plan.jobs(schema)
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
    shared, described = ray.put(plan.worker()), ray.put(schema)
    work = ray.remote(_build_shard).options(num_cpus=1, max_retries=2)
    limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: list[ray.ObjectRef] = []
    while waiting or running:
        while waiting and len(running) < limit:
            running.append(work.remote(str(folder), waiting.pop(0), shared, described))
        ready, running = ray.wait(running, num_returns=1)
        try:
            records += ray.get(ready[0])
        except ray.exceptions.RayTaskError as error:
            for one in running:
                ray.cancel(one)
            raise _cause(error, folder) from None
        finished += 1
        progress("building", finished, len(jobs))
    return records


def _cause(error: Exception, folder: Path) -> Exception:
    """Return what went wrong in a task, as a person can act on it; Ray wraps it in a traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, InputError):
        return cause
    if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
        return _no_room(folder)
    return error


def _no_room(folder: Path) -> InputError:
    return InputError(
        "the disk is full",
        path=folder,
        remedy="make room and run the same build again: it continues where it stopped",
    )


def _refuse_small_disk(folder: Path, schema: Schema) -> None:
    """Refuse to begin what can't be finished: compare the data set's size with the disk's room."""
    needed = sum(
        int(np.prod(entry.shape, dtype=np.int64)) * np.dtype(entry.dtype).itemsize
        for entry in schema.arrays
        if entry.compression == "none"
    )
    shards = [path for entry in schema.arrays for path in (folder / entry.name / "c").rglob("*")]
    there = sum(path.stat().st_size for path in shards if path.is_file())
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise InputError(
            f"the data set needs {needed - there:,} more bytes, the disk has {free:,}",
            path=folder,
            remedy="make room, or give an --out on another disk",
        )


def _build_shard(folder_name: str, job: ShardJob, plan: Plan, schema: Schema) -> list[ShardRecord]:
    """Write the shards of one job and leave its record. Runs in a Ray task."""
    folder = Path(folder_name)
    records = []
    for array, rows in plan.shard(folder / _STAGING, schema, job).items():
        path = write_shard(folder, array, job.start, rows)
        size, crc, sha = checksums(folder / path)
        nans = int(np.isnan(rows).sum()) if rows.dtype.kind == "f" else 0
        records.append(
            ShardRecord(
                array=array,
                shard=job.shard,
                path=str(path),
                start=job.start,
                stop=job.stop,
                bytes=size,
                crc32c=crc,
                sha256=sha,
                nan_count=nans,
                sums=_sums(schema, array, rows),
            )
        )
    text = json.dumps([record.content() for record in records])
    _write_durably(folder / _DONE / job.name, text)
    return records


def _sums(schema: Schema, array: str, rows: npt.NDArray[Any]) -> tuple[int, ...]:
    """Count the positives of each name, for arrays of labels as bits."""
    for field in schema.fields:
        if field.name == array and field.kind == "bits":
            return tuple(unpack(rows, len(field.names)).sum(axis=0, dtype=np.int64).tolist())
    return ()


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

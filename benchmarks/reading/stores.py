"""Writes data sets of data_shards from the raw files, through its own functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading import data
from benchmarks.reading.data import BIN, BINS, GENES, INPUTS, TARGETS, TRACK_WINDOW, Sizes
from data_shards.loci import WindowSpec
from data_shards.store.layout import SHARD_BYTES, rows_per_shard
from data_shards.store.manifest import ShardRecord, checksums, write_manifest
from data_shards.store.schema import (
    ATTRIBUTE,
    ArrayEntry,
    Attributes,
    Compression,
    ContigEntry,
    FieldEntry,
    Provenance,
    Schema,
    Split,
    fingerprint,
)
from data_shards.store.shards import create_array, write_shard


@dataclass(frozen=True)
class Content:
    """What goes into a data set."""

    samples: int
    fields: tuple[FieldEntry, ...]
    arrays: dict[str, npt.NDArray[Any]]
    window: WindowSpec | None = None
    contigs: tuple[ContigEntry, ...] = ()


def write(
    out: Path,
    content: Content,
    compression: Compression = "none",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a finished data set."""
    import zarr

    zarr.open_group(str(out), mode="w", zarr_format=3)
    entries, shards = [], []
    for name, array in content.arrays.items():
        row = array.shape[1:]
        size = rows_per_shard(array.dtype.itemsize * int(np.prod(row, dtype=np.int64)), shard_bytes)
        entry = ArrayEntry(
            name=name,
            dtype=str(array.dtype),
            shape=array.shape,
            shard_rows=size,
            compression=compression,
        )
        entries.append(entry)
        _create(out, entry)
        for number, start in enumerate(range(0, len(array), size)):
            rows = array[start : start + size]
            path = write_shard(out, name, start, rows)
            bytes_, crc, sha = checksums(out / path)
            shards.append(
                ShardRecord(
                    name, number, str(path), start, start + len(rows), bytes_, crc, sha, 0, ()
                )
            )
    write_manifest(out, shards)
    schema = Schema(
        kind="rows" if content.window is None else "windows",
        recipe="benchmark",
        samples=content.samples,
        window=content.window,
        contigs=content.contigs,
        fields=content.fields,
        splits={"train": Split(start=0, stop=content.samples)},
        arrays=tuple(entries),
    )
    attributes = Attributes(
        schema=schema,
        provenance=Provenance(
            command="benchmarks/reading",
            sources=(),
            versions={},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
        fingerprint=fingerprint(schema, shards),
    )
    group = zarr.open_group(str(out), mode="r+")
    group.attrs[ATTRIBUTE] = attributes.model_dump(mode="json", by_alias=True)


def _create(out: Path, entry: ArrayEntry) -> None:
    row = entry.shape[1:]
    if entry.compression == "none":
        create_array(out, entry.name, entry.shape[0], row, entry.dtype, entry.shard_rows)
    else:
        create_array(
            out,
            entry.name,
            entry.shape[0],
            row,
            entry.dtype,
            entry.shard_rows,
            compression=entry.compression,
        )


def _loci(samples: data.Samples) -> dict[str, npt.NDArray[Any]]:
    count = len(samples.start)
    return {
        "contig": samples.contig,
        "start": samples.start,
        "strand": np.ones(count, dtype=np.int8),
        "split": np.zeros(count, dtype=np.uint8),
    }


def windows(raw: Path, sizes: Sizes, length: int) -> Content:
    """Windows of a length over the genome."""
    samples = data.samples(sizes, length)
    return Content(
        samples=len(samples.start),
        fields=(
            FieldEntry(
                name="sequence",
                role="input",
                kind="window",
                dtype="uint8",
                shape=(length,),
                encoding="A=0 C=1 G=2 T=3 N=4",
            ),
        ),
        arrays={"reference": data.raw(raw, "genome"), **_loci(samples)},
        window=WindowSpec(length=length, center=length, stride=data.STRIDES[length]),
        contigs=tuple(
            ContigEntry(name=name, length=size) for name, size in data.contig_lengths(sizes).items()
        ),
    )


def track(raw: Path, sizes: Sizes) -> Content:
    """Windows of a signal in bins."""
    starts = data.track_starts(sizes)
    samples = data.Samples(np.zeros(len(starts), dtype=np.int32), starts)
    return Content(
        samples=len(starts),
        fields=(
            FieldEntry(
                name="signal",
                role="target",
                kind="track",
                dtype="float16",
                shape=(BINS, 1),
                encoding="mean over the bin",
                bin=BIN,
            ),
        ),
        arrays={"signal": data.raw(raw, "track-bins")[:, None], **_loci(samples)},
        window=WindowSpec(length=TRACK_WINDOW, center=TRACK_WINDOW, stride=781 * BIN),
        contigs=(ContigEntry(name="chr1", length=sizes.track),),
    )


def rows(raw: Path, sizes: Sizes) -> Content:
    """Codes and packed labels."""
    return _table(
        sizes.rows,
        codes=("dense", data.raw(raw, "rows-codes")),
        labels=("bits", data.raw(raw, "rows-labels")),
    )


def matrix(raw: Path, sizes: Sizes) -> Content:
    """Dense inputs and targets."""
    return _table(
        sizes.matrix,
        inputs=("dense", data.raw(raw, "matrix-inputs").reshape(-1, INPUTS)),
        targets=("dense", data.raw(raw, "matrix-targets").reshape(-1, TARGETS)),
    )


def _table(samples: int, **arrays: tuple[Any, npt.NDArray[Any]]) -> Content:
    return Content(
        samples=samples,
        fields=tuple(
            FieldEntry(
                name=name,
                role="input",
                kind=kind,
                dtype=str(array.dtype),
                shape=array.shape[1:],
                encoding="numbers",
            )
            for name, (kind, array) in arrays.items()
        ),
        arrays={name: array for name, (_, array) in arrays.items()},
    )


def cells(raw: Path, sizes: Sizes) -> Content:
    """A sparse matrix."""
    ends = data.raw(raw, "cells-offsets")
    return Content(
        samples=sizes.cells,
        fields=(
            FieldEntry(
                name="counts",
                role="input",
                kind="sparse",
                dtype="float32",
                shape=(GENES,),
                encoding="counts",
            ),
        ),
        arrays={
            "counts.values": data.raw(raw, "cells-values"),
            "counts.indices": data.raw(raw, "cells-indices"),
            "counts.start": ends[:-1],
            "counts.length": np.diff(ends).astype(np.int32),
        },
    )

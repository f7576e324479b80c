"""Rows data sets that hold labels and nothing else, written without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from data_shards.bits import pack, unpack
from data_shards.dataset import ShardedDataset
from data_shards.store.manifest import ShardRecord, checksums, write_manifest
from data_shards.store.schema import (
    ATTRIBUTE,
    ArrayEntry,
    Attributes,
    Compression,
    FieldEntry,
    Kind,
    Provenance,
    Schema,
    Split,
    fingerprint,
)
from data_shards.store.shards import ROW_QUANTUM, create_array, write_shard

SHARD = ROW_QUANTUM
"""Rows of a shard of these data sets."""


def write_labels(
    folder: Path,
    labels: npt.NDArray[Any],
    splits: Mapping[str, tuple[int, int]],
    *,
    kind: Kind = "dense",
    names: tuple[str, ...] = (),
    missing: float | None = None,
    compression: Compression = "none",
) -> ShardedDataset:
    """Write labels (n, tasks), or classes (n,), as the field ``labels``; zeros and ones as bits."""
    values = pack(labels.astype(np.bool_)) if kind == "bits" else labels
    zarr.open_group(str(folder), mode="w", zarr_format=3)
    dtype, shape = values.dtype.name, values.shape[1:]
    create_array(folder, "labels", len(values), shape, dtype, SHARD, compression)
    records = []
    for number, start in enumerate(range(0, len(values), SHARD)):
        rows = values[start : start + SHARD]
        path = write_shard(folder, "labels", start, rows)
        nans = int(np.isnan(rows).sum()) if rows.dtype.kind == "f" else 0
        sums = unpack(rows, len(names)).sum(axis=0, dtype=np.int64) if kind == "bits" else []
        records.append(
            ShardRecord(
                "labels",
                number,
                str(path),
                start,
                start + len(rows),
                *checksums(folder / path),
                nans,
                tuple(map(int, sums)),
            )
        )
    schema = Schema(
        kind="rows",
        recipe="",
        samples=len(values),
        fields=(
            FieldEntry(
                name="labels",
                role="target",
                kind=kind,
                dtype=dtype,
                shape=shape,
                encoding="made up",
                missing=missing,
                names=names,
            ),
        ),
        splits={name: Split(start=start, stop=stop) for name, (start, stop) in splits.items()},
        arrays=(
            ArrayEntry(
                name="labels",
                dtype=dtype,
                shape=values.shape,
                shard_rows=SHARD,
                compression=compression,
            ),
        ),
    )
    write_manifest(folder, records)
    attributes = Attributes(
        schema=schema,
        provenance=Provenance(command="test", sources=(), versions={}, created=""),
        fingerprint=fingerprint(schema, records),
    )
    zarr.open_group(str(folder), mode="r+").attrs[ATTRIBUTE] = attributes.model_dump(
        mode="json", by_alias=True
    )
    return ShardedDataset(folder)

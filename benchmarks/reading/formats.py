"""Every format of the input: who writes it, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading import data, formats_peers
from benchmarks.reading.data import GENES, Sizes

BLOCK_ROWS = 16_384
BLOCK_MATRIX = 512
BLOCK_CELLS = 1_024
_LETTERS = np.frombuffer(b"ACGTN", dtype=np.uint8)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        raw: the raw files that it is made from, by their name in ``data.RAW_MAKERS``.
        write: from the folder of raw files to the path to write.
        environment: where the library that writes it is installed.
    """

    raw: str
    write: Callable[[Path, Path, Sizes], None]
    environment: str = "main"


def write_fasta(raw: Path, out: Path, sizes: Sizes) -> None:
    """Lines of 60 letters, indexed."""
    import pysam

    out.mkdir()
    codes = data.raw(raw, "genome")
    with (out / "genome.fa").open("wb") as stream:
        begin = 0
        for name, length in data.contig_lengths(sizes).items():
            stream.write(f">{name}\n".encode())
            letters = _LETTERS[codes[begin : begin + length]]
            full = length // 60 * 60
            lines = np.full((full // 60, 61), ord("\n"), dtype=np.uint8)
            lines[:, :60] = letters[:full].reshape(-1, 60)
            stream.write(lines.tobytes())
            if full < length:
                stream.write(letters[full:].tobytes() + b"\n")
            begin += length
    pysam.faidx(str(out / "genome.fa"))


def write_store(raw: Path, out: Path, sizes: Sizes, *, what: str, length: int = 0) -> None:
    """A data set of data_shards."""
    from benchmarks.reading import stores

    if what == "windows":
        stores.write(out, stores.windows(raw, sizes, length))
    elif what == "rows-lz4":
        # A shard of codes is then a block, so nothing is decoded in vain.
        stores.write(out, stores.rows(raw, sizes), compression="lz4", shard_bytes=16 << 20)
    else:
        content = {
            "rows": stores.rows,
            "matrix": stores.matrix,
            "cells": stores.cells,
            "track": stores.track,
        }
        stores.write(out, content[what](raw, sizes))


def write_zarr(
    raw: Path, out: Path, sizes: Sizes, *, arrays: dict[str, int], codec: str | None
) -> None:
    """Plain Zarr v3 arrays with chunks of so many rows, not sharded."""
    import zarr
    from zarr.codecs import BloscCodec

    group = zarr.open_group(str(out), mode="w", zarr_format=3)
    compressor = BloscCodec(cname="lz4", shuffle="bitshuffle", clevel=5) if codec else None
    for name, rows in arrays.items():
        source = data.raw(raw, name)
        array = group.create_array(
            name,
            shape=source.shape,
            chunks=(rows, *source.shape[1:]),
            dtype=source.dtype,
            compressors=compressor,
            filters=None,
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        for start in range(0, len(source), rows):
            array[start : start + rows] = source[start : start + rows]


def write_hdf5(
    raw: Path,
    out: Path,
    sizes: Sizes,
    *,
    arrays: tuple[str, ...],
    rows: int = 0,
    codec: str | None = None,
) -> None:
    """Contiguous, or chunks of so many rows with a codec of h5py's own."""
    import h5py

    with h5py.File(out, "w") as file:
        for name in arrays:
            source = data.raw(raw, name)
            chunks = (rows, *source.shape[1:]) if rows else None
            target = file.create_dataset(
                name, source.shape, source.dtype, chunks=chunks, compression=codec
            )
            for start in range(0, len(source), 1 << 14):
                target[start : start + (1 << 14)] = source[start : start + (1 << 14)]


def _batches(raw: Path, names: tuple[str, ...], rows: int) -> Any:
    """Yield Arrow record batches of so many rows; a row is a fixed number of bytes or floats."""
    import pyarrow as pa

    sources = [data.raw(raw, name) for name in names]
    for start in range(0, len(sources[0]), rows):
        columns = [_column(source[start : start + rows]) for source in sources]
        yield pa.record_batch(columns, names=list(names))


def _column(rows: npt.NDArray[Any]) -> Any:
    import pyarrow as pa

    flat = pa.py_buffer(np.ascontiguousarray(rows).reshape(-1))
    if rows.dtype == np.uint8:
        return pa.Array.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, flat])
    values = pa.Array.from_buffers(pa.float32(), rows.size, [None, flat])
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1])


def write_arrow(raw: Path, out: Path, sizes: Sizes, *, names: tuple[str, ...], rows: int) -> None:
    """An Arrow IPC file, a record batch a block."""
    import pyarrow as pa

    batches = list(_batches(raw, names, rows))
    with pa.ipc.new_file(out, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_parquet(
    raw: Path, out: Path, sizes: Sizes, *, names: tuple[str, ...], rows: int, codec: str
) -> None:
    """A Parquet file, a row group a block; no dictionary, which random bytes have no use for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for batch in _batches(raw, names, rows):
        if writer is None:
            writer = pq.ParquetWriter(out, batch.schema, compression=codec, use_dictionary=False)
        writer.write_table(pa.Table.from_batches([batch]), row_group_size=rows)
    if writer is not None:
        writer.close()


def write_h5ad(raw: Path, out: Path, sizes: Sizes) -> None:
    """The cells as anndata writes them by default: not compressed."""
    import anndata
    import pandas as pd

    obs = pd.DataFrame(index=[f"cell{i}" for i in range(sizes.cells)])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])
    anndata.AnnData(X=formats_peers.csr(raw, sizes), obs=obs, var=var).write_h5ad(out)


def write_bigwig(raw: Path, out: Path, sizes: Sizes) -> None:
    """The signal as intervals of equal value, with zoom levels."""
    import pyBigWig

    values = data.raw(raw, "track-bases")
    changes = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], changes])
    ends = np.concatenate([changes, [len(values)]])
    file = pyBigWig.open(str(out), "w")
    file.addHeader([("chr1", len(values))])
    for first in range(0, len(starts), 100_000):
        part = slice(first, first + 100_000)
        file.addEntries(
            ["chr1"] * len(starts[part]),
            starts[part].astype(np.int64),
            ends=ends[part].astype(np.int64),
            values=values[starts[part]].astype(np.float64),
        )
    file.close()


_ROWS = ("rows-codes", "rows-labels")
_MATRIX = ("matrix-inputs", "matrix-targets")

FORMATS: dict[str, Format] = {
    "fasta": Format("genome", write_fasta),
    "genome.h5": Format("genome", partial(write_hdf5, arrays=("genome",))),
    "genome-64k.zarr": Format(
        "genome", partial(write_zarr, arrays={"genome": 1 << 16}, codec=None)
    ),
    "rows.zarr": Format("rows", partial(write_store, what="rows")),
    "rows-lz4.zarr": Format("rows", partial(write_store, what="rows-lz4")),
    "rows-lz4-chunks.zarr": Format(
        "rows",
        partial(write_zarr, arrays=dict.fromkeys(_ROWS, 1_024), codec="lz4"),
    ),
    "rows.h5": Format("rows", partial(write_hdf5, arrays=_ROWS)),
    "rows-lzf.h5": Format("rows", partial(write_hdf5, arrays=_ROWS, rows=1_024, codec="lzf")),
    "rows.arrow": Format("rows", partial(write_arrow, names=_ROWS, rows=BLOCK_ROWS)),
    "rows.parquet": Format(
        "rows", partial(write_parquet, names=_ROWS, rows=BLOCK_ROWS, codec="none")
    ),
    "rows-lz4.parquet": Format(
        "rows", partial(write_parquet, names=_ROWS, rows=BLOCK_ROWS, codec="lz4")
    ),
    "rows-zstd.parquet": Format(
        "rows", partial(write_parquet, names=_ROWS, rows=BLOCK_ROWS, codec="zstd")
    ),
    "rows-samples.mds": Format("rows", partial(formats_peers.write_mds, rows=1), "streaming"),
    "rows-blocks.mds": Format("rows", partial(formats_peers.write_mds, rows=256), "streaming"),
    "rows.tars": Format("rows", formats_peers.write_tars, "common"),
    "matrix.zarr": Format("matrix", partial(write_store, what="matrix")),
    "matrix.h5": Format("matrix", partial(write_hdf5, arrays=_MATRIX)),
    "matrix.arrow": Format("matrix", partial(write_arrow, names=_MATRIX, rows=BLOCK_MATRIX)),
    "cells.zarr": Format("cells", partial(write_store, what="cells")),
    "cells.h5ad": Format("cells", write_h5ad),
    "cells-annbatch.zarr": Format("cells", formats_peers.write_annbatch, "next"),
    "track.zarr": Format("track", partial(write_store, what="track")),
    "track.bw": Format("track", write_bigwig),
    "track.gvl": Format("track", formats_peers.write_gvl, "genvarloader"),
}
for _length in data.STRIDES:
    FORMATS[f"windows-{_length}.zarr"] = Format(
        "genome", partial(write_store, what="windows", length=_length)
    )
    FORMATS[f"windows-{_length}.mds"] = Format(
        "genome", partial(formats_peers.write_windows_mds, length=_length), "streaming"
    )

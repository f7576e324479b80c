"""Sparse cells by scipy, anndata and annbatch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.formats_peers import csr
from benchmarks.reading.task import Answer, Block, Contender, Reader, Task, rows_at_random


def scipy(task: Task) -> Reader:
    matrix = csr(task.folder, task.sizes)
    return rows_at_random(lambda rows: (matrix[rows].toarray(),))


def open_backed(task: Task) -> Any:
    """Open the h5ad file without reading it."""
    import anndata

    return anndata.read_h5ad(task.folder / "cells.h5ad", backed="r")


def anndata_blocks(task: Task) -> Reader:
    matrix = open_backed(task).X

    def reader(block: Block) -> Iterator[Answer]:
        held = matrix[block.start : block.stop]
        for places in block.order:
            yield (held[places].toarray(),)

    return reader


def anndata_at_random(task: Task) -> Reader:
    matrix = open_backed(task).X

    def take(rows: npt.NDArray[np.int64]) -> Answer:
        back = np.argsort(np.argsort(rows))
        return (matrix[np.sort(rows)][back].toarray(),)

    return rows_at_random(take)


def annbatch(task: Task) -> Reader:
    import annbatch as library
    import anndata
    import zarr

    group: Any = zarr.open_group(str(task.folder / "cells-annbatch.zarr"), mode="r")
    cells = anndata.AnnData(
        X=anndata.io.sparse_dataset(group["X"]), obs=anndata.io.read_elem(group["obs"])
    )
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

    def forever() -> Iterator[Any]:
        while True:
            loader = library.Loader(
                batch_size=task.batch,
                chunk_size=128,
                preload_nchunks=8,
                shuffle=True,
                return_index=True,
                preload_to_gpu=False,
                to=None,
                rng=np.random.default_rng(0),
            )
            yield from loader.add_adata(cells)

    stream = forever()

    def reader(block: Block) -> Iterator[Answer]:
        for _ in block.order:
            batch = next(stream)
            yield batch["X"].toarray(), np.asarray(batch["index"])

    return reader


CONTENDERS = (
    Contender(
        "scipy, in memory",
        ("cells",),
        scipy,
        ("cells",),
        packages=("scipy",),
        how="CSR of float32 in memory: `matrix[rows].toarray()`",
    ),
    Contender(
        "anndata, blocks",
        ("cells",),
        anndata_blocks,
        ("cells.h5ad",),
        packages=("anndata", "scipy"),
        how="backed h5ad, a slice of 1,024 cells, then as scipy",
        whole=True,
    ),
    Contender(
        "anndata, cells at random",
        ("cells",),
        anndata_at_random,
        ("cells.h5ad",),
        packages=("anndata", "scipy"),
        how="backed h5ad, one index a batch",
    ),
    Contender(
        "annbatch",
        ("cells",),
        annbatch,
        ("cells-annbatch.zarr",),
        environment="next",
        packages=("annbatch", "zarr", "zarrs"),
        how="its sharded store and loader: 8 chunks of 128 cells preloaded, then dense",
        form="keyed",
        threads="many",
    ),
)

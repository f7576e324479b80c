"""Formats that only a peer's own library writes; each runs in that library's environment."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reading import data
from benchmarks.reading.data import GENES, TRACK_WINDOW, Sizes

# A tar has 1 kB of headers a sample, and reading it costs the same a sample at any length.
TAR_SHARE = 8
TAR_ROWS = 4_096


def streaming() -> Any:
    """Import mosaicml-streaming.

    Its image data sets need torchvision, which has no CPU build on PyPI and there refuses to load
    beside a CPU build of torch. Nothing measured here uses it, so two empty classes stand in.
    """
    import sys
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        forget()
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            module = ModuleType("torchvision" + name)
            module.__spec__ = ModuleSpec(module.__name__, None)
            sys.modules[module.__name__] = module
        vars(sys.modules["torchvision.datasets"])["VisionDataset"] = object
        vars(sys.modules["torchvision.transforms.functional"])["to_tensor"] = None
        import streaming as library

        forget()
    else:
        import streaming as library
    return library


def write_mds(raw: Path, out: Path, sizes: Sizes, *, rows: int) -> None:
    """Shards of 64 MB; a sample is so many rows as raw bytes."""
    codes, labels = data.raw(raw, "rows-codes"), data.raw(raw, "rows-labels")
    columns = {"codes": "bytes", "labels": "bytes"}
    with streaming().MDSWriter(out=str(out), columns=columns, size_limit=1 << 26) as writer:
        for start in range(0, len(codes), rows):
            part = slice(start, start + rows)
            writer.write({"codes": codes[part].tobytes(), "labels": labels[part].tobytes()})


def write_windows_mds(raw: Path, out: Path, sizes: Sizes, *, length: int) -> None:
    """Every window of the data set, cut out: overlaps are stored again."""
    genome = data.raw(raw, "genome")
    samples = data.samples(sizes, length)
    flat = data.offsets(sizes)[samples.contig] + samples.start
    columns = {"codes": "bytes"}
    with streaming().MDSWriter(out=str(out), columns=columns, size_limit=1 << 26) as writer:
        for start in flat:
            writer.write({"codes": genome[start : start + length].tobytes()})


def write_tars(raw: Path, out: Path, sizes: Sizes) -> None:
    """Tar files of 4,096 samples, two members a sample, as WebDataset has them."""
    out.mkdir()
    codes, labels = data.raw(raw, "rows-codes"), data.raw(raw, "rows-labels")
    total = max(TAR_ROWS, len(codes) // TAR_SHARE)
    for number, start in enumerate(range(0, total, TAR_ROWS)):
        with tarfile.open(out / f"{number:06d}.tar", "w") as tar:
            for row in range(start, start + TAR_ROWS):
                for name, content in (("codes", codes[row]), ("labels", labels[row])):
                    member = tarfile.TarInfo(f"{row:09d}.{name}")
                    member.size = content.nbytes
                    tar.addfile(member, io.BytesIO(content.tobytes()))


def csr(raw: Path, sizes: Sizes) -> Any:
    """The cells as scipy has them: float32 values, int32 indices."""
    import scipy.sparse

    return scipy.sparse.csr_matrix(
        (
            data.raw(raw, "cells-values").astype(np.float32),
            data.raw(raw, "cells-indices").astype(np.int32),
            data.raw(raw, "cells-offsets"),
        ),
        shape=(sizes.cells, GENES),
    )


def write_annbatch(raw: Path, out: Path, sizes: Sizes) -> None:
    """A sharded Zarr store by annbatch's own writer, with its defaults."""
    import annbatch
    import anndata
    import pandas as pd
    import zarr

    obs = pd.DataFrame({"row": np.arange(sizes.cells)}, index=[str(i) for i in range(sizes.cells)])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])
    cells = anndata.AnnData(X=csr(raw, sizes), obs=obs, var=var)
    annbatch.write_sharded(zarr.open_group(str(out), mode="w", zarr_format=3), cells)


def write_gvl(raw: Path, out: Path, sizes: Sizes) -> None:
    """GenVarLoader's own data set: the intervals of each window."""
    import genvarloader as gvl
    import polars as pl

    starts = data.track_starts(sizes)
    bed = pl.DataFrame(
        {
            "chrom": ["chr1"] * len(starts),
            "chromStart": starts,
            "chromEnd": starts + TRACK_WINDOW,
        }
    )
    gvl.write(out, bed, tracks=gvl.BigWigs("signal", {"sample": str(raw / "track.bw")}))

"""A task's intervals in the staging folder: sorted, so that a shard reads only those near it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_shards.loci import Loci
from data_shards.store.schema import Schema


def stage_intervals(frame: pd.DataFrame, folder: Path) -> None:
    """Write intervals sorted by contig and start.

    Args:
        frame: bedframe with columns chrom (categorical, codes are contig numbers), start, end.
        folder: is made.
    """
    folder.mkdir(exist_ok=True)
    contig = frame["chrom"].cat.codes.to_numpy().astype(np.int32)
    start, end = frame["start"].to_numpy(np.int64), frame["end"].to_numpy(np.int64)
    order = np.lexsort((start, contig))
    np.save(folder / "contig.npy", contig[order])
    np.save(folder / "start.npy", start[order])
    np.save(folder / "end.npy", end[order])
    # An interval that begins before a stretch may still reach into it, by at most this much.
    np.save(folder / "longest.npy", np.array((end - start).max(initial=0)))


def staged_intervals(folder: Path, loci: Loci, schema: Schema) -> pd.DataFrame:
    """Read the intervals that may touch some windows, and few others.

    Args:
        folder: what :func:`stage_intervals` wrote.
        loci: the windows.
        schema: gives their length and the contigs.

    Returns:
        A bedframe with columns chrom (categorical), start, end.
    """
    contig, start, end = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("contig", "start", "end")
    )
    longest = int(np.load(folder / "longest.npy"))
    parts = []
    for number in np.unique(loci.contig):
        mine = loci.start[loci.contig == number]
        first, last = np.searchsorted(contig, [number, number + 1])
        low, high = int(mine.min()) - longest, int(mine.max()) + schema.window.length
        here = np.searchsorted(start[first:last], [low, high]) + first
        parts.append(np.arange(here[0], here[1]))
    chosen = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    return pd.DataFrame(
        {
            "chrom": pd.Categorical.from_codes(contig[chosen], pd.Index(schema.reference.names)),
            "start": start[chosen],
            "end": end[chosen],
        }
    )

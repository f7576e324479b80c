"""Windows over a reference and their labels: pure functions, all positions 0-based half-open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_shards.build.windows_spec import TaskSpec
from data_shards.contigs import Contigs
from data_shards.loci import SPLITS, Loci, WindowSpec
from data_shards.sources.intervals import Intervals


def tile(
    contigs: Contigs, window: WindowSpec, members: Mapping[str, Sequence[int]]
) -> tuple[Loci, dict[str, tuple[int, int]]]:
    """Lay windows over whole contigs, split after split.

    Windows start at 0, stride, 2 * stride, ... and never reach past the end of a contig. Within a
    split rows are ordered by contig, then start, then strand (+ before -).

    Args:
        contigs: of the reference.
        window: length, stride and strands.
        members: split name -> numbers of its contigs. Each contig is in one split at most.

    Returns:
        The loci, and for each split its row range (start, stop).
    """
    strands = np.array([1, -1] if window.strands == "both" else [1], dtype=np.int8)
    parts: list[tuple[int, int, npt.NDArray[np.int64]]] = []
    ranges: dict[str, tuple[int, int]] = {}
    rows = 0
    for code, split in enumerate(SPLITS):
        first = rows
        for number in sorted(members[split]):
            stop = contigs.lengths[number] - window.length + 1
            starts = np.arange(0, max(stop, 0), window.stride, dtype=np.int64)
            parts.append((number, code, np.repeat(starts, len(strands))))
            rows += len(parts[-1][2])
        ranges[split] = (first, rows)
    sizes = [len(starts) for _, _, starts in parts]
    return Loci(
        contig=np.repeat(np.array([n for n, _, _ in parts], dtype=np.int32), sizes),
        start=np.concatenate([starts for _, _, starts in parts]),
        strand=np.tile(strands, rows // len(strands)),
        split=np.repeat(np.array([c for _, c, _ in parts], dtype=np.uint8), sizes),
    ), ranges


def select(intervals: Intervals, task: TaskSpec, contigs: Contigs) -> pd.DataFrame:
    """Apply a task's filters and anchor to its intervals.

    Returns:
        A bedframe with columns ``chrom`` (categorical), ``start`` and ``end``. Where a flank
        reaches beyond its contig it ends there.
    """
    length = intervals.end - intervals.start
    keep = length >= task.min_length
    if task.max_length is not None:
        keep &= length <= task.max_length
    if task.min_score is not None:
        keep &= intervals.score >= task.min_score
    if task.max_score is not None:
        keep &= intervals.score <= task.max_score
    chosen = intervals.take(keep)
    start, end = _anchor(chosen, task)
    limits = np.array(contigs.lengths, dtype=np.int64)[chosen.contig]
    return pd.DataFrame(
        {
            "chrom": pd.Categorical.from_codes(chosen.contig, pd.Index(contigs.names)),
            "start": np.maximum(start - task.flank, 0),
            "end": np.minimum(end + task.flank, limits),
        }
    )


def _anchor(
    intervals: Intervals, task: TaskSpec
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the anchored start and end: the interval itself, or one base of it."""
    if task.anchor == "interval":
        return intervals.start, intervals.end
    if task.anchor == "summit" and intervals.summit is not None:
        base = intervals.summit
    elif task.anchor == "midpoint":
        base = (intervals.start + intervals.end) // 2
    else:
        left = (intervals.strand >= 0) == (task.anchor == "start")
        base = np.where(left, intervals.start, intervals.end - 1)
    return base, base + 1


def label(
    loci: Loci, contigs: Contigs, window: WindowSpec, task: TaskSpec, intervals: pd.DataFrame
) -> npt.NDArray[np.bool_]:
    """Label each window by the intervals over its central bases.

    Args:
        loci: the windows.
        contigs: of the reference.
        window: gives the length and centre.
        task: gives the rule: ``min_count`` intervals touch the centre, or ``min_overlap`` bp of
            it (default: half) are covered by their union.
        intervals: from :func:`select`; extra contigs do no harm.

    Returns:
        bool, shape (samples,).
    """
    import bioframe  # half a second that readers of finished data sets need not wait for

    if len(loci) == 0 or len(intervals) == 0:
        return np.zeros(len(loci), dtype=np.bool_)
    start = loci.start + window.flank
    chrom = pd.Categorical.from_codes(loci.contig, pd.Index(contigs.names))
    centers = pd.DataFrame({"chrom": chrom, "start": start, "end": start + window.center})
    if task.min_count is not None:
        counts = bioframe.count_overlaps(centers, intervals)["count"].to_numpy()
        return np.asarray(counts >= task.min_count)
    covered = bioframe.coverage(centers, intervals)["coverage"].to_numpy()
    needed = task.min_overlap if task.min_overlap is not None else -(-window.center // 2)
    return np.asarray(covered >= needed)

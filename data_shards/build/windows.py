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

Bases = npt.NDArray[np.int64]


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
    loci: Loci, window: WindowSpec, task: TaskSpec, intervals: pd.DataFrame
) -> npt.NDArray[np.bool_]:
    """Label each window by the intervals over its central bases.

    Args:
        loci: the windows.
        window: gives the length and centre.
        task: gives the rule: ``min_count`` intervals touch the centre, or ``min_overlap`` bp of
            it (default: half) are covered by their union.
        intervals: from :func:`select`: the codes of its contigs are their numbers.

    Returns:
        bool, shape (samples,).
    """
    begin = loci.start + window.flank
    codes = intervals["chrom"].cat.codes.to_numpy()
    first, last = intervals["start"].to_numpy(np.int64), intervals["end"].to_numpy(np.int64)
    needed = task.min_overlap if task.min_overlap is not None else -(-window.center // 2)
    labels = np.zeros(len(loci), dtype=np.bool_)
    for contig in np.unique(loci.contig):
        rows, mine = loci.contig == contig, codes == contig
        low, high = begin[rows], begin[rows] + window.center
        if task.min_count is not None:
            labels[rows] = touching(low, high, first[mine], last[mine]) >= task.min_count
        else:
            labels[rows] = covered(low, high, first[mine], last[mine]) >= needed
    return labels


def touching(low: Bases, high: Bases, start: Bases, end: Bases) -> Bases:
    """Count the intervals that share a base with each stretch, as ``bioframe.count_overlaps``.

    Args:
        low: first base of each stretch, shape (stretches,).
        high: its end, exclusive.
        start: first base of each interval of the same contig, shape (intervals,), in any order.
        end: its end, exclusive.
    """
    begun = np.searchsorted(np.sort(start), high, side="left")
    over = np.searchsorted(np.sort(end), low, side="right")
    return begun - over


def covered(low: Bases, high: Bases, start: Bases, end: Bases) -> Bases:
    """Count the bases of each stretch that the intervals cover, as ``bioframe.coverage``.

    A few searches in sorted arrays for all stretches: there is a label for each window and task.

    Args:
        low: first base of each stretch, shape (stretches,).
        high: its end, exclusive.
        start: first base of each interval of the same contig, shape (intervals,), in any order.
        end: its end, exclusive.
    """
    if len(start) == 0:
        return np.zeros(len(low), dtype=np.int64)
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    opens = np.concatenate([[True], start[1:] > reach[:-1]])  # islands of the union begin here
    begin, stop = start[opens], reach[np.append(np.flatnonzero(opens)[1:] - 1, len(start) - 1)]
    total = np.concatenate([[0], np.cumsum(stop - begin)])

    def before(base: Bases) -> Bases:
        island = np.searchsorted(begin, base, side="right") - 1
        inside = np.minimum(base, stop[island]) - begin[island]
        return np.where(island < 0, 0, total[island] + inside)

    return before(high) - before(low)

"""Windows centred on given intervals, with GC-matched windows beside them that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_shards.build.negatives import gc_matched_negatives
from data_shards.build.windows_spec import LociSpec
from data_shards.contigs import Contigs
from data_shards.loci import SPLITS, Loci, WindowSpec
from data_shards.sequence import Codes
from data_shards.sources.intervals import Intervals


@dataclass(frozen=True)
class Positives:
    """Windows on the intervals, each place once; arrays of shape (windows,).

    Attributes:
        contig: int32, number of the contig.
        start: int64, first base, 0-based.
        split: uint8, index into ``SPLITS``.
        left_out: intervals that have no window: it would reach past the end of the contig, lie on
            an excluded contig, or is there already.
    """

    contig: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    split: npt.NDArray[np.uint8]
    left_out: int


def place_positives(
    centers: npt.NDArray[np.int64],
    contig: npt.NDArray[np.int32],
    contigs: Contigs,
    window: WindowSpec,
    members: Mapping[str, Sequence[int]],
) -> Positives:
    """Centre a window on each position.

    Args:
        centers: 0-based base of each, shape (intervals,).
        contig: number of its contig.
        contigs: of the reference.
        window: gives the length.
        members: split -> numbers of its contigs.

    Returns:
        The windows, ordered by split, contig and start.
    """
    split_of = np.full(len(contigs.names), -1, dtype=np.int64)
    for code, name in enumerate(SPLITS):
        split_of[list(members[name])] = code
    start = centers - window.length // 2
    lengths = np.array(contigs.lengths, dtype=np.int64)[contig]
    split = split_of[contig]
    good = (start >= 0) & (start + window.length <= lengths) & (split >= 0)
    table = np.stack([split[good], contig[good].astype(np.int64), start[good]], axis=1)
    table = np.unique(table, axis=0)
    return Positives(
        contig=table[:, 1].astype(np.int32),
        start=table[:, 2],
        split=table[:, 0].astype(np.uint8),
        left_out=len(centers) - len(table),
    )


def split_ranges(
    positives: Positives, spec: LociSpec, window: WindowSpec
) -> dict[str, tuple[int, int]]:
    """Return the row range of each split, negatives and both strands included."""
    each = (1 + spec.negatives) * (2 if window.strands == "both" else 1)
    counts = [int((positives.split == code).sum()) * each for code in range(len(SPLITS))]
    stops = np.cumsum(counts).tolist()
    return {
        name: (stop - count, stop) for name, stop, count in zip(SPLITS, stops, counts, strict=True)
    }


def add_negatives(
    positives: Positives,
    codes: Codes,
    contigs: Contigs,
    window: WindowSpec,
    members: Mapping[str, Sequence[int]],
    spec: LociSpec,
    excluded: Intervals,
) -> tuple[Loci, npt.NDArray[np.bool_]]:
    """Draw the negatives and put all windows in order.

    Args:
        positives: the windows on the intervals.
        codes: of the whole reference, contigs end to end.
        contigs: of the reference.
        window: gives length and strands.
        members: split -> numbers of its contigs; negatives stay in the split of their positive.
        spec: how many, and the seed.
        excluded: intervals that no negative touches, beside the positives.

    Returns:
        The loci (within a split by contig, start, strand) and, for each, whether it is positive.

    Raises:
        InputError: there are too few windows of the positives' GC content.
    """
    contig, start = positives.contig, positives.start
    split, positive = positives.split, np.ones(len(start), dtype=np.bool_)
    if spec.negatives:
        drawn = gc_matched_negatives(
            codes,
            contigs,
            contig,
            start,
            window.length,
            allowed=members,
            seed=spec.seed,
            per_positive=spec.negatives,
            excluded=excluded,
            max_unknown=spec.max_unknown,
        )
        contig = np.concatenate([contig, drawn.contig])
        start = np.concatenate([start, drawn.start])
        split = np.concatenate([split, split[drawn.positive]])
        positive = np.concatenate([positive, np.zeros(len(drawn.start), dtype=np.bool_)])
    order = np.lexsort((start, contig, split))
    strands = np.array([1, -1] if window.strands == "both" else [1], dtype=np.int8)
    order = np.repeat(order, len(strands))
    strand = np.tile(strands, len(order) // len(strands))
    return Loci(contig[order], start[order], strand, split[order]), positive[order]

"""Tiling and labelling against brute force over single bases."""

from __future__ import annotations

import bioframe
import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.bits import pack, unpack
from data_shards.build.windows import covered, label, select, tile, touching
from data_shards.build.windows_spec import TaskSpec
from data_shards.contigs import Contigs
from data_shards.loci import SPLITS, WindowSpec
from data_shards.sources.intervals import Intervals

CONTIGS = Contigs(("a", "b", "c", "d"), (403, 250, 90, 300))
MEMBERS = {"train": (0, 2), "valid": (1,), "test": (3,)}
WINDOWS = st.builds(
    lambda center, flank, stride, strands: WindowSpec(
        length=center + 2 * flank, center=center, stride=stride, strands=strands
    ),
    st.integers(1, 40),
    st.integers(0, 30),
    st.integers(1, 60),
    st.sampled_from(["+", "both"]),
)


@st.composite
def interval_sets(draw: st.DrawFn) -> Intervals:
    records = draw(
        st.lists(
            st.tuples(
                st.integers(0, 3), st.integers(0, 80), st.integers(1, 9), st.sampled_from([1, -1])
            ),
            min_size=1,
            max_size=40,
        )
    )
    contig, start, length, strand = (np.array(column) for column in zip(*records, strict=True))
    return Intervals(
        contig.astype(np.int32),
        start,
        start + length,
        strand.astype(np.int8),
        np.arange(len(records), dtype=np.float64),
    )


@given(WINDOWS)
def test_windows_lie_on_their_contigs_at_every_stride(window: WindowSpec) -> None:
    loci, ranges = tile(CONTIGS, window, MEMBERS)
    strands = 2 if window.strands == "both" else 1
    for code, split in enumerate(SPLITS):
        rows = loci.rows(*ranges[split])
        expected = [
            (number, start)
            for number in MEMBERS[split]
            for start in range(0, CONTIGS.lengths[number] - window.length + 1, window.stride)
            for _ in range(strands)
        ]
        assert list(zip(rows.contig.tolist(), rows.start.tolist(), strict=True)) == expected
        assert (rows.split == code).all()
        assert rows.strand.tolist() == [1, -1][:strands] * (len(rows) // strands)
    assert ranges["test"][1] == len(loci)


def covered_bases(start: int, end: int, on: list[tuple[int, int]]) -> int:
    return sum(any(s <= base < e for s, e in on) for base in range(start, end))


@given(WINDOWS, interval_sets(), st.integers(1, 40), st.booleans(), st.integers(0, 6))
@settings(deadline=None)
def test_labels_are_what_counting_bases_gives(
    window: WindowSpec, intervals: Intervals, need: int, count: bool, flank: int
) -> None:
    task = (
        TaskSpec(name="t", file="f", min_count=need, flank=flank)
        if count
        else TaskSpec(name="t", file="f", min_overlap=min(need, window.center), flank=flank)
    )
    loci, _ = tile(CONTIGS, window, MEMBERS)
    chosen = select(intervals, task, CONTIGS)
    found = label(loci, window, task, chosen)
    for row in range(0, len(loci), 7):
        start = int(loci.start[row]) + window.flank
        end = start + window.center
        on = [
            (max(int(s) - flank, 0), min(int(e) + flank, CONTIGS.lengths[loci.contig[row]]))
            for c, s, e in zip(intervals.contig, intervals.start, intervals.end, strict=True)
            if c == loci.contig[row]
        ]
        if count:
            expected = sum(s < end and e > start for s, e in on) >= need
        else:
            expected = covered_bases(start, end, on) >= min(need, window.center)
        assert found[row] == expected


def test_by_default_half_of_the_centre_must_be_covered() -> None:
    window = WindowSpec(length=20, center=10, stride=10)
    loci, _ = tile(
        Contigs(("a", "b", "c"), (40, 40, 40)), window, {"train": (0,), "valid": (1,), "test": (2,)}
    )
    half, less = (
        Intervals(*(np.array([v], dtype=t) for v, t in zip((0, 5, end, 1, 1), DTYPES, strict=True)))
        for end in (10, 9)
    )
    contigs = Contigs(("a", "b", "c"), (40, 40, 40))
    task = TaskSpec(name="t", file="f")
    assert label(loci, window, task, select(half, task, contigs))[0]
    assert not label(loci, window, task, select(less, task, contigs))[0]


DTYPES = (np.int32, np.int64, np.int64, np.int8, np.float64)


def test_anchors_follow_the_strand() -> None:
    intervals = Intervals(
        np.zeros(2, np.int32),
        np.array([10, 10]),
        np.array([20, 20]),
        np.array([1, -1], np.int8),
        np.zeros(2),
    )

    def spans(anchor: str, flank: int = 0) -> list[tuple[int, int]]:
        task = TaskSpec.model_validate({"name": "t", "file": "f", "anchor": anchor, "flank": flank})
        frame = select(intervals, task, CONTIGS)
        return list(zip(frame["start"], frame["end"], strict=True))

    assert spans("interval") == [(10, 20), (10, 20)]
    assert spans("start") == [(10, 11), (19, 20)]
    assert spans("end") == [(19, 20), (10, 11)]
    assert spans("midpoint", flank=2) == [(13, 18), (13, 18)]
    assert spans("start", flank=15) == [(0, 26), (4, 35)]


def test_filters_use_length_and_score() -> None:
    intervals = Intervals(
        np.zeros(4, np.int32),
        np.array([0, 0, 0, 0]),
        np.array([5, 10, 15, 20]),
        np.zeros(4, np.int8),
        np.array([1.0, 2.0, 3.0, 4.0]),
    )
    task = TaskSpec(name="t", file="f", min_length=6, max_length=19, min_score=2.5, max_score=3.5)
    assert select(intervals, task, CONTIGS)["end"].tolist() == [15]


@given(st.integers(1, 40), st.integers(0, 20), st.randoms(use_true_random=False))
def test_packing_keeps_every_bit_in_its_documented_place(
    tasks: int, rows: int, rng: object
) -> None:
    labels = np.random.default_rng(rows * 100 + tasks).integers(0, 2, (rows, tasks)) > 0
    packed = pack(labels)
    assert packed.shape == (rows, -(-tasks // 8))
    assert np.array_equal(unpack(packed, tasks), labels)
    for task in range(tasks):
        assert np.array_equal((packed[:, task // 8] >> (task % 8)) & 1, labels[:, task])


stretches = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=40)


@given(stretches, stretches)
def test_coverage_and_counts_are_bioframes(
    windows: list[tuple[int, int]], intervals: list[tuple[int, int]]
) -> None:
    frames = [
        pd.DataFrame({"chrom": "a", "start": [s for s, _ in some], "end": [s + n for s, n in some]})
        for some in (windows, intervals)
    ]
    arrays = [frame[side].to_numpy(np.int64) for frame in frames for side in ("start", "end")]
    assert covered(*arrays).tolist() == bioframe.coverage(*frames)["coverage"].tolist()
    assert touching(*arrays).tolist() == bioframe.count_overlaps(*frames)["count"].tolist()

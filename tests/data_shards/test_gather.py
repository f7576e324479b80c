"""A gathered batch is what a loop over samples would put together, for every kind of field."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.augment import Augmentation, draw
from data_shards.gather import Ragged, bin_offsets, gather, ragged, shift_limits
from data_shards.loci import WindowSpec
from data_shards.sequence import reverse_complement
from data_shards.store.mapped import MappedArray
from data_shards.store.schema import ContigEntry, FieldEntry, Schema, Split

LENGTHS = (37, 64, 21)
BIN, LENGTH = 4, 8


def field(name: str, kind: str, shape: tuple[int, ...], **more: object) -> FieldEntry:
    values = {"role": "input", "dtype": "uint8", "encoding": "", **more}
    return FieldEntry(name=name, kind=kind, shape=shape, **values)  # type: ignore[arg-type]


SEQUENCE = field("sequence", "window", (LENGTH,), missing=4)
TRACKS = field("tracks", "track", (LENGTH // BIN, 3), bin=BIN, swap=(1, 0, 2), dtype="float32")
SCHEMA = Schema(
    kind="windows",
    recipe="",
    samples=40,
    window=WindowSpec(length=LENGTH, center=4, stride=BIN),
    contigs=tuple(ContigEntry(name=f"c{i}", length=n) for i, n in enumerate(LENGTHS)),
    fields=(SEQUENCE, TRACKS),
    splits={"train": Split(start=0, stop=40)},
    arrays=(),
)


class Loci:
    """Forty windows anywhere on three contigs, either strand, at whole bins."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.contig = rng.integers(0, 3, 40).astype(np.int32)
        room = (np.array(LENGTHS)[self.contig] - LENGTH) // BIN + 1
        self.start = (rng.integers(0, 1 << 30, 40) % room) * BIN
        self.strand = rng.choice([1, -1], 40).astype(np.int8)
        self.codes = [rng.integers(0, 5, n).astype(np.uint8) for n in LENGTHS]
        self.bins = [rng.normal(size=(-(-n // BIN), 3)).astype(np.float32) for n in LENGTHS]

    def array(self, name: str) -> MappedArray:
        arrays = {
            "reference": np.concatenate(self.codes),
            "tracks": np.concatenate(self.bins),
            "contig": self.contig,
            "start": self.start,
            "strand": self.strand,
        }
        return MappedArray(arrays[name])


LOCI = Loci()
rows = st.lists(st.integers(0, 39), min_size=0, max_size=12).map(
    lambda listed: np.array(listed, dtype=np.int64)
)


@settings(deadline=None)  # the first one compiles
@given(rows)
def test_windows_are_read_at_their_loci_on_their_strand(chosen: npt.NDArray[np.int64]) -> None:
    batch = gather(SEQUENCE, SCHEMA, LOCI.array, chosen)
    assert batch.shape == (len(chosen), LENGTH)
    for row, codes in zip(chosen, batch, strict=True):
        start = LOCI.start[row]
        expected = LOCI.codes[LOCI.contig[row]][start : start + LENGTH]
        if LOCI.strand[row] < 0:
            expected = reverse_complement(expected)
        assert np.array_equal(codes, expected)


@given(rows)
def test_tracks_turn_with_their_window_and_swap_strands(chosen: npt.NDArray[np.int64]) -> None:
    batch = gather(TRACKS, SCHEMA, LOCI.array, chosen)
    for row, bins in zip(chosen, batch, strict=True):
        first = LOCI.start[row] // BIN
        expected = LOCI.bins[LOCI.contig[row]][first : first + LENGTH // BIN]
        if LOCI.strand[row] < 0:
            expected = expected[::-1][:, [1, 0, 2]]
        assert np.array_equal(bins, expected)


def test_augmented_inputs_and_targets_turn_together_and_windows_stay_on_their_contig() -> None:
    chosen = np.arange(40)
    augmentation = Augmentation(reverse_complement=0.5, shift=50)
    low, high = shift_limits(SCHEMA, LOCI.array, chosen)
    draws = draw(augmentation, 3, 0, chosen, low, high)
    assert draws.reverse.any()
    assert (draws.shift != 0).any()
    codes = gather(SEQUENCE, SCHEMA, LOCI.array, chosen, draws)
    bins = gather(TRACKS, SCHEMA, LOCI.array, chosen, draws)
    plain = gather(TRACKS, SCHEMA, LOCI.array, chosen)
    for row in chosen:
        start = LOCI.start[row] + draws.shift[row]
        assert 0 <= start <= LENGTHS[LOCI.contig[row]] - LENGTH
        expected = LOCI.codes[LOCI.contig[row]][start : start + LENGTH]
        if (LOCI.strand[row] < 0) != draws.reverse[row]:
            expected = reverse_complement(expected)
        assert np.array_equal(codes[row], expected)
        turned = plain[row][::-1][:, [1, 0, 2]] if draws.reverse[row] else plain[row]
        assert np.array_equal(bins[row], turned)


@pytest.mark.parametrize(("row", "spoil"), [(40, 0), (-1, 0), (3, 10_000), (3, -1000)])
def test_a_row_that_is_no_sample_or_off_its_contig_is_an_error(row: int, spoil: int) -> None:
    start = LOCI.start.copy()
    start[3] += spoil

    def array(name: str) -> MappedArray:
        return MappedArray(start) if name == "start" else LOCI.array(name)

    with pytest.raises(IndexError, match="is no sample, or its window is not on its contig"):
        gather(SEQUENCE, SCHEMA, array, np.array([0, row]))


def test_the_last_bin_of_a_contig_may_be_short_and_the_next_contig_begins_after_it() -> None:
    assert bin_offsets(SCHEMA, BIN).tolist() == [0, 10, 26]


lists = st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=20)


@given(lists, st.data())
def test_ragged_rows_come_back_padded_and_masked(listed: list[list[int]], data: object) -> None:
    chosen = np.array(
        data.draw(st.lists(st.integers(0, len(listed) - 1), max_size=8)),  # type: ignore[attr-defined]
        dtype=np.int64,
    )
    lengths = np.array([len(row) for row in listed], dtype=np.int32)
    arrays = {
        "x.values": np.array([v for row in listed for v in row], dtype=np.uint8),
        "x.start": np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        "x.length": lengths,
    }
    entry = field("x", "ragged", (9,), pad=4)
    found = ragged(entry, lambda name: MappedArray(arrays[name]), chosen)
    assert found.values.tolist() == [v for row in chosen for v in listed[row]]
    padded = gather(entry, SCHEMA, lambda name: MappedArray(arrays[name]), chosen)
    for row, values, mask in zip(chosen, padded, found.mask(9), strict=True):
        assert values.tolist() == listed[row] + [4] * (9 - len(listed[row]))
        assert mask.tolist() == [True] * len(listed[row]) + [False] * (9 - len(listed[row]))


def test_a_mask_is_as_wide_as_asked() -> None:
    assert Ragged(np.zeros(3), np.array([1, 2])).mask(3).tolist() == [
        [True, False, False],
        [True, True, False],
    ]


def test_sparse_rows_are_made_dense_as_scipy_does() -> None:
    from scipy import sparse

    matrix = sparse.random_array((50, 30), density=0.2, rng=0, format="csr", dtype=np.float32)
    arrays = {
        "x.values": matrix.data,
        "x.indices": matrix.indices.astype(np.uint16),
        "x.start": matrix.indptr[:-1].astype(np.int64),
        "x.length": np.diff(matrix.indptr).astype(np.int32),
    }
    entry = field("x", "sparse", (30,), dtype="float32")
    chosen = np.array([7, 0, 49, 7])
    batch = gather(entry, SCHEMA, lambda name: MappedArray(arrays[name]), chosen)
    assert np.array_equal(batch, matrix.toarray()[chosen])
    for row in (-1, 50):
        with pytest.raises(IndexError, match="is no sample"):
            gather(entry, SCHEMA, lambda name: MappedArray(arrays[name]), np.array([row]))


def test_a_ragged_field_without_a_pad_is_a_defect_of_its_schema() -> None:
    with pytest.raises(ValueError, match="has no pad value"):
        gather(field("x", "ragged", (9,)), SCHEMA, LOCI.array, np.array([0]))

"""How dense HDF5 matrices are cut, for any shape, chunks and budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_shards.sources.hdf5_matrix import dense_step

SIZE = st.integers(1, 10_000)


@given(shape=st.tuples(SIZE, SIZE), chunks=st.tuples(SIZE, SIZE), budget=st.integers(1, 10**7))
def test_blocks_keep_the_budget_or_are_as_small_as_can_be(
    shape: tuple[int, int], chunks: tuple[int, int], budget: int
) -> None:
    chunks = (min(chunks[0], shape[0]), min(chunks[1], shape[1]))
    axis, step = dense_step(shape, chunks, 4, budget)
    other = shape[1] if axis == "samples" else shape[0]
    assert step >= 1
    assert step * other * 4 <= budget or step == 1


@given(shape=st.tuples(SIZE, SIZE), chunks=st.tuples(SIZE, SIZE), budget=st.integers(1, 10**7))
def test_chunks_are_read_once_where_the_budget_holds_a_row_or_a_column_of_them(
    shape: tuple[int, int], chunks: tuple[int, int], budget: int
) -> None:
    high, wide = min(chunks[0], shape[0]), min(chunks[1], shape[1])
    axis, step = dense_step(shape, (high, wide), 4, budget)
    if high * shape[1] * 4 <= budget:
        assert axis == "samples"
        assert step % high == 0
    elif wide * shape[0] * 4 <= budget:
        assert axis == "features"
        assert step % wide == 0


def test_values_in_one_piece_are_read_by_samples() -> None:
    assert dense_step((100, 10), None, 4, 400) == ("samples", 10)
    assert dense_step((100, 10), None, 4, 1) == ("samples", 1)

"""Cutting compressed matrices, and the faults that their parts may have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from data_shards.errors import InputError
from data_shards.sources.sparse_blocks import compressed_block, major_ranges


@given(counts=st.lists(st.integers(0, 9), max_size=30), most=st.integers(1, 12))
def test_ranges_cover_all_rows_and_keep_the_limit(counts: list[int], most: int) -> None:
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ranges = list(major_ranges(indptr, most))
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(len(counts)))
    for start, stop in ranges:
        assert indptr[stop] - indptr[start] <= most or stop == start + 1
        assert stop - start <= most


@given(
    dense=st.integers(1, 5).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 2), min_size=n, max_size=n), min_size=1, max_size=6
        )
    ),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_a_block_is_what_scipy_makes_of_it(dense: list[list[int]], seed: int) -> None:
    rows = sparse.csr_array(np.array(dense))
    order = np.concatenate(
        [
            np.random.default_rng(seed).permutation(np.arange(lo, hi))
            for lo, hi in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
        ]
    ).astype(int)
    names = tuple(f"r{i}" for i in range(len(dense)))
    data, indices = rows.data[order], rows.indices[order]
    parts = (data, indices, rows.indptr.astype(np.int64), rows.shape[1], names)
    by_samples = compressed_block(Path("x"), "samples", *(p for p in parts))
    assert by_samples.has_sorted_indices
    assert by_samples.toarray().tolist() == dense
    by_features = compressed_block(Path("x"), "features", *parts)
    assert by_features.format == "csr"
    assert by_features.toarray().tolist() == np.array(dense).T.tolist()


@pytest.mark.parametrize(
    ("indices", "problem"),
    [
        ([0, 1, 3], "index 3 of 'b' is outside the matrix"),
        ([0, 1, -1], "index -1 of 'b' is outside the matrix"),
        ([0, 1, 1], "index 1 of 'b' is there twice"),
    ],
)
def test_a_faulty_index_is_named_with_its_row(indices: list[int], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        compressed_block(
            Path("x"),
            "samples",
            np.array([1, 2, 3]),
            np.array(indices),
            np.array([0, 1, 3]),
            3,
            ("a", "b"),
        )


def test_the_same_index_in_two_rows_is_no_fault() -> None:
    block = compressed_block(
        Path("x"),
        "samples",
        np.array([1, 2]),
        np.array([1, 1]),
        np.array([0, 1, 1, 2]),
        2,
        ("a", "b", "c"),
    )
    assert block.toarray().tolist() == [[0, 1], [0, 0], [0, 2]]

"""Compiled copies are what numpy's indexing gives, for all types, widths and places."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.kernels import compiled, copy_bytes, copy_runs
from data_shards.store.mapped import MappedArray, runs

TYPES = ("bool", "uint8", "int32", "float16", "float32", "int64")
# Up to a few pieces of 1,024 bytes, and the places where pieces end.
widths = st.one_of(st.integers(1, 40), st.sampled_from([1023, 1024, 1025, 2048, 2500]))


def numbers(dtype: str, *shape: int) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, 120, shape).astype(dtype)


@settings(deadline=None)  # the first one compiles
@given(st.sampled_from(TYPES), st.integers(1, 20), widths, st.data())
def test_rows_are_those_that_numpy_takes(
    dtype: str, count: int, width: int, data: st.DataObject
) -> None:
    values = numbers(dtype, count, width)
    chosen = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=9)), dtype=np.int64)
    found = MappedArray(values).take(chosen)
    assert found.dtype == values.dtype
    assert found.flags.writeable
    assert np.array_equal(found, values[chosen])
    assert found.shape == (len(chosen), width)


@settings(deadline=None)
@given(st.sampled_from(TYPES), st.integers(1, 3000), st.integers(1, 2500), st.data())
def test_runs_are_those_of_a_view(dtype: str, count: int, length: int, data: st.DataObject) -> None:
    length = min(length, count)
    values = numbers(dtype, count)
    places = st.lists(st.integers(0, count - length), max_size=5)
    starts = np.array(data.draw(places), dtype=np.int64)
    found = MappedArray(values).slices(starts, length)
    assert np.array_equal(found, runs(values, length)[starts])
    assert found.dtype == values.dtype


def test_rows_and_runs_may_have_several_axes() -> None:
    values = numbers("float32", 7, 3, 5)
    array = MappedArray(values)
    assert np.array_equal(array.take(np.array([6, 0])), values[[6, 0]])
    assert np.array_equal(array.slices(np.array([4, 0]), 3), np.stack([values[4:7], values[:3]]))


@pytest.mark.parametrize("start", [-1, 5, 1 << 62, -(1 << 63)])
def test_rows_and_runs_outside_are_errors_and_nothing_is_read(start: int) -> None:
    array = MappedArray(numbers("int32", 5, 4))
    with pytest.raises(IndexError, match=f"rows {start} to .* from an array of 5"):
        array.take(np.array([0, start]))
    for length in (1, 2, 5):
        with pytest.raises(IndexError, match=f"rows {start} to .* from an array of 5"):
            array.slices(np.array([0, start]), length)


@pytest.mark.parametrize("length", [0, -1, 6])
def test_a_run_is_no_longer_than_the_array(length: int) -> None:
    with pytest.raises(IndexError, match=f"runs of {length} rows from an array of 5"):
        MappedArray(numbers("int32", 5, 4)).slices(np.array([0]), length)


def test_an_array_without_rows_gives_none() -> None:
    array = MappedArray(np.zeros((0, 3), dtype=np.float32))
    assert array.take(np.array([], dtype=np.int64)).shape == (0, 3)
    with pytest.raises(IndexError):
        array.take(np.array([0]))


def test_a_copy_touches_nothing_beside_it_and_says_the_same_uncompiled() -> None:
    source = numbers("uint8", 9, 1500)
    starts = np.array([3, 0], dtype=np.int64)
    for function in (compiled(copy_runs), copy_runs):
        memory = np.full((4, 3000), 255, dtype=np.uint8)
        assert function(source, starts, memory[1:3]) == -1
        assert (memory[[0, 3]] == 255).all()
        assert np.array_equal(memory[1:3].reshape(2, 2, 1500), runs(source, 2)[starts])
    copy_bytes(source, np.uint64(0), source, np.uint64(1500), np.uint64(0))
    assert np.array_equal(source, numbers("uint8", 9, 1500))

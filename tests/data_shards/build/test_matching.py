"""Rows of several sources are matched by name or by position, and never silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.build.matching import match_by_name, match_by_position, positions
from data_shards.errors import InputError

names = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=30, unique=True)


@given(names, st.randoms(use_true_random=False))
def test_the_same_names_in_any_order_match_row_by_row(listed: list[str], random: object) -> None:
    shuffled = list(listed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    matched = match_by_name({"a": listed, "b": shuffled}, "error")
    assert matched.names == tuple(listed)
    assert [shuffled[row] for row in matched.rows["b"]] == listed
    assert matched.dropped == 0


@given(names, names)
def test_dropping_keeps_what_all_sources_have_in_the_order_of_the_first(
    first: list[str], second: list[str]
) -> None:
    shared = [name for name in first if name in second]
    if not shared:
        with pytest.raises(InputError, match="no sample of a is in all of b"):
            match_by_name({"a": first, "b": second}, "drop")
        return
    matched = match_by_name({"a": first, "b": second}, "drop")
    assert list(matched.names) == shared
    assert matched.dropped == len(set(first) | set(second)) - len(shared)


def test_a_sample_that_one_source_lacks_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match="1 samples of a are not in b, the first is 'y'"):
        match_by_name({"a": ["x", "y"], "b": ["x"]}, "error")
    with pytest.raises(InputError, match="1 samples of b are not in a, the first is 'z'"):
        match_by_name({"a": ["x"], "b": ["x", "z"]}, "error")


def test_a_name_twice_in_a_source_is_an_error_that_names_both_places() -> None:
    with pytest.raises(InputError, match=r"'x' is there twice \(samples 1 and 3\)"):
        match_by_name({"a": ["x", "y", "x"]}, "drop")


def test_by_position_the_counts_must_agree() -> None:
    assert match_by_position({"a": 3, "b": 3}).rows["b"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="a has 3 samples and b has 4"):
        match_by_position({"a": 3, "b": 4})


def test_positions_turn_rows_of_a_source_into_places_of_the_data_set() -> None:
    rows = np.array([4, 0, 2])  # sample 0 is row 4 of the source, ...
    order = np.array([1, 2, 0])  # place 0 holds sample 1, ...
    assert positions(rows, order, 5).tolist() == [0, -1, 1, -1, 2]

"""Staged arrays get every row where it belongs, whatever the order it comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.build import staging
from data_shards.build.staging import element_places


@pytest.fixture(params=[1 << 26, 4096 * 3])
def touched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write all at once, and three pages at a time."""
    monkeypatch.setattr(staging, "_TOUCHED", request.param)


def test_rows_and_columns_are_scattered_to_their_places(tmp_path: Path, touched: None) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 7)).astype(np.float32)
    places = rng.permutation(50)
    places[places >= 40] = -1  # ten rows are left out
    expected = np.zeros((40, 7), dtype=np.float32)
    expected[places[places >= 0]] = values[places >= 0]
    by_rows, by_columns = tmp_path / "rows.npy", tmp_path / "columns.npy"
    for path in (by_rows, by_columns):
        staging.create(path, (40, 7), np.float32)
    for start in range(0, 50, 9):
        staging.scatter(by_rows, places[start : start + 9], values[start : start + 9])
    for columns in ([5, 0], [1, 2, 3], [4, 6]):
        chosen = np.array(columns)
        staging.scatter_columns(by_columns, places, chosen, values[:, chosen])
    assert np.array_equal(staging.read(by_rows, 0, 40), expected)
    assert np.array_equal(staging.read(by_columns, 0, 40), expected)
    assert np.array_equal(staging.read(by_rows, 12, 15), expected[12:15])


def test_elements_of_ragged_rows_go_to_their_rows_stretch() -> None:
    places = np.array([1, -1, 0])  # row 1 is left out, row 2 comes first
    lengths = np.array([2, 3, 4])
    starts = np.array([0, 4])
    assert element_places(places, starts, lengths).tolist() == [4, 5, -1, -1, -1, 0, 1, 2, 3]

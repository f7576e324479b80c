"""Parquet matrices against pandas: by row groups, by columns, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_shards.errors import InputError
from data_shards.sources.matrix import open_matrix
from tests.data_shards.sources.matrices import gather


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("budget", [1, 3000, 1 << 20])
@pytest.mark.parametrize("group", [7, 1000])
def test_a_matrix_is_what_pandas_wrote(tmp_path: Path, axis: Any, budget: int, group: int) -> None:
    values = np.random.default_rng(0).normal(size=(50, 20))
    values[3, 4] = np.nan
    rows = pd.Index([f"r{i}" for i in range(50)], name="gene")
    frame = pd.DataFrame(values, rows, [f"c.{i}" for i in range(20)])
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=group)
    source = open_matrix(tmp_path / "x.parquet", samples=axis)
    sides = (source.samples, source.features)
    assert sides[:: 1 if axis == "rows" else -1] == (tuple(rows), tuple(frame.columns))
    found = gather(source, budget)
    assert np.array_equal(found if axis == "rows" else found.T, values, equal_nan=True)
    blocks = list(source.blocks(budget))
    assert budget == 1 or all(block.values.nbytes <= budget for block in blocks)


def test_large_row_groups_are_read_by_columns(tmp_path: Path) -> None:
    columns = {"id": [str(i) for i in range(100)]} | {f"c{i}": np.zeros(100) for i in range(10)}
    source = open_matrix(write(tmp_path / "x.parquet", columns), samples="rows")
    assert {block.axis for block in source.blocks(8000)} == {"samples"}
    blocks = list(source.blocks(7999))
    assert {block.axis for block in blocks} == {"features"}
    assert [block.start for block in blocks] == [0, 9]


@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        (("int8", "int32"), "int32"),
        (("uint16", "uint16"), "uint16"),
        (("float32", "float32"), "float32"),
        (("float16", "float16"), "float32"),
        (("int32", "float32"), "float64"),
        (("float32", "float64"), "float64"),
    ],
)
def test_values_have_the_type_that_holds_all_columns(
    tmp_path: Path, types: tuple[str, str], wanted: str
) -> None:
    columns = {"id": ["a", "b"]} | {
        f"c{i}": np.array([1, 2], dtype=kind) for i, kind in enumerate(types)
    }
    source = open_matrix(write(tmp_path / "x.parquet", columns), samples="rows")
    assert source.dtype == np.dtype(wanted)
    assert gather(source).tolist() == [[1, 1], [2, 2]]


def test_a_missing_integer_is_refused_unless_floats_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"id": ["a", "b"], "x": [1, None], "y": [3, 4]})
    with pytest.raises(InputError, match="row 'b', column 'x' is missing, which int64 can't say"):
        gather(open_matrix(path, samples="rows"))
    found = gather(open_matrix(path, samples="rows", dtype="float64"))
    assert np.array_equal(found, [[1, 3], [np.nan, 4]], equal_nan=True)


@pytest.mark.parametrize(
    ("values", "dtype", "problem"),
    [
        ([2**53 + 1, 0.5], None, "column 'x' .int64. can't be read as float64"),
        ([2**40, 1], "int32", "column 'x' .int64. can't be read as int32"),
        ([1.5, 1], "int64", "column 'x' .double. can't be read as int64"),
        ([1e300, 1], "float32", "sample 'a', feature 'x' is infinite"),
        ([np.inf, 1], None, "sample 'a', feature 'x' is infinite"),
    ],
)
def test_a_value_that_the_type_can_not_hold_is_refused(
    tmp_path: Path, values: list[Any], dtype: Any, problem: str
) -> None:
    path = write(tmp_path / "x.parquet", {"id": ["a"], "x": values[:1], "y": values[1:]})
    with pytest.raises(InputError, match=problem):
        gather(open_matrix(path, samples="rows", dtype=dtype))


def test_the_column_of_names_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"x": [1, 2], "entrez": [7157, 4609]})
    source = open_matrix(path, samples="columns", names="entrez")
    assert (source.samples, source.features) == (("x",), ("7157", "4609"))
    with pytest.raises(InputError, match="no column 'z', or more than one"):
        open_matrix(path, samples="columns", names="z")


@pytest.mark.parametrize(
    ("columns", "options", "problem"),
    [
        ({"x": [1.0]}, {}, "the columns of text are: none"),
        ({"a": ["r"], "b": ["s"], "x": [1.0]}, {}, "the columns of text are: a, b"),
        ({"a": ["r"], "b": ["s"], "x": [1.0]}, {"names": "a"}, "column 'b' holds string"),
        (
            {"a": ["r"], "b": ["1"], "x": [1.0]},
            {"names": "a", "dtype": "float64"},
            "column 'b' holds string",
        ),
        ({"a": ["r"], "x": [True]}, {}, "column 'x' holds bool"),
        ({"a": ["r"], "x": [[1.0]]}, {}, "column 'x' holds list"),
        ({"a": ["r"]}, {}, "no column of values"),
        ({"a": ["r", None], "x": [1, 2]}, {}, "row 2 has no name in column 'a'"),
        ({"a": ["r", "r"], "x": [1, 2]}, {}, "sample 'r' is there twice .row 1 and row 2."),
        ({"a": ["r", ""], "x": [1, 2]}, {}, "a sample has no name .row 2."),
        ({"a": pa.array([], pa.string()), "x": pa.array([], "i4")}, {}, "has no sample"),
    ],
)
def test_what_is_no_matrix_is_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], problem: str
) -> None:
    path = write(tmp_path / "x.parquet", columns)
    with pytest.raises(InputError, match=problem):
        open_matrix(path, samples="rows", **options)


def test_repeated_columns_are_refused_even_when_names_may_repeat(tmp_path: Path) -> None:
    table = pa.table([pa.array(["r"]), pa.array([1]), pa.array([2])], ["a", "x", "x"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="Parquet reads columns by name"):
        open_matrix(tmp_path / "x.parquet", samples="rows", duplicates="keep")


@pytest.mark.parametrize("cut", [0.5, 0.01])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, cut: float) -> None:
    path = write(tmp_path / "x.parquet", {"a": ["r"], "x": [1]})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(InputError, match="can't be read as Parquet"):
        open_matrix(path, samples="rows")


def test_damaged_values_are_an_error_and_no_other_values(tmp_path: Path) -> None:
    columns = {"a": [str(i) for i in range(1000)], "x": np.random.default_rng(0).normal(size=1000)}
    path = write(
        tmp_path / "x.parquet",
        columns,
        compression=None,
        use_dictionary=False,
        write_page_checksum=True,
    )
    place = parquet.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[place.data_page_offset + place.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="can't be read as Parquet"):
        gather(open_matrix(path, samples="rows"))

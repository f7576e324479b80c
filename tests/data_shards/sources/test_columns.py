"""Columns of tables as numbers, text and categories, and what is refused of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import InputError
from data_shards.sources.columns import categories, integers, numbers, strings
from data_shards.sources.tables import Table, read_table


def column(tmp_path: Path, *values: str) -> Table:
    path = tmp_path / "x.tsv"
    path.write_text("id\tx\n" + "".join(f"{i}\t{value}\n" for i, value in enumerate(values)))
    return read_table(path)


def typed(values: list[Any], kind: pa.DataType) -> Table:
    return Table(Path("x.parquet"), pa.table({"x": pa.array(values, kind)}))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@settings(deadline=None)
def test_numbers_are_exact(values: list[float]) -> None:
    table = typed([repr(v) for v in values], pa.string())
    assert numbers(table, "x").tolist() == values


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
@settings(deadline=None)
def test_integers_are_exact(values: list[int]) -> None:
    assert integers(typed([str(v) for v in values], pa.string()), "x").tolist() == values
    assert integers(typed(values, pa.int64()), "x").tolist() == values


@given(st.lists(st.sampled_from(["b", "a", "C", "é", "a b"]), min_size=1))
@settings(deadline=None)
def test_categories_are_those_of_pandas(labels: list[str]) -> None:
    oracle = pd.Categorical(labels)
    found = categories(typed(labels, pa.string()), "x")
    assert found.names == tuple(oracle.categories)
    assert found.codes.dtype == np.int32
    assert found.codes.tolist() == oracle.codes.tolist()


def test_missing_values_are_nan_when_allowed(tmp_path: Path) -> None:
    table = column(tmp_path, "1", "NA", "", "null", "NULL", "NaN", " 2")
    found = numbers(table, "x", missing="nan")
    assert np.array_equal(found, [1, *[math.nan] * 5, 2], equal_nan=True)
    with pytest.raises(InputError, match=r"x is missing \(and 4 more\)") as caught:
        numbers(table, "x")
    assert caught.value.line == 3


def test_missing_labels_have_code_minus_one_when_allowed(tmp_path: Path) -> None:
    table = column(tmp_path, "b", "NA", "a")
    found = categories(table, "x", missing="code")
    assert (found.codes.tolist(), found.names) == ([1, -1, 0], ("a", "b"))
    with pytest.raises(InputError, match="x is missing") as caught:
        categories(table, "x")
    assert caught.value.line == 3


def test_missing_text_is_kept_as_written_when_allowed(tmp_path: Path) -> None:
    table = column(tmp_path, "b", "NA")
    assert strings(table, "x", missing="keep") == ["b", "NA"]
    assert strings(table, "x", tokens=[""]) == ["b", "NA"]
    with pytest.raises(InputError, match="x is missing") as caught:
        strings(table, "x")
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("read", "value", "problem"),
    [
        (numbers, "high", "x is 'high', not a number"),
        (numbers, "1,5", "x is '1,5', not a number"),
        (numbers, "0x1", "x is '0x1', not a number"),
        (numbers, "nan(1)", "x is 'nan(1)', not a number"),
        (numbers, "inf", "x is 'inf', not a number"),
        (numbers, "1e999", "column 'x' is infinite or too large"),
        (integers, "1.0", "x is '1.0', not an integer"),
        (integers, "9223372036854775808", "beyond 64 bits"),
        (integers, "NA", "x is missing"),
        (integers, "", "x is missing"),
    ],
)
def test_a_value_that_is_refused_is_named_with_its_line(
    tmp_path: Path, read: Any, value: str, problem: str
) -> None:
    table = column(tmp_path, "1", "2", value, "3")
    with pytest.raises(InputError) as caught:
        read(table, "x")
    assert problem in str(caught.value)
    assert caught.value.line == 4


def test_labels_that_differ_by_white_space_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a' and 'a ' of column 'x' differ only by white space"):
        categories(column(tmp_path, "a", "b", "a "), "x")


def test_an_unknown_column_gets_a_hint(tmp_path: Path) -> None:
    table = read_text(tmp_path, "tissue\tage\na\t1\n")
    with pytest.raises(InputError, match="did you mean 'tissue'"):
        strings(table, "tisue")
    with pytest.raises(InputError, match="the columns are tissue, age"):
        strings(table, "zzz")


def read_text(tmp_path: Path, text: str) -> Table:
    path = tmp_path / "y.tsv"
    path.write_text(text)
    return read_table(path)


def test_typed_columns_are_read_too() -> None:
    assert numbers(typed([1, 2], pa.int32()), "x").tolist() == [1.0, 2.0]
    assert numbers(typed([1.5, 2], pa.float32()), "x").tolist() == [1.5, 2.0]
    assert strings(typed([1, 2], pa.int8()), "x") == ["1", "2"]
    assert strings(typed(["a"], pa.large_string()), "x") == ["a"]
    coded = typed(["b", "a", None], pa.dictionary(pa.int8(), pa.string()))
    assert categories(coded, "x", missing="code").codes.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("read", "values", "kind", "problem"),
    [
        (numbers, [1.0, None], pa.float64(), "row 2: x is missing"),
        (numbers, [1.0, math.nan], pa.float64(), "row 2: x is missing"),
        (numbers, [1.0, math.inf], pa.float64(), "row 2: column 'x' is infinite"),
        (numbers, [2**53 + 1], pa.int64(), "can't be read as float64"),
        (numbers, [b"1"], pa.binary(), "can't be read as float64"),
        (integers, [1.0], pa.float64(), "holds double, not integers"),
        (integers, [1, None], pa.int64(), "row 2: x is missing"),
        (integers, [1, 2**63], pa.uint64(), "beyond 64 bits"),
        (strings, ["a", None], pa.string(), "row 2: x is missing"),
        (strings, [1.5], pa.float64(), "holds double, not text"),
        (categories, [None, None], pa.null(), "x is missing"),
    ],
)
def test_typed_columns_are_checked_too(
    read: Any, values: list[Any], kind: pa.DataType, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(typed(values, kind), "x")
    assert problem in str(caught.value)


def test_a_null_is_no_text_even_where_missing_text_is_kept() -> None:
    with pytest.raises(InputError, match="x is missing"):
        strings(typed(["a", None], pa.string()), "x", missing="keep")


def test_a_real_file_gives_the_numbers_of_pandas(shared_data: Path) -> None:
    path = shared_data / "deepcpg" / "BS27_4_SER.bed.gz"
    table = read_table(path, "tsv", names=["chrom", "pos", "value"])
    oracle = pd.read_csv(path, sep="\t", header=None, float_precision="round_trip")
    assert np.array_equal(integers(table, "pos"), oracle[1])
    assert np.array_equal(numbers(table, "value"), oracle[2])
    assert categories(table, "chrom").names == ("18", "19")

"""TSV and CSV matrices against pandas, and every refusal with line, column and value."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import InputError
from data_shards.sources.matrix import open_matrix
from data_shards.sources.text_lines import MISSING
from data_shards.sources.text_matrix import TextMatrix
from tests.data_shards.sources.matrices import gather

NAME = st.text(st.sampled_from('abN" \t,é'), min_size=1, max_size=6)
NAMES = st.lists(NAME, min_size=1, max_size=6, unique=True)


@given(
    samples=NAMES,
    features=NAMES,
    data=st.data(),
    rows_are_samples=st.booleans(),
    csv=st.booleans(),
    packed=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    missing=st.sampled_from(MISSING),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_matrix_is_what_pandas_wrote(
    tmp_path: Path,
    samples: list[str],
    features: list[str],
    data: st.DataObject,
    rows_are_samples: bool,
    csv: bool,
    packed: bool,
    end: str,
    missing: str,
) -> None:
    value = st.one_of(st.floats(allow_infinity=False), st.just(math.nan))
    cells = st.lists(value, min_size=len(features), max_size=len(features))
    values = np.array([data.draw(cells) for _ in samples])
    frame = pd.DataFrame(values, samples, features)
    written = frame if rows_are_samples else frame.T
    text = written.to_csv(sep="," if csv else "\t", lineterminator=end, na_rep=missing).encode()
    path = tmp_path / (("x.csv" if csv else "x.tsv") + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(text) if packed else text)
    source = open_matrix(path, samples="rows" if rows_are_samples else "columns")
    assert source.samples == tuple(samples)
    assert source.features == tuple(features)
    assert source.files == (path,)
    assert np.array_equal(gather(source), values, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "options", "pandas"),
    [
        ("cnnc/mDC_TFs500_ExpressionData.csv.gz", {}, {}),
        # Its lines end with a lone carriage return, as on an old Macintosh.
        ("adage/expression.tsv.gz", {}, {"sep": "\t"}),
        ("adage/gold_standard.tsv.gz", {"header": "short"}, {"sep": "\t"}),
    ],
)
def test_real_matrices_are_what_pandas_reads(
    shared_data: Path, name: str, options: dict[str, Any], pandas: dict[str, Any]
) -> None:
    path = shared_data / name
    oracle = pd.read_csv(path, index_col=0, float_precision="round_trip", **pandas)
    source = open_matrix(path, samples="columns", **options)
    assert source.samples == tuple(oracle.columns)
    assert source.features == tuple(oracle.index)
    assert np.array_equal(gather(source), oracle.to_numpy().T)


def write(tmp_path: Path, text: str, name: str = "x.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    return path


def test_blocks_are_ranges_of_rows_within_the_budget(tmp_path: Path) -> None:
    rows = "".join(f"g{i}\t" + "\t".join(["0.125"] * 100) + "\n" for i in range(2000))
    path = write(tmp_path, "id\t" + "\t".join(f"s{i}" for i in range(100)) + "\n" + rows)
    source = open_matrix(path, samples="columns")
    budget = 1 << 20
    blocks = list(source.blocks(budget))
    assert len(blocks) > 5
    assert {block.axis for block in blocks} == {"features"}
    assert all(block.values.nbytes <= budget for block in blocks)
    assert gather(source).shape == (100, 2000)
    assert {b.axis for b in open_matrix(path, samples="rows").blocks(budget)} == {"samples"}


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "float64"])
def test_values_have_the_type_that_is_asked_for(tmp_path: Path, dtype: Any) -> None:
    path = write(tmp_path, "\ta\tb\ng\t1\t-2\nh\t3\t4\n")
    source = open_matrix(path, samples="columns", dtype=dtype)
    assert source.dtype == np.dtype(dtype)
    assert gather(source).tolist() == [[1, 3], [-2, 4]]


def test_a_gene_whose_name_looks_missing_keeps_it(tmp_path: Path) -> None:
    path = write(tmp_path, "\tNA\tnull\nNAN\t1\t2\n")
    source = open_matrix(path, samples="columns")
    assert (source.samples, source.features) == (("NA", "null"), ("NAN",))


def test_missing_values_are_counted_block_by_block(tmp_path: Path) -> None:
    path = write(tmp_path, "\ta\tb\ng\tNA\t1\nh\t\tnull\n")
    blocks = list(open_matrix(path, samples="columns").blocks())
    assert sum(block.missing for block in blocks) == 3


GOOD = "id\ta\tb\ng1\t1\t2\n"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (GOOD + "g2\t1\n", 3, "2 columns where the header has 3"),
        (GOOD + "\n\ng2\t1\t2\t3\n", 5, "4 columns where the header has 3"),
        ("id\ta\tb\ng1\t1\t2\t\n", 2, "4 columns where the header has 3"),
        (GOOD + "g2\t1\r\t2\n", 3, "2 columns where the header has 3"),
        (GOOD + "g1\t3\t4\n", 3, "feature 'g1' is there twice (line 2 and line 3)"),
        (GOOD + "\t3\t4\n", 3, "a feature has no name (line 3)"),
        ("id\ta\ta\ng1\t1\t2\n", 1, "sample 'a' is there twice (column 2 and column 3)"),
        ("id\ta\t\ng1\t1\t2\n", 1, "a sample has no name (column 3)"),
        (GOOD + '"g2\t3\t4\n', 3, "not closed"),
        (GOOD + "\xff\t3\t4\n", 3, "not UTF-8"),
        ("id,a,b\ng1,1,2\n", 1, "the header has no tab: 'id,a,b'"),
        ("id\n", 1, "the header has no tab"),
        ("id\ta\tb\n", None, "the matrix has no feature"),
        ("", None, "no line in the file"),
        ("\n\n", None, "no line in the file"),
    ],
)
def test_a_faulty_file_is_refused_when_it_is_opened(
    tmp_path: Path, text: str, line: int | None, problem: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        open_matrix(path, samples="columns")
    assert problem in str(caught.value)
    assert caught.value.line == line
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("high", "value 'high' is not a number (column 3, 'b')"),
        ("-", "value '-' is not a number (column 3, 'b')"),
        ("n/a", "value 'n/a' is not a number (column 3, 'b')"),
        ("0x10", "value '0x10' is not a number (column 3, 'b')"),
        ("inf", "value 'inf' is infinite (column 3, 'b')"),
        ("1e999", "value '1e999' is too large for float64 (column 3, 'b')"),
        ('"1', "a quoted field is not closed on its line"),
    ],
)
def test_a_value_that_is_no_number_is_named_with_line_and_column(
    tmp_path: Path, value: str, problem: str
) -> None:
    path = write(tmp_path, GOOD + f"\ng2\t3\t{value}\ng3\t5\t6\n")
    with pytest.raises(InputError) as caught:
        gather(open_matrix(path, samples="columns"))
    assert problem in str(caught.value)
    assert caught.value.line == 4


def test_a_decimal_comma_in_quotes_is_no_number(tmp_path: Path) -> None:
    path = write(tmp_path, 'id,a,b\ng1,"1,5",2\n', "x.csv")
    with pytest.raises(InputError, match=r"value '1,5' is no number \(column 2, 'a'\)") as caught:
        open_matrix(path, samples="columns")
    assert caught.value.line == 2


def test_a_missing_value_can_not_be_an_integer(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "g2\t3\tNA\n")
    with pytest.raises(InputError, match="'NA' is missing, which int32 can't say") as caught:
        gather(open_matrix(path, samples="columns", dtype="int32"))
    assert caught.value.line == 3


def test_repeated_features_are_kept_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "g1\t3\t4\n")
    source = open_matrix(path, samples="columns", duplicates="keep")
    assert source.features == ("g1", "g1")
    assert gather(source).tolist() == [[1, 3], [2, 4]]
    with pytest.raises(InputError, match="sample 'g1' is there twice"):
        open_matrix(path, samples="rows", duplicates="keep")


def test_a_header_of_r_is_named_as_such(tmp_path: Path) -> None:
    path = write(tmp_path, '"a"\t"b"\n"g1"\t1\t2\n')
    with pytest.raises(InputError, match="3 columns where the header has 2") as caught:
        open_matrix(path, samples="columns")
    assert 'header="short"' in (caught.value.remedy or "")
    source = open_matrix(path, samples="columns", header="short")
    assert (source.samples, source.features) == (("a", "b"), ("g1",))


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    source = open_matrix(path, samples="columns")
    assert isinstance(source, TextMatrix)
    path.write_text(GOOD + "g2\t1\t2\n")
    with pytest.raises(InputError, match="the file changed"):
        list(source.blocks())

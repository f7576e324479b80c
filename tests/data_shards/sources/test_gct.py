"""GCT 1.2 and 1.3 against pandas and the published layout, and every refusal with its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import InputError
from data_shards.sources.columns import numbers, strings
from data_shards.sources.matrix import open_matrix
from tests.data_shards.sources.matrices import gather

V2 = "#1.2\n2\t3\nName\tDescription\ts1\ts2\ts3\ng1\tgene one\t1\t2\t3\ng2\t\t4\tNA\t6\n"
V3 = (
    "#1.3\n2\t3\t1\t2\nid\tsymbol\ts1\ts2\ts3\ncell\tna\tA\tB\tA\ndose\tna\t1.5\t2\t-666\n"
    "p1\tTP53\t1\t2\t3\np2\tMYC\t4\tNaN\t6\n"
)
VALUES = np.array([[1, 4], [2, np.nan], [3, 6.0]])


def write(tmp_path: Path, text: str, name: str = "x.gct") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_version_1_2_has_descriptions(tmp_path: Path) -> None:
    source = open_matrix(write(tmp_path, V2))
    assert (source.samples, source.features) == (("s1", "s2", "s3"), ("g1", "g2"))
    assert np.array_equal(gather(source), VALUES, equal_nan=True)
    assert source.sample_table is None
    assert source.feature_table is not None
    assert source.feature_table.data.to_pydict() == {"Description": ["gene one", ""]}


def test_version_1_3_has_metadata_of_both_axes(tmp_path: Path) -> None:
    source = open_matrix(write(tmp_path, V3), samples="columns")
    assert (source.samples, source.features) == (("s1", "s2", "s3"), ("p1", "p2"))
    assert np.array_equal(gather(source), VALUES, equal_nan=True)
    assert source.sample_table is not None
    assert source.feature_table is not None
    assert strings(source.sample_table, "cell") == ["A", "B", "A"]
    assert numbers(source.sample_table, "dose").tolist() == [1.5, 2.0, -666.0]
    assert strings(source.feature_table, "symbol") == ["TP53", "MYC"]


@given(
    values=st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n),
            min_size=1,
            max_size=6,
        )
    ),
    packed=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_values_are_what_pandas_reads(
    tmp_path: Path, values: list[list[float]], packed: bool
) -> None:
    frame = pd.DataFrame(values)
    frame.columns = pd.Index([f"s{i}" for i in frame.columns])
    frame.index = pd.Index([f"g{i}" for i in frame.index], name="Name")
    frame.insert(0, "Description", "about")
    text = f"#1.2\n{len(frame)}\t{len(values[0])}\n" + frame.to_csv(sep="\t")
    path = tmp_path / ("x.gct.gz" if packed else "x.gct")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    oracle = pd.read_csv(path, sep="\t", skiprows=2, index_col=0, float_precision="round_trip")
    source = open_matrix(path)
    assert np.array_equal(gather(source), oracle.drop(columns="Description").to_numpy().T)
    assert source.features == tuple(oracle.index)


def test_trailing_tabs_of_a_spreadsheet_are_passed_over_on_the_first_two_lines(
    tmp_path: Path,
) -> None:
    text = V2.replace("#1.2\n2\t3\n", "#1.2\t\t\t\t\r\n2\t3\t\t\t\r\n")
    assert open_matrix(write(tmp_path, text)).samples == ("s1", "s2", "s3")


def test_counts_stay_integers(tmp_path: Path) -> None:
    source = open_matrix(write(tmp_path, V2.replace("NA", "5")), dtype="int64")
    assert gather(source).dtype == np.int64


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (V2.replace("#1.2", "#1.1"), 1, "not '#1.2' or '#1.3'"),
        (V2.removeprefix("#1.2\n"), 1, "not '#1.2' or '#1.3'"),
        (V2.replace("2\t3\n", "2\n", 1), 2, "rows and columns as 2 whole numbers"),
        (V2.replace("2\t3\n", "2\tx\n", 1), 2, "rows and columns as 2 whole numbers"),
        (V2.replace("2\t3\n", "2\t-3\n", 1), 2, "rows and columns as 2 whole numbers"),
        (V3.replace("2\t3\t1\t2", "2\t3"), 2, "both counts of metadata as 4 whole numbers"),
        (V2.replace("2\t3\n", "2\t4\n", 1), 3, "5 columns, but line 2 says 4 samples after 2"),
        (V2.replace("2\t3\n", "3\t3\n", 1), 2, "2 rows of values, but line 2 says 3"),
        (V2.replace("2\t3\n", "1\t3\n", 1), 2, "2 rows of values, but line 2 says 1"),
        (V2 + "g3\tx\t1\t2\n", 6, "4 columns where the header has 5"),
        (V3.replace("dose\tna", "cell\tna"), 5, "is called 'cell', as no or another one is"),
        (V3.replace("dose\tna\t", "dose\t"), 5, "4 columns where the header has 5"),
        ("#1.3\n2\t1\t0\t9\nid\ts\na\t1\n", 2, "1 lines of column metadata, but line 2 says 9"),
        ("#1.3\n1\t1\t2\t0\nid\ta\ta\ts\ng\tx\ty\t1\n", 3, "row metadata are called a, a"),
        ("#1.3\n1\t1\t1\t0\nid\t\ts\ng\tx\t1\n", 3, "the columns of row metadata are called"),
        ("#1.2\n", None, "the file ends before line 2"),
        ("#1.2\n2\t3\n", None, "the file ends before line 3"),
        (V2.replace("g2\t", "g1\t"), 5, "feature 'g1' is there twice (line 4 and line 5)"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int | None, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_matrix(write(tmp_path, text))
    assert problem in str(caught.value)
    assert caught.value.line == line


def test_metadata_where_a_value_should_be_is_refused(tmp_path: Path) -> None:
    text = V3.replace("2\t3\t1\t2", "3\t3\t1\t1")
    with pytest.raises(
        InputError, match=r"value 'low' is not a number \(column 3, 's1'\)"
    ) as caught:
        gather(open_matrix(write(tmp_path, text.replace("dose\tna\t1.5", "dose\tna\tlow"))))
    assert caught.value.line == 5

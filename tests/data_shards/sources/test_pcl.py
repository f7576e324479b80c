"""PCL with and without its optional columns and row, against pandas on real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_shards.errors import InputError
from data_shards.sources.columns import numbers, strings
from data_shards.sources.matrix import open_matrix
from tests.data_shards.sources.matrices import gather

FULL = (
    "YORF\tNAME\tGWEIGHT\ts1\ts2\nEWEIGHT\t\t\t1\t0.5\n"
    "YAL001C\tTFC3 subunit\t1\t0.1\t\nYAL002W\tVPS8\t2\t-3\t4\n"
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.pcl"
    path.write_text(text)
    return path


def test_weights_and_names_become_tables(tmp_path: Path) -> None:
    source = open_matrix(write(tmp_path, FULL))
    assert (source.samples, source.features) == (("s1", "s2"), ("YAL001C", "YAL002W"))
    assert np.array_equal(gather(source), [[0.1, -3], [np.nan, 4]], equal_nan=True)
    assert source.sample_table is not None
    assert source.feature_table is not None
    assert numbers(source.sample_table, "EWEIGHT").tolist() == [1, 0.5]
    assert numbers(source.feature_table, "GWEIGHT").tolist() == [1, 2]
    assert strings(source.feature_table, "NAME") == ["TFC3 subunit", "VPS8"]


@pytest.mark.parametrize(
    ("head", "lead", "columns"),
    [
        ("id\t", "", None),
        ("\t", "", None),
        ("id\tName\t", "n\t", ["NAME"]),
        ("id\tGWEIGHT\t", "1\t", ["GWEIGHT"]),
        ("id\tNAME\tGWEIGHT\t", "n\t1\t", ["NAME", "GWEIGHT"]),
    ],
)
def test_optional_columns_are_told_by_the_header(
    tmp_path: Path, head: str, lead: str, columns: list[str] | None
) -> None:
    source = open_matrix(write(tmp_path, f"{head}s1\ts2\ng1\t{lead}1\t2\n"))
    assert source.samples == ("s1", "s2")
    assert gather(source).tolist() == [[1], [2]]
    table = source.feature_table
    assert (None if table is None else list(table.columns)) == columns
    assert source.sample_table is None


@pytest.mark.parametrize(
    "name",
    [
        "Anr-gene.pcl.gz",
        "Anr_RNAseq_J215_gene.pcl.gz",
        "Anr_RNAseq_PAO1_gene.pcl.gz",
        "Genome-hybs-gene.pcl.gz",
    ],
)
def test_real_files_are_what_pandas_reads(shared_data: Path, name: str) -> None:
    path = shared_data / "adage" / name
    oracle = pd.read_csv(path, sep="\t", index_col=0, float_precision="round_trip")
    source = open_matrix(path)
    assert source.samples == tuple(oracle.columns)
    assert source.features == tuple(oracle.index)
    assert np.array_equal(gather(source), oracle.to_numpy().T)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "the first line is empty"),
        ("\nid\ts1\n", 1, "the first line is empty"),
        ("id\n", 1, "names no column of values"),
        ("id\tNAME\tGWEIGHT\ng1\tn\t1\n", 1, "names no column of values"),
        ("id\ts1\n", None, "the matrix has no feature"),
        ("id\ts1\nEWEIGHT\t1\n", None, "the matrix has no feature"),
        ("id\ts1\nEWEIGHT\t1\t2\ng\t1\n", 2, "3 columns where the header has 2"),
        ("id\ts1\ng\t1\nEWEIGHT\t1\n", None, "a row EWEIGHT that is not the second line"),
        ("id\tNAME\ts1\ng\t1\n", 2, "2 columns where the header has 3"),
    ],
)
def test_a_faulty_file_is_refused(
    tmp_path: Path, text: str, line: int | None, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_matrix(write(tmp_path, text))
    assert problem in str(caught.value)
    assert caught.value.line == line


def test_a_text_column_of_another_name_is_no_sample(tmp_path: Path) -> None:
    path = write(tmp_path, "id\tORF\ts1\ng1\tYAL1\t2\n")
    with pytest.raises(InputError, match=r"value 'YAL1' is not a number \(column 2, 'ORF'\)"):
        gather(open_matrix(path))

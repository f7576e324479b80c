"""Tables against pandas, and every refusal with its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from data_shards.errors import InputError
from data_shards.sources.tables import read_table

TEXT = st.text(st.sampled_from('aB1", \t.é'), max_size=5)


@given(
    rows=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    csv=st.booleans(),
    packed=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_table_is_what_pandas_wrote(
    tmp_path: Path, rows: list[tuple[str, str, str]], end: str, csv: bool, packed: bool
) -> None:
    frame = pd.DataFrame(rows, columns=["x", "y y", 'z"'])
    separator = "," if csv else "\t"
    text = frame.to_csv(index=False, sep=separator, lineterminator=end).encode()
    path = tmp_path / (("x.csv" if csv else "x.tsv") + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(text) if packed else text)
    table = read_table(path)
    assert table.columns == ("x", "y y", 'z"')
    assert table.data.to_pydict() == frame.to_dict("list")


@pytest.mark.parametrize(
    ("name", "options", "pandas"),
    [
        ("deeptarget/test_set_1_1_CLASH2013_paper.tsv.gz", {}, {"sep": "\t"}),
        ("deepcpg/6mA_C.elegans_test.tsv.gz", {}, {"sep": "\t"}),
        ("cnnc/mDC_TFs500_network.csv", {}, {}),
        ("deepchrome/demo_meta.csv", {}, {}),
        (
            "deepcpg/BS27_4_SER.bed.gz",
            {"format": "tsv", "names": ["chrom", "pos", "value"]},
            {"sep": "\t", "names": ["chrom", "pos", "value"]},
        ),
        (
            "cnnc/dendritic_gene_pairs_200.txt.gz",
            {"names": ["a", "b", "label"]},
            {"sep": "\t", "names": ["a", "b", "label"]},
        ),
    ],
)
def test_real_tables_are_what_pandas_reads(
    shared_data: Path, name: str, options: dict[str, object], pandas: dict[str, object]
) -> None:
    table = read_table(shared_data / name, **options)  # type: ignore[arg-type]
    oracle = pd.read_csv(shared_data / name, dtype=str, keep_default_na=False, **pandas)  # type: ignore[call-overload]
    assert table.columns == tuple(oracle.columns)
    assert table.data.to_pydict() == oracle.to_dict("list")
    assert len(table) == len(oracle)


def test_a_first_column_without_name_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    pd.DataFrame({"tf": ["a", "b"]}, index=[7, 8]).to_csv(path)
    assert read_table(path).data.to_pydict() == {"row_name": ["7", "8"], "tf": ["a", "b"]}


def test_a_header_of_r_is_one_name_short_when_said_so(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('"a"\t"b"\n"r1"\t1\t2\n')
    table = read_table(path, header="short")
    assert table.data.to_pydict() == {"row_name": ["r1"], "a": ["1"], "b": ["2"]}
    with pytest.raises(InputError, match="3 columns where 2 are named") as caught:
        read_table(path)
    assert caught.value.line == 2
    assert 'header="short"' in (caught.value.remedy or "")


def test_a_column_keeps_its_text_whatever_it_looks_like(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("a\tb\n001\tNA\n1e5\t\n")
    assert read_table(path).data.to_pydict() == {"a": ["001", "1e5"], "b": ["NA", ""]}


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    data = pa.table({"a": ["x", None], "n": [1, 2]})
    parquet.write_table(data, path)
    table = read_table(path)
    assert table.data.equals(data)
    assert str(table.error(1, "bad", "mend it")).endswith("row 2: bad\n  remedy: mend it")


def test_a_folder_called_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "year=2020"
    folder.mkdir()
    parquet.write_table(pa.table({"a": ["x"]}), folder / "x.parquet")
    assert read_table(folder / "x.parquet").columns == ("a",)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a\tb\n1\t2\n1\n", 3, "1 columns where 2 are named"),
        ("a\tb\n1\t2\n\n1\t2\t3\n", 4, "3 columns where 2 are named"),
        ("a\tb\r\n1\t2\r\n1\t2\t3\r\n", 3, "3 columns where 2 are named"),
        ("a\tb\n1\t2\r3\n", 3, "1 columns where 2 are named"),
        ('a\tb\n"1\t2\n3\t4\n', 2, "not closed"),
        ('a\tb\n"1\t2\n3"\t4\n', 2, "not closed"),
        ('a\tb\n1\t2\n"1"x\t2\n', 3, "follows the closing quote"),
        ('"a\tb\n1\t2\n', 1, "not closed"),
        ("a\ta\n1\t2\n", 1, "columns 1 and 2 are both called 'a'"),
        ("a\t\n1\t2\n", 1, "column 2 has no name"),
        ("a\tb\n\xff\t2\n", 2, "not UTF-8"),
        ("\xff\tb\n1\t2\n", 1, "not UTF-8"),
        ("a\tb\n", None, "no record in the file"),
        ("\n\n", None, "no line in the file"),
        ("", None, "no line in the file"),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int | None, problem: str
) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=problem) as caught:
        read_table(path)
    assert caught.value.line == line
    assert caught.value.path == path


def test_names_must_be_as_many_as_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("\n1\t2\n")
    with pytest.raises(InputError, match="2 columns, but 3 names are given") as caught:
        read_table(path, names=["a", "b", "c"])
    assert caught.value.line == 2


def test_a_line_beyond_the_block_is_refused_and_not_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_shards.sources.tables._BLOCK", 1000)
    path = tmp_path / "x.tsv"
    path.write_text("a\tb\n" + "1" * 5000 + "\t2\n3\t4\n")
    with pytest.raises(InputError, match="longer than 1,000 bytes") as caught:
        read_table(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("x.xlsx", {}, "tells no format"),
        ("x.parquet", {}, "can't be read as Parquet"),
        ("x.parquet", {"names": ["a"]}, "names its columns itself"),
        ("x.tsv", {"names": ["a"], "header": "short"}, "names are given"),
        ("missing.tsv", {}, "no such file"),
        (".", {"format": "tsv"}, "is a directory"),
    ],
)
def test_what_can_not_be_a_table_is_refused(
    tmp_path: Path, name: str, options: dict[str, object], problem: str
) -> None:
    if not name.startswith(("missing", ".")):
        (tmp_path / name).write_text("a\n1\n")
    with pytest.raises(InputError, match=problem):
        read_table(tmp_path / name, **options)  # type: ignore[arg-type]

"""10x matrices as text against scipy, and every refusal with its line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import io, sparse

from data_shards.errors import InputError
from data_shards.sources.columns import strings
from data_shards.sources.matrix import matrix_files, open_matrix
from tests.data_shards.sources.matrices import gather

HEADER = "%%MatrixMarket matrix coordinate integer general\n% made up\n"
# Features x barcodes: g1..g3 by c1..c2.
BODY = HEADER + "3 2 3\n1 1 5\n3 1 6\n2 2 7\n"
CELLS = [[5, 0, 6], [0, 7, 0]]


def folder(
    tmp_path: Path,
    matrix: str = BODY,
    barcodes: str = "c1\nc2\n",
    features: str = "g1\tA\tGene Expression\ng2\tB\tGene Expression\ng3\tA\tGene Expression\n",
) -> Path:
    (tmp_path / "matrix.mtx").write_text(matrix)
    (tmp_path / "barcodes.tsv").write_text(barcodes)
    (tmp_path / "features.tsv").write_text(features)
    return tmp_path


@given(
    dense=st.integers(1, 5).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([0, 0, 1, 7]), min_size=n, max_size=n), min_size=1, max_size=6
        )
    ),
    by_cell=st.booleans(),
    real=st.booleans(),
    budget=st.sampled_from([1, 50, 1 << 20]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_matrix_is_what_scipy_reads(
    tmp_path: Path, dense: list[list[int]], by_cell: bool, real: bool, budget: int
) -> None:
    values = np.array(dense, dtype=np.float64 if real else np.int64)
    stored = sparse.coo_array(values if by_cell else values.T)
    stored = sparse.coo_array(stored.T) if by_cell else stored
    folder(
        tmp_path,
        barcodes="".join(f"c{i}\n" for i in range(values.shape[0])),
        features="".join(f"g{i}\tn\n" for i in range(values.shape[1])),
    )
    io.mmwrite(tmp_path / "matrix.mtx", stored, symmetry="general")
    oracle = io.mmread(tmp_path / "matrix.mtx")
    source = open_matrix(tmp_path)
    assert source.dtype == oracle.dtype
    assert np.array_equal(gather(source, budget), oracle.toarray().T)
    assert np.array_equal(gather(source, budget), values)


@pytest.mark.parametrize(
    ("body", "axis"),
    [
        (BODY, "samples"),
        (HEADER + "3 2 3\n3 1 6\n1 1 5\n2 2 7\n", "samples"),
        (HEADER + "3 2 3\n1 1 5\n2 2 7\n3 1 6\n", "features"),
        (HEADER + "3 2 3\n\n1 1 5\n3 1 6\n\n2 2 7\n\n", "samples"),
        (BODY.replace("\n", "\r\n"), "samples"),
        (HEADER + "3 2 3\n1\t1\t5\n3  1  6\n 2 2 7 \n", "samples"),
    ],
    ids=["by barcode", "within it unsorted", "by feature", "blank lines", "crlf", "white space"],
)
def test_entries_are_read_in_the_order_of_the_file(tmp_path: Path, body: str, axis: str) -> None:
    source = open_matrix(folder(tmp_path, body), samples="columns")
    assert gather(source).tolist() == CELLS
    assert {block.axis for block in source.blocks()} == {axis}


def test_a_matrix_without_entries_is_all_zeros(tmp_path: Path) -> None:
    assert not gather(open_matrix(folder(tmp_path, HEADER + "3 2 0\n"))).any()


def test_the_feature_list_becomes_a_table(tmp_path: Path) -> None:
    source = open_matrix(folder(tmp_path))
    assert (source.samples, source.features) == (("c1", "c2"), ("g1", "g2", "g3"))
    assert source.feature_table is not None
    assert source.feature_table.columns == ("id", "name", "type")
    assert strings(source.feature_table, "name") == ["A", "B", "A"]
    assert source.sample_table is None


@pytest.mark.parametrize("genes", ["features.tsv", "genes.tsv"])
@pytest.mark.parametrize("prefix", ["", "GSM1_x_"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_three_files_are_found_by_their_names(
    tmp_path: Path, genes: str, prefix: str, packed: bool
) -> None:
    folder(tmp_path)
    renamed = {"matrix.mtx": "matrix.mtx", "barcodes.tsv": "barcodes.tsv", "features.tsv": genes}
    wanted = []
    for old, new in renamed.items():
        content = (tmp_path / old).read_bytes()
        (tmp_path / old).unlink()
        path = tmp_path / f"{prefix}{new}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
        wanted.append(path)
    source = open_matrix(wanted[0])
    assert source.files == matrix_files(wanted[0]) == tuple(wanted)
    assert gather(source).tolist() == CELLS
    if not prefix:
        assert open_matrix(tmp_path).files == tuple(wanted)
    else:
        with pytest.raises(InputError, match=r"no matrix\.mtx"):
            open_matrix(tmp_path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("features.tsv.gz", "both features.tsv and features.tsv.gz are there"),
        ("genes.tsv", "both features.tsv and genes.tsv are there"),
        ("matrix.mtx.gz", "both matrix.mtx and matrix.mtx.gz are there"),
    ],
)
def test_an_ambiguous_folder_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    folder(tmp_path)
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=problem):
        open_matrix(tmp_path)


@pytest.mark.parametrize("name", ["barcodes.tsv", "features.tsv", "matrix.mtx"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (folder(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=f"no {name}"):
        open_matrix(tmp_path)


HEADED = HEADER + "3 2 3\n"


@pytest.mark.parametrize(
    ("matrix", "line", "problem"),
    [
        (BODY.replace("integer", "complex"), 1, "the first line is"),
        (BODY.replace("integer", "pattern"), 1, "the first line is"),
        (BODY.replace("general", "symmetric"), 1, "the first line is"),
        (BODY.replace("coordinate", "array"), 1, "the first line is"),
        ("1 1 5\n", 1, "the first line is"),
        (HEADER, None, "the file ends in its header"),
        ("", None, "the file ends in its header"),
        (HEADER + "3 2\n1 1 5\n", 3, "the sizes are '3 2'"),
        (HEADER + "3 2 -3\n1 1 5\n", 3, "the sizes are '3 2 -3'"),
        (HEADED + "1 1 5\n3 1 6\n", 3, "2 entries, but the header announces 3"),
        (BODY + "3 2 1\n", 3, "4 entries, but the header announces 3"),
        (HEADED + "1 1 5\n4 1 6\n2 2 7\n", 5, "row 4 is outside the matrix of 3 x 2"),
        (HEADED + "1 1 5\n\n0 1 6\n2 2 7\n", 6, "row 0 is outside the matrix of 3 x 2"),
        (HEADED + "1 1 5\n3 1 6\n2 3 7\n", 6, "column 3 is outside the matrix of 3 x 2"),
        (HEADED + "1 1 5\n3 1 6.5\n2 2 7\n", 5, "entry '3 1 6.5'"),
        (HEADED + "1 1 5\n3 1\n2 2 7\n", 5, "entry '3 1'"),
        (HEADED + "1 1 5\n3 1 6 1\n2 2 7\n", 5, "entry '3 1 6 1'"),
        (HEADED + "1 1 5\n3 1 0x1F\n2 2 7\n", 5, "entry '3 1 0x1F'"),
        (HEADED + "1 1 5\n3 1 99999999999999999999\n2 2 7\n", 5, "entry '3 1 9999"),
        (HEADED + "2 2 7\n3 1 6\n1 1 5\n", None, "sorted neither by barcode"),
        (HEADER + "2 3 1\n1 1 5\n", 3, "the matrix is 2 x 3"),
        (HEADER + "9 9 1\n1 1 5\n", 3, "the matrix is 9 x 9"),
    ],
)
def test_a_faulty_matrix_is_refused_when_it_is_opened(
    tmp_path: Path, matrix: str, line: int | None, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_matrix(folder(tmp_path, matrix))
    assert problem in str(caught.value)
    assert caught.value.line == line
    assert caught.value.path == tmp_path / "matrix.mtx"


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index 2 of 'c1' is there twice"):
        gather(open_matrix(folder(tmp_path, HEADED + "3 1 5\n3 1 6\n2 2 7\n")))


def test_an_infinite_entry_is_named(tmp_path: Path) -> None:
    body = HEADED.replace("integer", "real") + "1 1 5\n3 1 inf\n2 2 7\n"
    with pytest.raises(InputError, match="sample 'c1', feature 'g3' is infinite"):
        gather(open_matrix(folder(tmp_path, body)))


def test_a_transposed_matrix_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="transpose the matrix"):
        open_matrix(folder(tmp_path, HEADER + "2 3 1\n1 1 5\n"))


@pytest.mark.parametrize(
    ("lists", "name", "line", "problem"),
    [
        ({"barcodes": "c1\n\nc1\n"}, "barcodes.tsv", 3, "'c1' is there twice (line 1 and line 3)"),
        ({"features": "g1\ng2\ng1\n"}, "features.tsv", 3, "feature 'g1' is there twice"),
        ({"features": "g1\tA\ng2\ng3\tC\n"}, "features.tsv", 2, "1 columns where 2 are named"),
        ({"barcodes": ""}, "barcodes.tsv", None, "no line in the file"),
    ],
)
def test_faulty_lists_are_refused(
    tmp_path: Path, lists: dict[str, str], name: str, line: int | None, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_matrix(folder(tmp_path, **lists))
    assert problem in str(caught.value)
    assert caught.value.line == line
    assert caught.value.path == tmp_path / name


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    source: Any = open_matrix(folder(tmp_path))
    for body in (HEADED + "1 1 5\n3 1 6\n", HEADED + "1 1 5\n2 2 7\n3 2 6\n"):
        (tmp_path / "matrix.mtx").write_text(body)
        with pytest.raises(InputError, match="the file changed"):
            list(source.blocks())

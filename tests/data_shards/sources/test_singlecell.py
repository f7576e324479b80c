"""h5ad against anndata, and Cell Ranger's HDF5 after its published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from data_shards.errors import InputError
from data_shards.sources.columns import categories, integers, numbers, strings
from data_shards.sources.matrix import open_matrix
from tests.data_shards.sources.matrices import gather

COUNTS = np.array([[1, 0, 2], [0, 0, 0], [3, 4, 0], [0, 5, 6]], dtype=np.int32)
CELLS, GENES = ("c1", "c2", "c3", "c4"), ("g1", "g2", "g3")


def frame(names: tuple[str, ...], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns, index=list(names))


def write_h5ad(path: Path, matrix: Any, **parts: Any) -> Path:
    parts = {"obs": frame(CELLS), "var": frame(GENES)} | parts
    anndata.AnnData(matrix, **parts).write_h5ad(path)
    return path


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["int32", "uint16", "float32", "float64"])
def test_x_is_what_anndata_wrote(tmp_path: Path, kind: str, dtype: str) -> None:
    values = COUNTS.astype(dtype)
    forms = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}
    source = open_matrix(write_h5ad(tmp_path / "x.h5ad", forms[kind](values)))
    assert (source.samples, source.features) == (CELLS, GENES)
    assert source.sparse == (kind != "dense")
    assert source.dtype == np.dtype(dtype)
    for budget in (1, 30, 1 << 20):
        assert np.array_equal(gather(source, budget), anndata.read_h5ad(source.path).to_df())
    axis = "features" if kind == "csc" else "samples"
    assert {block.axis for block in source.blocks(1)} == {axis}


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_sparse_blocks_keep_the_budget(tmp_path: Path, kind: str) -> None:
    values = sparse.random_array((300, 200), density=0.2, format=kind, rng=0, dtype=np.float64)
    parts = {"obs": frame(tuple(map(str, range(300)))), "var": frame(tuple(map(str, range(200))))}
    path = write_h5ad(tmp_path / "x.h5ad", values, **parts)
    blocks = list(open_matrix(path).blocks(10_000))
    assert len(blocks) > 10
    assert all(b.values.data.nbytes + b.values.indices.nbytes <= 10_000 for b in blocks)
    assert np.array_equal(gather(open_matrix(path), 10_000), values.toarray())


def test_layers_and_raw_are_opened_by_name(tmp_path: Path) -> None:
    raw = anndata.AnnData(
        sparse.csr_matrix(np.ones((4, 5), np.float32)), obs=frame(CELLS), var=frame(tuple("abcde"))
    )
    path = write_h5ad(
        tmp_path / "x.h5ad", COUNTS * 2.0, layers={"counts": sparse.csc_matrix(COUNTS)}
    )
    whole = anndata.read_h5ad(path)
    whole.raw = raw
    whole.write_h5ad(path)
    assert np.array_equal(gather(open_matrix(path)), COUNTS * 2.0)
    counts = open_matrix(path, samples="rows", layer="counts")
    assert counts.dtype == np.int32
    assert np.array_equal(gather(counts), COUNTS)
    kept = open_matrix(path, layer="raw.X")
    assert kept.features == tuple("abcde")
    assert gather(kept).sum() == 20
    with pytest.raises(InputError, match="no layers/z in the file") as caught:
        open_matrix(path, layer="z")
    assert "counts, raw.X" in (caught.value.remedy or "")


def test_a_file_without_x_is_refused(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "x.h5ad", None)
    with pytest.raises(InputError, match="no X in the file"):
        open_matrix(path)


def test_obs_and_var_are_tables(tmp_path: Path) -> None:
    obs = frame(
        CELLS,
        kind=pd.Categorical(["b", "a", None, "b"]),
        age=[1.5, np.nan, 2, 3],
        batch=[1, 2, 3, 4],
        note=["x", "y", "z", "x"],
    )
    source = open_matrix(
        write_h5ad(tmp_path / "x.h5ad", COUNTS, obs=obs, var=frame(GENES, symbol=["A", "B", "A"]))
    )
    assert source.sample_table is not None
    assert source.feature_table is not None
    found = categories(source.sample_table, "kind", missing="code")
    assert (found.codes.tolist(), found.names) == ([1, 0, -1, 1], ("a", "b"))
    ages = numbers(source.sample_table, "age", missing="nan")
    assert np.array_equal(ages, obs["age"], equal_nan=True)
    assert integers(source.sample_table, "batch").tolist() == [1, 2, 3, 4]
    assert strings(source.sample_table, "note") == ["x", "y", "z", "x"]
    assert strings(source.feature_table, "symbol") == ["A", "B", "A"]
    with pytest.raises(InputError, match="row 2: age is missing"):
        numbers(source.sample_table, "age")


def test_real_cells_come_back_from_h5ad(shared_data: Path, tmp_path: Path) -> None:
    stored = np.load(shared_data / "cnnc/derived/pbmc68k_reduced_700x765.npz")
    counts = sparse.csr_matrix(stored["counts"])
    obs = frame(tuple(f"cell{i}" for i in range(700)), cell_type=stored["cell_type"])
    path = write_h5ad(tmp_path / "x.h5ad", counts, obs=obs, var=frame(tuple(stored["genes"])))
    source = open_matrix(path)
    assert np.array_equal(gather(source, 50_000), stored["counts"])
    assert source.sample_table is not None
    labels = categories(source.sample_table, "cell_type")
    assert [labels.names[code] for code in labels.codes] == stored["cell_type"].tolist()


def edited(path: Path, name: str, values: Any) -> Path:
    """Replace a data set of the file."""
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = values
    return path


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("X/indptr", [0, 2, 2, 4], "indptr doesn't fit 4 rows"),
        ("X/indptr", [0, 2, 1, 4, 6], "indptr doesn't fit 4 rows"),
        ("X/indptr", [1, 2, 2, 4, 6], "indptr doesn't fit 4 rows"),
        ("X/indptr", [0, 2, 2, 4, 7], "indptr doesn't fit 4 rows"),
        ("X/indptr", [0.0, 2, 2, 4, 6], "is no compressed sparse matrix"),
        ("X/data", [1, 2], "is damaged"),
        ("X/data", [[1, 2]], "is no compressed sparse matrix"),
        ("X/indices", [0, 2, 0, 1, 1, 3], "index 3 of 'c4' is outside the matrix"),
        ("X/indices", [0, 2, 0, 0, 1, 2], "index 0 of 'c3' is there twice"),
        ("X/data", [1, 2, 3, 4, 5, np.inf], "sample 'c4', feature 'g3' is infinite"),
        ("X/data", np.array([b"1"] * 6), "values are of type"),
        ("obs/_index", np.array(["a", "b", "a", "c"], "S"), "sample 'a' is there twice"),
        ("obs/_index", np.array(["a", "b", "c"], "S"), "there are 3 observations"),
        ("var/_index", np.array(["a", "b", "a"], "S"), "feature 'a' is there twice"),
        ("var/_index", np.array(["a", "b", b"\xff"], "S"), "var can't be read"),
        ("obs", [1, 2], "no group 'obs' in the file"),
        ("X", [1, 2], "X is neither a dense, a CSR nor a CSC matrix"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, values: Any, problem: str) -> None:
    path = write_h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(COUNTS))
    if name.endswith("_index"):
        with h5py.File(path, "a") as file:
            attributes = dict(file[name].attrs)
        edited(path, name, [v if isinstance(v, bytes) else str(v) for v in values.tolist()])
        with h5py.File(path, "a") as file:
            file[name].attrs.update(attributes)
    else:
        edited(path, name, values)
    with pytest.raises(InputError, match=problem):
        gather(open_matrix(path))


def test_an_infinite_value_of_csc_is_named_too(tmp_path: Path) -> None:
    values = COUNTS.astype(np.float32)
    values[3, 2] = -np.inf
    path = write_h5ad(tmp_path / "x.h5ad", sparse.csc_matrix(values))
    with pytest.raises(InputError, match="sample 'c4', feature 'g3' is infinite"):
        list(open_matrix(path).blocks(1))


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(COUNTS))
    with h5py.File(path, "a") as file:
        file["X"].attrs["encoding-type"] = "rec-array"
    with pytest.raises(InputError, match=r"X is neither .*\(rec-array\)"):
        open_matrix(path)


def write_cellranger(path: Path, version: int = 3, genomes: tuple[str, ...] = ("mm10",)) -> Path:
    """Write barcodes x features as CSR, which is the file's CSC of features x barcodes."""
    rows = sparse.csr_matrix(COUNTS)
    with h5py.File(path, "w") as file:
        for genome in ("matrix",) if version == 3 else genomes:
            group = file.create_group(genome)
            group["data"], group["indices"] = rows.data, rows.indices.astype(np.int64)
            group["indptr"], group["shape"] = rows.indptr.astype(np.int64), np.array([3, 4], "i4")
            group["barcodes"] = np.array(CELLS, "S")
            if version == 3:
                group["features/id"] = np.array(GENES, "S")
                group["features/name"] = np.array(["A", "B", "A"], "S")
                group["features/feature_type"] = np.array(["Gene Expression"] * 3, "S")
                group["features/genome"] = np.array(["mm10"] * 3, "S")
            else:
                group["genes"] = np.array(GENES, "S")
                group["gene_names"] = np.array(["A", "B", "A"], "S")
    return path


@pytest.mark.parametrize(("version", "columns"), [(3, ("name", "type", "genome")), (2, ("name",))])
def test_barcodes_of_cell_ranger_are_samples(
    tmp_path: Path, version: int, columns: tuple[str, ...]
) -> None:
    source = open_matrix(write_cellranger(tmp_path / "x.h5", version), samples="columns")
    assert (source.samples, source.features) == (CELLS, GENES)
    assert source.sparse
    assert source.dtype == np.int32
    assert np.array_equal(gather(source, 20), COUNTS)
    assert source.feature_table is not None
    assert source.feature_table.columns == columns
    assert strings(source.feature_table, "name") == ["A", "B", "A"]


def test_several_genomes_are_refused(tmp_path: Path) -> None:
    path = write_cellranger(tmp_path / "x.h5", 2, ("hg19", "mm10"))
    with pytest.raises(InputError, match="several genomes in it: hg19, mm10"):
        open_matrix(path)


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("matrix/shape", [4, 3], "there are 3 features and 4 barcodes"),
        ("matrix/barcodes", np.array(["a", "a", "b", "c"], "S"), "sample 'a' is there twice"),
        ("matrix/features/name", np.array(["a"], "S"), "lists under .* differ in length"),
        ("matrix/indptr", [0, 1], "is damaged"),
    ],
)
def test_a_damaged_cell_ranger_file_is_refused(
    tmp_path: Path, name: str, values: Any, problem: str
) -> None:
    path = edited(write_cellranger(tmp_path / "x.h5"), name, values)
    with pytest.raises(InputError, match=problem):
        open_matrix(path)


def test_another_hdf5_file_is_refused_with_the_formats(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a"] = [1]
    with pytest.raises(InputError, match="no Cell Ranger matrix") as caught:
        open_matrix(path)
    assert 'format="h5ad"' in (caught.value.remedy or "")

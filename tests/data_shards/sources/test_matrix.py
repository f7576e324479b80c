"""What holds for matrices of every format: who the samples are, options, and bounded memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_shards.errors import InputError
from data_shards.sources.matrix import Block, matrix_files, open_matrix
from tests.data_shards.sources.matrices import gather, write_gctx

TEXT = {
    "x.tsv": "id\ts1\ts2\ng1\t1\t2\n",
    "x.txt": "id\ts1\ts2\ng1\t1\t2\n",
    "x.csv": "id,s1,s2\ng1,1,2\n",
    "x.gct": "#1.2\n1\t2\nName\tDescription\ts1\ts2\ng1\t\t1\t2\n",
    "x.pcl": "id\ts1\ts2\ng1\t1\t2\n",
    "x.GCT": "#1.2\n1\t2\nName\tDescription\ts1\ts2\ng1\t\t1\t2\n",
}


@pytest.mark.parametrize("name", sorted(TEXT))
def test_the_format_is_told_from_the_extension(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(TEXT[name])
    source = open_matrix(path, samples="columns")
    assert (source.samples, source.features) == (("s1", "s2"), ("g1",))
    assert gather(source).tolist() == [[1], [2]]
    assert matrix_files(path) == source.files == (path,)


@pytest.mark.parametrize("name", ["x.tsv", "x.csv"])
def test_which_axis_holds_the_samples_is_never_guessed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(TEXT[name])
    with pytest.raises(InputError, match="which axis holds the samples is not said") as caught:
        open_matrix(path)
    assert 'samples="columns" if each row is a gene' in (caught.value.remedy or "")
    assert open_matrix(path, samples="rows").samples == ("g1",)


@pytest.mark.parametrize(
    ("name", "contrary", "defined"),
    [
        ("x.gct", "rows", "columns"),
        ("x.pcl", "rows", "columns"),
        ("x.gctx", "rows", "columns"),
        ("x.mtx", "rows", "columns"),
        ("x.h5", "rows", "columns"),
        ("x.h5ad", "columns", "rows"),
    ],
)
def test_what_a_format_defines_can_not_be_contradicted(
    tmp_path: Path, name: str, contrary: Any, defined: str
) -> None:
    path = tmp_path / name
    path.write_text("any")
    with pytest.raises(InputError, match=f"the samples are the {defined}"):
        open_matrix(path, samples=contrary)


@pytest.mark.parametrize(
    ("name", "option", "problem"),
    [
        ("x.gct", {"header": "short"}, "header='short' means nothing for gct"),
        ("x.tsv", {"names": "id"}, "names='id' means nothing for tsv"),
        ("x.tsv", {"layer": "raw"}, "layer='raw' means nothing for tsv"),
        ("x.h5ad", {"dtype": "int64"}, "dtype='int64' means nothing for h5ad"),
        ("x.gctx.gz", {}, "a gzipped gctx file can't be read in place"),
        ("x.xlsx", {}, "tells no format"),
        ("x", {}, "tells no format"),
    ],
)
def test_an_option_without_meaning_is_refused(
    tmp_path: Path, name: str, option: dict[str, Any], problem: str
) -> None:
    path = tmp_path / name
    path.write_text("any")
    with pytest.raises(InputError, match=problem):
        open_matrix(path, **option)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_matrix(tmp_path / "x.gct")


def test_the_format_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "expression"
    path.write_text(TEXT["x.csv"])
    assert open_matrix(path, "csv", "columns").samples == ("s1", "s2")


def test_a_block_knows_its_end() -> None:
    values = np.zeros((2, 5))
    assert Block("samples", 3, values, 0).stop == 5
    assert Block("features", 3, values, 0).stop == 8


def test_a_source_travels_to_another_process(tmp_path: Path) -> None:
    path = tmp_path / "x.gct"
    path.write_text(TEXT["x.gct"])
    assert gather(pickle.loads(pickle.dumps(open_matrix(path)))).tolist() == [[1], [2]]


SAMPLES, FEATURES = 1500, 4000
BUDGET = 1 << 20
MEASURE = """
import json, sys
from pathlib import Path
from data_shards.sources.matrix import open_matrix
def peak():
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024
budget, small, *large = json.loads(sys.argv[1])
def read(path, samples):
    source = open_matrix(Path(path), samples=samples)
    return sum(b.values.shape[0] * b.values.shape[1] for b in source.blocks(budget))
for path, samples in small:  # loads the libraries
    read(path, samples)
grown = {}
for path, samples in large:
    before = peak()
    grown[path] = (read(path, samples), peak() - before)
print(json.dumps(grown))
"""


def write_all(folder: Path, samples: int, features: int) -> list[tuple[str, str | None]]:
    """Write a matrix in every way of storage; return what to open."""
    folder.mkdir()
    values = np.ones((samples, features), np.float32)
    names = [f"s{i}" for i in range(samples)]
    genes = [f"g{i}" for i in range(features)]
    head, row = "\t".join(names), "\t".join(["0.12345"] * samples)
    with (folder / "x.gct").open("w") as text:
        text.write(f"#1.2\n{features}\t{samples}\nName\tDescription\t{head}\n")
        text.writelines(f"{gene}\t\t{row}\n" for gene in genes)
    write_gctx(folder / "x.gctx", values, names, genes, (min(samples, 50), min(features, 100)))
    columns = {"id": names} | {f"g{i}": values[:, 0] for i in range(features)}
    parquet.write_table(pa.table(columns), folder / "x.parquet")
    for major, axis in ((samples, "csr"), (features, "csc")):
        with h5py.File(folder / f"{axis}.h5ad", "w") as file:
            minor = samples * features // major
            file["X/data"] = values.ravel()
            file["X/indices"] = np.tile(np.arange(minor, dtype=np.int32), major)
            file["X/indptr"] = np.arange(major + 1) * minor
            file["X"].attrs.update({"encoding-type": f"{axis}_matrix", "shape": values.shape})
            for side, labels in (("obs", names), ("var", genes)):
                file[f"{side}/_index"] = labels
                file[f"{side}/_index"].attrs["encoding-type"] = "string-array"
                file[f"{side}/_index"].attrs["encoding-version"] = "0.2.0"
                file[side].attrs.update({"_index": "_index", "column-order": np.array([], "S1")})
                file[side].attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
    with (folder / "matrix.mtx").open("w") as text:
        text.write("%%MatrixMarket matrix coordinate integer general\n")
        text.write(f"{features} {samples} {features * samples}\n")
        body = "".join(f"{i + 1} @ 1\n" for i in range(features))
        text.writelines(body.replace("@", str(i + 1)) for i in range(samples))
    (folder / "barcodes.tsv").write_text("\n".join(names))
    (folder / "features.tsv").write_text("\n".join(genes))
    files = ("x.gct", "x.gctx", "csr.h5ad", "csc.h5ad", "matrix.mtx")
    return [*((str(folder / name), None) for name in files), (str(folder / "x.parquet"), "rows")]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read in /proc")
def test_memory_is_bounded_by_the_budget_whatever_the_size_of_the_file(tmp_path: Path) -> None:
    small = write_all(tmp_path / "small", 20, 30)
    large = write_all(tmp_path / "large", SAMPLES, FEATURES)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps([BUDGET, small, *large])],
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    grown = json.loads(done.stdout)
    assert len(grown) == len(large)
    for path, (values, bytes_more) in grown.items():
        # The values alone are 24 MB as float32, and more as text.
        assert values == SAMPLES * FEATURES, path
        assert bytes_more < 16 * BUDGET, path

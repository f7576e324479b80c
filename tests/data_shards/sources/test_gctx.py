"""GCTX files written by h5py after the published layout: COL are samples, stored as rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data_shards.errors import InputError
from data_shards.sources.columns import numbers, strings
from data_shards.sources.hdf5_matrix import DenseMatrix
from data_shards.sources.matrix import open_matrix
from tests.data_shards.sources.matrices import gather, write_gctx

VALUES = np.array([[1, 2, 3], [4, np.nan, 6.5]], dtype=np.float32)
SAMPLES, FEATURES = ["s1", "s2"], ["p1", "p2", "p3"]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i4", "<f2"])
def test_rows_of_the_matrix_are_samples(tmp_path: Path, dtype: str) -> None:
    values = np.nan_to_num(VALUES).astype(dtype)
    source = open_matrix(write_gctx(tmp_path / "x.gctx", values, SAMPLES, FEATURES))
    assert (source.samples, source.features) == (("s1", "s2"), ("p1", "p2", "p3"))
    assert not source.sparse
    assert source.dtype.isnative
    assert source.dtype == (np.float32 if dtype == "<f2" else np.dtype(dtype).newbyteorder("="))
    assert np.array_equal(gather(source), values)


def test_missing_values_are_counted(tmp_path: Path) -> None:
    source = open_matrix(write_gctx(tmp_path / "x.gctx", VALUES, SAMPLES, FEATURES))
    assert np.array_equal(gather(source), VALUES, equal_nan=True)
    assert [block.missing for block in source.blocks()] == [1]


def test_metadata_become_tables_as_they_are_stored(tmp_path: Path) -> None:
    path = write_gctx(
        tmp_path / "x.gctx",
        VALUES,
        SAMPLES,
        FEATURES,
        COL={"cell": np.array([b"A549", b"-666"]), "dose": np.array([0.5, 1.0])},
        ROW={"entrez": np.array([7157, 4609, 1])},
    )
    source = open_matrix(path, samples="columns")
    assert source.sample_table is not None
    assert source.feature_table is not None
    assert strings(source.sample_table, "cell") == ["A549", "-666"]
    assert numbers(source.sample_table, "dose").tolist() == [0.5, 1.0]
    assert strings(source.feature_table, "entrez") == ["7157", "4609", "1"]


def test_real_expression_comes_back_from_gctx(shared_data: Path, tmp_path: Path) -> None:
    stored = np.load(shared_data / "dgex/derived/u133a_chowdary.npz")
    samples = [f"array{i}" for i in range(len(stored["X"]))]
    path = write_gctx(
        tmp_path / "x.gctx", stored["X"], samples, stored["probes"].tolist(), (10, 1000)
    )
    source = open_matrix(path)
    assert source.features == tuple(stored["probes"])
    assert np.array_equal(gather(source, 1 << 20), stored["X"])


def test_repeated_probes_are_kept_when_asked(tmp_path: Path) -> None:
    path = write_gctx(tmp_path / "x.gctx", VALUES, SAMPLES, ["p1", "p2", "p1"])
    assert open_matrix(path, duplicates="keep").features == ("p1", "p2", "p1")
    with pytest.raises(
        InputError, match=r"'p1' is there twice \(entry 1 of .*ROW/id and entry 3 of .*ROW/id\)"
    ):
        open_matrix(path)


@pytest.mark.parametrize(
    ("matrix", "samples", "features", "problem"),
    [
        (VALUES.T, SAMPLES, FEATURES, "transpose the matrix"),
        (VALUES, SAMPLES, FEATURES[:2], "there are 2 samples .COL. and 2 features"),
        (VALUES[0], SAMPLES, FEATURES, "has shape .3,."),
        (VALUES, ["a", "a"], FEATURES, "sample 'a' is there twice"),
        (VALUES, ["a", ""], FEATURES, "a sample has no name"),
        (VALUES.astype("c8"), SAMPLES, FEATURES, "values are of type complex64"),
        (VALUES.astype("S3"), SAMPLES, FEATURES, "values are of type"),
        (VALUES[:0], [], FEATURES, "the matrix has no sample"),
    ],
)
def test_a_matrix_that_does_not_fit_its_names_is_refused(
    tmp_path: Path, matrix: Any, samples: list[str], features: list[str], problem: str
) -> None:
    path = write_gctx(tmp_path / "x.gctx", matrix, samples, features)
    with pytest.raises(InputError, match=problem):
        open_matrix(path)


@pytest.mark.parametrize("gone", ["0/DATA/0/matrix", "0/META/COL/id", "0/META/ROW", "0"])
def test_a_file_without_a_part_is_refused_with_what_is_there(tmp_path: Path, gone: str) -> None:
    path = write_gctx(tmp_path / "x.gctx", VALUES, SAMPLES, FEATURES)
    with h5py.File(path, "a") as file:
        del file[gone]
    with pytest.raises(InputError, match=r"no data set '0/.*' in the file") as caught:
        open_matrix(path)
    assert "there is" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("0/META/COL/cell", np.array([b"a"]), r"0/META/COL/cell has shape \(1,\) where 2 values"),
        ("0/META/COL/cell", np.array([b"\xff", b"a"]), "not UTF-8"),
    ],
)
def test_faulty_metadata_are_refused(tmp_path: Path, name: str, values: Any, problem: str) -> None:
    path = write_gctx(tmp_path / "x.gctx", VALUES, SAMPLES, FEATURES)
    with h5py.File(path, "a") as file:
        file[name] = values
    with pytest.raises(InputError, match=problem):
        open_matrix(path)


def test_an_infinite_value_is_named_by_sample_and_feature(tmp_path: Path) -> None:
    values = np.zeros((200, 3), np.float32)
    values[150, 1] = np.inf
    names = [f"s{i}" for i in range(200)]
    source = open_matrix(write_gctx(tmp_path / "x.gctx", values, names, FEATURES))
    with pytest.raises(InputError, match="sample 's150', feature 'p2' is infinite"):
        list(source.blocks(600))


def test_a_damaged_chunk_is_an_error_and_no_other_value(tmp_path: Path) -> None:
    path = write_gctx(tmp_path / "x.gctx", VALUES, SAMPLES, FEATURES)
    with h5py.File(path, "a") as file:
        del file["0/DATA/0/matrix"]
        big = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
        stored = file.create_dataset(
            "0/DATA/0/matrix", data=big, chunks=(2, 3), compression="gzip", fletcher32=True
        )
        chunk = stored.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="can't be read as HDF5"):
        list(open_matrix(path).blocks())


@pytest.mark.parametrize(
    ("keep", "problem"), [(0.5, "truncated file"), (0, "file signature not found")]
)
def test_a_file_that_is_cut_is_refused(tmp_path: Path, keep: float, problem: str) -> None:
    path = write_gctx(tmp_path / "x.gctx", VALUES, SAMPLES, FEATURES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)] or b"no HDF5")
    with pytest.raises(InputError, match=problem):
        open_matrix(path)


def test_blocks_follow_the_chunks(tmp_path: Path) -> None:
    values = np.arange(400 * 100, dtype=np.float32).reshape(400, 100)
    samples, features = [f"s{i}" for i in range(400)], [f"f{i}" for i in range(100)]
    for chunks, axis, step in (((50, 100), "samples", 50), ((400, 5), "features", 15)):
        path = tmp_path / f"{step}.gctx"
        source = open_matrix(write_gctx(path, values, samples, features, chunks))
        assert isinstance(source, DenseMatrix)
        blocks = list(source.blocks(25_000))
        assert {block.axis for block in blocks} == {axis}
        assert blocks[1].start == step
        assert all(block.values.nbytes <= 25_000 for block in blocks)
        assert np.array_equal(gather(source, 25_000), values)

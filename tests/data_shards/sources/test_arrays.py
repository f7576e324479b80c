"""Arrays against numpy, h5py and scipy, and every refusal with its file and remedy."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_shards.errors import InputError
from data_shards.sources.arrays import ArraySource, onehot_to_codes, open_array

Array = npt.NDArray[Any]
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
DTYPES = st.sampled_from(["uint8", "<i4", ">i4", "float16", "float64", ">f4", "bool", "<U3", "S2"])


def write_matlab73(path: Path, values: Array, name: str = "x") -> None:
    """Write what MATLAB's ``save -v7.3`` does: a block of text, then HDF5 with reversed axes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        dataset = file.create_dataset(name, data=values.T)
        kind = {"float64": "double", "float32": "single"}.get(values.dtype.name, values.dtype.name)
        dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_npz(path: Path, method: int, **arrays: Array) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.save(content, values)
            archive.writestr(f"{name}.npy", content.getvalue())


def write_hdf5(path: Path, values: Array) -> None:
    with h5py.File(path, "w") as file:
        stored = values.astype("S") if values.dtype.kind == "U" else values
        chunks = tuple(-(-n // 2) for n in values.shape)
        file.create_dataset("x", data=stored, chunks=chunks, compression="gzip")


WRITERS: dict[str, Callable[[Path, Array], None]] = {
    "npy": np.save,
    "stored.npz": lambda path, values: write_npz(path, zipfile.ZIP_STORED, x=values),
    "deflated.npz": lambda path, values: write_npz(path, zipfile.ZIP_DEFLATED, x=values),
    "h5": write_hdf5,
}


def check(source: ArraySource, expected: Array, budget: int, cut: tuple[int, int]) -> None:
    """Compare a source with the array that it should be, samples first."""
    assert source.shape == expected.shape
    assert source.dtype == expected.dtype.newbyteorder("=")
    assert np.array_equal(source.rows(*cut), expected[cut[0] : cut[1]])
    at = 0
    for start, block in source.blocks(budget):
        assert start == at
        assert block.dtype == source.dtype
        assert block.flags.c_contiguous
        assert np.array_equal(block, expected[start : start + len(block)])
        assert len(block) == 1 or block.nbytes <= budget
        at += len(block)
    assert at == len(expected)


@pytest.mark.parametrize("extension", WRITERS)
@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_samples_are_what_the_library_reads_whole(
    tmp_path: Path, extension: str, data: st.DataObject
) -> None:
    shape = data.draw(SHAPES)
    dtype = np.dtype(data.draw(DTYPES))
    elements = {
        "U": st.text("abc", max_size=2),
        "S": st.text("abc", max_size=2).map(str.encode),
    }.get(dtype.kind, hnp.from_dtype(dtype, allow_nan=False))
    values = data.draw(hnp.arrays(dtype, shape, elements=elements))
    values = np.asarray(values, order=data.draw(st.sampled_from("CF")))
    path = tmp_path / f"a.{extension}"
    WRITERS[extension](path, values)
    if extension == "h5" and dtype.kind == "U":
        values = values.astype("S")
    axis = data.draw(st.integers(0, len(shape) - 1))
    cut = sorted(data.draw(st.tuples(*[st.integers(0, shape[axis])] * 2)))
    source = open_array(path, sample_axis=axis)
    check(source, np.moveaxis(values, axis, 0), data.draw(st.integers(1, 200)), (cut[0], cut[1]))


@given(
    values=hnp.arrays(
        st.sampled_from(["uint8", "float32", "float64", "int16"]),
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
        elements=st.integers(0, 9),
    ),
    data=st.data(),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_both_formats_of_matlab_give_the_axes_of_matlab(
    tmp_path: Path, values: Array, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, values.ndim - 1))
    budget = data.draw(st.integers(1, 200))
    expected = np.moveaxis(values, axis, 0)
    write_matlab73(tmp_path / "new.mat", values)
    scipy.io.savemat(tmp_path / "old.mat", {"x": values})
    for name in ("new.mat", "old.mat"):
        check(open_array(tmp_path / name, "x", axis), expected, budget, (0, len(expected)))
    with h5py.File(tmp_path / "new.mat") as file:
        assert file["x"].shape == values.shape[::-1]


def test_deepsea_samples_come_first_and_their_channels_next(tmp_path: Path) -> None:
    """As published: h5py shows trainxdata as (1000, 4, N); the channels are A, G, C, T."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 5, (30, 1000)).astype(np.uint8)
    onehot = np.zeros((30, 4, 1000), dtype=np.uint8)
    for channel, letter in enumerate("AGCT"):
        onehot[:, channel] = codes == "ACGT".index(letter)
    labels = rng.integers(0, 2, (30, 919)).astype(np.uint8)
    path = tmp_path / "train.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("trainxdata", data=onehot.transpose(2, 1, 0), chunks=(1000, 4, 4))
        file.create_dataset("traindata", data=labels.T, chunks=(919, 4))
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    source = open_array(path, "trainxdata")
    assert source.shape == (30, 4, 1000)
    blocks = list(source.blocks(4000 * 9))
    assert [start for start, _ in blocks] == [0, 8, 16, 24]  # whole chunks of 4 samples
    found = np.concatenate([onehot_to_codes(block, "AGCT") for _, block in blocks])
    assert np.array_equal(found, codes)
    assert np.array_equal(open_array(path, "traindata").rows(3, 17), labels[3:17])


def test_memory_is_bounded_by_the_budget(tmp_path: Path) -> None:
    values = np.zeros((4000, 4, 500), dtype=np.uint8)  # 8 MB
    write_npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, x=values)
    np.save(tmp_path / "a.npy", values)
    write_matlab73(tmp_path / "a.mat", values)
    for name in ("a.npz", "a.npy", "a.mat"):
        source = open_array(tmp_path / name)
        tracemalloc.start()
        total = sum(len(block) for _, block in source.blocks(1 << 18))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == 4000
        assert peak < (1 << 18) * 4 + (1 << 20), name


def test_the_cache_holds_the_chunks_of_a_block_that_is_smaller_than_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(64 * 10000, dtype=np.float32).reshape(64, 10000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(3, 10000), compression="gzip")
    caches = []
    opened = h5py.File

    def spy(*args: Any, **options: Any) -> h5py.File:
        caches.append(options["rdcc_nbytes"])
        return opened(*args, **options)

    source = open_array(tmp_path / "a.h5", "x", sample_axis=1)
    monkeypatch.setattr(h5py, "File", spy)
    blocks = list(source.blocks(64 * 4 * 1000))
    assert (source.chunk, len(blocks)) == (10000, 10)
    assert np.array_equal(np.concatenate([b for _, b in blocks]), values.T)
    assert caches == [22 * 3 * 10000 * 4]  # 64 rows lie in 22 chunks of 3


def test_real_npz_files_are_what_numpy_reads(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("*/derived/*.npz"))
    assert len(paths) > 15
    seen = 0
    for path in paths:
        with np.load(path) as whole:
            for name in whole.files:
                expected = whole[name]
                if expected.nbytes > 6_000_000:
                    continue
                if expected.ndim == 0:
                    with pytest.raises(InputError, match="no axis 0 for the samples"):
                        open_array(path, name)
                    continue
                source = open_array(path, name)
                found = np.concatenate([block for _, block in source.blocks(1 << 21)])
                assert np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")
                assert found.dtype == expected.dtype
                seen += 1
    assert seen > 60


def test_a_real_hdf5_file_is_what_h5py_reads(shared_data: Path) -> None:
    path = shared_data / "deepfigv" / "haps.h5"
    with h5py.File(path) as file:
        expected = file["chr22"][:20_003]
    source = open_array(path, "chr22")
    assert (source.shape, source.chunk) == ((247303, 120), 10)
    assert np.array_equal(source.rows(0, 20_003), expected)
    people = open_array(path, "chr22", sample_axis=1)
    assert people.shape == (120, 247303)
    assert np.array_equal(people.rows(7, 9)[:, :20_003], expected.T[7:9])
    with pytest.raises(InputError, match=r"'samples_chr22' holds \[\('name'"):
        open_array(path, "samples_chr22")


def test_values_that_a_real_file_lacks_are_not_taken_for_zero(shared_data: Path) -> None:
    path = shared_data / "deepfigv" / "read_counts.18505.h5"
    assert open_array(path, "chr22").shape == (51304566,)
    with pytest.raises(InputError, match="951 of 951 chunks of data set 'chr1' were never written"):
        open_array(path, "chr1")


def save(path: Path, values: Array, **options: Any) -> Path:
    np.save(path, values, **options)
    return path


def npz(path: Path, method: int = zipfile.ZIP_DEFLATED, **arrays: Array) -> Path:
    write_npz(path, method, **arrays)
    return path


def cut_file(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def hdf5(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def flip(path: Path, at: int) -> Path:
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(bytes(content))
    return path


def matlab5(path: Path, **arrays: Any) -> Path:
    scipy.io.savemat(path, arrays)
    return path


ONE = np.arange(1000.0).reshape(100, 10)
BAD_FILES: list[tuple[str, Callable[[Path], Path], str | None, int, str, str]] = [
    ("absent", lambda d: d / "a.npy", None, 0, "no such file", "exists"),
    ("folder", lambda d: d, None, 0, "is a directory", "exists"),
    ("empty", lambda d: raw(d / "a.npy", b""), None, 0, "no array file", ".npy"),
    ("text", lambda d: raw(d / "a.npy", b"1,2,3\n"), None, 0, "no array file", "HDF5"),
    ("gzip", lambda d: raw(d / "a.npy.gz", gzip.compress(b"x")), None, 0, "no array", ".npy"),
    ("npy cut", lambda d: cut_file(save(d / "a.npy", ONE), 999), None, 0, "at byte 999", "again"),
    ("npy header", lambda d: cut_file(save(d / "a.npy", ONE), 30), None, 0, "header", "again"),
    ("npy version", lambda d: flip(save(d / "a.npy", ONE), 6), None, 0, "header", "again"),
    (
        "npy shape",
        lambda d: raw(
            d / "a.npy", save(d / "b.npy", ONE).read_bytes().replace(b"(100, 10),", b"(-100,-10)")
        ),
        None,
        0,
        "header of the array",
        "again",
    ),
    (
        "npy bracket",
        lambda d: raw(d / "a.npy", save(d / "b.npy", ONE).read_bytes().replace(b"}", b"(")),
        None,
        0,
        "header of the array",
        "again",
    ),
    (
        "npy more",
        lambda d: raw(d / "b.npy", save(d / "a.npy", ONE).read_bytes() * 2),
        None,
        0,
        "but the file at byte 16,256",
        "one array",
    ),
    ("npy name", lambda d: save(d / "a.npy", ONE), "x", 0, "array 'x' is asked for", "leave"),
    (
        "npy pickle",
        lambda d: save(d / "a.npy", np.array([{}, 1])),
        None,
        0,
        "holds object",
        "run code",
    ),
    ("npy records", lambda d: save(d / "a.npy", np.zeros(3, "i4,f8")), None, 0, "holds", "plain"),
    ("npy complex", lambda d: save(d / "a.npy", ONE + 1j), None, 0, "holds complex128", "real"),
    ("npy dates", lambda d: save(d / "a.npy", np.zeros(3, "M8[s]")), None, 0, "datetime", "real"),
    ("npy scalar", lambda d: save(d / "a.npy", np.array(3)), None, 0, "shape ()", "sample_axis"),
    ("axis", lambda d: save(d / "a.npy", ONE), None, 2, "no axis 2", "counted from 0"),
    ("negative axis", lambda d: save(d / "a.npy", ONE), None, -1, "no axis -1", "from 0"),
    ("no samples", lambda d: save(d / "a.npy", ONE[:0]), None, 0, "(0, 10): no value", "another"),
    ("no values", lambda d: save(d / "a.npy", ONE[:, :0]), None, 0, "no value", "another"),
    ("npz two", lambda d: npz(d / "a.npz", x=ONE, y=ONE), None, 0, "which of the 2", "x, y"),
    ("npz name", lambda d: npz(d / "a.npz", x=ONE, y=ONE), "z", 0, "'z' is not in", "x, y"),
    ("npz none", lambda d: npz(d / "a.npz"), None, 0, "no array in the file", "another"),
    ("npz cut", lambda d: cut_file(npz(d / "a.npz", x=ONE), 999), None, 0, "damaged", "again"),
    ("npz pickle", lambda d: npz(d / "a.npz", x=np.array([None])), "x", 0, "object", "run code"),
    (
        "npz stored bad",
        lambda d: flip(npz(d / "a.npz", zipfile.ZIP_STORED, x=ONE), 999),
        None,
        0,
        "damaged .npz (Bad CRC-32",
        "again",
    ),
    (
        "h5 two",
        lambda d: hdf5(d / "a.h5", lambda f: [f.create_dataset(n, data=ONE) for n in "pq"]),
        None,
        0,
        "which of the 2",
        "p, q",
    ),
    (
        "h5 name",
        lambda d: hdf5(d / "a.h5", lambda f: f.create_dataset("g/p", data=ONE)),
        "p",
        0,
        "array 'p' is not in",
        "g/p",
    ),
    (
        "h5 none",
        lambda d: hdf5(d / "a.h5", lambda f: f.create_group("g")),
        None,
        0,
        "no array",
        "another",
    ),
    (
        "h5 cut",
        lambda d: cut_file(hdf5(d / "a.h5", lambda f: f.create_dataset("p", data=ONE)), 4000),
        None,
        0,
        "damaged HDF5",
        "again",
    ),
    (
        "h5 text",
        lambda d: hdf5(d / "a.h5", lambda f: f.create_dataset("p", data=["a"])),
        None,
        0,
        "text of variable width",
        "fixed width",
    ),
    (
        "h5 records",
        lambda d: hdf5(
            d / "a.h5", lambda f: f.create_dataset("p", (3,), "i4,f8", data=np.ones(3, "i4,f8"))
        ),
        None,
        0,
        "holds [('f0'",
        "plain",
    ),
    (
        "h5 null",
        lambda d: hdf5(d / "a.h5", lambda f: f.create_dataset("p", data=h5py.Empty("f4"))),
        None,
        0,
        "has no value",
        "another",
    ),
    (
        "h5 unwritten",
        lambda d: hdf5(d / "a.h5", lambda f: f.create_dataset("p", (9, 9), "f4")),
        None,
        0,
        "1 of 1 chunks of data set 'p' were never written; HDF5 would read them as 0.0",
        "write the missing",
    ),
    (
        "h5 part",
        lambda d: hdf5(
            d / "a.h5",
            lambda f: f.create_dataset("p", (4, 4), "i4", chunks=(2, 2)).__setitem__(0, 1),
        ),
        None,
        0,
        "2 of 4 chunks",
        "write the missing",
    ),
    (
        "h5 outside",
        lambda d: hdf5(
            d / "a.h5",
            lambda f: f.create_dataset("p", (9,), "u1", external=[(str(d / "raw.bin"), 0, 9)]),
        ),
        None,
        0,
        "lie in other files",
        "h5repack",
    ),
    (
        "h5 cell",
        lambda d: hdf5(
            d / "a.h5",
            lambda f: f.create_dataset("p", data=ONE).attrs.create(
                "MATLAB_class", np.bytes_("char")
            ),
        ),
        None,
        0,
        "MATLAB's class char",
        "double",
    ),
    ("mat two", lambda d: matlab5(d / "a.mat", p=ONE, q=ONE), None, 0, "which of the 2", "p, q"),
    ("mat text", lambda d: matlab5(d / "a.mat", p="text"), None, 0, "class char", "double"),
    (
        "mat cut",
        lambda d: cut_file(matlab5(d / "a.mat", p=ONE), 160),
        None,
        0,
        "damaged MATLAB",
        "again",
    ),
]


@pytest.mark.parametrize(
    ("make", "name", "axis", "problem", "remedy"),
    [case[1:] for case in BAD_FILES],
    ids=[case[0] for case in BAD_FILES],
)
def test_what_cannot_be_read_is_refused_before_reading(
    tmp_path: Path,
    make: Callable[[Path], Path],
    name: str | None,
    axis: int,
    problem: str,
    remedy: str,
) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        open_array(path, name, axis)
    assert problem in str(caught.value)
    assert remedy in (caught.value.remedy or "")
    assert caught.value.path == path


def test_damage_within_is_an_error_of_input(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (1000, 100)).astype(np.uint8)
    deflated = npz(tmp_path / "a.npz", x=values)
    packed = hdf5(
        tmp_path / "a.h5",
        lambda f: f.create_dataset("x", data=values, chunks=(100, 100), compression="gzip"),
    )
    for path, at in ((deflated, 50_000), (packed, 50_000)):
        source = open_array(flip(path, at))
        with pytest.raises(InputError, match="damaged") as caught:
            list(source.blocks(10_000))
        assert caught.value.path == path
    complex_numbers = matlab5(tmp_path / "c.mat", x=ONE + 1j)
    with pytest.raises(InputError, match="holds complex numbers"):
        open_array(complex_numbers).rows(0, 1)


def test_a_wrong_checksum_of_a_compressed_member_is_found_at_its_end(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=ONE)
    with zipfile.ZipFile(path) as archive:
        checksum = archive.infolist()[0].CRC.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(checksum, b"\x01\x02\x03\x04"))
    source = open_array(path)
    with pytest.raises(InputError, match="Bad CRC-32"):
        list(source.blocks())


def test_rows_outside_the_array_are_refused(tmp_path: Path) -> None:
    source = open_array(save(tmp_path / "a.npy", ONE))
    assert source.rows(5, 5).shape == (0, 10)
    for start, stop in ((-1, 3), (0, 101), (7, 6)):
        with pytest.raises(InputError, match="where there are 100"):
            source.rows(start, stop)


@given(
    codes=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 4)
    ),
    channels=st.permutations("ACGT").map("".join),
    axis=st.sampled_from([1, 2]),
    dtype=st.sampled_from([np.uint8, np.bool_, np.float32]),
)
def test_codes_survive_one_hot(
    codes: Array, channels: str, axis: int, dtype: type[np.generic]
) -> None:
    letters = np.array(list("ACGTN"))[codes]
    onehot = np.stack([(letters == c).astype(dtype) for c in channels], axis=axis)
    found = onehot_to_codes(onehot, channels, axis)
    assert found.dtype == np.uint8
    assert np.array_equal(found, codes)


@pytest.mark.parametrize(
    "values", [[1, 1, 0, 0], [0, 2, 0, 0], [0.25] * 4, [np.nan, 0, 0, 1], [1, 0, -1, 0]]
)
def test_what_is_not_one_hot_is_refused_with_its_place(values: list[float]) -> None:
    onehot = np.zeros((5, 4, 9))
    onehot[:, 0] = 1
    onehot[3, :, 6] = values
    with pytest.raises(InputError, match="sample 103, position 6") as caught:
        onehot_to_codes(onehot, first=100)
    assert str([float(v) for v in values]) in str(caught.value)


def test_channels_and_their_axis_must_be_those_of_dna() -> None:
    block = np.zeros((5, 4, 9), dtype=np.uint8)
    with pytest.raises(InputError, match="channels are 'ACGG'"):
        onehot_to_codes(block, "ACGG")
    for axis in (0, 2, 3, -1):
        with pytest.raises(InputError, match="has not the four channels"):
            onehot_to_codes(block, axis=axis)

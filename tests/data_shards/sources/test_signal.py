"""Signal tracks against pyBigWig and a loop over bases; damaged files of every kind refused."""

from __future__ import annotations

import gzip
import math
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybigtools
import pyBigWig
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.intervals import Intervals
from data_shards.sources.signal import (
    BedGraph,
    Summary,
    bedgraph,
    bin_values,
    binned,
    open_bigwig,
    read_signal,
    scan_bigwig,
    to_dtype,
)

CONTIGS = Contigs(("chr1", "chr2"), (3000, 500))
SUMMARIES: tuple[Summary, ...] = ("mean", "sum", "max", "min")
Run = tuple[str, int, int, float]


def write_pybigtools(path: Path, runs: list[Run], lengths: dict[str, int]) -> Path:
    pybigtools.open(str(path), "w").write(lengths, runs)
    return path


def write_pybigwig(path: Path, runs: list[Run], lengths: dict[str, int]) -> Path:
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(lengths.items()))
        for contig in lengths:
            mine = [run for run in runs if run[0] == contig]
            if mine:
                names, starts, ends, values = (list(column) for column in zip(*mine, strict=True))
                file.addEntries(names, starts, ends=ends, values=values)
    return path


WRITERS = [write_pybigtools, write_pybigwig]
LENGTHS = dict(zip(CONTIGS.names, CONTIGS.lengths, strict=True))


def make_runs(seed: int, lengths: dict[str, int] = LENGTHS) -> list[Run]:
    rng = np.random.default_rng(seed)
    runs: list[Run] = []
    for contig, length in lengths.items():
        edges = np.unique(rng.integers(0, length + 1, 300))
        keep = rng.random(len(edges) - 1) < 0.6
        runs += [
            (contig, int(lo), int(hi), float(np.float32(rng.normal())))
            for lo, hi, kept in zip(edges[:-1], edges[1:], keep, strict=True)
            if kept
        ]
    return runs


def as_intervals(runs: list[Run]) -> Intervals:
    return Intervals(
        np.array([CONTIGS.index[r[0]] for r in runs], dtype=np.int32),
        np.array([r[1] for r in runs], dtype=np.int64),
        np.array([r[2] for r in runs], dtype=np.int64),
        np.zeros(len(runs), dtype=np.int8),
        np.array([r[3] for r in runs], dtype=np.float64),
    )


def naive_bins(
    values: npt.NDArray[np.float32], size: int, summary: Summary, missing: float | None
) -> list[float]:
    bins = []
    for lo in range(0, len(values), size):
        bases = []
        for value in values[lo : lo + size].tolist():
            if not math.isnan(value):
                bases.append(value)
            elif missing is not None:
                bases.append(missing)
        if not bases:
            bins.append(math.nan)
        elif summary == "max":
            bins.append(max(bases))
        elif summary == "min":
            bins.append(min(bases))
        else:
            bins.append(math.fsum(bases) / (len(bases) if summary == "mean" else 1))
    return bins


@given(
    values=st.lists(st.one_of(st.just(math.nan), st.floats(-1e6, 1e6, width=32)), max_size=60),
    size=st.integers(1, 70),
    summary=st.sampled_from(SUMMARIES),
    missing=st.sampled_from([None, 0.0, -2.5]),
)
@settings(deadline=None)
def test_bins_are_those_of_a_loop_over_bases(
    values: list[float], size: int, summary: Summary, missing: float | None
) -> None:
    bases = np.array(values, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = bin_values(bases, size, summary, missing)
    naive = np.array(naive_bins(bases, size, summary, missing))
    assert mine.dtype == np.float64
    assert mine.shape == (math.ceil(len(values) / size),)
    np.testing.assert_allclose(mine, naive, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("write", WRITERS)
def test_base_values_are_those_of_pybigwig(
    tmp_path: Path, write: Callable[[Path, list[Run], dict[str, int]], Path]
) -> None:
    path = write(tmp_path / "x.bw", make_runs(1), LENGTHS)
    header = scan_bigwig(path, CONTIGS, Naming())
    with open_bigwig(header) as track, pyBigWig.open(str(path)) as oracle:
        for number, (name, length) in enumerate(LENGTHS.items()):
            for start, stop in [(0, length), (17, 203), (length - 1, length), (5, 5)]:
                mine = read_signal(track, number, start, stop)
                assert mine.dtype == np.float32
                assert mine.shape == (stop - start,)
                expected = oracle.values(name, start, stop) if start < stop else []
                np.testing.assert_array_equal(mine, np.array(expected, dtype=np.float32))


@pytest.mark.parametrize("summary", SUMMARIES)
def test_bins_are_exact_where_zoom_levels_exist(tmp_path: Path, summary: Summary) -> None:
    length = 200_000
    rng = np.random.default_rng(3)
    values = rng.normal(size=length).astype(np.float32)
    path = tmp_path / "dense.bigWig"
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader([("chr1", length)])
        file.addEntries("chr1", 0, values=values.tolist(), span=1, step=1)
    assert pybigtools.open(str(path)).zooms()
    header = scan_bigwig(path, Contigs(("chr1",), (length,)), Naming())
    with open_bigwig(header) as track:
        mine = binned(track, 0, 0, length, 128, summary)
    exact = np.array(naive_bins(values, 128, summary, None), dtype=np.float32)
    np.testing.assert_allclose(mine, exact, rtol=2e-7, atol=1e-6)
    assert len(mine) == math.ceil(length / 128)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("missing", [None, 0.0])
@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_bedgraph_and_its_bigwig_give_the_same_bins_to_the_bit(
    tmp_path: Path,
    write: Callable[[Path, list[Run], dict[str, int]], Path],
    missing: float | None,
    summary: Summary,
) -> None:
    runs = make_runs(2)
    path = write(tmp_path / "x.bw", runs, LENGTHS)
    shuffled = [runs[i] for i in np.random.default_rng(0).permutation(len(runs))]
    text = bedgraph(as_intervals(shuffled), CONTIGS, tmp_path / "x.bedGraph")
    with open_bigwig(scan_bigwig(path, CONTIGS, Naming())) as track:
        for contig, start, stop, size in [(0, 0, 3000, 7), (0, 1, 2999, 512), (1, 333, 500, 64)]:
            mine = binned(text, contig, start, stop, size, summary, missing)
            other = binned(track, contig, start, stop, size, summary, missing)
            assert mine.dtype == np.float32
            assert mine.tobytes() == other.tobytes()


@given(seed=st.integers(0, 10_000), start=st.integers(0, 499), size=st.integers(1, 501))
@settings(deadline=None)
def test_any_stretch_of_a_bedgraph_is_what_its_intervals_say(
    seed: int, start: int, size: int
) -> None:
    runs = make_runs(seed)[::-1]
    stop = min(start + size, 500)
    expected = np.full(500, np.nan, dtype=np.float32)
    for contig, lo, hi, value in runs:
        if contig == "chr2":
            expected[lo:hi] = value
    track = bedgraph(as_intervals(runs), CONTIGS, Path("x.bedGraph"))
    np.testing.assert_array_equal(read_signal(track, 1, start, stop), expected[start:stop])


def test_missing_bases_count_only_where_the_caller_gives_them_a_value() -> None:
    track = bedgraph(as_intervals([("chr2", 490, 494, 6.0)]), CONTIGS, Path("x.bedGraph"))
    nan = math.nan
    for summary, missing, expected in [
        ("mean", None, [nan, 6.0, nan]),
        ("mean", 0.0, [0.0, 3.0, 0.0]),
        ("sum", None, [nan, 24.0, nan]),
        ("sum", 0.0, [0.0, 24.0, 0.0]),
        ("min", None, [nan, 6.0, nan]),
        ("min", 0.0, [0.0, 0.0, 0.0]),
        ("max", 9.0, [9.0, 9.0, 9.0]),
    ]:
        mine = binned(track, 1, 482, 500, 8, summary, missing)  # type: ignore[arg-type]
        np.testing.assert_array_equal(mine, np.array(expected, dtype=np.float32), summary)


def test_the_short_last_bin_of_a_contig_is_divided_by_its_own_size() -> None:
    track = bedgraph(as_intervals([("chr2", 496, 498, 8.0)]), CONTIGS, Path("x.bedGraph"))
    assert binned(track, 1, 480, 500, 16, "mean", 0.0).tolist() == [0.0, 4.0]


def test_many_blocks_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    track = bedgraph(as_intervals(make_runs(5)), CONTIGS, Path("x.bedGraph"))
    whole = binned(track, 0, 3, 3000, 13, "mean")
    monkeypatch.setattr("data_shards.sources.signal._BLOCK_BASES", 100)
    assert binned(track, 0, 3, 3000, 13, "mean").tobytes() == whole.tobytes()
    assert len(binned(track, 0, 7, 7, 13, "mean")) == 0


def test_contigs_that_the_file_lacks_are_reported_and_have_no_value(tmp_path: Path) -> None:
    path = write_pybigtools(tmp_path / "x.bw", [("2", 1, 3, 5.0)], {"2": 500})
    header = scan_bigwig(path, CONTIGS, Naming("add-chr"))
    assert header.absent == ("chr1",)
    assert header.names == (None, "2")
    with open_bigwig(pickle.loads(pickle.dumps(header))) as track:
        assert np.isnan(read_signal(track, 0, 0, 10)).all()
        assert binned(track, 0, 0, 10, 5, "mean", 0.0).tolist() == [0.0, 0.0]
        assert read_signal(track, 1, 0, 4).tolist()[1:3] == [5.0, 5.0]


def test_the_extension_of_a_bigwig_does_not_matter(tmp_path: Path) -> None:
    path = write_pybigtools(tmp_path / "x.bw", make_runs(1), LENGTHS)
    other = path.rename(tmp_path / "ENCFF000AAA")
    with open_bigwig(scan_bigwig(other, CONTIGS, Naming())) as track:
        assert not np.isnan(read_signal(track, 0, 0, 3000)).all()


def test_a_stated_nan_is_no_value_and_infinity_is_refused(tmp_path: Path) -> None:
    runs = [("chr1", 5, 6, math.nan), ("chr1", 7, 9, math.inf)]
    path = write_pybigtools(tmp_path / "x.bw", runs, LENGTHS)
    with open_bigwig(scan_bigwig(path, CONTIGS, Naming())) as track:
        assert np.isnan(read_signal(track, 0, 0, 7)).all()
        with pytest.raises(InputError, match=r"chr1:7-8 \(0-based\): inf does not fit") as caught:
            binned(track, 0, 0, 100, 10, "mean")
    assert caught.value.path == path


def test_a_sum_beyond_float32_is_refused() -> None:
    runs = [("chr2", 0, 200, 3e38)]
    track = bedgraph(as_intervals(runs), CONTIGS, Path("x.bedGraph"))
    with pytest.raises(InputError, match=r"chr2:100-150 \(0-based\): 1\.5e\+40 does not fit float"):
        binned(track, 1, 100, 200, 50, "sum")


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, 501)])
def test_a_stretch_outside_the_contig_is_no_data(start: int, stop: int) -> None:
    track = bedgraph(as_intervals(make_runs(1)), CONTIGS, Path("x.bedGraph"))
    with pytest.raises(ValueError, match="is not within contig 'chr2'"):
        read_signal(track, 1, start, stop)


def test_a_bin_has_at_least_one_base() -> None:
    track = bedgraph(as_intervals(make_runs(1)), CONTIGS, Path("x.bedGraph"))
    with pytest.raises(ValueError, match="a bin of 0 bases"):
        binned(track, 1, 0, 5, 0, "mean")


def test_what_overflows_a_narrow_type_is_named_and_never_clipped(tmp_path: Path) -> None:
    values = np.array([1.0, math.nan, 65504.0, 70000.5], dtype=np.float32)
    fine = to_dtype(values[:3], np.float16, tmp_path, "chr1", 100, 128)
    assert fine.dtype == np.float16
    np.testing.assert_array_equal(fine, np.array([1.0, math.nan, 65504.0], dtype=np.float16))
    with (
        warnings.catch_warnings(),
        pytest.raises(InputError, match=r"chr1:484-612 \(0-based\): 70000\.5 does not") as caught,
    ):
        warnings.simplefilter("error")
        to_dtype(values, np.dtype("float16"), tmp_path / "x.bw", "chr1", 100, 128)
    assert caught.value.path == tmp_path / "x.bw"
    assert "scale" in (caught.value.remedy or "")
    with pytest.raises(InputError, match=r"-70000\.5 does not fit float16"):
        to_dtype(-values[3:], np.float16, tmp_path, "chr1", 0)


def test_overlapping_bedgraph_intervals_are_both_named() -> None:
    runs = [("chr1", 50, 60, 1.0), ("chr2", 5, 9, 1.0), ("chr1", 20, 51, 2.0)]
    with pytest.raises(InputError) as caught:
        bedgraph(as_intervals(runs), CONTIGS, Path("x.bedGraph"))
    assert "record 3 (chr1:20-51) and record 1 (chr1:50-60) overlap" in str(caught.value)
    assert caught.value.path == Path("x.bedGraph")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
def test_a_bedgraph_value_is_a_finite_float32(value: float) -> None:
    with pytest.raises(InputError, match=r"the value of record 2 \(chr1:8-9\) is") as caught:
        bedgraph(
            as_intervals([("chr1", 1, 2, 1.0), ("chr1", 8, 9, value)]), CONTIGS, Path("x.bedGraph")
        )
    assert "finite" in (caught.value.remedy or "")


def test_a_bedgraph_without_intervals_has_no_value() -> None:
    empty: BedGraph = bedgraph(as_intervals([]), CONTIGS, Path("x.bedGraph"))
    assert np.isnan(read_signal(empty, 1, 0, 500)).all()


@pytest.mark.parametrize(
    ("lengths", "naming", "problem", "remedy"),
    [
        ({"chr1": 3001}, Naming(), "'chr1' has 3,001 bp, but 'chr1' has 3,000 bp", "assembly"),
        ({"1": 3000}, Naming(), "contig '1' is not in the reference", "add-chr"),
        ({"chr1": 3000, "chrUn": 9}, Naming(), "contig 'chrUn' is not in the", "the FASTA has"),
        (
            {"chr1": 3000, "one": 3000},
            Naming("same", (("one", "chr1"),)),
            "'chr1' and 'one' both mean contig 'chr1'",
            "renames",
        ),
    ],
)
def test_a_bigwig_of_another_reference_is_refused(
    tmp_path: Path, lengths: dict[str, int], naming: Naming, problem: str, remedy: str
) -> None:
    # pybigtools leaves contigs without values out of the table
    runs = [(name, 1, 2, 1.0) for name in lengths]
    path = write_pybigtools(tmp_path / "x.bw", runs, lengths)
    with pytest.raises(InputError) as caught:
        scan_bigwig(path, CONTIGS, naming)
    assert problem in str(caught.value)
    assert remedy in (caught.value.remedy or "")
    assert caught.value.path == path


def flip(at: int) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        return raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]

    return change


def index_at(raw: bytes) -> int:
    return int(struct.unpack_from("<Q", raw, 24)[0])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: b"", "not a bigWig file: it begins with b''"),
        (lambda raw: b"chr1\t1\t5\t0.5\n", "not a bigWig file: it begins with b'chr1'"),
        (gzip.compress, "not a bigWig file"),
        (lambda raw: raw[:50], "the bigWig file is truncated"),
        (lambda raw: raw[: len(raw) // 2], "the bigWig file is truncated"),
        (lambda raw: raw[:-1], "the bigWig file is truncated"),
        (lambda raw: raw[: index_at(raw) + 60] + raw[-4:], "damaged file: it refers to byte"),
        (lambda raw: raw[:8] + b"\xff" * 8 + raw[16:], "damaged file: it refers to byte"),
        (flip(24), "damaged file"),
        (lambda raw: flip(struct.unpack_from("<Q", raw, 16)[0] + 60)(raw), "the data block at"),
        (lambda raw: flip(index_at(raw) + 48 + 2)(raw), "damaged file"),
        (lambda raw: flip(index_at(raw) + 48 + 4 + 4)(raw), "the index is wrong about chr1"),
        (lambda raw: flip(index_at(raw) + 48 + 4 + 20)(raw), "damaged file"),
        (lambda raw: flip(struct.unpack_from("<Q", raw, 8)[0] + 8)(raw), "damaged file"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_before_it_is_read(
    tmp_path: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    path = write_pybigwig(tmp_path / "x.bw", make_runs(1), LENGTHS)
    scan_bigwig(path, CONTIGS, Naming())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        scan_bigwig(path, CONTIGS, Naming())
    assert problem in str(caught.value)
    assert caught.value.path == path
    assert caught.value.remedy


def test_a_bigbed_is_not_taken_for_a_bigwig(tmp_path: Path) -> None:
    path = tmp_path / "x.bb"
    pybigtools.open(str(path), "w").write(LENGTHS, [("chr1", 1, 5, "n")])
    with pytest.raises(InputError, match="this is a bigBed file, not bigWig") as caught:
        scan_bigwig(path, CONTIGS, Naming())
    assert "give it as bigBed" in (caught.value.remedy or "")


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_damaged_byte_changes_values_without_an_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = write_pybigwig(tmp_path / "x.bw", make_runs(4), LENGTHS)
    raw = path.read_bytes()

    def read() -> list[bytes]:
        with open_bigwig(scan_bigwig(path, CONTIGS, Naming())) as track:
            return [read_signal(track, i, 0, n).tobytes() for i, n in enumerate(CONTIGS.lengths)]

    whole = read()
    path.write_bytes(flip(data.draw(st.integers(0, len(raw) - 1)))(raw))
    try:
        assert read() == whole
    except InputError as error:
        assert error.path == path


def test_a_file_that_moved_after_the_scan_is_an_input_error(tmp_path: Path) -> None:
    path = write_pybigwig(tmp_path / "x.bw", make_runs(4), LENGTHS)
    header = scan_bigwig(path, CONTIGS, Naming())
    path.unlink()
    with pytest.raises(InputError, match="can't be opened"), open_bigwig(header):
        pass


def test_an_error_of_the_caller_passes_through_unchanged(tmp_path: Path) -> None:
    path = write_pybigwig(tmp_path / "x.bw", make_runs(4), LENGTHS)
    with pytest.raises(KeyError), open_bigwig(scan_bigwig(path, CONTIGS, Naming())):
        raise KeyError("mine")


def test_values_beyond_the_end_of_a_contig_are_refused(tmp_path: Path) -> None:
    path = write_pybigtools(tmp_path / "x.bw", [("chr1", 2990, 3000, 1.0)], {"chr1": 3000})
    raw = path.read_bytes()
    at = raw.index(struct.pack("<II", 0, 3000))  # number and length in the contig table
    path.write_bytes(raw[:at] + struct.pack("<II", 0, 2995) + raw[at + 8 :])
    with pytest.raises(InputError, match=r"values at chr1:2990-3000 .* has 2,995 bp"):
        scan_bigwig(path, Contigs(("chr1",), (2995,)), Naming())

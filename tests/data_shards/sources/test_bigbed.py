"""bigBed against pyBigWig's records; columns by what the file declares, and every refusal."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pybigtools
import pyBigWig
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.bigbed import stream_bigbed
from data_shards.sources.intervals import Intervals

CONTIGS = Contigs(("chr1", "chr2"), (4000, 500))
LENGTHS = dict(zip(CONTIGS.names, CONTIGS.lengths, strict=True))
Record = tuple[str, int, int, str]


def write(
    path: Path,
    records: list[Record],
    fields: int,
    defined: int | None = None,
    lengths: dict[str, int] | None = None,
) -> Path:
    """Write by pybigtools, which declares three columns always; then declare the true number."""
    pybigtools.open(str(path), "w").write(lengths or LENGTHS, records)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<HH", raw, 32, fields, fields if defined is None else defined)
    path.write_bytes(raw)
    return path


def read(path: Path, naming: Naming | None = None, rows: int = 1 << 16) -> Intervals:
    blocks = list(stream_bigbed(path, CONTIGS, naming or Naming(), rows))
    return Intervals(
        *(
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("contig", "start", "end", "strand", "score")
        )
    )


def make_records(count: int, seed: int = 0) -> list[Record]:
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.integers(0, 3900, count))
    return [
        ("chr1", int(s), int(s + rng.integers(1, 100)), f"n {i}\t{rng.integers(0, 1000)}\t{c}\t\tx")
        for i, (s, c) in enumerate(zip(starts, rng.choice(list("+-."), count), strict=True))
    ] + [("chr2", 4, 9, "\t2.5\t-\tb\t")]


@pytest.mark.parametrize("rows", [1, 7, 1 << 16])
def test_records_are_those_of_pybigwig(tmp_path: Path, rows: int) -> None:
    path = write(tmp_path / "x.bb", make_records(3000), fields=8, defined=6)
    mine = read(path, rows=rows)
    with pyBigWig.open(str(path)) as file:
        oracle = [(c, *e) for c, n in LENGTHS.items() for e in file.entries(c, 0, n)]
    assert [CONTIGS.names[c] for c in mine.contig] == [e[0] for e in oracle]
    assert mine.start.tolist() == [e[1] for e in oracle]
    assert mine.end.tolist() == [e[2] for e in oracle]
    rest = [e[3].split("\t") for e in oracle]
    assert mine.score.tolist() == [float(r[1]) for r in rest]
    assert mine.strand.tolist() == [{"+": 1, "-": -1, ".": 0}[r[2]] for r in rest]
    assert (mine.contig.dtype, mine.start.dtype, mine.end.dtype) == (np.int32, np.int64, np.int64)
    assert (mine.strand.dtype, mine.score.dtype) == (np.int8, np.float64)


def test_blocks_hold_so_many_rows_and_no_more(tmp_path: Path) -> None:
    path = write(tmp_path / "x.bb", make_records(3000), fields=8)
    sizes = [len(block) for block in stream_bigbed(path, CONTIGS, Naming(), 700)]
    assert sizes == [700, 700, 700, 700, 201]


@pytest.mark.parametrize(
    ("rest", "fields", "defined", "score", "strand"),
    [
        ("", 3, 3, math.nan, 0),
        ("n", 4, 4, math.nan, 0),
        ("n\t7", 5, 5, 7.0, 0),
        ("n\t7\t-", 6, 6, 7.0, -1),
        ("n\t7\t-", 6, 0, 7.0, -1),
        ("n\t.\t.", 6, 6, math.nan, 0),
        ("n\thigh\tup", 6, 4, math.nan, 0),
        ("a b\t7\t+\t\t1.5\t", 9, 6, 7.0, 1),
    ],
)
def test_score_and_strand_are_read_where_the_file_declares_them(
    tmp_path: Path, rest: str, fields: int, defined: int, score: float, strand: int
) -> None:
    found = read(write(tmp_path / "x.bb", [("chr1", 1, 5, rest)], fields, defined))
    np.testing.assert_array_equal(found.score, [score])
    assert found.strand.tolist() == [strand]


def test_contigs_are_renamed_by_the_stated_rule(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.bb", [("1", 1, 5, ""), ("2", 2, 3, "")], 3, lengths={"1": 4000, "2": 500}
    )
    assert read(path, Naming("add-chr")).contig.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("record", "problem", "remedy"),
    [
        (("chr1", 5, 5, "n\t1\t+"), "chr1:5-5 (0-based) is empty", "at least one base"),
        (("chr2", 490, 501, "n\t1\t+"), "chr2:490-501 (0-based) is empty or ends beyond", "within"),
        (("chr1", 1, 2, "n\t1"), "has 5 columns where the file declares 6", "bedToBigBed"),
        (("chr1", 1, 2, ""), "has 3 columns where the file declares 6", "bedToBigBed"),
        (("chr1", 1, 2, "n\t1\t+\tx"), "has 7 columns where the file declares 6", "bedToBigBed"),
        (("chr1", 1, 2, "n\thigh\t+"), "chr1:1-2 (0-based) has the score 'high'", "a number"),
        (("chr1", 1, 2, "n\tinf\t+"), "has the score 'inf'", "a number"),
        (("chr1", 1, 2, "n\t1_0\t+"), "has the score '1_0'", "a number"),
        (("chr1", 1, 2, "n\t1\t*"), "has the strand '*'", "'+', '-' or '.'"),
    ],
)
def test_a_faulty_record_is_named_with_its_remedy(
    tmp_path: Path, record: Record, problem: str, remedy: str
) -> None:
    path = write(tmp_path / "x.bb", [("chr1", 1, 2, "n\t1\t+"), record], 6)
    with pytest.raises(InputError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert remedy in (caught.value.remedy or "")
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("lengths", "problem", "remedy"),
    [
        ({"chr1": 4001}, "'chr1' has 4,001 bp, but 'chr1' has 4,000 bp", "assembly"),
        ({"1": 4000}, "contig '1' is not in the reference", "add-chr"),
    ],
)
def test_a_bigbed_of_another_reference_is_refused(
    tmp_path: Path, lengths: dict[str, int], problem: str, remedy: str
) -> None:
    records = [(name, 1, 2, "") for name in lengths]
    path = write(tmp_path / "x.bb", records, 3, lengths=lengths)
    with pytest.raises(InputError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: b"", "not a bigBed file"),
        (lambda raw: b"chr1\t1\t5\tn\n", "not a bigBed file: it begins with b'chr1'"),
        (gzip.compress, "not a bigBed file"),
        (lambda raw: raw[:20], "the bigBed file is truncated"),
        (lambda raw: raw[: len(raw) // 2], "the bigBed file is truncated"),
        (lambda raw: raw[:-2], "the bigBed file is truncated"),
        (lambda raw: raw[:32] + b"\x06\x00\x09\x00" + raw[36:], "6 columns, 9 of them BED's"),
        (lambda raw: raw[:32] + b"\x02\x00\x02\x00" + raw[36:], "2 columns, 2 of them BED's"),
        (lambda raw: raw[:52] + b"\x10\x00\x00\x00" + raw[56:], "incomplete or too large"),
        (lambda raw: raw[:24] + b"\xff" * 8 + raw[32:], "damaged file: it refers to byte"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    path = write(tmp_path / "x.bb", make_records(200), 8)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert caught.value.path == path
    assert caught.value.remedy


def test_a_bigwig_is_not_taken_for_a_bigbed(tmp_path: Path) -> None:
    path = tmp_path / "x.bw"
    pybigtools.open(str(path), "w").write(LENGTHS, [("chr1", 1, 5, 1.0)])
    with pytest.raises(InputError, match="this is a bigWig file, not bigBed"):
        read(path)


def everything(path: Path) -> list[list[float]]:
    found = read(path)
    columns = (found.contig, found.start, found.end, found.strand, found.score)
    return [column.tolist() for column in columns]


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_damaged_byte_changes_records_without_an_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = write(tmp_path / "x.bb", make_records(100), 8, 6)
    whole = everything(path)
    raw = bytearray(path.read_bytes())
    # Bytes 32 to 36 state the columns: no other part of the file could contradict them.
    at = data.draw(st.integers(0, len(raw) - 1).filter(lambda i: not 32 <= i < 36))
    raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        assert everything(path) == whole
    except InputError as error:
        assert error.path == path

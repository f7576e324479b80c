"""Text tables in blocks: block sizes, lines, and files that are no clean text, seen through BED."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.intervals import concatenate, read_intervals, stream_intervals

CONTIGS = Contigs(("chr1", "chr2"), (1000, 500))
GOOD = "chr1\t1\t5\tn\t1\t+\n"
BLOCKS = st.one_of(st.integers(1, 64), st.sampled_from([200, 1 << 20]))


def test_blocks_hold_no_more_than_they_were_given(tmp_path: Path) -> None:
    path = tmp_path / "x.bed"
    path.write_text("".join(f"chr1\t{i}\t{i + 1}\n" for i in range(100, 900)))
    blocks = list(stream_intervals(path, CONTIGS, Naming(), block_bytes=1300))
    assert [len(block) for block in blocks] == [100] * 8  # a line has 13 bytes


@pytest.mark.parametrize("block_bytes", [0, -1, 1 << 31])
def test_an_impossible_block_size_is_an_error(tmp_path: Path, block_bytes: int) -> None:
    (tmp_path / "x.bed").write_text(GOOD)
    with pytest.raises(ValueError, match="block_bytes"):
        next(stream_intervals(tmp_path / "x.bed", CONTIGS, Naming(), block_bytes=block_bytes))


FAULTS = {
    "chr1\t9\t9\tn\t1\t+": "start 9 is not below end 9",
    "chr1\tx\t9\tn\t1\t+": "start is 'x', not a number",
    "chr1\t1\tx\tn\t1\t+": "end is 'x', not a number",
    "chrZ\t1\t9\tn\t1\t+": "contig 'chrZ' is not in the reference",
    "chr1\t1\t9\tn\tx\t+": "score is 'x', not a number",
    "chr1\t1\t9\tn\t1\tx": "strand is 'x'",
    "chr1\t1\t9\tn\t1": "5 columns where the first record has 6",
    "chr1\t1\t9\t\xff\t1\t+": "byte 0xff is no UTF-8 text",
    "chr1\t1\t9\tn\r\t1\t+": "a carriage return that no line feed follows",
}


@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from([GOOD.strip(), "chr2\t3\t4\tm\t.\t-", "", "#c"]),
            st.sampled_from(sorted(FAULTS)),
        ),
        max_size=25,
    ),
    block_bytes=BLOCKS,
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)
def test_the_first_faulty_line_is_reported_whatever_its_fault_and_the_block_size(
    tmp_path: Path, lines: list[str], block_bytes: int
) -> None:
    path = tmp_path / "x.bed"
    path.write_bytes(("\n".join([GOOD.strip(), *lines]) + "\n").encode("latin-1"))
    first = next((i for i, line in enumerate(lines, start=2) if line in FAULTS), None)
    if first is None:
        found = sum(map(len, stream_intervals(path, CONTIGS, Naming(), block_bytes=block_bytes)))
        assert found == 1 + sum(bool(line) and line != "#c" for line in lines)
        return
    with pytest.raises(InputError) as caught:
        list(stream_intervals(path, CONTIGS, Naming(), block_bytes=block_bytes))
    assert (caught.value.line, caught.value.problem) == (first, FAULTS[lines[first - 2]])


@pytest.mark.parametrize("header", [b"", b"#h\n"])
@pytest.mark.parametrize(
    ("content", "problem", "line"),
    [
        (b"chr1\t1\t5\rchr1\t6\t9\r", "a carriage return that no line feed follows", 1),
        (b"#c\rchr1\t6\t9\n", "a carriage return that no line feed follows", 1),
        (b"chr1\t1\t5\nchr1\t6\t9\r", "a carriage return that no line feed follows", 2),
        (b"chr1\t1\t5\n#c\rchr1\t6\t9\n", "a carriage return that no line feed follows", 2),
        (b"chr1\t1\t5\nchr1\t6\t9\tn\xe9\n", "byte 0xe9 is no UTF-8 text", 2),
        (b"chr1\t1\t5\nchr\x001\t6\t9\n", "contig 'chr\\x001' is not in the reference", 2),
        (b"chr1\t1\t5\n\xef\xbb\xbfchr1\t6\t9\n", "contig '\\ufeffchr1' is not", 2),
    ],
)
@pytest.mark.parametrize("block_bytes", [3, 10, 1 << 20])
def test_what_is_no_clean_text_is_refused(
    tmp_path: Path, header: bytes, content: bytes, problem: str, line: int, block_bytes: int
) -> None:
    path = tmp_path / "x.bed"
    path.write_bytes(header + content)
    with pytest.raises(InputError) as caught:
        list(stream_intervals(path, CONTIGS, Naming(), block_bytes=block_bytes))
    assert problem in caught.value.problem
    assert caught.value.line == line + len(header) // 3


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only\n", b"track a\n", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.bed"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no interval in the file"):
        read_intervals(path, CONTIGS, Naming())


def test_a_byte_order_mark_is_no_part_of_the_first_contig(tmp_path: Path) -> None:
    path = tmp_path / "x.bed"
    path.write_bytes(b"\xef\xbb\xbfchr2\t1\t5\n")
    assert read_intervals(path, CONTIGS, Naming()).contig.tolist() == [1]
    path.write_bytes(b"\xef\xbb\xbf# comment\nchr2\t1\t5\n")
    assert read_intervals(path, CONTIGS, Naming()).contig.tolist() == [1]


@pytest.mark.parametrize("first", [True, False])
def test_contigs_may_be_called_as_a_track_line_begins(tmp_path: Path, first: bool) -> None:
    contigs = Contigs(("track", "browser2", "chr1"), (10, 10, 10))
    lines = ["track\t1\t5\n", "browser2\t1\t5\n", "chr1\t1\t5\n"]
    path = tmp_path / "x.bed"
    path.write_text("".join(lines if first else reversed(lines)))
    found = read_intervals(path, contigs, Naming()).contig.tolist()
    assert found == ([0, 1, 2] if first else [2, 1, 0])


def test_a_second_track_is_refused_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "x.bed"
    with pytest.raises(InputError) as caught:
        path.write_text('track name="a"\nchr1\t1\t5\t1\ntrack name="b"\nchr1\t1\t5\t2\n')
        read_intervals(path, CONTIGS, Naming())
    assert caught.value.line == 3
    assert "one track" in (caught.value.remedy or "")


@pytest.mark.parametrize("content", [b"x" * 5000, b"#" * 5000, GOOD.encode() + b"y" * 5000])
@pytest.mark.parametrize("block_bytes", [10, 1 << 20])
def test_a_line_without_an_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, block_bytes: int
) -> None:
    monkeypatch.setattr("data_shards.sources.tabular._LONGEST_LINE", 1000)
    path = tmp_path / "x.bed"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a line of more than") as caught:
        list(stream_intervals(path, CONTIGS, Naming(), block_bytes=block_bytes))
    assert caught.value.line == 1 + content.count(b"\n")


def test_a_line_longer_than_a_block_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.bed"
    path.write_text(f"chr1\t1\t5\t{'n' * 3000}\nchr2\t1\t5\tm\n" * 2)
    blocks = list(stream_intervals(path, CONTIGS, Naming(), block_bytes=100))
    assert len(blocks) > 1
    assert concatenate(blocks).contig.tolist() == [0, 1, 0, 1]


def test_blocks_come_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = "".join(f"chr1\t{s}\t{s + 1}\n" for s in rng.integers(0, 999, 20000))
    packed = gzip.compress(text.encode())
    path = tmp_path / "x.bed.gz"
    path.write_bytes(packed[: len(packed) // 2])
    blocks = stream_intervals(path, CONTIGS, Naming(), block_bytes=1000)
    assert len(next(blocks)) > 50
    with pytest.raises(InputError, match="damaged gzip data"):
        list(blocks)


def test_damaged_or_absent_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.bed.gz"
    path.write_bytes(gzip.compress(b"chr1\t1\t5\n" * 99) + b"rubbish")
    with pytest.raises(InputError, match="damaged gzip data"):
        read_intervals(path, CONTIGS, Naming())
    damaged = bytearray(gzip.compress(np.random.default_rng(0).bytes(5000)))
    damaged[2000:2100] = b"\0" * 100
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError):
        read_intervals(path, CONTIGS, Naming())
    for missing in (tmp_path / "none.bed", tmp_path):
        with pytest.raises(InputError, match="can't be read") as caught:
            read_intervals(missing, CONTIGS, Naming())
        assert caught.value.path == missing

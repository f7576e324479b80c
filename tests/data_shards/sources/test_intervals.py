"""The BED family against bioframe, and every refusal with its file, line and remedy."""

from __future__ import annotations

import gzip
from pathlib import Path

import bioframe
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.intervals import Intervals, read_intervals

CONTIGS = Contigs(("chr1", "chr2"), (1000, 500))
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),
        st.integers(0, 400),
        st.integers(1, 100),
        st.floats(-1e6, 1e6, allow_nan=False),
        st.sampled_from("+-."),
    ),
    min_size=1,
    max_size=30,
)


@given(records=RECORDS, header=st.sampled_from(["", "# made up\n", 'track name="x"\n#y\n']))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_bed6_is_what_bioframe_reads(
    tmp_path: Path, records: list[tuple[int, int, int, float, str]], header: str
) -> None:
    lines = [
        f"{CONTIGS.names[c]}\t{s}\t{s + n}\tn{i}\t{score!r}\t{strand}"
        for i, (c, s, n, score, strand) in enumerate(records)
    ]
    path = tmp_path / "x.bed"
    path.write_text(header + "\n".join(lines) + "\n")
    mine = read_intervals(path, CONTIGS, Naming())
    skipped = header.count("\n")
    oracle = bioframe.read_table(
        path, schema="bed6", skiprows=skipped, float_precision="round_trip"
    )
    assert [CONTIGS.names[c] for c in mine.contig] == oracle["chrom"].tolist()
    assert np.array_equal(mine.start, oracle["start"])
    assert np.array_equal(mine.end, oracle["end"])
    assert np.array_equal(mine.score, oracle["score"])
    signs = {"+": 1, "-": -1, ".": 0}
    assert mine.strand.tolist() == [signs[s] for s in oracle["strand"]]


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("genomes/Scer_polIItranscripts-adjustedTSS.bed.gz", "bed6"),
        ("genomes/rhee2012-TATAboxes-cleaned.bed", "bed6"),
        ("danq/yeast_500k_SRR1822137.bedpe.gz", "bed3"),
    ],
)
def test_real_files_are_what_bioframe_reads(shared_data: Path, name: str, schema: str) -> None:
    path = shared_data / name
    oracle = bioframe.read_table(path, schema=schema)
    lengths = oracle.groupby("chrom")["end"].max() + 1
    contigs = Contigs(tuple(lengths.index), tuple(lengths))
    mine = read_intervals(path, contigs, Naming())
    assert [contigs.names[c] for c in mine.contig] == oracle["chrom"].tolist()
    assert np.array_equal(mine.start, oracle["start"])
    assert np.array_equal(mine.end, oracle["end"])


def read(tmp_path: Path, text: str, name: str = "x.bed", naming: Naming | None = None) -> Intervals:
    path = tmp_path / name
    path.write_text(text)
    return read_intervals(path, CONTIGS, naming or Naming())


GOOD = "chr1\t1\t5\tn\t1\t+\n"


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("1\t1\t5\tn\t1\t+", "contig '1' is not in the reference", "add-chr"),
        ("chrZ\t1\t5\tn\t1\t+", "contig 'chrZ' is not in the reference", "the FASTA has chr1"),
        (
            "chr2\t490\t501\tn\t1\t+",
            "end 501 is past the end of contig 'chr2' (500 bp)",
            "assembly",
        ),
        ("chr1\t9\t9\tn\t1\t+", "start 9 is not below end 9", "half-open"),
        ("chr1\t9\t7\tn\t1\t+", "start 9 is not below end 7", "half-open"),
        ("chr1\t-1\t7\tn\t1\t+", "start is -1, below 0", "0-based"),
        ("chr1\tx\t7\tn\t1\t+", "start is 'x', not a number", "0-based integers"),
        ("chr1\t1\t7.5\tn\t1\t+", "end is '7.5', not a number", "0-based integers"),
        ("chr1\t1\t7\tn\thigh\t+", "score is 'high', not a number", "columns"),
        ("chr1\t1\t7\tn\t1\t*", "strand is '*'", "'+', '-' or '.'"),
        ("chr1\t1\t7", "3 columns where the first record has 6", "same columns"),
    ],
)
@pytest.mark.parametrize("header", ["", "#c\ntrack x\n"], ids=["plain", "header"])
def test_a_faulty_line_is_named_with_its_remedy(
    tmp_path: Path, line: str, problem: str, remedy: str, header: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, header + GOOD + GOOD + line + "\n" + GOOD)
    assert problem in str(caught.value)
    assert caught.value.line == 3 + header.count("\n")
    assert caught.value.path == tmp_path / "x.bed"
    assert remedy in (caught.value.remedy or "")


def test_a_chr_prefix_that_the_fasta_lacks_gets_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "x.bed"
    path.write_text("chrI\t1\t5\n")
    with pytest.raises(InputError, match="strip-chr") as caught:
        read_intervals(path, Contigs(("I",), (100,)), Naming())
    assert caught.value.line == 1


def test_spaces_are_no_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 tab-separated column") as caught:
        read(tmp_path, "chr1 1 5\n")
    assert "spaces don't count" in (caught.value.remedy or "")


def test_a_file_of_comments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no interval in the file"):
        read(tmp_path, "# nothing\n\n")


def test_a_layout_with_too_few_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="6 columns, but narrowPeak has 10"):
        read(tmp_path, GOOD, name="x.narrowPeak")


def test_blank_lines_do_not_shift_the_line_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD + "\n\n" + "chr1\t9\t9\tn\t1\t+\n")
    assert caught.value.line == 4


def test_gzip_and_renames_work(tmp_path: Path) -> None:
    path = tmp_path / "x.bed.gz"
    path.write_bytes(gzip.compress(b"one\t1\t5\n2\t3\t4\n"))
    found = read_intervals(path, CONTIGS, Naming("add-chr", (("one", "chr1"),)))
    assert found.contig.tolist() == [0, 1]
    assert found.strand.tolist() == [0, 0]
    assert np.isnan(found.score).all()


def test_fragments_need_no_names(tmp_path: Path) -> None:
    found = read(tmp_path, "chr1\t1\t5\tBARCODE\t2\n", name="x.fragments")
    assert len(found) == 1

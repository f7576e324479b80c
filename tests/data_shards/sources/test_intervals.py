"""The BED family against bioframe, and every refusal with its file, line and remedy."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, get_args

import bioframe
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.intervals import (
    COLUMNS,
    IntervalFormat,
    Intervals,
    concatenate,
    read_intervals,
    stream_bed12_blocks,
    stream_intervals,
)

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
        ("genomes/Scer_transcripts_w_verifiedORFs.bed.gz", "bed6"),
        ("genomes/Scer_transcripts_w_verifiedORFs-nonoverlapping-WT-NETseq-sort.bed.gz", "bed6"),
        ("danq/CTCF_SE_ChIP_chr22_50k.bed.gz", "bed6"),
        ("danq/hg38_sequences.bed", "bed4"),
        ("danq/yeast_500k_SRR1822137.bedpe.gz", "bed3"),
        ("deepcpg/CGI.bed.gz", "bed3"),
        ("deepcpg/exons.bed.gz", "bed3"),
        ("deepvariant/performance.confident.bed.gz", "bed3"),
        ("variants/PG_Conf_chr21.bed.gz", "bed3"),
    ],
)
def test_real_files_are_what_bioframe_reads(shared_data: Path, name: str, schema: str) -> None:
    path = shared_data / name
    oracle = bioframe.read_table(path, schema=schema, na_values=["."], float_precision="round_trip")
    lengths = oracle.groupby("chrom")["end"].max() + 1
    contigs = Contigs(tuple(lengths.index), tuple(lengths))
    same_as_bioframe(read_intervals(path, contigs, Naming()), oracle, contigs)
    parts = list(stream_intervals(path, contigs, Naming(), block_bytes=100_000))
    assert len(parts) > 1 or len(oracle) < 5000
    same_as_bioframe(concatenate(parts), oracle, contigs)


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


SIGNS = {"+": 1, "-": -1, ".": 0}
BLOCKS = st.one_of(st.integers(1, 64), st.sampled_from([200, 1 << 20]))
WIDE = Contigs(("chr1", "track1", "chrUn_é"), (1 << 40, 10**6, 10**6))


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """One interval with everything that any layout can say of it."""
    contig = draw(st.sampled_from(WIDE.names))
    length = WIDE.lengths[WIDE.index[contig]]
    start = draw(st.integers(0, length - 2))
    end = draw(st.integers(start + 1, length))
    start2 = draw(st.integers(0, length - 2))
    return {
        "chrom": contig,
        "start": start,
        "end": end,
        "start2": start2,
        "end2": draw(st.integers(start2 + 1, length)),
        "score": draw(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))),
        "value": draw(st.floats(-1e9, 1e9)),
        "strand": draw(st.sampled_from("+-.")),
        "oriented": draw(st.sampled_from("+-")),
        "count": draw(st.integers(1, 10**6)),
        "peak": draw(st.integers(-1, end - start - 1)),
    }


def row(layout: IntervalFormat, r: dict[str, Any]) -> list[object]:
    """Write a record in a layout."""
    score = "." if r["score"] is None else repr(r["score"])
    bed = [r["chrom"], r["start"], r["end"], 'a "name"', score, r["strand"]]
    thick = [r["start"], r["end"], "0,0,255", 1, f"{r['end'] - r['start']},", "0,"]
    match layout:
        case "narrowPeak" | "broadPeak":
            return [*bed, 1.5, -1, -1, r["peak"]][: 10 if layout == "narrowPeak" else 9]
        case "bedGraph":
            return [*bed[:3], repr(r["value"])]
        case "fragments":
            return [*bed[:3], "ACGT-1", r["count"]]
        case "tagAlign":
            return [*bed[:3], "N", score, r["oriented"]]
        case "bedpe":
            mate = [r["chrom"], r["start2"], r["end2"]]
            return [*bed[:3], *mate, "pair", score, r["strand"], r["oriented"]]
        case _:
            return [*bed, *thick][: int(layout.removeprefix("bed"))]


def expected(layout: IntervalFormat, r: dict[str, Any]) -> tuple[object, ...]:
    """What a written record must be read as; NaN as None."""
    width = len(COLUMNS[layout])
    start, end, strand, score, summit = r["start"], r["end"], 0, None, None
    if layout == "bedpe":
        start, end, score = min(start, r["start2"]), max(end, r["end2"]), r["score"]
    elif layout == "bedGraph":
        score = r["value"]
    elif layout == "fragments":
        score = float(r["count"])
    else:
        score = r["score"] if width >= 5 else None
        strand = SIGNS[r["oriented" if layout == "tagAlign" else "strand"]] if width >= 6 else 0
    if layout == "narrowPeak":
        summit = -1 if r["peak"] < 0 else start + r["peak"]
    return WIDE.index[r["chrom"]], start, end, strand, score, summit


def rows_of(found: Intervals) -> list[tuple[object, ...]]:
    summits = [None] * len(found) if found.summit is None else found.summit.tolist()
    scores = [None if np.isnan(score) else score for score in found.score]
    arrays = (found.contig.tolist(), found.start.tolist(), found.end.tolist())
    return list(zip(*arrays, found.strand.tolist(), scores, summits, strict=True))


@pytest.mark.parametrize("layout", get_args(IntervalFormat))
@given(
    data=st.lists(records(), min_size=1, max_size=12),
    between=st.sampled_from(["", "\n", "#a\tcomment\n", "\n\n#bedGraph section\n"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    packed=st.booleans(),
    block_bytes=BLOCKS,
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15
)
def test_what_is_written_is_read_back_whatever_the_block_size(
    tmp_path: Path,
    layout: IntervalFormat,
    data: list[dict[str, Any]],
    between: str,
    line_end: str,
    last: bool,
    packed: bool,
    block_bytes: int,
) -> None:
    lines = ["\t".join(map(str, row(layout, r))) + "\n" for r in data]
    text = "browser hide all\ntrack name=x\n" + between.join(lines)
    text = (text if last else text.removesuffix("\n")).replace("\n", line_end)
    path = tmp_path / "x.txt"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    blocks = list(stream_intervals(path, WIDE, Naming(), layout, block_bytes))
    assert all(len(block) for block in blocks)
    want = [expected(layout, r) for r in data]
    assert [r for block in blocks for r in rows_of(block)] == want
    assert rows_of(read_intervals(path, WIDE, Naming(), layout)) == want


@pytest.mark.parametrize(
    "layout", sorted({"bed3", "bed4", "bed5", "bed6", "bed9", "bed12", "narrowPeak", "broadPeak"})
)
@given(data=st.lists(records(), min_size=1, max_size=12))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10
)
def test_bioframe_reads_the_same(
    tmp_path: Path, layout: IntervalFormat, data: list[dict[str, Any]]
) -> None:
    path = tmp_path / "x.txt"
    path.write_text("".join("\t".join(map(str, row(layout, r))) + "\n" for r in data))
    mine = read_intervals(path, WIDE, Naming(), layout)
    oracle = bioframe.read_table(
        path, schema=layout, na_values=["."], float_precision="round_trip", quoting=3
    )
    same_as_bioframe(mine, oracle, WIDE)
    if mine.summit is not None:
        offset = oracle["relSummit"]
        assert mine.summit.tolist() == oracle["start"].add(offset).where(offset >= 0, -1).tolist()


def same_as_bioframe(mine: Intervals, oracle: pd.DataFrame, contigs: Contigs) -> None:
    assert [contigs.names[c] for c in mine.contig] == oracle["chrom"].tolist()
    assert np.array_equal(mine.start, oracle["start"])
    assert np.array_equal(mine.end, oracle["end"])
    if "score" in oracle:
        assert np.array_equal(mine.score, oracle["score"].astype(float), equal_nan=True)
    if "strand" in oracle:
        assert mine.strand.tolist() == [SIGNS.get(s, 0) for s in oracle["strand"]]


def test_layouts_have_the_columns_that_bioframe_gives_them() -> None:
    for layout in ("bed3", "bed4", "bed5", "bed6", "bed9", "bed12", "bedGraph", "bedpe"):
        assert list(COLUMNS[layout]) == bioframe.SCHEMAS[layout]
    for layout in ("narrowPeak", "broadPeak"):
        assert len(COLUMNS[layout]) == len(bioframe.SCHEMAS[layout])
        assert list(COLUMNS[layout][:6]) == bioframe.SCHEMAS[layout][:6]


@pytest.mark.parametrize(
    "name",
    [
        "deepcpg/BS27_4_SER.bed.gz",
        "deepcpg/BS28_2_SER.bed.gz",
        "deepcpg/BS9N_2I.bed.gz",
        "deepcpg/BS9N_SER.bed.gz",
    ],
)
def test_a_table_that_is_only_called_bed_is_refused(shared_data: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"end is '\d\.\d+', not a number") as caught:
        read_intervals(shared_data / name, Contigs(("18", "19"), (10**8, 10**8)), Naming())
    assert caught.value.line == 1


@pytest.mark.parametrize(
    ("name", "line", "score", "strand", "end"),
    [
        ("x.bed", "chr1\t1\t5", np.nan, 0, 5),
        ("x.bed", "chr1\t1\t5\t7", np.nan, 0, 5),
        ("x.bed", "chr1\t1\t5\tn\t7", 7, 0, 5),
        ("x.bed", "chr1\t1\t5\tn\t7\t-\tmore", 7, -1, 5),
        ("x.bed", "chr1\t1\t5\tn\t7\t-" + "\tmore" * 9, 7, -1, 5),
        ("x.bedGraph", "chr1\t1\t5\t7", 7, 0, 5),
        ("x.y.bdg", "chr1\t1\t5\t7", 7, 0, 5),
        ("x.tagAlign", "chr1\t1\t5\tN\t7\t-", 7, -1, 5),
        ("x.fragments", "chr1\t1\t5\tACGT\t7", 7, 0, 5),
        ("x_fragments.tsv", "chr1\t1\t5\tACGT\t7", 7, 0, 5),
        ("x.bedpe", "chr1\t1\t5\tACGT\t7", 7, 0, 5),
        ("x.bedpe", "chr1\t1\t5", np.nan, 0, 5),
        ("x.bedpe", "chr1\t1\t5\tchr1\t3\t9\tn\t7\t+\t-", 7, 0, 9),
        ("x.bedpe", "chr1\t1\t5\tchr1\t3\t9\tn\t7\t+\t-\tmore", 7, 0, 9),
        ("x.broadPeak", "chr1\t1\t5\tn\t7\t-\t1\t2\t3", 7, -1, 5),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_extension_and_width_tell_the_layout(
    tmp_path: Path, name: str, line: str, score: float, strand: int, end: int, packed: bool
) -> None:
    path = tmp_path / (name + ".gz" if packed else name)
    text = f"{line}\n".encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    found = read_intervals(path, CONTIGS, Naming())
    assert (found.start[0], found.end[0], found.strand[0]) == (1, end, strand)
    assert np.array_equal(found.score, [score], equal_nan=True)
    assert found.summit is None


PEAK = "chr1\t10\t20\tn\t1\t.\t1\t1\t1\t"
PAIR = "chr1\t10\t20\tchr1\t30\t40\tn\t1\t+\t-"
BED12 = "chr1\t10\t50\tn\t1\t+\t10\t50\t0\t2\t10,20\t0,20"
HUGE = str(1 << 63)


@pytest.mark.parametrize(
    ("layout", "good", "bad", "problem"),
    [
        ("bed3", "chr1\t1\t5", f"chr1\t1\t{HUGE}", f"end is {HUGE}, beyond 64 bits"),
        ("bed3", "chr1\t1\t5", f"chr1\t-{HUGE}9\t5", f"start is -{HUGE}9, beyond 64 bits"),
        ("bed3", "chr1\t1\t5", f"chr1\t1\t{(1 << 63) - 1}", "is past the end of contig 'chr1'"),
        ("bed3", "chr1\t1\t5", "chr1\t0x1\t5", "start is '0x1', not a number"),
        ("bed3", "chr1\t1\t5", "chr1\t+1\t5", "start is '+1', not a number"),
        ("bed3", "chr1\t1\t5", "chr1\t1_0\t50", "start is '1_0', not a number"),
        ("bed3", "chr1\t1\t5", "chr1\t 1\t5", "start is ' 1', not a number"),
        ("bed3", "chr1\t1\t5", "chr1\t\t5", "start is '', not a number"),
        ("bed3", "chr1\t1\t5", "chr1\t1e2\t500", "start is '1e2', not a number"),
        ("bed3", "chr1\t1\t5", "chr1\t٣\t5", "start is '٣', not a number"),
        ("bed3", "chr1\t1\t5", "chr1 \t1\t5", "contig 'chr1 ' is not"),
        ("bed3", "chr1\t1\t5", "\t1\t5", "contig '' is not"),
        ("bed3", "chr1\t1\t5", '"chr1"\t1\t5', "contig '\"chr1\"' is not"),
        ("bed3", "chr1\t1\t5", "chr1\t1\t5\t", "4 columns where the first record has 3"),
        ("bed3", "chr1\t1\t5", "chr1\t1\t5 \tx", "4 columns where the first record has 3"),
        ("bed3", "chr1\t1\t5", "  ", "1 columns where the first record has 3"),
        ("bed3", "chr1\t1\t5", "track name=b", "1 columns where the first record has 3"),
        ("bed4", "chr1\t1\t5\tn", "chr1\t1\t5", "3 columns where the first record has 4"),
        ("bed5", "chr1\t1\t5\tn\t1", "chr1\t1\t5\tn\tnan", "score is 'nan', not a number"),
        ("bed5", "chr1\t1\t5\tn\t1", "chr1\t1\t5\tn\t", "score is '', not a number"),
        ("bed5", "chr1\t1\t5\tn\t1", "chr1\t1\t5\tn\tinf", "score is infinite"),
        ("bed5", "chr1\t1\t5\tn\t1", "chr1\t1\t5\tn\t1e999", "score is infinite"),
        ("bed6", "chr1\t1\t5\tn\t1\t+", "chr1\t1\t5\tn\t1\t", "strand is ''"),
        ("bed6", "chr1\t1\t5\tn\t1\t+", "chr1\t1\t5\tn\t1\t+-", "strand is '+-'"),
        ("bed7", "chr1\t1\t5\tn\t1\t+\t1", "chr1\t5\t5\tn\t1\t+\t1", "start 5 is not below end 5"),
        ("bed8", "chr1\t1\t5\tn\t1\t+\t1\t5", "chr1\t1\t5\tn\t1\t+\t1", "7 columns where"),
        ("bed9", "chr1\t1\t5\tn\t1\t+\t1\t5\t0", "chr1\t1\t5\tn\t1\t+\t1\t5", "8 columns where"),
        ("bed12", BED12, BED12 + "\tx", "13 columns where"),
        ("narrowPeak", PEAK + "0", PEAK + "10", "peak is 10, but the interval has 10 bp"),
        ("narrowPeak", PEAK + "0", PEAK + "-2", "peak is -2, but the interval has 10 bp"),
        ("narrowPeak", PEAK + "0", PEAK + "1.0", "peak is '1.0', not a number"),
        ("narrowPeak", PEAK + "0", PEAK + ".", "peak is '.', not a number"),
        ("broadPeak", PEAK[:-1], PEAK + "0", "10 columns where the first record has 9"),
        ("broadPeak", PEAK[:-1], PEAK[:-1].replace("chr1", "chr7"), "contig 'chr7' is not"),
        ("bedGraph", "chr1\t1\t5\t1", "chr1\t1\t5\t.", "value is '.', not a number"),
        ("bedGraph", "chr1\t1\t5\t1", "chr1\t1\t5\tnan", "value is 'nan', not a number"),
        ("bedGraph", "chr1\t1\t5\t1", "chr1\t1\t5\t-inf", "value is infinite"),
        ("bedGraph", "chr1\t1\t5\t1", "chr1\t1\t5\tNA", "value is 'NA', not a number"),
        ("fragments", "chr1\t1\t5\tA\t1", "chr1\t1\t5\tA\t0", "count is 0, below 1"),
        ("fragments", "chr1\t1\t5\tA\t1", "chr1\t1\t5\tA\t1.5", "count is '1.5', not a number"),
        ("tagAlign", "chr1\t1\t5\tN\t1\t+", "chr1\t1\t5\tN\t1\t.", "strand is '.'"),
        ("bedpe", PAIR, PAIR.replace("chr1\t30", "chr2\t30"), "on two contigs, 'chr1' and 'chr2'"),
        ("bedpe", PAIR, PAIR.replace("chr1\t30\t40", ".\t-1\t-1"), "mate 2 is not mapped"),
        ("bedpe", PAIR, PAIR.replace("chr1\t10\t20", ".\t-1\t-1"), "mate 1 is not mapped"),
        ("bedpe", PAIR, PAIR.replace("30\t40", "40\t40"), "start2 40 is not below end2 40"),
        ("bedpe", PAIR, PAIR.replace("10\t20", "-1\t20"), "start1 is -1, below 0"),
        ("bedpe", PAIR, PAIR.replace("40", "1001"), "end2 1001 is past the end of contig 'chr1'"),
        ("bedpe", PAIR, PAIR.replace("20", "2O"), "end1 is '2O', not a number"),
        ("bedpe", PAIR, PAIR.replace("\t-", "\t*"), "strand is '*'"),
        ("bedpe", PAIR, PAIR.replace("chr1\t30", "chr9\t30"), "contig 'chr9' is not"),
    ],
)
@pytest.mark.parametrize("block_bytes", [7, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_a_faulty_line_of_any_layout_is_named_also_in_a_later_block(
    tmp_path: Path,
    layout: IntervalFormat,
    good: str,
    bad: str,
    problem: str,
    block_bytes: int,
    packed: bool,
) -> None:
    lines = ["# first", good, "", good, "#", good, bad, good, bad]
    text = "\r\n".join(lines).encode()
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(InputError) as caught:
        list(stream_intervals(path, CONTIGS, Naming(), layout, block_bytes))
    assert problem in caught.value.problem
    assert (caught.value.line, caught.value.path) == (7, path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("x.narrowPeak", PEAK + "0\tx", "11 columns, but narrowPeak has 10"),
        ("x.broadPeak", PEAK + "0", "10 columns, but broadPeak has 9"),
        ("x.bedGraph", "chr1\t1\t5", "3 columns, but bedGraph has 4"),
        ("x.bg", "chr1\t1\t5\t1\t2", "5 columns, but bedGraph has 4"),
        ("x.tagAlign", "chr1\t1\t5\tN\t1", "5 columns, but tagAlign has 6"),
        ("x.bedpe", "chr1\t1\t5\tchr1\t7\t9", "6 columns, but bedpe has 10"),
        ("x.fragments", "chr1\t1\t5\tA\t1\tx", "6 columns, but fragments has 3 to 5"),
        ("x.bed", "chr1\t1", "2 tab-separated column(s) where at least 3 are needed"),
    ],
)
def test_a_wrong_width_for_the_extension_is_refused(
    tmp_path: Path, name: str, line: str, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, line + "\n", name)
    assert problem in caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize("layout", ["bed7", "bed8", "bed9", "bed12"])
def test_a_stated_layout_needs_its_columns(tmp_path: Path, layout: IntervalFormat) -> None:
    path = tmp_path / "x.bed"
    path.write_text(GOOD)
    with pytest.raises(InputError, match=rf"6 columns, but {layout} has {layout[3:]}"):
        read_intervals(path, CONTIGS, Naming(), layout)


def test_summits_stay_with_their_peaks(tmp_path: Path) -> None:
    path = tmp_path / "x.narrowPeak"
    path.write_text("".join(f"{PEAK}{peak}\n" for peak in (0, -1, 9, 3)))
    whole = read_intervals(path, CONTIGS, Naming())
    assert whole.summit is not None
    assert whole.summit.dtype == np.int64
    assert whole.summit.tolist() == [10, -1, 19, 13]
    kept = whole.take(whole.summit >= 0)
    assert kept.summit is not None
    assert kept.summit.tolist() == [10, 19, 13]
    joined = concatenate([kept, whole]).summit
    assert joined is not None
    assert joined.tolist() == [10, 19, 13, 10, -1, 19, 13]


@st.composite
def transcripts(draw: st.DrawFn) -> tuple[str, str, list[tuple[int, int]]]:
    """A bed12 record's contig, strand and exons."""
    cuts = draw(st.lists(st.integers(0, 500), min_size=2, max_size=12, unique=True))
    cuts = sorted(cuts)[: len(cuts) // 2 * 2]
    exons = list(zip(cuts[::2], cuts[1::2], strict=True))
    return draw(st.sampled_from(CONTIGS.names)), draw(st.sampled_from("+-.")), exons


@given(
    models=st.lists(transcripts(), min_size=1, max_size=10),
    comma=st.sampled_from(["", ","]),
    block_bytes=BLOCKS,
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
def test_bed12_records_expand_to_their_blocks(
    tmp_path: Path,
    models: list[tuple[str, str, list[tuple[int, int]]]],
    comma: str,
    block_bytes: int,
) -> None:
    lines, want = [], []
    for i, (contig, strand, exons) in enumerate(models):
        first, last = exons[0][0], exons[-1][1]
        sizes = ",".join(str(b - a) for a, b in exons) + comma
        starts = ",".join(str(a - first) for a, _ in exons) + comma
        columns = [contig, first, last, "n", i, strand, first, last, 0, len(exons), sizes, starts]
        lines.append("\t".join(map(str, columns)) + "\n")
        want += [(CONTIGS.index[contig], a, b, SIGNS[strand], float(i), i) for a, b in exons]
    path = tmp_path / "x.bed"
    path.write_text("#c\n" + "".join(lines))
    found: list[tuple[object, ...]] = []
    for part in stream_bed12_blocks(path, CONTIGS, Naming(), block_bytes):
        rows = rows_of(part.intervals)
        found += [(*r[:5], i) for r, i in zip(rows, part.record.tolist(), strict=True)]
    assert found == want


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ("3\t10,20\t0,20", "blockSizes has 2 values where blockCount is 3"),
        ("2\t10,20\t0,20,30", "blockStarts has 3 values where blockCount is 2"),
        ("0\t\t", "blockSizes has 1 values where blockCount is 0"),
        ("2\t10,x\t0,20", "blockSizes is 'x', not a number"),
        ("2\t10,\t0,20", "blockSizes has 1 values"),
        ("2\t10,,\t0,20", "blockSizes is '', not a number"),
        ("2\t10,20\t0,21", "a block is empty or not within the record"),
        ("2\t10,0\t0,40", "a block is empty or not within the record"),
        ("2\t10,-5\t0,20", "a block is empty or not within the record"),
        (f"2\t10,{(1 << 63) - 1}\t0,20", "a block is empty or not within the record"),
        ("2\t10,20\t0,-1", "a block is empty or not within the record"),
        ("2\t21,20\t0,20", "blocks overlap or are not in order"),
        ("2\t20,10\t20,0", "blocks overlap or are not in order"),
        ("2\t9,20\t1,20", "the first block does not begin"),
        ("2\t10,19\t0,20", "the last block does not stop"),
        ("x\t10,20\t0,20", "blockCount is 'x', not a number"),
    ],
)
@pytest.mark.parametrize("block_bytes", [5, 1 << 20])
def test_blocks_that_do_not_fit_their_record_are_refused(
    tmp_path: Path, blocks: str, problem: str, block_bytes: int
) -> None:
    path = tmp_path / "x.bed"
    bad = BED12.rsplit("\t", 3)[0] + "\t" + blocks
    path.write_text("\n".join(["#", BED12, "", BED12, bad, BED12, bad]))
    with pytest.raises(InputError) as caught:
        list(stream_bed12_blocks(path, CONTIGS, Naming(), block_bytes))
    assert problem in caught.value.problem
    assert caught.value.line == 5

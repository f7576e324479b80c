"""BAM and CRAM against a plain loop, samtools depth and, where it is, bedtools multicov."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sequence import decode
from data_shards.sources.alignments import (
    DEPTH,
    MULTICOV,
    Alignments,
    Filters,
    bin_counts,
    bin_intervals,
    coverage,
    open_alignments,
    scan_alignments,
)
from data_shards.sources.intervals import Intervals
from data_shards.sources.reads import CIGAR_OPS, NO_QUALITY, read_fragments, read_reads

CONTIGS = Contigs(("chr1", "chr2"), (2000, 500))
LENGTHS = {"chr1": 2000, "chr2": 500}
GENOME = {c: "".join(random.Random(c).choices("ACGT", k=n)) for c, n in LENGTHS.items()}
CIGARS = (
    *("20M", "10M50N10M", "10M30D10M", "5S15M", "10M5I5M", "20M200N5M", "5M10D5M10N10M", "3M2P3M"),
    *("1M", "10=2X8M", "5H20M", "20S", "30N10M", "10M20N", "2M3N2M3N2M", "8M2D2M1S"),
)
# Any of: reverse, proper pair, secondary, QC failed, duplicate, supplementary.
FLAGS = (0, 0, 0x10, 0x10, 0x3, 0x13, 0x100, 0x200, 0x400, 0x800, 0x910)
FILTERS = [
    Filters(),
    Filters(min_mapq=7),
    Filters(min_mapq=8),
    Filters(duplicates=True),
    Filters(qc_fail=True),
    Filters(proper_pairs=True),
    Filters(strand=1),
    Filters(strand=-1, min_mapq=1),
    MULTICOV,
    DEPTH,
    Filters(supplementary=False, secondary=False),
]


def operations(cigar: str | None) -> list[tuple[str, int]]:
    return [(op, int(n)) for n, op in re.findall(r"(\d+)([MIDNSHP=X])", cigar or "")]


def make_read(
    header: pysam.AlignmentHeader, contig: int, start: int, cigar: str | None, **given: Any
) -> pysam.AlignedSegment:
    read = pysam.AlignedSegment(header)
    read.query_name = given.pop("query_name", f"r{start}")
    read.reference_id, read.reference_start, read.cigarstring = contig, start, cigar
    size = sum(n for op, n in operations(cigar) if op in "MIS=X") if cigar else 10
    bases, at = [], start
    for op, n in operations(cigar):
        if op in "M=X":
            bases.append(GENOME[CONTIGS.names[contig]][at : at + n])
        elif op in "IS":
            bases.append("N" * n)
        at += n if op in "MDN=X" else 0
    read.query_sequence = "".join(bases) or "A" * size
    read.query_qualities = pysam.qualitystring_to_array("I" * size)
    for name, value in {"mapping_quality": 30, "flag": 0, **given}.items():
        setattr(read, name, value)
    return read


def write_bam(
    path: Path,
    make: Callable[[pysam.AlignmentHeader], list[pysam.AlignedSegment]],
    lengths: dict[str, int] = LENGTHS,
    index: bool = True,
) -> Path:
    header = pysam.AlignmentHeader.from_dict(
        {
            "HD": {"VN": "1.6", "SO": "coordinate"},
            "SQ": [{"SN": name, "LN": length} for name, length in lengths.items()],
        }
    )
    reads = make(header)
    reads.sort(key=lambda read: (read.reference_id % 2**32, read.reference_start))
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for read in reads:
            file.write(read)
    if index:
        pysam.index(str(path))
    return path


def many_reads(header: pysam.AlignmentHeader) -> list[pysam.AlignedSegment]:
    rng = random.Random(7)
    reads = [
        make_read(
            header,
            contig,
            rng.randrange(0, length - 250),
            rng.choice(CIGARS),
            flag=rng.choice(FLAGS),
            mapping_quality=rng.choice([0, 7, 30, 60, 255]),
        )
        for contig, length, count in [(0, 2000, 900), (1, 500, 200)]
        for _ in range(count)
    ]
    for start in (40, 41, 95, 99, 100):  # mates without an alignment, at their mate's place
        reads.append(make_read(header, 0, start, None, flag=0x4, mapping_quality=0))
    return reads


def and_one_without_a_cigar(header: pysam.AlignmentHeader) -> list[pysam.AlignedSegment]:
    return [*many_reads(header), make_read(header, 0, 60, None)]


@pytest.fixture(scope="module")
def bam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reads of many kinds. Not to be changed by tests."""
    return write_bam(tmp_path_factory.mktemp("reads") / "x.bam", many_reads)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference of the reads. Not to be changed by tests."""
    return write_fasta(tmp_path_factory.mktemp("genome") / "genome.fa", GENOME)


def write_fasta(path: Path, genome: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in genome.items()))
    return path


@contextmanager
def opened(
    path: Path, scratch: Path, fasta: Path | None = None, naming: Naming | None = None
) -> Iterator[Alignments]:
    header = scan_alignments(path, CONTIGS, naming or Naming(), scratch, fasta)
    with open_alignments(header) as alignments:
        yield alignments


def passes(read: pysam.AlignedSegment, filters: Filters) -> bool:
    return not (
        (read.is_duplicate and not filters.duplicates)
        or (read.is_qcfail and not filters.qc_fail)
        or (read.is_secondary and not filters.secondary)
        or (read.is_supplementary and not filters.supplementary)
        or (filters.proper_pairs and not read.is_proper_pair)
        or (filters.strand == 1 and read.is_reverse)
        or (filters.strand == -1 and not read.is_reverse)
        or read.mapping_quality < filters.min_mapq
    )


def naive_multicov(
    path: Path, contig: str, start: int, stop: int, size: int, filters: Filters, split: bool
) -> list[int]:
    """What the manual of multicov says, one read and one base at a time."""
    counts = [0] * len(range(start, stop, size))
    with pysam.AlignmentFile(str(path)) as file:
        reads = [r for r in file if r.reference_name == contig and passes(r, filters)]
    for read in reads:
        covered, at = set(), read.reference_start
        if read.is_unmapped or not read.cigarstring:
            if filters.unmapped and not split:
                covered.add(at)
        else:
            for op, n in operations(read.cigarstring):
                if op in "MD=X" or (op == "N" and not split):
                    covered |= set(range(at, at + n))
                at += n if op in "MDN=X" else 0
        for touched in {(base - start) // size for base in covered if start <= base < stop}:
            counts[touched] += 1
    return counts


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("filters", FILTERS, ids=repr)
def test_reads_are_counted_in_every_bin_that_they_overlap(
    bam: Path, tmp_path: Path, filters: Filters, split: bool
) -> None:
    with opened(bam, tmp_path) as alignments:
        for contig, start, stop, size in [(0, 0, 2000, 50), (0, 33, 1999, 7), (1, 100, 500, 64)]:
            mine = bin_counts(alignments, contig, start, stop, size, filters, split)
            assert mine.dtype == np.int32
            name = CONTIGS.names[contig]
            assert mine.tolist() == naive_multicov(bam, name, start, stop, size, filters, split)
            assert mine.any()


def multicov(bam: Path, bins: list[tuple[str, int, int]], *options: str) -> list[int]:
    bed = "".join(f"{name}\t{lo}\t{hi}\tn\t0\t+\n" for name, lo, hi in bins)
    found = subprocess.run(
        ["bedtools", "multicov", "-bams", str(bam), "-bed", "stdin", *options],
        input=bed,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line.rsplit("\t", 1)[1]) for line in found.stdout.splitlines()]


needs_bedtools = pytest.mark.skipif(not shutil.which("bedtools"), reason="bedtools is not here")


@needs_bedtools
@pytest.mark.parametrize(
    ("options", "filters", "split"),
    [
        ([], MULTICOV, False),
        (["-q", "7"], replace(MULTICOV, min_mapq=7), False),
        (["-q", "1"], Filters(min_mapq=1), False),
        ([], Filters(), False),
        (["-D"], replace(MULTICOV, duplicates=True), False),
        (["-F"], replace(MULTICOV, qc_fail=True), False),
        (["-p"], replace(MULTICOV, proper_pairs=True), False),
        (["-s"], replace(MULTICOV, strand=1), False),
        (["-S"], replace(MULTICOV, strand=-1), False),
        (["-split"], MULTICOV, True),
    ],
)
def test_counts_are_those_of_bedtools(
    tmp_path: Path, options: list[str], filters: Filters, split: bool
) -> None:
    def aligned(header: pysam.AlignmentHeader) -> list[pysam.AlignedSegment]:
        return [read for read in many_reads(header) if read.cigarstring]

    bam = write_bam(tmp_path / "x.bam", and_one_without_a_cigar if filters.unmapped else aligned)
    bins = [("chr1", lo, min(lo + 33, 2000)) for lo in range(0, 2000, 33)]
    with opened(bam, tmp_path) as alignments:
        mine = bin_counts(alignments, 0, 0, 2000, 33, filters, split)
    assert mine.tolist() == multicov(bam, bins, *options)


def samtools_depth(bam: Path, contig: str, length: int, *options: str) -> list[int]:
    text = pysam.depth("-a", *options, "-r", f"{contig}:1-{length}", str(bam))
    return [int(line.split("\t")[2]) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("filters", "options"),
    [
        (DEPTH, []),
        (replace(DEPTH, min_mapq=8), ["-Q", "8"]),
        (Filters(), ["-g", "0x100"]),
        (replace(DEPTH, duplicates=True, qc_fail=True), ["-g", "0x600"]),
        (replace(DEPTH, supplementary=False), ["-G", "0x800"]),
    ],
)
def test_depth_is_that_of_samtools(
    bam: Path, tmp_path: Path, filters: Filters, options: list[str]
) -> None:
    with opened(bam, tmp_path) as alignments:
        for number, (name, length) in enumerate(LENGTHS.items()):
            mine = coverage(alignments, number, 0, length, filters)
            assert mine.dtype == np.int32
            assert mine.tolist() == samtools_depth(bam, name, length, *options)
            assert np.array_equal(coverage(alignments, number, 17, 91, filters), mine[17:91])


def test_depth_is_that_of_pysam_where_bases_are_known(tmp_path: Path) -> None:
    def plain(header: pysam.AlignmentHeader) -> list[pysam.AlignedSegment]:
        return [make_read(header, 0, start, "30M5D15M") for start in range(3, 1900, 11)]

    bam = write_bam(tmp_path / "x.bam", plain)
    with pysam.AlignmentFile(str(bam)) as file:
        expected = np.sum(file.count_coverage("chr1", 0, 2000, quality_threshold=0), axis=0)
    with opened(bam, tmp_path) as alignments:
        assert coverage(alignments, 0, 0, 2000, DEPTH).tolist() == expected.tolist()


def test_parts_of_a_contig_add_up_however_many_reads_are_held(
    bam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(bam, tmp_path) as alignments:
        whole = bin_counts(alignments, 0, 0, 2000, 10, Filters(), split=True)
        monkeypatch.setattr("data_shards.sources.alignments._BLOCKS_AT_ONCE", 5)
        assert np.array_equal(bin_counts(alignments, 0, 0, 2000, 10, Filters(), True), whole)
        parts = [
            bin_counts(alignments, 0, lo, lo + 500, 10, Filters(), True)
            for lo in range(0, 2000, 500)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
        assert len(bin_counts(alignments, 0, 7, 7, 10, Filters())) == 0


@given(
    spans=st.lists(
        st.tuples(
            st.integers(0, 1), st.integers(0, 180), st.integers(1, 60), st.sampled_from([1, 0, -1])
        ),
        max_size=25,
    ),
    start=st.integers(0, 120),
    size=st.integers(0, 120),
    bin_size=st.integers(1, 130),
    strand=st.sampled_from([0, 1, -1]),
)
@settings(deadline=None)
def test_intervals_are_counted_as_a_loop_counts_them(
    spans: list[tuple[int, int, int, int]], start: int, size: int, bin_size: int, strand: int
) -> None:
    columns = np.array(spans, dtype=np.int64).reshape(-1, 4)
    intervals = Intervals(
        columns[:, 0].astype(np.int32),
        columns[:, 1],
        columns[:, 1] + columns[:, 2],
        columns[:, 3].astype(np.int8),
        np.full(len(columns), np.nan),
    )
    stop = start + size
    expected = [
        sum(
            contig == 1
            and lo < min(edge + bin_size, stop)
            and lo + n > edge
            and strand in {0, sign}
            for contig, lo, n, sign in spans
        )
        for edge in range(start, stop, bin_size)
    ]
    mine = bin_intervals(intervals, 1, start, stop, bin_size, strand)
    assert mine.dtype == np.int32
    assert mine.tolist() == expected


def test_reads_are_what_pysam_says(bam: Path, tmp_path: Path) -> None:
    with opened(bam, tmp_path) as alignments:
        mine = read_reads(alignments, 0, 300, 700, Filters(min_mapq=7))
    with pysam.AlignmentFile(str(bam)) as file:
        oracle = [
            read
            for read in file.fetch("chr1", 300, 700)
            if passes(read, Filters(min_mapq=7)) and read.get_blocks()
        ]
    assert len(mine) == len(oracle) > 50
    assert mine.start.tolist() == [read.reference_start for read in oracle]
    assert mine.end.tolist() == [read.reference_end for read in oracle]
    assert mine.strand.tolist() == [-1 if read.is_reverse else 1 for read in oracle]
    assert mine.mapq.tolist() == [read.mapping_quality for read in oracle]
    assert mine.flag.tolist() == [read.flag for read in oracle]
    for i, read in enumerate(oracle):
        bases = slice(*mine.base_offsets[i : i + 2])
        assert decode(mine.codes[bases]) == read.query_sequence
        assert mine.qualities[bases].tolist() == list(read.query_qualities)
        ops = slice(*mine.cigar_offsets[i : i + 2])
        letters = [CIGAR_OPS[op] for op in mine.cigar_ops[ops]]
        lengths = mine.cigar_lengths[ops]
        assert "".join(f"{n}{op}" for n, op in zip(lengths, letters, strict=True)) == (
            read.cigarstring
        )
    types = [array.dtype for array in vars(mine).values()]
    assert types == ["i8", "i8", "i1", "u1", "u2", "i8", "u1", "u1", "i8", "u1", "i4"]


def test_a_read_may_lack_its_sequence_or_its_qualities(tmp_path: Path) -> None:
    def make(header: pysam.AlignmentHeader) -> list[pysam.AlignedSegment]:
        bare, silent = make_read(header, 0, 5, "20M"), make_read(header, 0, 6, "3M")
        bare.query_sequence = None
        silent.query_qualities = None
        return [bare, silent]

    with opened(write_bam(tmp_path / "x.bam", make), tmp_path) as alignments:
        mine = read_reads(alignments, 0, 0, 100, Filters())
        nothing = read_reads(alignments, 1, 0, 100, Filters())
    assert mine.base_offsets.tolist() == [0, 0, 3]
    assert mine.qualities.tolist() == [NO_QUALITY] * 3
    assert len(nothing) == 0
    assert nothing.base_offsets.tolist() == nothing.cigar_offsets.tolist() == [0]


def test_a_base_that_is_only_said_to_equal_the_reference_is_refused(tmp_path: Path) -> None:
    bam = write_bam(
        tmp_path / "x.bam", lambda header: [make_read(header, 0, 5, "3M", query_sequence="A=C")]
    )
    with opened(bam, tmp_path) as alignments, pytest.raises(InputError, match=r"at 5 .* has '='"):
        read_reads(alignments, 0, 0, 100, Filters())


def pair(
    header: pysam.AlignmentHeader,
    first: int,
    second: int,
    size: int,
    flags: tuple[int, int],
    **given: Any,
) -> list[pysam.AlignedSegment]:
    sizes = (size, -size) if first <= second else (-size, size)
    return [
        make_read(
            header,
            0,
            mine,
            "20M",
            flag=flag,
            next_reference_id=0,
            next_reference_start=other,
            template_length=length,
            query_name=f"p{first}",
            **given,
        )
        for mine, other, flag, length in [
            (first, second, flags[0], sizes[0]),
            (second, first, flags[1], sizes[1]),
        ]
    ]


FORWARD, REVERSE = (0x63, 0x93), (0x53, 0xA3)  # the first read of the pair is +, or is -


def test_each_proper_pair_is_one_fragment(tmp_path: Path) -> None:
    def make(header: pysam.AlignmentHeader) -> list[pysam.AlignedSegment]:
        return [
            *pair(header, 100, 180, 100, FORWARD),
            *pair(header, 300, 250, 70, REVERSE),
            *pair(header, 400, 400, 20, FORWARD),
            *pair(header, 500, 560, 80, (0x61, 0x91)),  # not proper
            *pair(header, 600, 660, 80, FORWARD, mapping_quality=3),
            *pair(header, 700, 760, 80, (0x463, 0x493)),  # duplicates
            make_read(header, 0, 100, "20M", flag=0x963, next_reference_start=180),
        ]

    with opened(write_bam(tmp_path / "x.bam", make), tmp_path) as alignments:
        found = read_fragments(alignments, 0, 0, 2000, Filters(min_mapq=10))
        parts = [read_fragments(alignments, 0, lo, lo + 10, Filters()) for lo in range(0, 2000, 10)]
    assert found.start.tolist() == [100, 250, 400]
    assert found.end.tolist() == [200, 320, 420]
    assert found.strand.tolist() == [1, -1, 1]
    assert found.contig.tolist() == [0, 0, 0]
    assert np.concatenate([part.start for part in parts]).tolist() == [100, 250, 400, 600]


@pytest.mark.parametrize("size", [0, 1950])
def test_a_fragment_without_a_true_length_is_refused(tmp_path: Path, size: int) -> None:
    bam = write_bam(tmp_path / "x.bam", lambda header: pair(header, 100, 180, size, FORWARD))
    with (
        opened(bam, tmp_path) as alignments,
        pytest.raises(InputError, match=f"'p100' at 100 .* has the length {size}") as caught,
    ):
        read_fragments(alignments, 0, 0, 2000, Filters())
    assert "fixmate" in (caught.value.remedy or "")


def make_cram(bam: Path, fasta: Path, path: Path, index: bool = True) -> Path:
    local = path.with_suffix(".reference.fa")  # so that its index does not lie beside the fixture
    local.write_bytes(fasta.read_bytes())
    pysam.view("-C", "-T", str(local), "-o", str(path), str(bam), catch_stdout=False)
    local.unlink()
    if index:
        pysam.index(str(path))
    return path


@pytest.mark.parametrize("index", [True, False])
def test_a_cram_gives_what_its_bam_gives(
    bam: Path, fasta: Path, tmp_path: Path, index: bool
) -> None:
    cram = make_cram(bam, fasta, tmp_path / "x.cram", index)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = sorted(tmp_path.glob("*"))
    with opened(cram, scratch, fasta) as one, opened(bam, scratch) as other:
        for count in (
            lambda a: bin_counts(a, 0, 0, 2000, 9, MULTICOV),
            lambda a: coverage(a, 1, 0, 500, DEPTH),
            lambda a: read_reads(a, 0, 100, 900, Filters()).codes,
            lambda a: read_reads(a, 0, 100, 900, Filters()).end,
        ):
            assert count(one).any()
            assert np.array_equal(count(one), count(other))
    assert sorted(tmp_path.glob("*")) == before
    assert not list(fasta.parent.glob("*.fai"))


def test_the_contigs_of_a_cram_may_have_other_names_than_its_fasta(tmp_path: Path) -> None:
    bare = {name.removeprefix("chr"): length for name, length in LENGTHS.items()}
    bam = write_bam(tmp_path / "x.bam", many_reads, bare)
    mine = write_fasta(tmp_path / "bare.fa", {n.removeprefix("chr"): s for n, s in GENOME.items()})
    cram = make_cram(bam, mine, tmp_path / "x.cram")
    with (
        opened(cram, tmp_path, write_fasta(tmp_path / "g.fa", GENOME), Naming("add-chr")) as one,
        opened(bam, tmp_path, naming=Naming("add-chr")) as other,
    ):
        codes = [read_reads(a, 1, 0, 500, Filters()).codes for a in (one, other)]
    assert np.array_equal(*codes)


def test_a_cram_needs_the_fasta_that_it_was_made_with(
    bam: Path, fasta: Path, tmp_path: Path
) -> None:
    cram = make_cram(bam, fasta, tmp_path / "x.cram")
    with pytest.raises(InputError, match="can't be decoded without its reference") as caught:
        scan_alignments(cram, CONTIGS, Naming(), tmp_path)
    assert "FASTA" in (caught.value.remedy or "")
    other = write_fasta(tmp_path / "other.fa", {**GENOME, "chr2": GENOME["chr2"][::-1]})
    with pytest.raises(InputError, match="contig 'chr2' has another sequence"):
        scan_alignments(cram, CONTIGS, Naming(), tmp_path, other)
    less = write_fasta(tmp_path / "less.fa", {"chr1": GENOME["chr1"]})
    with pytest.raises(InputError, match=r"no contig 'chr2', which x\.cram has reads on"):
        scan_alignments(cram, CONTIGS, Naming(), tmp_path, less)


def test_an_index_is_built_in_the_scratch_folder_only(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "scratch").mkdir()
    bam = write_bam(tmp_path / "source" / "x.bam", many_reads, index=False)
    header = scan_alignments(bam, CONTIGS, Naming(), tmp_path / "scratch")
    assert header.index.parent == tmp_path / "scratch"
    assert sorted(bam.parent.iterdir()) == [bam]
    again = pickle.loads(pickle.dumps(header))
    with open_alignments(again) as alignments:
        assert bin_counts(alignments, 1, 0, 500, 500, Filters()).sum() > 0
    # A later file of the same name does not get the index of the first.
    write_bam(bam, lambda header: [make_read(header, 1, 5, "20M")], index=False)
    with opened(bam, tmp_path / "scratch") as alignments:
        assert bin_counts(alignments, 1, 0, 500, 500, Filters()).tolist() == [1]


def test_long_contigs_get_an_index_that_holds_them(tmp_path: Path) -> None:
    contigs = Contigs(("chr1",), (600_000_000,))

    def make(header: pysam.AlignmentHeader) -> list[pysam.AlignedSegment]:
        read = make_read(header, 0, 5, "20M")
        read.reference_start = 599_999_000
        return [read]

    bam = write_bam(tmp_path / "x.bam", make, {"chr1": 600_000_000}, index=False)
    header = scan_alignments(bam, contigs, Naming(), tmp_path)
    assert header.index.suffix == ".csi"
    with open_alignments(header) as alignments:
        assert bin_counts(alignments, 0, 599_998_990, 599_999_010, 10, Filters()).tolist() == [0, 1]


@pytest.mark.parametrize("suffix", [".bam.bai", ".bai", ".bam.csi"])
def test_an_index_beside_the_file_is_used(tmp_path: Path, suffix: str) -> None:
    bam = write_bam(tmp_path / "x.bam", many_reads, index=False)
    index = tmp_path / f"x{suffix}"
    pysam.index(*(["-c"] if suffix.endswith("csi") else []), str(bam), str(index))
    assert scan_alignments(bam, CONTIGS, Naming(), tmp_path).index == index


def test_an_index_older_than_its_file_is_refused(tmp_path: Path) -> None:
    bam = write_bam(tmp_path / "x.bam", many_reads)
    os.utime(tmp_path / "x.bam.bai", ns=(0, bam.stat().st_mtime_ns - 1))
    with pytest.raises(InputError, match=r"the index is older than x\.bam") as caught:
        scan_alignments(bam, CONTIGS, Naming(), tmp_path)
    assert caught.value.path == tmp_path / "x.bam.bai"
    assert "samtools index" in (caught.value.remedy or "")


def test_an_index_of_another_file_is_refused(bam: Path, fasta: Path, tmp_path: Path) -> None:
    one = write_bam(tmp_path / "x.bam", lambda header: [make_read(header, 1, 5, "20M")])
    (tmp_path / "x.bam.bai").write_bytes(bam.with_name("x.bam.bai").read_bytes())
    cram = make_cram(one, fasta, tmp_path / "y.cram")
    whole = make_cram(bam, fasta, tmp_path / "z.cram")
    (tmp_path / "y.cram.crai").write_bytes(whole.with_name("z.cram.crai").read_bytes())
    for path in (one, cram):
        with pytest.raises(InputError, match=f"not the index of {path.name}") as caught:
            scan_alignments(path, CONTIGS, Naming(), tmp_path, fasta)
        assert caught.value.path == next(tmp_path.glob(f"{path.name}.*ai"))


@pytest.mark.parametrize("content", [b"", b"not an index", b"BAI\1\2\0\0\0"])
def test_an_unreadable_index_is_refused(tmp_path: Path, content: bytes) -> None:
    bam = write_bam(tmp_path / "x.bam", many_reads)
    (tmp_path / "x.bam.bai").write_bytes(content)
    with pytest.raises(InputError, match=r"not the index of x\.bam"):
        scan_alignments(bam, CONTIGS, Naming(), tmp_path)


@pytest.mark.parametrize(
    ("lengths", "naming", "problem", "remedy"),
    [
        ({"chr1": 2001, "chr2": 500}, Naming(), "'chr1' has 2,001 bp, but", "assembly"),
        ({"1": 2000, "2": 500}, Naming(), "contig '1' is not in the reference", "add-chr"),
        ({"chr1": 2000, "HLA": 500}, Naming(), "contig 'HLA' is not in the", "the FASTA has"),
        (
            {"chr1": 2000, "one": 2000},
            Naming("same", (("one", "chr1"),)),
            "'chr1' and 'one' both mean contig 'chr1'",
            "renames",
        ),
    ],
)
def test_reads_of_another_reference_are_refused(
    tmp_path: Path, lengths: dict[str, int], naming: Naming, problem: str, remedy: str
) -> None:
    bam = write_bam(tmp_path / "x.bam", many_reads, lengths)
    with pytest.raises(InputError) as caught:
        scan_alignments(bam, CONTIGS, naming, tmp_path)
    assert problem in str(caught.value)
    assert remedy in (caught.value.remedy or "")
    assert caught.value.path == bam


def test_a_contig_of_the_header_without_reads_may_be_unknown(tmp_path: Path) -> None:
    lengths = {"1": 2000, "GL000191.1": 106433, "MT": 16569}
    bam = write_bam(tmp_path / "x.bam", lambda header: [make_read(header, 0, 5, "20M")], lengths)
    with opened(bam, tmp_path, naming=Naming("add-chr")) as alignments:
        assert alignments.header.names == ("1", None)
        assert alignments.header.absent == ("chr2",)
        assert bin_counts(alignments, 0, 0, 20, 10, Filters()).tolist() == [1, 1]
        assert bin_counts(alignments, 1, 0, 20, 10, Filters()).tolist() == [0, 0]


def without_block(raw: bytes) -> bytes:
    """Take the last block of records out and leave the end mark: no cut is to be seen."""
    size = int.from_bytes(raw[16:18], "little") + 1
    return raw[:size] + raw[-28:]


def flipped(raw: bytes) -> bytes:
    at = len(raw) // 2
    return raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: b"", "neither BAM nor CRAM: it begins with b''"),
        (lambda raw: b"@SQ\tSN:chr1\tLN:2000\n", "neither BAM nor CRAM: it begins with b'@SQ"),
        (lambda raw: raw[1:], "neither BAM nor CRAM"),
        (lambda raw: raw[:10], "neither BAM nor CRAM"),
        (lambda raw: gzip.compress(b"BAMBOO"), "neither BAM nor CRAM"),
        (lambda raw: raw[: len(raw) // 2], "the BAM file is truncated: its end mark is missing"),
        (lambda raw: raw[:-28], "the BAM file is truncated: its end mark is missing"),
        (lambda raw: raw[:-1], "the BAM file is truncated: its end mark is missing"),
        (flipped, "damaged file: not all of its records can be read"),
        (without_block, "no read of the file has a position"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    bam = write_bam(tmp_path / "x.bam", many_reads)
    bam.write_bytes(change(bam.read_bytes()))
    index = tmp_path / "x.bam.bai"
    os.utime(index, ns=(0, bam.stat().st_mtime_ns))
    with pytest.raises(InputError) as caught:
        scan_alignments(bam, CONTIGS, Naming(), tmp_path)
    assert problem in str(caught.value)
    assert caught.value.path == bam
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: raw[: len(raw) // 2], "the CRAM file is truncated: its end mark is missing"),
        (lambda raw: raw[:-38], "the CRAM file is truncated: its end mark is missing"),
        (lambda raw: raw[:8] + raw[-38:], "its header can't be read"),
    ],
)
def test_a_damaged_cram_is_refused(
    bam: Path, fasta: Path, tmp_path: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    cram = make_cram(bam, fasta, tmp_path / "x.cram")
    cram.write_bytes(change(cram.read_bytes()))
    with pytest.raises(InputError) as caught:
        scan_alignments(cram, CONTIGS, Naming(), tmp_path, fasta)
    assert problem in str(caught.value)
    assert caught.value.path == cram


def test_a_file_without_contigs_or_without_placed_reads_is_refused(tmp_path: Path) -> None:
    path = write_bam(tmp_path / "x.bam", lambda header: [], {}, index=False)
    with pytest.raises(InputError, match="its header can't be read") as caught:
        scan_alignments(path, CONTIGS, Naming(), tmp_path)
    assert "@SQ" in (caught.value.remedy or "")
    write_bam(path, lambda header: [make_read(header, -1, -1, None, flag=4)], index=False)
    with pytest.raises(InputError, match="no read of the file has a position"):
        scan_alignments(path, CONTIGS, Naming(), tmp_path)


@pytest.mark.parametrize("order", ["contigs", "positions"])
def test_reads_that_are_not_sorted_by_position_are_refused(tmp_path: Path, order: str) -> None:
    places = [(0, 9), (1, 5), (0, 9)] if order == "contigs" else [(0, 9), (0, 5), (1, 9)]
    path = tmp_path / "x.bam"
    header = pysam.AlignmentHeader.from_references(list(LENGTHS), list(LENGTHS.values()))
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for contig, start in places:
            file.write(make_read(header, contig, start, "20M"))
    with pytest.raises(InputError, match="not sorted by position") as caught:
        scan_alignments(path, CONTIGS, Naming(), tmp_path)
    assert "samtools sort" in (caught.value.remedy or "")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_fault_that_comes_up_in_reading_is_an_input_error(tmp_path: Path) -> None:
    bam = write_bam(tmp_path / "x.bam", many_reads)
    header = scan_alignments(bam, CONTIGS, Naming(), tmp_path)
    bam.write_bytes(flipped(bam.read_bytes()))
    with (
        pytest.raises(InputError, match=r"the reads of chr1:0-2000 \(0-based\) can't be read"),
        open_alignments(header) as alignments,
    ):
        bin_counts(alignments, 0, 0, 2000, 10, Filters())
    bam.unlink()
    with pytest.raises(InputError, match="can't be opened"), open_alignments(header):
        pass


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, 501)])
def test_a_stretch_outside_the_contig_is_no_data(
    bam: Path, tmp_path: Path, start: int, stop: int
) -> None:
    with (
        opened(bam, tmp_path) as alignments,
        pytest.raises(ValueError, match="is not within contig 'chr2'"),
    ):
        coverage(alignments, 1, start, stop, DEPTH)


REAL = [
    ("deepvariant/gatk_mini_bundle_extract.bam", "chr20", 63025520, 10_000_000, 10_040_000),
    ("deepvariant/NA12878_small.bam", "chr20", 63025520, 9_999_000, 10_020_000),
    ("deepcpg/CRC1_chr19_trim.bam", "chr19", 59128983, 266_000, 290_000),
    ("deepcpg/NORM1_chr19_trim.bam", "chr19", 59128983, 266_000, 290_000),
]


@pytest.mark.parametrize(("name", "contig", "length", "start", "stop"), REAL)
def test_real_reads_are_counted_as_samtools_and_bedtools_count_them(
    shared_data: Path, tmp_path: Path, name: str, contig: str, length: int, start: int, stop: int
) -> None:
    contigs = Contigs((contig,), (length,))
    naming = Naming("same" if "small" in name else "add-chr")
    header = scan_alignments(shared_data / name, contigs, naming, tmp_path)
    own = header.names[0]
    assert own
    # Beside a link, so that all tools have an index and the data's folder stays as it is.
    link = tmp_path / "reads.bam"
    link.symlink_to(shared_data / name)
    (tmp_path / "reads.bam.bai").symlink_to(header.index)
    with open_alignments(header) as alignments:
        depth = coverage(alignments, 0, start, stop, DEPTH)
        text = pysam.depth("-a", "-r", f"{own}:{start + 1}-{stop}", str(link))
        assert depth.tolist() == [int(line.split("\t")[2]) for line in text.splitlines()]
        assert depth.any()
        counts = bin_counts(alignments, 0, start, stop, 100, MULTICOV)
        if shutil.which("bedtools"):
            bins = [(own, lo, lo + 100) for lo in range(start, stop, 100)]
            assert counts.tolist() == multicov(link, bins)
        reads = read_reads(alignments, 0, start, stop, Filters(unmapped=True))
        assert len(reads) == sum(
            1
            for read in alignments.file.fetch(own, start, stop)
            if not (read.is_unmapped or read.is_duplicate or read.is_qcfail)
        )
        fragments = read_fragments(alignments, 0, start, stop, Filters())
    assert len(fragments) > 100
    assert (np.diff(fragments.start) >= 0).all()

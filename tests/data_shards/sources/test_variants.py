"""VCF and BCF against pysam, and every refusal with its file, line and remedy."""

from __future__ import annotations

import gzip
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.variant_header import scan_variants
from data_shards.sources.variant_table import Kind, Variants, concatenate
from data_shards.sources.variants import stream_variants

CONTIGS = Contigs(("chr1", "chr2"), (1000, 500))
HEADER = """##fileformat=VCFv4.2
##contig=<ID=chr1,length=1000>
##contig=<ID=chr2,length=500>
##FILTER=<ID=q10,Description="low">
##INFO=<ID=END,Number=1,Type=Integer,Description="end">
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="depth">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1\tS2
"""
GOOD = "chr1\t10\t.\tA\tC\t5\tPASS\t.\tGT\t0|1\t1/1\n"
BASES = st.text("ACGTN", min_size=1, max_size=4)
CALLS = ["0/0", "0|1", "1|0", "1/1", "./.", ".", ".|1", "0", "1", "2|1", "0/2"]


def write(path: Path, text: str) -> Path:
    """Write a VCF as its extension says: plain, gzip, bgzip or BCF."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".bgz":
        with pysam.BGZFile(str(path), "wb") as stream:
            stream.write(text.encode())
    elif path.suffix == ".bcf":
        plain = path.with_suffix(".plain.vcf")
        plain.write_text(text)
        with (
            pysam.VariantFile(str(plain)) as source,
            pysam.VariantFile(str(path), "wb", header=source.header) as target,
        ):
            for record in source:
                target.write(record)
    else:
        path.write_bytes(text.encode())
    return path


def read(path: Path, contigs: Contigs = CONTIGS, **options: object) -> Variants:
    return concatenate(list(stream_variants(path, contigs, Naming(), **options)))  # type: ignore[arg-type]


def expected(path: Path, contigs: Contigs, prefix: str = "") -> Iterator[tuple[object, ...]]:
    """What pysam says, a tuple a row, for files without reference alleles."""
    with pysam.VariantFile(str(path)) as file:
        for number, record in enumerate(file):
            for allele, alt in enumerate(record.alts or (), start=1):
                calls = []
                for sample in record.samples.values():
                    call = list(sample.allele_indices)
                    alone = len(call) == 1
                    if alone:
                        call.append(None if call[0] is None else -2)
                    values = tuple(
                        -1 if c is None else -2 if c == -2 else int(c == allele) for c in call
                    )
                    phased = call[0] is not None if alone else bool(sample.phased)
                    calls.append((values, phased))
                yield (
                    contigs.index[prefix + record.contig],
                    record.start,
                    record.ref.upper(),
                    alt.upper(),
                    record.qual,
                    set(record.filter) <= {"PASS"},
                    number,
                    allele,
                    calls,
                )


def found(variants: Variants) -> Iterator[tuple[object, ...]]:
    for row in range(len(variants)):
        quality = float(variants.quality[row])
        yield (
            int(variants.contig[row]),
            int(variants.position[row]),
            variants.ref[row].decode(),
            variants.alt[row].decode().upper(),
            None if math.isnan(quality) else quality,
            bool(variants.passed[row]),
            int(variants.record[row]),
            int(variants.allele[row]),
            [
                (tuple(calls), phased)
                for calls, phased in zip(
                    variants.genotypes[row].tolist(), variants.phased[row].tolist(), strict=True
                )
            ],
        )


@st.composite
def records(draw: st.DrawFn) -> str:
    ref = draw(BASES)
    alts = draw(
        st.lists(BASES.filter(lambda alt: alt != ref), min_size=2, max_size=3, unique=True)
        | st.just(["*", "<DEL>"])
    )
    contig, position = draw(st.sampled_from(["chr1", "chr2"])), draw(st.integers(1, 490))
    quality = draw(st.sampled_from([".", "0", "12.5", "1e3", "0.1"]))
    filters = draw(st.sampled_from(["PASS", ".", "q10"]))
    info = draw(st.sampled_from([".", "END=499"]))
    calls = "\t".join(draw(st.lists(st.sampled_from(CALLS), min_size=2, max_size=2)))
    return (
        f"{contig}\t{position}\t.\t{ref}\t{','.join(alts)}\t{quality}\t{filters}\t{info}"
        f"\tGT\t{calls}\n"
    )


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"])
@given(lines=st.lists(records(), min_size=1, max_size=20))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
def test_rows_are_what_pysam_reads(tmp_path: Path, suffix: str, lines: list[str]) -> None:
    path = write(tmp_path / f"x{suffix}", HEADER + "".join(lines))
    whole = read(path)
    plain = write(tmp_path / "plain.vcf", HEADER + "".join(lines))  # pysam can't read plain gzip
    oracle = plain if suffix == ".vcf.gz" else path
    assert list(found(whole)) == list(expected(oracle, CONTIGS))
    small = list(stream_variants(path, CONTIGS, Naming(), block=1))
    assert len(small) == len(lines)
    assert list(found(concatenate(small))) == list(found(whole))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("deepvariant/PG_performance.vcf.gz", ""),
        ("deepcpg/NORM1.chr19.trim.vcf", ""),
        ("deepcpg/CRC1.chr19.trim.vcf", "chr"),
    ],
)
def test_real_files_are_what_pysam_reads(shared_data: Path, name: str, prefix: str) -> None:
    path = shared_data / name
    with pysam.VariantFile(str(path)) as file:
        known = [(prefix + c.name, c.length) for c in file.header.contigs.values()]
    contigs = Contigs(tuple(n for n, _ in known), tuple(length for _, length in known))
    naming = Naming("add-chr" if prefix else "same")
    variants = concatenate(list(stream_variants(path, contigs, naming)))
    assert list(found(variants)) == list(expected(path, contigs, prefix))


def test_a_real_gvcf_gives_its_variants_and_counts_the_rest(shared_data: Path) -> None:
    path = shared_data / "deepvariant" / "CEUTrio.20.21.gatk3.4.g.vcf.bgz"
    contigs = Contigs(("chr20", "chr21"), (63025520, 48129895))
    naming = Naming("add-chr")
    with pytest.raises(InputError, match="ALT <NON_REF> is no variant") as caught:
        next(iter(stream_variants(path, contigs, naming)))
    assert "gVCF" in (caught.value.remedy or "")
    blocks = list(stream_variants(path, contigs, naming, reference_records="skip", block=1 << 18))
    assert len(blocks) > 3
    variants = concatenate(blocks)
    with pysam.VariantFile(str(path)) as file:
        sites = [(r.start, [a for a in r.alts if a != "<NON_REF>"]) for r in file]
    assert variants.skipped_records == sum(not alts for _, alts in sites)
    assert variants.skipped_alleles == sum(bool(alts) for _, alts in sites)
    assert variants.position.tolist() == [start for start, alts in sites for _ in alts]
    numbers = [n for n, (_, alts) in enumerate(sites) for _ in alts]
    assert variants.record.tolist() == numbers


def test_real_files_that_break_the_format_are_refused(shared_data: Path) -> None:
    folder = shared_data / "variants"
    contigs = Contigs(("chr22",), (50818468,))
    with pytest.raises(InputError, match="7 columns where the header has 8") as caught:
        read(folder / "chr22_ENST00000319363.vcf.gz", contigs)
    assert caught.value.line == 4
    contigs = Contigs(("chr22",), (51304566,))
    with pytest.raises(InputError, match=r"ALT A \(the same as REF\) is no variant") as caught:
        read(folder / "clinvar_donor_acceptor_chr22.vcf", contigs)
    assert caught.value.line == 247
    assert (
        len(
            read(
                folder / "clinvar_donor_acceptor_chr22.vcf",
                contigs,
                samples=(),
                reference_records="skip",
            )
        )
        == 418
    )


BAD_LINES = [
    ("\n", "a blank line", "remove it"),
    ("#comment\n", "a header line after the first record", "header"),
    ("chr1\t11\t.\tA\tC\n", "5 columns where the header has 11", "tabs"),
    ("chr1 11 . A C 5 PASS . GT 0|1 1/1\n", "1 columns where the header has 11", "tabs"),
    (GOOD.replace("\n", "\t0|1\n"), "12 columns where the header has 11", "tabs"),
    (GOOD.replace("\t1/1", ""), "10 columns where the header has 11", "tabs"),
    (GOOD.replace("\t1/1", "\t1/1\rx"), "a stray control character", "line ends"),
    (GOOD.replace("\t1/1", "\t1/1\0"), "a stray control character", "line ends"),
    (GOOD.replace("\t10\t", "\t\t"), "column POS is empty", "'.'"),
    (GOOD.replace("\tA\t", "\t\t"), "column REF is empty", "'.'"),
    (GOOD.replace("chr1", "chr3"), "contig 'chr3' is not in the header", "##contig"),
    (GOOD.replace("chr1", "<chr1>"), "'<chr1>' is no contig name", "first column"),
    (GOOD.replace("10", "ten"), "POS is 'ten', not a number", "from 1"),
    (GOOD.replace("10", "10.5"), "POS is '10.5', not a number", "from 1"),
    (GOOD.replace("10", "-5"), "POS is '-5', not a number", "from 1"),
    (GOOD.replace("10", "9" * 30), "POS is '999", "from 1"),
    (GOOD.replace("10", "0"), "POS is 0", "telomeres"),
    (GOOD.replace("10", "1001"), "REF ends at 1,001, past the end of the contig", "assembly"),
    (GOOD.replace("10", "3000000000"), "REF ends at 3,000,000,000, past the end", "assembly"),
    (GOOD.replace("\t5\t", "\thigh\t"), "QUAL is 'high', not a number", "finite"),
    (GOOD.replace("\t5\t", "\tnan\t"), "QUAL is 'nan', not a number", "finite"),
    (GOOD.replace("\t5\t", "\tinf\t"), "QUAL is 'inf', not a number", "finite"),
    (GOOD.replace("\t5\t", "\t1e300\t"), "QUAL is inf", "32 bits"),
    (GOOD.replace("\tA\t", "\tA1\t"), "REF is 'A1', not DNA", "letters of REF"),
    (GOOD.replace("\tA\t", "\t.\t"), "REF is '.', not DNA", "letters of REF"),
    (GOOD.replace("\tC\t", "\tC!\t"), "ALT is 'C!'", "breakend"),
    (GOOD.replace("\tC\t", "\tC,\t"), "ALT 'C,' has an allele without text", "lone '.'"),
    (GOOD.replace("\tC\t", "\tC,.\t"), "ALT 'C,.' has an allele without text", "lone '.'"),
    (GOOD.replace("\tC\t", "\tC,c\t"), "an ALT is there twice", "renumber"),
    (GOOD.replace("\tC\t", "\ta\t"), "ALT A (the same as REF) is no variant", "skip"),
    (GOOD.replace("\tC\t", "\t.\t"), "ALT . is no variant", "skip"),
    (GOOD.replace("\tC\t", "\tC,<*>\t"), "ALT <*> is no variant", "skip"),
    (GOOD.replace("PASS", "PASS;q10"), "FILTER is 'PASS;q10'", "names of the filters"),
    (GOOD.replace("PASS", "0"), "FILTER is '0'", "reserved"),
    (GOOD.replace("\tC\t", "\t<DEL>\t").replace("S\t.", "S\tEND=3"), "INFO/END is 3", "1,000"),
    (
        GOOD.replace("\tC\t", "\t<DEL>\t").replace("S\t.", "S\tEND=1001"),
        "INFO/END is 1001",
        "1,000",
    ),
    (GOOD.replace("GT", ":GT"), "FORMAT is ':GT'", "GT first"),
    (GOOD.replace("GT\t0|1\t1/1", "DP:GT\t1:0|1\t1:1/1"), "FORMAT is 'DP:GT'", "GT first"),
    (GOOD.replace("GT", "GT:GT"), "FORMAT is 'GT:GT'", "each once"),
    (GOOD.replace("0|1", "0|2"), "a genotype names allele 2 of 1", "add the ALT"),
    (GOOD.replace("0|1", "0/1/1"), "more than two haplotypes", "diploid"),
    (GOOD.replace("0|1", "0|x"), "htslib can't parse the record", "stderr"),
    (GOOD.replace("0|1", ""), "htslib can't parse the record", "stderr"),
    (GOOD.replace("GT\t0|1\t1/1", "DP\t3\t4"), "has no genotypes", "without samples"),
    (GOOD.rstrip("\n"), "the line has no end", "truncated"),
]


@pytest.mark.parametrize(("line", "problem", "remedy"), BAD_LINES)
def test_a_faulty_line_is_named_with_its_remedy(
    tmp_path: Path, line: str, problem: str, remedy: str
) -> None:
    after = GOOD if line.endswith("\n") else ""
    path = write(tmp_path / "x.vcf", HEADER + GOOD + GOOD + line + after)
    with pytest.raises(InputError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert caught.value.line == HEADER.count("\n") + 3
    assert caught.value.path == path
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("change", "problem", "remedy"),
    [
        (("##fileformat=VCFv4.2\n", ""), "not with '##fileformat=VCF'", "VCF or BCF"),
        (("##fileformat=VCFv4.2\n", "chr1\t5\t9\n"), "not with '##fileformat=VCF'", "VCF or BCF"),
        (("#CHROM", "CHROM"), "a record before the #CHROM line", "column names"),
        (("POS\tID", "POS ID"), "the columns are 'CHROM POS ID REF", "tabs between"),
        (("FORMAT", "FORMATS"), "the columns are", "tabs between"),
        (("S1\tS2", "S1\tS1"), "sample 'S1' is there twice", "its own"),
        (("S1\tS2", "S1\t"), "sample 2 has no name", "its own"),
        (("length=1000", "length=999"), "'chr1' has 999 bp here and 1,000 bp in", "assembly"),
        (("length=1000", "length=x"), "a contig's length is 'x'", "number of bases"),
        (("ID=chr2,length=500", "ID=chr1,length=7"), "there twice, with 1000 and 7", "wrong one"),
        (("ID=chr2,", ""), "a contig without ID", "ID=name"),
        (("=PASS", "=\r"), None, None),
    ],
)
def test_a_faulty_header_is_refused(
    tmp_path: Path, change: tuple[str, str], problem: str | None, remedy: str | None
) -> None:
    path = write(tmp_path / "x.vcf", HEADER.replace(*change) + GOOD)
    if problem is None:
        assert len(read(path)) == 1
        return
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        stream_variants(path, CONTIGS, Naming())
    assert remedy is not None
    assert remedy in (caught.value.remedy or "")
    assert caught.value.line is not None


def test_contigs_of_another_naming_get_a_hint(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vcf", HEADER + GOOD)
    contigs = Contigs(("1", "2"), (1000, 500))
    with pytest.raises(InputError, match="none of the 2 contigs of the header") as caught:
        scan_variants(path, contigs, Naming())
    assert "strip-chr" in (caught.value.remedy or "")
    variants = concatenate(list(stream_variants(path, contigs, Naming("strip-chr"))))
    assert variants.contig.tolist() == [0]


def test_a_record_on_a_contig_that_only_the_header_has_is_refused(tmp_path: Path) -> None:
    text = HEADER.replace("ID=chr2", "ID=decoy") + GOOD + GOOD.replace("chr1", "decoy")
    path = write(tmp_path / "x.vcf", text)
    file = scan_variants(path, CONTIGS, Naming())
    assert (file.foreign, file.samples, file.binary) == (("decoy",), ("S1", "S2"), False)
    with pytest.raises(InputError, match="contig 'decoy' is not in the reference") as caught:
        read(path)
    assert caught.value.line == HEADER.count("\n") + 2


def test_a_header_without_contigs_is_enough(tmp_path: Path) -> None:
    text = "".join(line for line in HEADER.splitlines(True) if "contig" not in line)
    assert read(write(tmp_path / "x.vcf", text + GOOD)).position.tolist() == [9]


def test_two_faults_that_together_crash_htslib_are_refused(tmp_path: Path) -> None:
    broken = GOOD.replace("0|1", "0|")
    bare = "".join(line for line in HEADER.splitlines(True) if "contig" not in line)
    for text, problem in (
        (HEADER + broken.replace("chr1", "ch1"), "contig 'ch1' is not in the header"),
        (bare + broken.replace("chr1", "ch1"), "contig 'ch1' is not in the reference"),
        (bare + broken, "htslib can't parse the record"),
    ):
        with pytest.raises(InputError) as caught:
            read(write(tmp_path / "x.vcf", text))
        assert problem in str(caught.value)
        assert caught.value.line == text.count("\n")


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    text = HEADER + GOOD + GOOD.replace("\t10\t", "\t20\t")
    unix = read(write(tmp_path / "u.vcf", text))
    windows = read(write(tmp_path / "w.vcf", text.replace("\n", "\r\n")))
    assert list(found(windows)) == list(found(unix))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.vcf", b"", "no #CHROM line"),
        ("x.vcf", b"\xff\xfe" + HEADER.encode("utf-16-le"), "can't be read"),
        ("x.vcf.gz", gzip.compress(HEADER.encode())[:60], "can't be read"),
        ("x.vcf.gz", gzip.compress(HEADER.encode() + GOOD.encode() * 9999)[:-99], "can't parse"),
        ("x.vcf", HEADER[: HEADER.index("#CHROM")].encode(), "no #CHROM line"),
        ("x.vcf", HEADER.encode(), "no record in the file"),
        ("x.bcf", b"BCF\x02\x02\xff\xff\x00\x00##fileformat=VCF", "can't be read"),
        ("x.bcf", b"BCF\x02", "can't be read"),
    ],
)
def test_a_file_that_is_cut_or_no_vcf_is_refused(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path)
    assert problem in str(caught.value)


@pytest.mark.parametrize("suffix", [".vcf.bgz", ".bcf"])
def test_a_bgzip_file_that_is_cut_between_blocks_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", HEADER + GOOD * 5)
    path.write_bytes(path.read_bytes()[:-28])
    with pytest.raises(InputError, match="the empty block that ends a bgzip file is missing"):
        stream_variants(path, CONTIGS, Naming())


def test_a_faulty_bcf_record_is_named_by_number_and_place(tmp_path: Path) -> None:
    text = HEADER + GOOD + GOOD.replace("0|1", "0|2")
    with pytest.raises(InputError, match=r"record 2 \(chr1:10\): a genotype names allele 2 of 1"):
        read(write(tmp_path / "x.bcf", text))
    text = HEADER + GOOD + GOOD.replace("PASS", "PASS;q10")
    with pytest.raises(InputError, match=r"record 2 \(chr1:10\): FILTER is 'PASS;q10'"):
        read(write(tmp_path / "x.bcf", text))


def test_samples_come_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vcf", HEADER + GOOD)
    assert read(path, samples=("S2", "S1")).genotypes.tolist() == [[[1, 1], [0, 1]]]
    assert read(path, samples=("S2", "S1")).phased.tolist() == [[False, True]]
    assert read(path, samples=("S1",)).genotypes.tolist() == [[[0, 1]]]
    assert read(path, samples=()).genotypes.shape == (1, 0, 2)
    for samples, problem in ((("S3",), "there is no sample 'S3'"), (("S1", "S1"), "twice")):
        with pytest.raises(InputError, match=problem):
            stream_variants(path, CONTIGS, Naming(), samples)
    odd = write(tmp_path / "odd.vcf", (HEADER + GOOD).replace("S1\tS2", "^S2\tS2"))
    assert read(odd, samples=("^S2",)).genotypes.tolist() == [[[0, 1]]]


def test_kinds_and_ends_of_alleles(tmp_path: Path) -> None:
    cases = [
        ("A", "C", Kind.SNV, 10),
        ("AC", "GT", Kind.MNV, 11),
        ("A", "ACC", Kind.INSERTION, 10),
        ("ACC", "A", Kind.DELETION, 12),
        ("ACC", "TG", Kind.DELETION, 12),
        ("A", "*", Kind.SYMBOLIC, 10),
        ("A", "<DUP:TANDEM>", Kind.SYMBOLIC, 40),
        ("A", "]chr2:90]A", Kind.SYMBOLIC, 10),
        ("A", "A.", Kind.SYMBOLIC, 10),
    ]
    lines = [
        GOOD.replace("A\tC", f"{ref}\t{alt}").replace("S\t.", "S\tEND=40") for ref, alt, *_ in cases
    ]
    variants = read(write(tmp_path / "x.vcf", HEADER + "".join(lines)))
    assert variants.kind.tolist() == [kind for *_, kind, _ in cases]
    assert variants.end.tolist() == [end for *_, end in cases]


def test_a_skipped_allele_must_not_be_carried(tmp_path: Path) -> None:
    line = GOOD.replace("\tC\t", "\tC,<NON_REF>\t")
    path = write(tmp_path / "x.vcf", HEADER + line + line.replace("0|1", "0|2"))
    with pytest.raises(InputError, match="a genotype carries <NON_REF>") as caught:
        read(path, reference_records="skip")
    assert caught.value.line == HEADER.count("\n") + 2
    lines = line + GOOD.replace("\tC\t", "\t.\t").replace("0|1\t1/1", "0|0\t0/0")
    variants = read(write(tmp_path / "y.vcf", HEADER + lines), reference_records="skip")
    assert (variants.skipped_records, variants.skipped_alleles) == (1, 1)
    assert variants.alt[0] == b"C"


MANY = "".join(GOOD.replace("\t10\t", f"\t{p}\t").replace("\tA\t", "\tAC\t") for p in range(1, 900))


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"])
@pytest.mark.parametrize("cut", [(0, 1), (100, 103), (898, 1000), (950, 960)])
def test_a_region_is_what_overlaps_it(tmp_path: Path, suffix: str, cut: tuple[int, int]) -> None:
    path = write(tmp_path / f"x{suffix}", HEADER + MANY)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = sorted(p.name for p in tmp_path.iterdir())
    rows = found(read(path))
    inside = [row for row in rows if row[1] < cut[1] and row[1] + 2 > cut[0]]  # type: ignore[operator]
    region = ("one", *cut)
    contigs = Contigs(("one", "two"), CONTIGS.lengths)
    naming = Naming("same", (("chr1", "one"), ("chr2", "two")))
    blocks = list(stream_variants(path, contigs, naming, region=region, scratch=scratch))
    assert bool(blocks) == bool(inside)
    got = [row for block in blocks for row in found(block)]
    assert [row[:6] + row[7:] for row in got] == [row[:6] + row[7:] for row in inside]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_an_index_beside_the_file_is_used_and_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vcf.bgz", HEADER + MANY)
    region = ("chr1", 100, 103)
    with pytest.raises(InputError, match="has no index") as caught:
        read(path, region=region)
    assert "scratch" in (caught.value.remedy or "")
    pysam.tabix_index(str(path), preset="vcf")
    index = tmp_path / "x.vcf.bgz.tbi"
    assert read(path, region=region).position.tolist() == [99, 100, 101, 102]
    other = write(tmp_path / "y.vcf.bgz", HEADER + MANY + GOOD.replace("\t10\t", "\t950\t"))
    shutil.copy(index, tmp_path / "y.vcf.bgz.tbi")
    with pytest.raises(InputError, match=r"was made for another file than y\.vcf\.bgz"):
        read(other, region=region)
    (tmp_path / "y.vcf.bgz.tbi").write_bytes(gzip.compress(b"nonsense"))
    with pytest.raises(InputError, match=r"is no \.csi or \.tbi index"):
        read(other, region=region)
    os.utime(index, ns=(1, 1))
    with pytest.raises(InputError, match=r"is older than x\.vcf\.bgz") as caught:
        read(path, region=region)
    assert caught.value.path == index
    assert len(read(path)) == 899


def test_an_unsorted_file_has_no_regions(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vcf", HEADER + GOOD + GOOD.replace("\t10\t", "\t5\t"))
    assert read(path).position.tolist() == [9, 4]
    with pytest.raises(InputError, match="can't be indexed") as caught:
        read(path, region=("chr1", 0, 9), scratch=tmp_path)
    assert "sort" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "region", [("chr3", 0, 9), ("chr1", -1, 9), ("chr1", 9, 9), ("chr1", 9, 1001)]
)
def test_a_region_outside_the_reference_is_refused(
    tmp_path: Path, region: tuple[str, int, int]
) -> None:
    path = write(tmp_path / "x.vcf", HEADER + GOOD)
    with pytest.raises(InputError, match=f"region {region[0]}"):
        read(path, region=region, scratch=tmp_path)


def test_a_faulty_line_in_a_region_is_refused(tmp_path: Path) -> None:
    text = HEADER + GOOD + GOOD.replace("\t5\t", "\thigh\t")
    path = write(tmp_path / "x.vcf.bgz", text)
    with pytest.raises(InputError, match=r"record at chr1:10: QUAL is 'high'"):
        read(path, region=("chr1", 0, 20), scratch=tmp_path)

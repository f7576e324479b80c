"""GTF against a parser of a few lines of Python and bioframe, and every refusal with its line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import bioframe
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.fasta import scan_fasta
from data_shards.sources.gtf import (
    Features,
    exons,
    genes,
    read_features,
    stream_features,
    transcripts,
    tss,
)
from data_shards.sources.intervals import concatenate, read_intervals

CONTIGS = Contigs(("chr1", "chr2"), (1000, 500))
SIGNS = {"+": 1, "-": -1, ".": 0}
GTF = "genomes/Saccharomyces_cerevisiae.R64-1-1.96.gtf.gz"
FASTA = "genomes/Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz"


@pytest.fixture(scope="module")
def yeast(shared_data: Path) -> Contigs:
    return scan_fasta(shared_data / FASTA)


def plain(line: str) -> dict[str, Any]:
    """Parse a line one letter after the other, in no way as the reader does."""
    contig, _, feature, start, end, score, strand, _, text = line.rstrip("\n").split("\t")
    pieces, quoted = [""], False
    for letter in text:
        quoted ^= letter == '"'
        if letter == ";" and not quoted:
            pieces.append("")
        else:
            pieces[-1] += letter
    attributes: dict[str, str] = {}
    for piece in pieces:
        if piece.strip():
            name, value = piece.strip().split(maxsplit=1)
            attributes.setdefault(name, value.strip('"'))
    return {
        "contig": contig,
        "feature": feature,
        "start": int(start) - 1,
        "end": int(end),
        "strand": SIGNS[strand],
        "score": None if score == "." else float(score),
        **{f"attribute {name}": value for name, value in attributes.items()},
    }


def expected(record: dict[str, Any]) -> tuple[object, ...]:
    gene = record["feature"] == "gene"
    return (
        *(record[name] for name in ("contig", "start", "end", "strand", "score")),
        record["attribute gene_id"],
        None if gene else record["attribute transcript_id"],
        record.get("attribute gene_name") or record.get("attribute gene") or None,
        record.get("attribute gene_biotype") or record.get("attribute gene_type") or None,
    )


def rows_of(features: Features, contigs: Contigs) -> list[tuple[object, ...]]:
    where = features.intervals
    return list(
        zip(
            [contigs.names[c] for c in where.contig],
            where.start.tolist(),
            where.end.tolist(),
            where.strand.tolist(),
            [None if np.isnan(score) else score for score in where.score],
            features.gene_id.to_pylist(),
            features.transcript_id.to_pylist(),
            features.gene_name.to_pylist(),
            features.biotype.to_pylist(),
            strict=True,
        )
    )


@pytest.fixture(scope="module")
def yeast_records(shared_data: Path) -> list[dict[str, Any]]:
    with gzip.open(shared_data / GTF, "rt") as stream:
        return [plain(line) for line in stream if not line.startswith("#")]


@pytest.mark.parametrize(
    "feature", ["gene", "transcript", "exon", "CDS", "five_prime_utr", "start_codon"]
)
def test_the_real_file_is_what_plain_python_reads(
    shared_data: Path, yeast: Contigs, yeast_records: list[dict[str, Any]], feature: str
) -> None:
    want = [expected(r) for r in yeast_records if r["feature"] == feature]
    parts = list(
        stream_features(shared_data / GTF, yeast, Naming(), feature, block_bytes=1_000_000)
    )
    assert len(parts) > 1
    assert [row for part in parts for row in rows_of(part, yeast)] == want
    assert rows_of(read_features(shared_data / GTF, yeast, Naming(), feature), yeast) == want


def test_the_real_file_lies_where_bioframe_puts_it(shared_data: Path, yeast: Contigs) -> None:
    oracle = bioframe.read_table(shared_data / GTF, schema="gtf", comment="#")
    oracle = oracle[oracle["feature"] == "exon"]
    mine = exons(shared_data / GTF, yeast, Naming()).intervals
    assert [yeast.names[c] for c in mine.contig] == oracle["chrom"].tolist()
    # bioframe leaves the file's 1-based start
    assert np.array_equal(mine.start, oracle["start"] - 1)
    assert np.array_equal(mine.end, oracle["end"])


@pytest.mark.parametrize(
    ("where", "accepted"),
    [
        ({"gene_biotype": "protein_coding"}, {"protein_coding"}),
        ({"gene_biotype": ("tRNA", "snoRNA")}, {"tRNA", "snoRNA"}),
    ],
)
def test_the_real_file_is_filtered_as_in_plain_python(
    shared_data: Path,
    yeast: Contigs,
    yeast_records: list[dict[str, Any]],
    where: dict[str, str | tuple[str, ...]],
    accepted: set[str],
) -> None:
    for feature, reader in (("gene", genes), ("transcript", transcripts), ("exon", exons)):
        want = [
            expected(r)
            for r in yeast_records
            if r["feature"] == feature and r["attribute gene_biotype"] in accepted
        ]
        assert len(want) > 70
        assert rows_of(reader(shared_data / GTF, yeast, Naming(), where), yeast) == want


def test_start_sites_of_the_real_file_lie_by_those_that_were_measured(
    shared_data: Path, yeast: Contigs
) -> None:
    """The annotation begins at the start codon, a transcript a little before it."""
    measured = shared_data / "genomes/Scer_polIItranscripts-adjustedTSS.bed.gz"
    naming = Naming("strip-chr", (("chrM", "Mito"),))
    sites = read_intervals(measured, yeast, naming)
    with gzip.open(measured, "rt") as stream:
        names = [line.split("\t")[3] for line in stream]
    base = np.where(sites.strand > 0, sites.start, sites.end - 1)
    found = tss(genes(shared_data / GTF, yeast, Naming(), {"gene_biotype": "protein_coding"}))
    with gzip.open(shared_data / "genomes/Scer-sys-to-common-name.tsv.gz", "rt") as stream:
        common = dict(line.split() for line in stream)
    known = {common.get(gene, gene): i for i, gene in enumerate(found.gene_id.to_pylist())}
    mine = [known[name] for name in names if name in known]
    theirs = [i for i, name in enumerate(names) if name in known]
    assert len(mine) > 4000
    codon = found.intervals
    assert np.array_equal(codon.end - codon.start, np.ones(len(found)))
    same = (codon.contig[mine] == sites.contig[theirs]) & (
        codon.strand[mine] == sites.strand[theirs]
    )
    assert same.mean() > 0.99
    before = (codon.start[mine] - base[theirs]) * codon.strand[mine]
    assert (before[same] >= 0).mean() > 0.9
    assert 10 < np.median(before[same]) < 100


WORDS = st.text(st.sampled_from("abz_.:-09 ;é=#'\\"), min_size=1, max_size=12)
BARE = st.text(st.sampled_from("abz_.:-09"), min_size=1, max_size=8)
NAMES = st.sampled_from(
    [
        "ref_gene_id",
        "gene_id_x",
        "note",
        "tag",
        "level",
        "x.y",
        "gene_name",
        "gene",
        "gene_biotype",
        "gene_type",
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    feature = draw(st.sampled_from(["gene", "transcript", "exon", "exon2"]))
    contig = draw(st.sampled_from(CONTIGS.names))
    start = draw(st.integers(1, 500))
    end = draw(st.integers(start, 500))
    attributes = draw(st.lists(st.tuples(NAMES, WORDS.map('"{}"'.format) | BARE), max_size=6))
    attributes.append(("gene_id", draw(WORDS.map('"{}"'.format) | BARE)))
    if feature != "gene":
        attributes.append(("transcript_id", f'"{draw(WORDS)}"'))
    attributes = draw(st.permutations(attributes))
    space = draw(st.sampled_from([" ", "  "]))
    text = draw(st.sampled_from(["; ", ";", " ; "])).join(f"{n}{space}{v}" for n, v in attributes)
    text += draw(st.sampled_from(["", ";", "; "]))
    score = draw(st.sampled_from([".", "0", "1.5", "-2e-3"]))
    strand = draw(st.sampled_from("+-."))
    return "\t".join([contig, "made", feature, str(start), str(end), score, strand, ".", text])


@given(
    data=st.lists(lines(), min_size=1, max_size=12),
    packed=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
    between=st.sampled_from(["", "###\n", "\n"]),
    block_bytes=st.integers(1, 64) | st.sampled_from([300, 1 << 20]),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
def test_what_is_written_is_read_back_whatever_the_block_size(
    tmp_path: Path, data: list[str], packed: bool, line_end: str, between: str, block_bytes: int
) -> None:
    text = f"#!genome\n{between.join(line + chr(10) for line in data)}{between}"
    raw = text.replace("\n", line_end).encode()
    path = tmp_path / "x.gtf"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    records = [plain(line) for line in data]
    for feature in {r["feature"] for r in records}:
        parts = list(stream_features(path, CONTIGS, Naming(), feature, block_bytes=block_bytes))
        found = [row for part in parts for row in rows_of(part, CONTIGS)]
        assert found == [expected(r) for r in records if r["feature"] == feature]


def gene(attributes: str = 'gene_id "g";', **changes: str) -> str:
    columns = {
        "contig": "chr1",
        "source": "s",
        "feature": "gene",
        "start": "10",
        "end": "20",
        "score": ".",
        "strand": "+",
        "frame": ".",
    }
    return "\t".join([*(columns | changes).values(), attributes])


EXON = gene('gene_id "g"; transcript_id "t"', feature="exon")
ATTRIBUTES = "attributes can't be read"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (gene(start="0"), "start is 0, below 1"),
        (gene(start=str(-(1 << 63))), f"start is {-(1 << 63)}, below 1"),
        (gene(start=str(1 << 63)), f"start is {1 << 63}, beyond 64 bits"),
        (gene(start="21"), "start 21 is past end 20"),
        (gene(start="x"), "start is 'x', not a number"),
        (gene(end="2e1"), "end is '2e1', not a number"),
        (gene(end="1001"), "end 1001 is past the end of contig 'chr1' (1,000 bp)"),
        (gene(contig="1"), "contig '1' is not in the reference"),
        (gene(strand="?"), "strand is '?'"),
        (gene(score="nan"), "score is 'nan', not a number"),
        (gene(score="inf"), "score is infinite"),
        (gene().rsplit("\t", 1)[0], "8 columns where the first record has 9"),
        (gene() + "\tx", "10 columns where the first record has 9"),
        (gene(""), "attribute gene_id is missing or empty"),
        (gene('gene_id "";'), "attribute gene_id is missing or empty"),
        (gene('ref_gene_id "g"; gene_id2 "g"'), "attribute gene_id is missing or empty"),
        (gene('note "x; gene_id y"'), "attribute gene_id is missing or empty"),
        (gene('GENE_ID "g"'), "attribute gene_id is missing or empty"),
        (gene("ID=gene:g;Name=x"), ATTRIBUTES),
        (gene('gene_id "g'), ATTRIBUTES),
        (gene('gene_id "g" x "y"'), ATTRIBUTES),
        (gene('gene_id "g";; x "y"'), ATTRIBUTES),
        (gene("gene_id g h"), ATTRIBUTES),
        (gene("gene_id"), ATTRIBUTES),
        (gene("."), ATTRIBUTES),
        (gene('gene_id "g"; x "a"b"'), ATTRIBUTES),
        (gene('gene_id "\xff"'), "byte 0xff is no UTF-8 text"),
        (gene('gene_id "g\r"'), "a carriage return that no line feed follows"),
    ],
)
@pytest.mark.parametrize("block_bytes", [10, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_a_faulty_line_is_named_also_in_a_later_block(
    tmp_path: Path, bad: str, problem: str, block_bytes: int, packed: bool
) -> None:
    rows = ["#!x", gene(), EXON, "", gene(), "#", EXON, bad, gene(), bad]
    raw = "\n".join(rows).encode("latin-1")
    path = tmp_path / "x.gtf"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(InputError) as caught:
        list(stream_features(path, CONTIGS, Naming(), "gene", block_bytes=block_bytes))
    assert problem in caught.value.problem
    assert (caught.value.line, caught.value.path) == (8, path)
    assert caught.value.remedy


def test_the_first_faulty_line_counts_whatever_its_fault(tmp_path: Path) -> None:
    faulty = [gene(strand="?"), gene(start="x"), gene("."), gene(contig="q"), gene("")]
    for first in range(len(faulty)):
        path = tmp_path / "x.gtf"
        path.write_text("\n".join([gene(), *faulty[first:]]))
        with pytest.raises(InputError) as caught:
            genes(path, CONTIGS, Naming())
        assert caught.value.line == 2


def write(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "x.gtf"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_gff3_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="GFF3"):
        genes(write(tmp_path, "##gff-version 3", gene("ID=gene:g;Name=x")), CONTIGS, Naming())


@pytest.mark.parametrize("feature", ["transcript", "exon", "CDS"])
def test_all_but_genes_need_a_transcript(tmp_path: Path, feature: str) -> None:
    path = write(tmp_path, gene(), gene(feature=feature), EXON)
    with pytest.raises(InputError, match="attribute transcript_id is missing") as caught:
        read_features(path, CONTIGS, Naming(), feature)
    assert caught.value.line == 2
    assert len(genes(path, CONTIGS, Naming())) == 1


def test_a_bed_file_is_no_gtf(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 tab-separated column\(s\) where GTF has 9") as caught:
        genes(write(tmp_path, "#", "chr1\t1\t5"), CONTIGS, Naming())
    assert caught.value.line == 2


@pytest.mark.parametrize("content", ["", "#!only\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="no interval in the file"):
        genes(write(tmp_path, content), CONTIGS, Naming())


def test_a_feature_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path, EXON, gene(feature="CDS"))
    with pytest.raises(InputError, match="no line of feature 'gene' in the file") as caught:
        list(stream_features(path, CONTIGS, Naming(), "gene", block_bytes=20))
    assert "CDS, exon" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "where", [{"gene_biotpye": "x"}, {"gene_biotype": "y"}, {"a": "1", "gene_biotype": "x"}]
)
def test_a_filter_that_nothing_passes_is_refused(tmp_path: Path, where: dict[str, str]) -> None:
    path = write(tmp_path, gene('gene_id "g"; gene_biotype "x"'), EXON)
    with pytest.raises(InputError, match="no line of feature 'gene' has") as caught:
        genes(path, CONTIGS, Naming(), where)
    assert all(f"{k} = {v!r}" in caught.value.problem for k, v in where.items())


def test_no_value_to_choose_by_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no value"):
        genes(write(tmp_path, gene()), CONTIGS, Naming(), {"tag": ()})


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ({"tag": "basic"}, "ab"),
        ({"tag": "MANE Select"}, "b"),
        ({"tag": ["MANE Select", "CCDS"]}, "bc"),
        ({"tag": "basic", "level": "2"}, "b"),
        ({"level": "2"}, "bc"),
        ({"level": "1"}, "a"),
        ({"note": "x; tag y"}, "a"),
        ({"note": "a+(b)"}, "b"),
        ({"not.": "x"}, ""),
        ({"tag": "bas"}, ""),
        ({"tag": "b.*"}, ""),
        ({"tag": "y"}, ""),
    ],
)
def test_any_of_the_values_of_an_attribute_passes(
    tmp_path: Path, where: dict[str, str | list[str]], chosen: str
) -> None:
    path = write(
        tmp_path,
        gene('gene_id "a"; level 1; tag "basic"; note "x; tag y"'),
        gene('gene_id "b"; tag "CCDS2"; tag "basic"; tag "MANE Select"; level 2; note "a+(b)"'),
        gene('gene_id "c"; ref_tag "basic"; level "2"; tag CCDS;'),
    )
    if not chosen:
        with pytest.raises(InputError, match="no line of feature"):
            genes(path, CONTIGS, Naming(), where)
    else:
        assert genes(path, CONTIGS, Naming(), where).gene_id.to_pylist() == list(chosen)


def test_lines_that_are_not_chosen_may_lie_on_other_contigs(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        gene('gene_id "g"; tag "basic"'),
        gene(contig="scaffold"),
        gene(feature="exon", contig="scaffold"),
    )
    assert len(genes(path, CONTIGS, Naming(), {"tag": "basic"})) == 1
    with pytest.raises(InputError, match="contig 'scaffold'") as caught:
        genes(path, CONTIGS, Naming())
    assert caught.value.line == 2


def test_a_faulty_line_behind_a_filter_is_named(tmp_path: Path) -> None:
    keep = 'gene_id "g"; tag "basic"'
    path = write(tmp_path, EXON, gene(), gene(keep), EXON, gene(), gene(keep, end="x"))
    with pytest.raises(InputError, match="end is 'x'") as caught:
        genes(path, CONTIGS, Naming(), {"tag": "basic"})
    assert caught.value.line == 6


def test_names_and_biotypes_of_other_sources_are_found(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        gene('gene_id "a"; gene_name "N"; gene "M"; gene_type "lncRNA"'),
        gene('gene_id "b"; gene "M"; gene_biotype "miRNA"; transcript_id "";'),
        gene('gene_id "c"; gene_name ""; gene_type "";'),
        gene("gene_id d"),
    )
    found = genes(path, CONTIGS, Naming())
    assert found.gene_name.to_pylist() == ["N", "M", None, None]
    assert found.biotype.to_pylist() == ["lncRNA", "miRNA", None, None]
    assert found.transcript_id.to_pylist() == [None] * 4


def test_positions_become_half_open_and_contigs_are_renamed(tmp_path: Path) -> None:
    path = write(tmp_path, gene(contig="1", start="1", end="1000"), gene(contig="x"))
    found = genes(path, CONTIGS, Naming("add-chr", (("x", "chr2"),))).intervals
    assert found.contig.tolist() == [0, 1]
    assert found.start.tolist() == [0, 9]
    assert found.end.tolist() == [1000, 20]


@given(data=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 99), st.sampled_from("+-"))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_start_site_is_the_first_base_that_is_transcribed(
    tmp_path: Path, data: list[tuple[int, int, str]]
) -> None:
    data = [(1, 0, "+"), *data]
    path = write(
        tmp_path, *(gene(start=str(s), end=str(s + n), strand=strand) for s, n, strand in data)
    )
    whole = genes(path, CONTIGS, Naming())
    site = tss(whole)
    assert site.intervals.start.tolist() == [s - 1 if d == "+" else s + n - 1 for s, n, d in data]
    assert np.array_equal(site.intervals.end, site.intervals.start + 1)
    assert np.array_equal(site.intervals.strand, whole.intervals.strand)
    assert site.gene_id == whole.gene_id


def test_a_gene_without_a_strand_has_no_start_site(tmp_path: Path) -> None:
    path = write(tmp_path, gene(), gene('gene_id "h"', strand="."))
    found = genes(path, CONTIGS, Naming())
    with pytest.raises(InputError, match="gene 'h' has no strand"):
        tss(found)
    kept = found.take(found.intervals.strand != 0)
    assert tss(kept).gene_id.to_pylist() == ["g"]


def test_a_mask_keeps_all_columns_together(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        *(
            gene(f'gene_id "{i}"; gene_name "n{i}"; gene_type "b{i}"', end=f"{30 + i}")
            for i in (1, 2)
        ),
    )
    found = genes(path, CONTIGS, Naming())
    kept = found.take(np.array([False, True]))
    assert rows_of(kept, CONTIGS) == rows_of(found, CONTIGS)[1:]
    assert len(kept) == 1
    both = concatenate([kept.intervals, found.intervals])
    assert both.end.tolist() == [32, 31, 32]

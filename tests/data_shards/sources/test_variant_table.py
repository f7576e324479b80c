"""Tables of variants against lists, and REF against the reference sequence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sequence import Codes, encode
from data_shards.sources.fasta import read_codes, stage_fasta
from data_shards.sources.variant_table import (
    Alleles,
    Variants,
    check_reference,
    concatenate,
    refuse_faults,
)
from data_shards.sources.variants import stream_variants

TEXTS = st.lists(st.text("ACGTN<>*", max_size=6).map(str.encode), max_size=12)


def table(rows: list[tuple[int, int, str]]) -> Variants:
    """Make variants of (contig, 0-based position, REF), all to ALT T."""
    count = len(rows)
    position = np.array([row[1] for row in rows], dtype=np.int64)
    return Variants(
        contig=np.array([row[0] for row in rows], dtype=np.int32),
        position=position,
        end=position + 1,
        ref=Alleles.of([row[2].encode() for row in rows]),
        alt=Alleles.of([b"T"] * count),
        kind=np.zeros(count, dtype=np.int8),
        quality=np.full(count, np.nan, dtype=np.float32),
        passed=np.ones(count, dtype=np.bool_),
        record=np.arange(count),
        allele=np.ones(count, dtype=np.int16),
        genotypes=np.zeros((count, 1, 2), dtype=np.int8),
        phased=np.ones((count, 1), dtype=np.bool_),
        skipped_records=1,
    )


@given(texts=TEXTS, data=st.data())
def test_alleles_are_a_list_of_texts(texts: list[bytes], data: st.DataObject) -> None:
    alleles = Alleles.of(texts)
    assert [alleles[i] for i in range(len(alleles))] == texts
    assert alleles.lengths.tolist() == [len(text) for text in texts]
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=9)) if texts else []
    taken = alleles.take(np.array(rows, dtype=np.int64))
    assert [taken[i] for i in range(len(taken))] == [texts[i] for i in rows]


def test_tables_are_joined_and_cut() -> None:
    left, right = table([(0, 1, "A"), (0, 5, "ACG")]), table([(1, 2, "GT")])
    both = concatenate([left, right])
    assert both.position.tolist() == [1, 5, 2]
    assert [both.ref[i] for i in range(3)] == [b"A", b"ACG", b"GT"]
    assert both.skipped_records == 2
    some = both.take(np.array([False, True, True]))
    assert [some.ref[i] for i in range(2)] == [b"ACG", b"GT"]
    assert some.skipped_records == 0
    assert some.place(1, Contigs(("x", "y"), (9, 9))) == "y:3 GT>T"


@given(
    genome=st.lists(st.text("ACGTN", min_size=1, max_size=60), min_size=1, max_size=3),
    data=st.data(),
)
def test_faults_are_what_a_comparison_of_strings_finds(
    genome: list[str], data: st.DataObject
) -> None:
    contigs = Contigs(tuple(f"c{i}" for i in range(len(genome))), tuple(map(len, genome)))
    rows = []
    for _ in range(data.draw(st.integers(0, 8))):
        contig = data.draw(st.integers(0, len(genome) - 1))
        position = data.draw(st.integers(0, len(genome[contig]) - 1))
        length = data.draw(st.integers(1, min(4, len(genome[contig]) - position)))
        true = genome[contig][position : position + length]
        wrong = st.text("ACGTN", min_size=length, max_size=length)
        rows.append((contig, position, data.draw(st.just(true) | wrong)))

    def bases(contig: int, start: int, stop: int) -> Codes:
        assert 0 <= start < stop <= len(genome[contig])
        return encode(genome[contig][start:stop])

    def agrees(contig: int, position: int, ref: str) -> bool:
        return position >= 0 and genome[contig][position : position + len(ref)] == ref

    faults = check_reference(table(rows), bases, contigs)
    assert [(f.row, f.ref, f.reference, f.shifts) for f in faults] == [
        (i, ref, genome[c][p : p + len(ref)], tuple(s for s in (-1, 1) if agrees(c, p + s, ref)))
        for i, (c, p, ref) in enumerate(rows)
        if not agrees(c, p, ref)
    ]


@pytest.mark.parametrize(
    ("rows", "problem", "remedy"),
    [
        ([(0, 1, "C"), (0, 2, "GTA")], None, None),
        (
            [(0, 1, "C")] * 9 + [(0, 0, "G")],
            "record 10 (x:1 G>T): REF is G where the reference has A; 1 of 10 alleles disagree",
            "most records agree",
        ),
        ([(0, 1, "A"), (0, 3, "G")], "2 of 2 alleles disagree", "another assembly"),
        ([(0, i + 1, "ACGTACGT"[i]) for i in range(6)], "6 of 6", "one base earlier"),
        ([(0, i, "ACGTACGT"[i + 1]) for i in range(6)], "6 of 6", "one base later"),
        ([(0, 0, "C" * 99)], f"REF is {'C' * 30}... (99 letters)", "another assembly"),
    ],
)
def test_faults_are_refused_with_the_likely_cause(
    rows: list[tuple[int, int, str]], problem: str | None, remedy: str | None
) -> None:
    genome = encode("ACGT" * 50)
    contigs = Contigs(("x",), (200,))
    variants = table(rows)
    faults = check_reference(variants, lambda _, start, stop: genome[start:stop], contigs)
    if problem is None:
        refuse_faults(Path("v.vcf"), faults, len(variants))
        assert faults == []
        return
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        refuse_faults(Path("v.vcf"), faults, len(variants))
    assert remedy is not None
    assert remedy in (caught.value.remedy or "")
    assert caught.value.path == Path("v.vcf")


def test_real_calls_agree_with_their_reference_and_shifted_ones_do_not(
    shared_data: Path, tmp_path: Path
) -> None:
    """Contig 20 of the calls is chr20 of the FASTA, which has sequence in 9,995,000-11,095,000."""
    folder = shared_data / "deepvariant"
    contigs = Contigs(("chr20",), (63025520,))
    staged = stage_fasta(folder / "ucsc.hg19.chr20.unittest.fasta.gz", tmp_path)
    naming = Naming("add-chr")
    blocks = stream_variants(
        folder / "CEUTrio.20.21.gatk3.4.g.vcf.bgz",
        contigs,
        naming,
        region=("chr20", 9_995_000, 11_095_000),
        scratch=tmp_path,
        reference_records="skip",
    )
    variants = concatenate(list(blocks))
    assert len(variants) > 500

    def bases(_: int, start: int, stop: int) -> Codes:
        return read_codes(staged, contigs, start, stop)

    assert check_reference(variants, bases, contigs) == []

    def shifted(_: int, start: int, stop: int) -> Codes:
        return read_codes(staged, contigs, start + 1, stop + 1)

    faults = check_reference(variants, shifted, contigs)
    with pytest.raises(InputError, match="disagree") as caught:
        refuse_faults(folder / "x.vcf", faults, len(variants))
    assert "one base earlier" in (caught.value.remedy or "")

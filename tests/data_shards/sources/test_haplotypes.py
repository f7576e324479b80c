"""Haplotypes, dosage and variant effects against strings put together base by base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sequence import Codes, decode, encode
from data_shards.sources.haplotypes import (
    ContigBases,
    Policy,
    dosage_changes,
    dosage_window,
    haplotype_changes,
    haplotype_window,
    variant_windows,
)
from data_shards.sources.variant_table import Alleles, Kind, Variants, concatenate
from data_shards.sources.variants import stream_variants

GENOME = "ACGTTGCAACGT"
Site = tuple[int, str, str]


def kind_of(ref: str, alt: str) -> Kind:
    if not alt.isalpha():
        return Kind.SYMBOLIC
    if len(ref) == len(alt):
        return Kind.SNV if len(ref) == 1 else Kind.MNV
    return Kind.INSERTION if len(alt) > len(ref) else Kind.DELETION


def table(
    sites: list[Site], calls: list[tuple[int, int]] | None = None, phased: bool = True
) -> Variants:
    """Make variants of (0-based position, REF, ALT); by default the sample carries all twice."""
    count = len(sites)
    position = np.array([p for p, _, _ in sites], dtype=np.int64)
    genotypes = np.array(calls or [(1, 1)] * count, dtype=np.int8).reshape(count, 1, 2)
    return Variants(
        contig=np.zeros(count, dtype=np.int32),
        position=position,
        end=position + np.array([len(r) for _, r, _ in sites], dtype=np.int64),
        ref=Alleles.of([ref.encode() for _, ref, _ in sites]),
        alt=Alleles.of([alt.encode() for _, _, alt in sites]),
        kind=np.array([kind_of(r, a) for _, r, a in sites], dtype=np.int8),
        quality=np.zeros(count, dtype=np.float32),
        passed=np.ones(count, dtype=np.bool_),
        record=np.arange(count),
        allele=np.ones(count, dtype=np.int16),
        genotypes=genotypes,
        phased=np.full((count, 1), phased),
    )


def naive(genome: str, sites: list[Site]) -> tuple[str, list[int], list[int]]:
    """Put a haplotype together: its letters, their places in the reference, and the losers."""
    spans = []
    for row, (position, ref, alt) in enumerate(sites):
        both = range(min(len(ref), len(alt)))
        shared = next((i for i in both if ref[i] != alt[i]), len(both))
        spans.append((position + shared, position + len(ref), row, alt[shared:]))
    slots = [[(letter, place)] for place, letter in enumerate(genome)]
    inserted: dict[int, list[tuple[str, int]]] = {}
    touched: dict[int, int] = {}
    lost = []
    for start, end, row, alt in sorted(spans):
        if start == end:
            inside = start in touched and touched.get(start - 1) == touched[start]
            if inside or start in inserted:
                lost.append(row)
                continue
            inserted[start] = [(letter, start - 1) for letter in alt]
        elif any(base in touched for base in range(start, end)):
            lost.append(row)
        else:
            touched |= dict.fromkeys(range(start, end), row)
            for base in range(start, end):
                slots[base] = []
            slots[start] = [(letter, min(start + j, end - 1)) for j, letter in enumerate(alt)]
    whole = []
    for place in range(len(genome) + 1):
        whole += inserted.get(place, [])
        whole += slots[place] if place < len(genome) else []
    return "".join(letter for letter, _ in whole), [place for _, place in whole], sorted(lost)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[str, list[Site]]:
    genome = draw(st.text("ACGT", min_size=4, max_size=24))
    sites = []
    for _ in range(draw(st.integers(0, 8))):
        position = draw(st.integers(0, len(genome) - 1))
        ref = genome[position : position + draw(st.integers(1, 5))]
        alt = draw(
            st.text("ACGTN", min_size=1, max_size=5)
            | st.text("ACGT", max_size=3).map(lambda tail, ref=ref: ref + tail)
            | st.just(ref[:1])
        )
        if alt != ref:
            sites.append((position, ref, alt))
    return genome, sites


@given(world=worlds(), data=st.data())
@settings(max_examples=400, deadline=None)
def test_any_window_is_a_stretch_of_the_whole_haplotype(
    world: tuple[str, list[Site]], data: st.DataObject
) -> None:
    genome, sites = world
    letters, places, lost = naive(genome, sites)
    changes = haplotype_changes(table(sites), 0, 0)
    assert changes.lost.tolist() == lost
    assert sorted([*changes.rows.tolist(), *lost]) == list(range(len(sites)))
    bases = ContigBases.of(encode(genome))
    start = data.draw(st.integers(-4, len(genome) + 3))
    length = data.draw(st.integers(1, len(genome) + 8))
    begin = next((i for i, place in enumerate(places) if place >= start), len(places))
    left = max(0, -start)
    padded = "N" * left + letters[begin:] + "N" * length
    mapping = [-1] * left + places[begin:] + [-1] * length
    codes, positions = haplotype_window(bases, changes, start, length, "unknown")
    assert decode(codes) == padded[:length]
    assert positions.tolist() == mapping[:length]
    if start >= 0 and len(letters) - begin >= length:
        again, _ = haplotype_window(bases, changes, start, length)
        assert np.array_equal(again, codes)
    else:
        with pytest.raises(InputError, match="leaves the contig"):
            haplotype_window(bases, changes, start, length)


@given(world=worlds(), data=st.data())
@settings(deadline=None)
def test_both_alleles_of_a_variant_lie_around_the_same_middle(
    world: tuple[str, list[Site]], data: st.DataObject
) -> None:
    genome, sites = world
    length = data.draw(st.integers(1, 12))
    windows = variant_windows(ContigBases.of(encode(genome)), table(sites), length, "unknown")
    assert windows.reference.shape == windows.alternative.shape == (len(sites), length)
    pad = "N" * (length + 8)
    for row, (position, ref, alt) in enumerate(sites):
        start = position - length // 2
        assert windows.start[row] == start
        before = (pad + genome[:position])[len(pad) + start :]
        after = genome[position + len(ref) :] + pad
        assert decode(windows.reference[row]) == (before + ref + after)[:length]
        assert decode(windows.alternative[row]) == (before + alt + after)[:length]


def window(variants: Variants, haplotype: int = 0, policy: Policy | None = None) -> str:
    changes = haplotype_changes(variants, 0, haplotype, policy)
    bases = ContigBases.of(encode(GENOME))
    return decode(haplotype_window(bases, changes, 0, 10)[0])


def test_the_two_haplotypes_carry_their_own_alleles() -> None:
    variants = table([(1, "C", "A"), (4, "T", "TCC")], [(1, 0), (0, 1)])
    assert window(variants, 0) == "AAGTTGCAAC"
    assert window(variants, 1) == "ACGTTCCGCA"


def test_a_base_may_change_before_an_insertion_and_a_deletion() -> None:
    variants = table([(4, "T", "A"), (4, "T", "TCC"), (4, "TG", "T")])
    changes = haplotype_changes(variants, 0, 0)
    assert changes.lost.tolist() == []
    codes, positions = haplotype_window(ContigBases.of(encode(GENOME)), changes, 3, 6)
    assert decode(codes) == "TACCCA"
    assert positions.tolist() == [3, 4, 4, 4, 6, 7]


def test_of_overlapping_variants_the_first_wins_and_the_other_is_told() -> None:
    variants = table([(3, "T", "A"), (2, "GTT", "G"), (3, "T", "C")])
    changes = haplotype_changes(variants, 0, 0)
    assert changes.rows.tolist() == [0]
    assert changes.lost.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("variants", "policy", "problem", "remedy", "result"),
    [
        (
            table([(1, "C", "A"), (3, "TT", "T")], [(-1, 0), (-1, 0)]),
            Policy(missing="unknown"),
            "record 1, position 2 (C>A) has a missing genotype; 2 of 2",
            'missing = "reference"',
            "ANGNNGCAAC",
        ),
        (
            table([(1, "C", "A")], [(-1, 1)]),
            Policy(missing="reference"),
            "has a missing genotype",
            "missing",
            "ACGTTGCAAC",
        ),
        (
            table([(1, "C", "A")], [(1, 0)], phased=False),
            Policy(unphased="as-written"),
            "is heterozygous without phase",
            "as-written",
            "AAGTTGCAAC",
        ),
        (
            table([(1, "C", "<DEL>"), (2, "G", "A")]),
            Policy(symbolic="skip"),
            "(C><DEL>) is carried but has no sequence",
            "symbolic",
            "ACATTGCAAC",
        ),
        (
            table([(1, "C", "CA"), (2, "G", "A")]),
            replace(Policy(), indels="skip"),
            None,
            None,
            "ACATTGCAAC",
        ),
    ],
)
def test_what_a_genotype_does_not_say_is_refused_unless_the_policy_settles_it(
    variants: Variants, policy: Policy, problem: str | None, remedy: str | None, result: str
) -> None:
    assert window(variants, 0, policy) == result
    if problem is not None and remedy is not None:
        with pytest.raises(InputError) as caught:
            window(variants)
        assert problem in str(caught.value)
        assert remedy in (caught.value.remedy or "")


def test_skipped_rows_are_told() -> None:
    variants = table([(1, "C", "CA"), (2, "G", "<INS>"), (3, "T", "A")])
    changes = haplotype_changes(variants, 0, 0, Policy(symbolic="skip", indels="skip"))
    assert (changes.skipped.tolist(), changes.rows.tolist()) == ([0, 1], [2])
    with pytest.raises(InputError, match="is an insertion or deletion"):
        haplotype_changes(variants, 0, 0, Policy(symbolic="skip", indels="refuse"))


def test_alleles_that_are_not_carried_need_no_policy() -> None:
    variants = table([(1, "C", "<DEL>"), (2, "G", "A")], [(0, 0), (0, 0)], phased=False)
    assert window(variants, 0, Policy(indels="refuse")) == GENOME[:10]
    assert window(table([(1, "C", "A")], [(1, 1)], phased=False)) == "AAGTTGCAAC"


def test_a_haploid_genotype_has_no_second_haplotype() -> None:
    variants = table([(1, "C", "A")], [(1, -2)])
    assert window(variants, 0) == "AAGTTGCAAC"
    with pytest.raises(InputError, match="is haploid"):
        window(variants, 1)
    assert window(variants, 1, Policy(haploid="first")) == "AAGTTGCAAC"


def test_a_missing_record_of_two_alleles_hides_its_bases_once() -> None:
    variants = table([(1, "CGT", "C"), (1, "CGT", "CT")], [(-1, -1), (-1, -1)])
    variants = replace(variants, record=np.array([0, 0]))
    changes = haplotype_changes(variants, 0, 0, Policy(missing="unknown"))
    assert (changes.rows.tolist(), changes.lost.tolist()) == ([0], [])
    assert window(variants, 0, Policy(missing="unknown")) == "ANNNTGCAAC"


def test_variants_of_several_contigs_are_refused() -> None:
    variants = replace(table([(1, "C", "A")] * 2), contig=np.array([0, 1], dtype=np.int32))
    with pytest.raises(InputError, match="several contigs"):
        haplotype_changes(variants, 0, 0)
    with pytest.raises(InputError, match="several contigs"):
        variant_windows(ContigBases.of(encode(GENOME)), variants, 4)


def test_effects_need_sequence_and_room() -> None:
    bases = ContigBases.of(encode(GENOME))
    with pytest.raises(InputError, match=r"\(C><DEL>\) has no sequence"):
        variant_windows(bases, table([(1, "C", "<DEL>")]), 2)
    with pytest.raises(InputError, match="window of 8 bases at -3 leaves the contig"):
        variant_windows(bases, table([(1, "C", "A")]), 8)
    with pytest.raises(InputError, match="leaves the contig"):
        variant_windows(bases, table([(6, "CAAC", "C")]), 8)  # the deletion needs three more


@given(data=st.data())
def test_dosage_counts_the_alleles_of_a_genotype(data: st.DataObject) -> None:
    genome = data.draw(st.text("ACGTN", min_size=1, max_size=12))
    places = data.draw(st.lists(st.integers(0, len(genome) - 1), unique=True))
    sites, calls = [], []
    expected = np.zeros((len(genome), 4), dtype=np.float32)
    alleles = {place: [letter, letter] for place, letter in enumerate(genome)}
    for place in places:
        alt = data.draw(st.sampled_from([b for b in "ACGT" if b != genome[place]]))
        call = data.draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1), (1, -2), (-1, 1)]))
        sites.append((place, genome[place], alt))
        calls.append(call)
        pair = (call[0], call[0]) if call[1] == -2 else call
        alleles[place] = [{0: genome[place], 1: alt, -1: "N"}[c] for c in pair]
    for place, pair_of_letters in alleles.items():
        for letter in pair_of_letters:
            if letter != "N":
                expected[place, "ACGT".index(letter)] += 0.5
    variants = table(sites, calls, phased=False)
    changes = dosage_changes(variants, 0, Policy(missing="unknown", indels="skip"))
    found = dosage_window(ContigBases.of(encode(genome)), changes, 0, len(genome))
    assert np.array_equal(found, expected)
    assert found.dtype == np.float32


def test_dosage_has_no_room_for_indels() -> None:
    variants = table([(1, "C", "CA")])
    with pytest.raises(InputError, match="no room for insertions"):
        dosage_changes(variants, 0, Policy())
    with pytest.raises(InputError, match="is an insertion or deletion"):
        dosage_changes(variants, 0, Policy(indels="refuse"))
    assert dosage_changes(variants, 0, Policy(indels="skip"))[0].skipped.tolist() == [0]


def test_whole_haplotypes_are_what_bcftools_consensus_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    genome = "".join(rng.choice(list("ACGT"), 5000))
    lines, at = [], 0
    while (at := at + int(rng.integers(6, 30))) < 4980:
        ref = genome[at : at + int(rng.integers(1, 5))]
        alt = ref[0] + "".join(rng.choice(list("ACGT"), int(rng.integers(0, 5))))
        if len(ref) == 1 and len(alt) == 1:
            alt = {"A": "C", "C": "G", "G": "T", "T": "A"}[ref]
        if alt != ref:
            call = rng.choice(["0|1", "1|0", "1|1", "0|0"])
            lines.append(f"x\t{at + 1}\t.\t{ref}\t{alt}\t.\tPASS\t.\tGT\t{call}\n")
    header = (
        "##fileformat=VCFv4.2\n##contig=<ID=x,length=5000>\n"
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="g">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS\n"
    )
    path, fasta = tmp_path / "x.vcf.gz", tmp_path / "x.fa"
    with pysam.BGZFile(str(path), "wb") as stream:
        stream.write((header + "".join(lines)).encode())
    pysam.tabix_index(str(path), preset="vcf")
    fasta.write_text(f">x\n{genome}\n")
    contigs = Contigs(("x",), (5000,))
    variants = concatenate(list(stream_variants(path, contigs, Naming())))
    assert len(variants) == len(lines) > 200
    for haplotype in (0, 1):
        written = pysam.bcftools.consensus("-H", str(haplotype + 1), "-f", str(fasta), str(path))
        oracle = "".join(written.splitlines()[1:])
        changes = haplotype_changes(variants, 0, haplotype)
        assert changes.lost.size == 0
        codes, _ = haplotype_window(ContigBases.of(encode(genome)), changes, 0, len(oracle))
        assert decode(codes) == oracle


def test_real_haplotypes_are_what_the_strings_give(shared_data: Path) -> None:
    """The truth calls of a whole chromosome on a made-up reference that has their REF alleles."""
    length = 48_129_895
    contigs = Contigs(("chr21",), (length,))
    path = shared_data / "deepvariant" / "PG_performance.vcf.gz"
    variants = concatenate(list(stream_variants(path, contigs, Naming())))
    stop = int(variants.end.max()) + 100
    genome = np.resize(np.array([0, 1, 2, 3], dtype=np.uint8), stop)
    for row in np.flatnonzero(variants.kind != Kind.SYMBOLIC).tolist():  # one of those has REF N
        genome[variants.position[row] : variants.end[row]] = variants.ref.codes(row)
    bases = ContigBases(lambda start, stop: genome[start:stop], stop)
    policy = Policy(unphased="as-written", symbolic="skip")
    for haplotype in (0, 1):
        changes = haplotype_changes(variants, 0, haplotype, policy)
        carried = np.flatnonzero(variants.genotypes[:, 0, haplotype] == 1)
        assert len(changes.rows) + len(changes.lost) + len(changes.skipped) == len(carried)
        # The file holds some records twice.
        assert 0 < len(changes.lost) < 0.03 * len(carried)
        start = int(variants.position[0]) - 50
        written = [start]
        text: list[Codes] = []
        for row in changes.rows.tolist():
            # Shared first bases may have been changed by the variant before.
            at = max(int(variants.position[row]), written[-1])
            skip = at - int(variants.position[row])
            text += [genome[written[-1] : at], variants.alt.codes(row)[skip:]]
            written.append(int(variants.end[row]))
        whole = np.concatenate([*text, genome[written[-1] : stop]])
        codes, positions = haplotype_window(bases, changes, start, len(whole))
        assert np.array_equal(codes, whole)
        assert (np.diff(positions) >= 0).all()

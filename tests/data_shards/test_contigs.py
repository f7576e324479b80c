from __future__ import annotations

import pytest

from data_shards.contigs import Contigs, Naming, first_unsorted, naming_hint


def contigs(*names: str, lengths: tuple[int, ...] | None = None) -> Contigs:
    return Contigs(names, lengths or tuple(100 for _ in names))


@pytest.mark.parametrize(
    "names",
    [
        ("chr1", "chr10", "chr2"),
        ("chr1", "chr2", "chr10", "chrX", "chrY", "chrM"),
        ("1", "2", "10", "X", "MT"),
        ("I", "II", "III", "IV", "V", "VIII", "IX", "X", "XI", "XIV"),
        ("2L", "2R", "3L", "3R", "4", "X"),
        ("only",),
        (),
    ],
)
def test_the_usual_orders_of_references_are_sorted(names: tuple[str, ...]) -> None:
    assert first_unsorted(contigs(*names)) is None


def test_descending_length_is_an_order() -> None:
    assert first_unsorted(contigs("b", "a", "c", lengths=(30, 20, 10))) is None


def test_a_shuffled_reference_is_found_with_the_contig_at_fault() -> None:
    names = ("chr1", "chr2", "chr4", "chr3", "chr5")
    assert first_unsorted(contigs(*names, lengths=(1, 2, 3, 4, 5))) == 3


def test_offsets_lay_contigs_end_to_end() -> None:
    laid = contigs("a", "b", "c", lengths=(5, 7, 2))
    assert laid.offsets.tolist() == [0, 5, 12]
    assert laid.total == 14


@pytest.mark.parametrize(
    ("naming", "name", "expected"),
    [
        (Naming(), "chr1", "chr1"),
        (Naming("strip-chr"), "chrIV", "IV"),
        (Naming("strip-chr"), "IV", "IV"),
        (Naming("add-chr"), "7", "chr7"),
        (Naming("strip-chr", (("chrM", "Mito"),)), "chrM", "Mito"),
    ],
)
def test_names_are_translated_by_the_stated_rule(naming: Naming, name: str, expected: str) -> None:
    assert naming.translate(name) == expected


def test_the_hint_names_the_rule_that_would_help() -> None:
    assert "strip-chr" in naming_hint("chrI", contigs("I", "II"))
    assert "add-chr" in naming_hint("1", contigs("chr1"))
    assert "the FASTA has a, b" in naming_hint("z", contigs("a", "b"))

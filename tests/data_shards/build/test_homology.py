"""Homology groups against a naive count of shared k-mers, on planted families and real hairpins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.build import homology
from data_shards.build.homology import homology_groups
from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.sequence import COMPLEMENT, Codes, encode, reverse_complement
from data_shards.sources.files import open_binary

PROPERTY = settings(deadline=None, max_examples=60)


def draws(seed: int, *shape: int) -> npt.NDArray[np.uint64]:
    return mix(np.arange(np.prod(shape), dtype=np.uint64) ^ np.uint64(key(seed))).reshape(shape)


def bases(seed: int, *shape: int) -> Codes:
    return (draws(seed, *shape) % np.uint64(4)).astype(np.uint8)


def groups_of(sequences: list[Codes], **more: Any) -> list[int]:
    length = np.array([len(s) for s in sequences], dtype=np.int64)
    values = np.concatenate([*sequences, np.zeros(0, np.uint8)])
    return homology_groups(values, np.cumsum(length) - length, length, **more).tolist()


def naive_groups(sequences: list[str], k: int, threshold: float, measure: str) -> list[int]:
    swap = str.maketrans("ACGT", "TGCA")
    sets = [
        {
            min(w, w[::-1].translate(swap))
            for i in range(len(s) - k + 1)
            if "N" not in (w := s[i : i + k])
        }
        for s in sequences
    ]
    group = list(range(len(sequences)))
    for i, one in enumerate(sets):
        for j, two in enumerate(sets[:i]):
            shared = len(one & two)
            whole = min(len(one), len(two)) if measure == "containment" else len(one | two)
            same = sequences[i] in (sequences[j], sequences[j][::-1].translate(swap))
            if same or (whole and shared >= threshold * whole):
                low, high = sorted((group[i], group[j]))
                group = [low if g == high else g for g in group]
    return group


@given(
    st.lists(st.text("ACGTN", max_size=14), min_size=1, max_size=14),
    st.integers(6, 8),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from(["jaccard", "containment"]),
)
@settings(deadline=None, max_examples=150)
def test_groups_are_those_of_a_naive_count(
    texts: list[str], k: int, threshold: float, measure: str
) -> None:
    texts += [texts[0][2:] + "A", texts[-1][::-1], texts[0]]
    found = groups_of([encode(t) for t in texts], k=k, threshold=threshold, measure=measure)
    assert found == naive_groups(texts, k, threshold, measure)


@pytest.mark.parametrize(("bases_a_block", "work_a_block"), [(1, 1), (70, 40), (500, 2000)])
def test_blocks_make_no_difference(
    monkeypatch: pytest.MonkeyPatch, bases_a_block: int, work_a_block: int
) -> None:
    parents = [bases(i, 40 + i) for i in range(20)]
    sequences = parents + [p[5:] for p in parents[::2]] + [reverse_complement(p) for p in parents]
    expected = groups_of(sequences, k=6, threshold=0.3)
    assert expected[20:30] == list(range(0, 20, 2)) and expected[30:] == list(range(20))
    monkeypatch.setattr(homology, "_BLOCK_BASES", bases_a_block)
    monkeypatch.setattr(homology, "_BLOCK_WORK", work_a_block)
    assert groups_of(sequences, k=6, threshold=0.3) == expected


@PROPERTY
@given(st.lists(st.text("ACGTN", max_size=40), min_size=1, max_size=12))
def test_identical_and_reverse_complement_sequences_are_together(texts: list[str]) -> None:
    forward = [encode(t) for t in texts]
    both = groups_of(forward + [reverse_complement(s) for s in forward] + forward, threshold=1)
    n = len(texts)
    assert both[:n] == both[n : 2 * n] == both[2 * n :]


def test_unrelated_sequences_are_apart() -> None:
    assert groups_of(list(bases(1, 2000, 90))) == list(range(2000))


def test_sequences_without_a_known_kmer_are_grouped_by_their_letters() -> None:
    texts = ["ACG", "NNNNNNNNNN", "CGT", "AAAANAAAANAAAA", "", "NNNNNNNNNN", "", "NNN", "ACGA"]
    assert groups_of([encode(t) for t in texts]) == [0, 1, 0, 3, 4, 1, 4, 7, 8]


@PROPERTY
@given(st.permutations(range(30)), st.sampled_from(["jaccard", "containment"]))
def test_the_order_of_sequences_does_not_change_the_partition(
    order: list[int], measure: str
) -> None:
    sequences = list(bases(2, 10, 60))
    sequences += [np.concatenate([s[20:], bases(i, 20)]) for i, s in enumerate(sequences)]
    sequences += [s[10:45] for s in sequences[:10]]
    expected = groups_of(sequences, k=7, threshold=0.3, measure=measure)
    shuffled = groups_of([sequences[i] for i in order], k=7, threshold=0.3, measure=measure)
    pairs = {(expected[i], shuffled[place]) for place, i in enumerate(order)}
    assert len(pairs) == len(set(expected)) == len(set(shuffled)) < 30
    assert all(shuffled.index(group) == group for group in shuffled)


def test_sequences_are_read_where_they_lie() -> None:
    one, two = bases(3, 50), bases(4, 50)
    values = np.concatenate([two, one, COMPLEMENT[one[::-1]]])
    start, length = np.array([50, 100, 0, 55]), np.array([50, 50, 50, 45])
    assert homology_groups(values, start, length).tolist() == [0, 0, 2, 0]


def mutants(parents: Codes, identity: float, seed: int) -> Codes:
    """Copies with exactly the given share of unchanged bases, every other one reversed."""
    count, length = parents.shape
    changes = round(length * (1 - identity))
    place = np.argsort(draws(seed, count, length), axis=1)[:, :changes]
    copies = parents.copy()
    rows = np.arange(count)[:, None]
    shift = 1 + (draws(seed + 1, count, changes) % np.uint64(3)).astype(np.uint8)
    copies[rows, place] = (copies[rows, place] + shift) % 4
    copies[1::2] = reverse_complement(copies[1::2])
    return copies


@pytest.mark.parametrize(
    ("length", "identity", "recall"),
    [
        (50, 0.95, 0.99),
        (50, 0.90, 0.97),
        (50, 0.85, 0.55),
        (90, 0.95, 1.00),
        (90, 0.90, 0.99),
        (90, 0.85, 0.72),
        (90, 0.80, 0.20),
        (200, 0.85, 0.92),
        (1000, 0.85, 1.00),
        (1000, 0.80, 0.50),
    ],
)
def test_planted_pairs_are_recovered(length: int, identity: float, recall: float) -> None:
    count = 300 if length < 1000 else 60
    parents = bases(length, count, length)
    found = np.array(groups_of([*parents, *mutants(parents, identity, 5)]))
    assert (found[:count] == found[count:]).mean() >= recall
    assert len(set(found[:count].tolist())) >= 0.99 * count  # families don't run together


def test_a_family_is_joined_through_its_members() -> None:
    chain = [bases(6, 40, 90)]
    for generation in range(4):
        chain.append(mutants(chain[-1], 0.92, 10 * generation))
    found = np.array(groups_of([s for members in chain for s in members])).reshape(5, 40)
    assert (found == np.arange(40)).all(axis=0).mean() > 0.97
    ends = groups_of([*chain[0], *chain[-1]])
    assert sum(a == b for a, b in zip(ends[:40], ends[40:], strict=True)) < 20


def test_containment_links_a_fragment_that_jaccard_does_not() -> None:
    whole = bases(7, 1000)
    pair = [whole, reverse_complement(whole[400:450])]
    assert groups_of(pair, threshold=0.1) == [0, 1]
    assert groups_of(pair, threshold=0.8, measure="containment") == [0, 0]


def test_many_copies_cost_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    count = homology._similar_pairs

    def counting(sets: Any, threshold: float, measure: Any) -> Any:
        seen.append(len(sets.size))
        return count(sets, threshold, measure)

    monkeypatch.setattr(homology, "_similar_pairs", counting)
    one, two = bases(8, 80), bases(9, 80)
    assert set(groups_of([one, two, reverse_complement(one)] * 1000)) == {0, 1}
    assert seen == [2]


def test_equal_hashes_of_other_kmers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homology, "mix", lambda values: values * np.uint64(0))
    sequences = list(bases(10, 6, 40))
    assert groups_of(sequences + sequences[::-1]) == [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0]


def test_no_sequence_is_no_group() -> None:
    assert groups_of([]) == []


def read_rna(path: Path) -> list[Codes]:
    with open_binary(path) as stream:
        records = stream.read().decode().split(">")[1:]
    return [encode("".join(r.split()[1:]).replace("U", "T")) for r in records]


def test_hairpins_that_two_real_sets_share_are_together(shared_data: Path) -> None:
    human = read_rna(shared_data / "deepmirgene" / "human_pos.fa.gz")
    whole = read_rna(shared_data / "deepmirgene" / "whole_pos.fa.gz")
    texts = {s.tobytes() for s in whole}
    shared = np.array([s.tobytes() in texts for s in human])
    assert shared.sum() == 627 and len(human) == 863
    found = np.array(groups_of(human + whole))
    linked = np.isin(found[:863], found[863:])
    assert linked[shared].all()
    assert linked.sum() > 627 + 50  # hairpins of one family that differ
    assert np.bincount(found).max() < 100  # and yet no group swallows the set


@pytest.mark.parametrize(
    ("more", "problem", "remedy"),
    [
        ({"k": 2}, "k-mers of 2 bases", "3 to 31"),
        ({"k": 32}, "k-mers of 32 bases", "3 to 31"),
        ({"threshold": 0}, "threshold of 0", "above 0"),
        ({"threshold": 1.1}, "threshold of 1.1", "at most 1"),
        ({"threshold": float("nan")}, "threshold of nan", "above 0"),
        ({"k": 5}, "k-mers of 5 bases are too short: .* of 500 bp share 4", "set k to 7 or more"),
        ({"k": 6, "measure": "containment"}, "are too short", "set k to 8 or more"),
    ],
)
def test_settings_that_cannot_tell_homologues_are_refused(
    more: dict[str, Any], problem: str, remedy: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        groups_of(list(bases(0, 4, 500)), **more)
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("start", "length", "problem"),
    [
        ([0, 90], [90, 11], "outside the 100 codes"),
        ([-1, 0], [10, 10], "outside"),
        ([0, 0], [-1, 10], "outside"),
        ([0], [10, 10], "1 starts and 2 lengths"),
    ],
)
def test_bad_layouts_are_refused(start: list[int], length: list[int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        homology_groups(bases(0, 100), np.array(start), np.array(length))


def test_codes_that_are_no_letters_are_refused() -> None:
    with pytest.raises(ValueError, match="code 5 is above 4"):
        groups_of([np.array([0, 1, 5], dtype=np.uint8)])

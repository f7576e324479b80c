"""Leaks between splits against naive loops over all pairs, and on real hairpins and windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bioframe
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards import leakage
from data_shards.errors import CorruptDataError
from data_shards.hashing import key, mix
from data_shards.leakage import (
    Leak,
    duplicate_sequences,
    overlapping_loci,
    reverse_complement_duplicates,
    same_loci,
    shared_groups,
)
from data_shards.sequence import Codes, decode, encode, reverse_complement
from data_shards.sources.files import open_binary

PROPERTY = settings(deadline=None, max_examples=60)
SPLIT = st.integers(0, 2)
Pair = Callable[[int, int], bool]


def naive(split: npt.NDArray[np.uint8], partners: Pair, left_out: int = 0) -> Leak:
    """All pairs of rows, one at a time."""
    count = len(split)
    of = [
        [j for j in range(count) if j != i and split[i] != split[j] and partners(i, j)]
        for i in range(count)
    ]
    affected = [i for i in range(count) if of[i]]
    examples = [
        (next(j for j in of[i] if split[j] < split[i]), i)
        for i in affected
        if any(split[j] < split[i] for j in of[i])
    ]
    return Leak(
        affected=len(affected),
        fraction=len(affected) / count,
        by_split=tuple(sum(split[i] == code for i in affected) for code in range(3)),
        examples=tuple(sorted(examples, key=lambda pair: pair[1])[:5]),
        left_out=left_out,
    )


def codes_of(values: list[int]) -> npt.NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8)


def reader(rows: Codes) -> Callable[[npt.NDArray[np.int64]], Codes]:
    rows.flags.writeable = False
    return lambda which: rows[which]


def padded(texts: list[str], pad: int) -> tuple[Codes, npt.NDArray[np.int64]]:
    lengths = np.array([len(t) for t in texts], dtype=np.int64)
    rows = np.full((len(texts), max(int(lengths.max()), 1)), pad, dtype=np.uint8)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = encode(text)
    return rows, lengths


def rc(text: str) -> str:
    return decode(reverse_complement(encode(text)))


TEXTS = st.lists(st.tuples(st.text("ACGTN", max_size=3), SPLIT), min_size=1, max_size=25)


@given(samples=TEXTS, pad=st.sampled_from([0, 4, 255]), block=st.integers(1, 40))
@PROPERTY
def test_padded_sequences_leak_as_in_a_naive_comparison(
    samples: list[tuple[str, int]], pad: int, block: int
) -> None:
    texts, split = [t for t, _ in samples], codes_of([s for _, s in samples])
    rows, lengths = padded(texts, pad)
    known = [text.strip("N") != "" for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "_BLOCK_BYTES", block)
        patch.setattr(leakage, "_BLOCK_ROWS", block)
        same = duplicate_sequences(reader(rows), split, lengths=lengths)
        turned = reverse_complement_duplicates(reader(rows), split, lengths=lengths)
    left_out = known.count(False)
    assert same == naive(split, lambda i, j: known[i] and texts[i] == texts[j], left_out)
    assert turned == naive(split, lambda i, j: known[i] and texts[i] == rc(texts[j]), left_out)


@given(st.lists(st.tuples(st.text("ACGT", min_size=3, max_size=3), SPLIT), min_size=1, max_size=25))
@PROPERTY
def test_equal_hashes_of_other_sequences_are_told_apart(samples: list[tuple[str, int]]) -> None:
    texts, split = [t for t, _ in samples], codes_of([s for _, s in samples])
    rows = np.stack([encode(t) for t in texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "mix", lambda values: values & np.uint64(1))
        same = duplicate_sequences(reader(rows), split)
        turned = reverse_complement_duplicates(reader(rows), split)
    assert same == naive(split, lambda i, j: texts[i] == texts[j])
    assert turned == naive(split, lambda i, j: texts[i] == rc(texts[j]))


LOCI = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 12), SPLIT),
    min_size=1,
    max_size=30,
)


@given(LOCI)
@PROPERTY
def test_loci_leak_as_in_a_naive_comparison(samples: list[tuple[int, int, int, int]]) -> None:
    contig, start, length, split = (np.array(column) for column in zip(*samples, strict=True))
    split = split.astype(np.uint8)

    def same(i: int, j: int) -> bool:
        return samples[i][:3] == samples[j][:3]

    def overlap(i: int, j: int) -> bool:
        (a, s, m, _), (b, t, n, _) = samples[i], samples[j]
        return a == b and s < t + n and t < s + m

    contig = contig.astype(np.int32)
    assert same_loci(contig, start, length, split) == naive(split, same)
    assert overlapping_loci(contig, start, length, split) == naive(split, overlap)


@given(st.lists(st.tuples(st.integers(-3, 5), SPLIT), min_size=1, max_size=30))
@PROPERTY
def test_groups_leak_as_in_a_naive_comparison(samples: list[tuple[int, int]]) -> None:
    groups, split = [g for g, _ in samples], codes_of([s for _, s in samples])
    expected = naive(split, lambda i, j: groups[i] == groups[j])
    assert shared_groups(np.array(groups), split) == expected
    assert shared_groups(np.array([f"patient {g}" for g in groups]), split) == expected


def test_a_palindrome_in_two_splits_is_a_duplicate_on_both_strands() -> None:
    rows = np.stack([encode(text) for text in ("GAATTC", "GAATTG", "GAATTC", "GAATTG", "CAATTC")])
    split = codes_of([0, 0, 2, 2, 2])
    assert duplicate_sequences(reader(rows), split) == Leak(4, 0.8, (2, 0, 2), ((0, 2), (1, 3)))
    turned = reverse_complement_duplicates(reader(rows), split)
    assert turned == Leak(4, 0.8, (2, 0, 2), ((0, 2), (1, 4)))


def test_touching_windows_do_not_overlap() -> None:
    start, split = np.array([0, 10, 20, 29]), codes_of([0, 1, 2, 0])
    leak = overlapping_loci(np.zeros(4, np.int32), start, 10, split)
    assert leak == Leak(2, 0.5, (1, 0, 1), ((3, 2),))


def test_a_clean_data_set_has_no_leak() -> None:
    rows = np.arange(40, dtype=np.uint8).reshape(10, 4) % 4
    rows[:, 0], rows[:, 1] = np.arange(10) % 4, np.arange(10) // 4
    split = codes_of([0] * 6 + [1] * 2 + [2] * 2)
    clean = Leak(0, 0.0, (0, 0, 0), ())
    assert duplicate_sequences(reader(rows), split) == clean
    assert same_loci(np.arange(10), np.zeros(10, np.int64), 5, split) == clean
    assert overlapping_loci(np.arange(10), np.zeros(10, np.int64), 5, split) == clean
    assert shared_groups(np.arange(10), split) == clean


def test_no_sample_has_no_leak() -> None:
    nothing, split = np.empty(0, dtype=np.int64), codes_of([])
    clean = Leak(0, 0.0, (0, 0, 0), ())
    assert duplicate_sequences(reader(np.empty((0, 4), np.uint8)), split) == clean
    assert reverse_complement_duplicates(reader(np.empty((0, 4), np.uint8)), split) == clean
    assert same_loci(nothing, nothing, 5, split) == clean
    assert overlapping_loci(nothing, nothing, 5, split) == clean
    assert shared_groups(nothing, split) == clean


def test_rows_are_read_twice_only_where_a_hash_is_in_two_splits() -> None:
    rows = (mix(np.arange(30_000, dtype=np.uint64)) & np.uint64(3)).astype(np.uint8)
    rows = rows.reshape(1000, 30)
    rows[990] = rows[3]
    split = codes_of([0] * 800 + [1] * 100 + [2] * 100)
    seen: list[int] = []

    def read(which: npt.NDArray[np.int64]) -> Codes:
        seen.extend(which.tolist())
        return rows[which]

    assert duplicate_sequences(read, split) == Leak(2, 0.002, (1, 0, 1), ((3, 990),))
    assert len(seen) < 1000 + 10


def test_thousands_of_copies_are_counted() -> None:
    rows = np.tile(encode("ACGTTGCATT"), (20_000, 1))
    split = (np.arange(20_000) % 3).astype(np.uint8)
    leak = duplicate_sequences(reader(rows), split)
    assert leak.affected == 20_000 and leak.by_split == (6667, 6667, 6666)
    assert leak.examples == ((0, 1), (0, 2), (0, 4), (0, 5), (0, 7))
    assert reverse_complement_duplicates(reader(rows), split).affected == 0


def hairpins(path: Path) -> list[str]:
    with open_binary(path) as stream:
        records = stream.read().decode().split(">")[1:]
    return ["".join(record.split()[1:]).replace("U", "T") for record in records]


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ("human_pos.fa.gz", "whole_pos.fa.gz", 627),
        ("human_pos_all.fa.gz", "whole_pos_test.fa", 60),
    ],
)
def test_hairpins_that_real_sets_share_are_found(
    shared_data: Path, one: str, two: str, shared: int
) -> None:
    train, test = (hairpins(shared_data / "deepmirgene" / name) for name in (one, two))
    rows, lengths = padded(train + test, 4)
    split = codes_of([0] * len(train) + [2] * len(test))
    leak = duplicate_sequences(reader(rows), split, lengths=lengths)
    expected = naive_counts(train, test)
    assert leak.by_split == (expected[0], 0, expected[1])
    assert shared in expected
    for i, j in leak.examples:
        assert (train + test)[i] == (train + test)[j]
    turned = [rc(text) for text in test]
    leak = reverse_complement_duplicates(
        reader(padded(train + turned, 4)[0]), split, lengths=lengths
    )
    assert leak.by_split == (expected[0], 0, expected[1])


def naive_counts(one: list[str], two: list[str]) -> tuple[int, int]:
    return sum(t in set(two) for t in one), sum(t in set(one) for t in two)


def test_overlaps_of_many_windows_are_those_of_bioframe() -> None:
    draws = mix(np.arange(9000, dtype=np.uint64) ^ np.uint64(key(1))).reshape(3, 3000)
    contig = (draws[0] % np.uint64(5)).astype(np.int32)
    start = (draws[1] % np.uint64(1_000_000)).astype(np.int64)
    split = np.minimum(draws[2] % np.uint64(10), 2).astype(np.uint8)
    leak = overlapping_loci(contig, start, 300, split)
    frame = pd.DataFrame({"chrom": contig.astype(str), "start": start, "end": start + 300})
    for code in range(3):
        found = bioframe.count_overlaps(frame[split == code], frame[split != code])["count"]
        assert leak.by_split[code] == (found > 0).sum() > 0


@pytest.mark.parametrize(
    ("contig", "start", "length", "problem"),
    [
        ([0, 1], [0, 5], 0, "a window without a base"),
        ([0, 1], [0, -5], 3, "before the begin"),
        ([0, -1], [0, 5], 3, "before the begin"),
        ([0, 1000], [0, 2**55], 3, "too far"),
    ],
)
def test_impossible_windows_are_refused(
    contig: list[int], start: list[int], length: int, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        overlapping_loci(np.array(contig), np.array(start), length, codes_of([0, 1]))


@pytest.mark.parametrize("lengths", [None, np.array([3, 2, 3])])
def test_a_code_that_is_no_base_has_no_complement(lengths: Any) -> None:
    rows = np.array([[0, 1, 2], [3, 3, 255], [0, 255, 1]], dtype=np.uint8)
    row = 1 if lengths is None else 2
    with pytest.raises(CorruptDataError, match=f"row {row} has a code above 4"):
        reverse_complement_duplicates(reader(rows), codes_of([0, 1, 2]), lengths=lengths)


def test_codes_of_another_kind_or_width_are_refused() -> None:
    split = codes_of([0, 1])
    with pytest.raises(ValueError, match="int64 codes"):
        duplicate_sequences(lambda rows: np.zeros((len(rows), 3), dtype=np.int64), split)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"codes of shape \(2, 2\) for 2 rows"):
        duplicate_sequences(lambda rows: np.zeros((len(rows), len(rows)), dtype=np.uint8), split)

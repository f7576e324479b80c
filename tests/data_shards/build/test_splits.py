"""Splits: met fractions, unmoved samples, whole groups, kept proportions, and every refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_shards.build.splits import (
    SplitCodes,
    balanced_split,
    fold_split,
    given_split,
    listed_split,
    random_split,
)
from data_shards.errors import InputError
from data_shards.hashing import key

Split = Callable[..., SplitCodes]
NAMES = [f"s{i}" for i in range(1000)]
PROPERTY = settings(deadline=None, max_examples=50)
SEEDS = st.integers(0, 2**32)


def refused(caught: pytest.ExceptionInfo[InputError]) -> str:
    assert caught.value.remedy
    return caught.value.problem


def of_random(names: Any, seed: int = 0, **more: Any) -> SplitCodes:
    return random_split(names, valid=0.1, test=0.2, seed=seed, **more)


def of_balanced(names: Any, seed: int = 0, **more: Any) -> SplitCodes:
    return balanced_split(names, valid=0.1, test=0.2, seed=seed, **more)


def of_folds(names: Any, seed: int = 0, **more: Any) -> SplitCodes:
    return fold_split(names, folds=5, fold=0, seed=seed, **more)


# ---- at random


@given(st.lists(st.text(min_size=1, max_size=30), min_size=100, max_size=120, unique=True), SEEDS)
@PROPERTY
def test_a_split_is_the_hash_of_seed_and_name(names: list[str], seed: int) -> None:
    expected = []
    for name in names:
        raw = name.encode()
        words = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]
        draw = (key(seed, 1, len(raw), *words) >> 11) / 2**53
        expected.append(2 if draw < 0.2 else 1 if draw < 0.5 else 0)
    assert random_split(names, valid=0.3, test=0.2, seed=seed).tolist() == expected


def test_the_split_never_changes_between_versions() -> None:
    codes = random_split([f"sample {i}" for i in range(16)], valid=0.3, test=0.3, seed=7)
    assert "".join(map(str, codes)) == "0022010220102100"
    assert codes.dtype == np.uint8


@given(st.permutations(range(200)), st.integers(120, 200))
@PROPERTY
def test_other_samples_move_no_sample(order: list[int], count: int) -> None:
    whole = dict(zip(NAMES[:200], of_random(NAMES[:200]), strict=True))
    some = [NAMES[i] for i in order[:count]]
    assert of_random(some).tolist() == [whole[name] for name in some]


def test_a_larger_test_fraction_only_adds_to_the_test_split() -> None:
    small = random_split(NAMES, valid=0.1, test=0.1, seed=3) == 2
    large = random_split(NAMES, valid=0.3, test=0.2, seed=3) == 2
    assert (large[small]).all() and large.sum() > small.sum()


def test_fractions_are_met_by_chance() -> None:
    sizes = np.bincount(random_split(np.arange(100_000), valid=0.1, test=0.2, seed=1))
    assert np.abs(sizes / 100_000 - [0.7, 0.1, 0.2]).max() < 0.005


def test_seeds_give_unrelated_splits() -> None:
    one, two = of_random(NAMES, 1) == 2, of_random(NAMES, 2) == 2
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.15


@pytest.mark.parametrize("split", [of_random, of_balanced, of_folds])
def test_kinds_of_names_make_no_difference(split: Split) -> None:
    texts = [str(i) for i in range(60)]
    expected = split(texts).tolist()
    for names in (range(60), np.arange(60), np.array(texts), np.array(texts, object)):
        assert split(names).tolist() == expected


# ---- by group


@pytest.mark.parametrize("split", [of_random, of_balanced, of_folds])
@given(groups=st.lists(st.integers(0, 40), min_size=60, max_size=120), seed=SEEDS)
@PROPERTY
def test_samples_of_a_group_stay_together(split: Split, groups: list[int], seed: int) -> None:
    try:
        codes = split(groups, seed)
    except InputError:
        assume(False)
    for group in set(groups):
        assert len({int(c) for g, c in zip(groups, codes, strict=True) if g == group}) == 1


@pytest.mark.parametrize("split", [of_random, of_balanced, of_folds])
def test_tcga_samples_of_a_patient_stay_together(split: Split) -> None:
    patients = [f"TCGA-{i % 7:02d}-{i:04d}" for i in range(200)]
    names = [f"{p}-{kind}" for p in patients for kind in ("01A", "11A")]
    codes = split(names, group_prefix=12)
    assert (codes[::2] == codes[1::2]).all()
    assert not (split(names)[::2] == split(names)[1::2]).all()


@given(
    st.lists(st.integers(1, 40), min_size=10, max_size=60),
    st.floats(0.1, 0.4),
    st.floats(0.1, 0.4),
    SEEDS,
)
@PROPERTY
def test_balanced_fractions_are_met_within_one_group(
    sizes: list[int], valid: float, test: float, seed: int
) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    try:
        codes = balanced_split(groups, valid=valid, test=test, seed=seed)
    except InputError as error:
        assert "came out without a sample" in error.problem
        return
    wanted = np.array([1 - valid - test, valid, test]) * len(groups)
    assert np.abs(np.bincount(codes, minlength=3) - wanted).max() < max(sizes) + 1e-6


def test_balanced_fractions_of_single_samples_are_exact() -> None:
    assert np.bincount(of_balanced(NAMES)).tolist() == [700, 100, 200]


@given(SEEDS)
@PROPERTY
def test_balanced_classes_keep_their_proportions(seed: int) -> None:
    groups = np.arange(1000) // 4
    kinds = np.where((groups * 7919) % 10 == 0, "rare", "common")
    codes = of_balanced(groups, seed, classes=kinds)
    for kind in ("rare", "common"):
        sizes = np.bincount(codes[kinds == kind], minlength=3) / (kinds == kind).sum()
        assert np.abs(sizes - [0.7, 0.1, 0.2]).max() < 0.04
    assert not np.array_equal(codes, of_balanced(groups, seed + 1, classes=kinds))


@given(st.permutations(range(80)))
@PROPERTY
def test_the_order_of_samples_plays_no_part_in_dealing(order: list[int]) -> None:
    groups, kinds = np.arange(80) // 3, np.arange(80) % 3
    place = np.array(order)
    for split in (of_balanced, of_folds):
        expected = split(groups, classes=kinds)[place]
        assert np.array_equal(split(groups[place], classes=kinds[place]), expected)


@pytest.mark.parametrize(
    "name",
    [
        "deepathology/derived/tcga_mirnaseq_brca_luad_prad.npz",
        "urda_rnaseq/derived/tcga11_paired_tumour_normal.npz",
    ],
)
def test_tumour_and_normal_of_tcga_patients_stay_together(shared_data: Path, name: str) -> None:
    with np.load(shared_data / name, allow_pickle=False) as data:
        names, tumour = data["samples"], data["tumour"]
    patients = np.array([str(barcode)[:12] for barcode in names])
    codes = of_balanced(names, group_prefix=12, classes=tumour)
    pairs = {(p, int(c)) for p, c in zip(patients, codes, strict=True)}
    assert len(pairs) == len(set(patients)) < len(names)
    for kind in (0, 1):
        sizes = np.bincount(codes[tumour == kind]) / (tumour == kind).sum()
        assert np.abs(sizes - [0.7, 0.1, 0.2]).max() < 0.01


# ---- folds


@given(st.integers(3, 8), st.integers(30, 60), SEEDS)
@PROPERTY
def test_each_sample_is_tested_once_and_validates_once(folds: int, count: int, seed: int) -> None:
    rounds = np.stack(
        [fold_split(range(count), folds=folds, fold=f, seed=seed) for f in range(folds)]
    )
    assert ((rounds == 2).sum(axis=0) == 1).all() and ((rounds == 1).sum(axis=0) == 1).all()
    assert np.array_equal(rounds[1:] == 2, rounds[:-1] == 1)
    sizes = (rounds == 2).sum(axis=1)
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.sampled_from("aab"), min_size=40, max_size=90), st.integers(3, 5), SEEDS)
@PROPERTY
def test_stratified_folds_are_even_in_every_class(kinds: list[str], folds: int, seed: int) -> None:
    assume(min(kinds.count("a"), kinds.count("b")) >= folds)
    tested = [
        fold_split(range(len(kinds)), folds=folds, fold=f, seed=seed, classes=kinds) == 2
        for f in range(folds)
    ]
    for chosen in (np.ones(len(kinds), bool), np.array(kinds) == "a", np.array(kinds) == "b"):
        sizes = [int((fold & chosen).sum()) for fold in tested]
        assert max(sizes) - min(sizes) <= 1


def test_stratified_folds_of_groups_are_nearly_even() -> None:
    groups, kinds = np.arange(900) // 3, (np.arange(900) // 3) % 5 == 0
    kinds = kinds.astype(int)
    codes = [fold_split(groups, folds=5, fold=f, seed=0, classes=kinds) for f in range(5)]
    assert [int(kinds[c == 2].sum()) for c in codes] == [36] * 5
    assert [int((c == 2).sum()) for c in codes] == [180] * 5


def test_groups_of_several_classes_are_not_all_dealt_to_the_first_fold() -> None:
    groups = np.arange(24) // 2
    kinds = groups % 3  # four groups of each class for three folds
    sizes = [
        int((fold_split(groups, folds=3, fold=f, seed=0, classes=kinds) == 2).sum())
        for f in range(3)
    ]
    assert sizes == [8, 8, 8]


# ---- given


def test_a_column_of_splits_is_taken_as_it_is() -> None:
    assert given_split(["test", "train", "valid", "train"]).tolist() == [2, 0, 1, 0]
    meaning = {"training": "train", "dev": "valid"}
    assert given_split(["training", "dev", "test"], meaning=meaning).tolist() == [0, 1, 2]


def test_lists_of_names_are_taken_as_they_are() -> None:
    lists = {"valid": ["b"], "test": ["a", "d", "d"]}
    assert listed_split(list("abcda"), lists, rest="train").tolist() == [2, 1, 0, 2, 2]
    lists["train"] = ["c"]
    assert listed_split(list("abcd"), lists).tolist() == [2, 1, 0, 2]


# ---- refusals


@pytest.mark.parametrize("split", [of_random, of_balanced, of_folds])
@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "there is no sample"),
        (["a", None, "c"], r"sample 1 \(counted from 0\) has no name"),
        (np.array(["a", "b", np.nan], object), "sample 2 .* has no name"),
        (["a", "", "c"], "sample 1 .* has no name"),
        (["a", 1, "c"], "neither text nor integer"),
        ([0.5, 1.0], "of type double, neither text nor integer"),
        ([b"a", b"b"], "of type binary"),
        (["a", "\ud800", "c"], "neither text nor integer"),
        ([True, False], "of type bool"),
        (["a", "b", "a"], "2 different names or groups for [35] "),
    ],
)
def test_bad_names_are_refused(split: Split, names: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        split(names)
    refused(caught)


@pytest.mark.parametrize("split", [random_split, balanced_split])
@pytest.mark.parametrize(
    ("valid", "test"),
    [(0, 0.2), (0.2, 0), (-0.1, 0.2), (0.5, 0.5), (0.8, 0.3), (1.2, 0.1), (float("nan"), 0.1)],
)
def test_bad_fractions_are_refused(split: Split, valid: float, test: float) -> None:
    with pytest.raises(InputError, match="the fractions are") as caught:
        split(NAMES, valid=valid, test=test, seed=0)
    refused(caught)


def test_a_split_that_comes_out_empty_is_named() -> None:
    with pytest.raises(InputError, match="split 'test' came out without a sample, of 1000"):
        random_split(NAMES, valid=0.1, test=1e-9, seed=0)
    groups = np.repeat([0, 1, 2], [500, 500, 1])
    with pytest.raises(InputError, match="came out without a sample"):
        balanced_split(groups, valid=0.1, test=0.1, seed=0)
    with pytest.raises(InputError, match="split 'valid' came out without a sample"):
        given_split(["train", "test"])
    with pytest.raises(InputError, match="split 'valid' came out without a sample"):
        listed_split(["a", "b"], {"test": ["a"]}, rest="train")


@pytest.mark.parametrize("split", [of_balanced, of_folds])
def test_a_class_of_too_few_groups_is_named(split: Split) -> None:
    kinds = ["odd" if i < 2 else "other" for i in range(30)]
    with pytest.raises(InputError, match=r"class 'odd' is in 2 groups, fewer than [35]") as caught:
        split(range(30), classes=kinds)
    refused(caught)
    with pytest.raises(ValueError, match="3 classes for 30 samples"):
        split(range(30), classes=["a", "b", "c"])


def test_a_class_that_a_split_lacks_is_named() -> None:
    groups = np.repeat(np.arange(5), [22, 15, 27, 6, 14])
    kinds = np.array(["x"] * len(groups))
    for group, count in enumerate([3, 0, 4, 0, 3]):
        kinds[np.flatnonzero(groups == group)[:count]] = "y"
    problem = "split 'test' came out without a sample of class 'y'"
    with pytest.raises(InputError, match=problem) as caught:
        balanced_split(groups, valid=0.2, test=0.2, seed=0, classes=kinds)
    refused(caught)


@pytest.mark.parametrize(("folds", "fold"), [(2, 0), (5, 5), (5, -1), (0, 0)])
def test_a_fold_that_is_none_is_refused(folds: int, fold: int) -> None:
    with pytest.raises(InputError, match=f"fold {fold} of {folds}"):
        fold_split(NAMES, folds=folds, fold=fold, seed=0)


def test_no_fold_is_empty_where_groups_are_of_any_size() -> None:
    groups = np.repeat(np.arange(5), [1000, 1000, 1, 1, 1])
    assert {int((fold_split(groups, folds=5, fold=f, seed=0) == 2).sum()) for f in range(5)} == {
        1000,
        1,
    }


def test_a_name_shorter_than_the_prefix_is_refused() -> None:
    with pytest.raises(InputError, match=r"sample 1 .* 'TCGA' is shorter than the 12 characters"):
        of_random(["TCGA-01-0001-01A", "TCGA"], group_prefix=12)
    with pytest.raises(ValueError, match="group_prefix 0"):
        of_random(NAMES, group_prefix=0)


@pytest.mark.parametrize(
    ("column", "meaning", "problem", "remedy"),
    [
        (["train", "Test"], None, "sample 1 .*'Test' is no split", "did you mean 'test'"),
        (["train", "val"], None, "'val' is no split", "did you mean 'valid'"),
        (["train", "x"], None, "'x' is no split", "splits are train, valid, test"),
        (["train", ""], None, "sample 1 .* has no split", "give every sample a split"),
        (["a"], {"a": "training"}, "stands for 'training', which is no split", "'train'"),
    ],
)
def test_an_unknown_split_is_refused(
    column: list[str], meaning: dict[str, str] | None, problem: str, remedy: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        given_split(column, meaning=meaning)
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("lists", "rest", "problem"),
    [
        ({"valid": ["b"], "test": ["z"]}, "train", "1 names of the list of test .* first 'z'"),
        ({"valid": ["b"], "test": ["a", "b"]}, "train", "'b' is in the lists of valid and of test"),
        ({"valid": ["b"], "test": ["a"]}, None, "2 samples are in no list, first 'c'"),
        ({"valid": ["b"], "testing": ["a"]}, "train", "a list for 'testing'"),
        ({"valid": ["b"], "test": ["a"]}, "training", "the rest is 'training'"),
        ({"valid": [], "test": ["a"]}, "train", "there is no sample"),
    ],
)
def test_bad_lists_are_refused(lists: dict[str, list[str]], rest: str | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        listed_split(list("abcd"), lists, rest=rest)
    refused(caught)


def test_long_names_of_many_samples_are_hashed_apart() -> None:
    names: npt.NDArray[Any] = np.array([f"{'x' * 40}{i}{'y' * (i % 9)}" for i in range(5000)])
    sizes = np.bincount(random_split(names, valid=0.25, test=0.25, seed=0))
    assert np.abs(sizes / 5000 - [0.5, 0.25, 0.25]).max() < 0.03

"""Splitting samples into train, valid and test by their names, groups, classes or given lists.

Every function returns uint8 codes, shape (samples,), that index :data:`data_shards.loci.SPLITS`.
Chance is a hash of the seed and of a sample's own name, never of its place in the file.

Names are texts or integers (12 and "12" are the same name), one a sample. Samples of one name
land in one split, so giving the names of groups (patients, homologues, families) keeps these
together. The train split is what valid and test leave over.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.loci import SPLITS

Names = Sequence[str] | Sequence[int] | npt.NDArray[Any]
SplitCodes = npt.NDArray[np.uint8]

_DRAW, _ORDER = 1, 2  # the uses of the seed
_WORD = 8


def random_split(
    names: Names, *, valid: float, test: float, seed: int, group_prefix: int | None = None
) -> SplitCodes:
    """Split at random: a name's hash in [0, 1) falls below test, below test + valid, or above.

    The split of a sample depends on nothing but seed, fractions and its own name: samples that are
    added or removed move no other sample, and a larger test fraction only adds to the test split.
    The price is that fractions are met by chance only; see :func:`balanced_split`.

    Args:
        names: of the samples, or of the groups that must stay together.
        valid: fraction of names, above 0.
        test: fraction of names, above 0; valid + test is below 1.
        seed: another seed, another split.
        group_prefix: samples whose names share this many first characters are one group. For TCGA
            barcodes 12 is the patient.

    Raises:
        InputError: bad fractions; a name that is missing or shorter than the prefix; fewer names
            than splits; a split without a sample.
    """
    _check_fractions(valid, test)
    texts = _grouped(names, group_prefix)
    _check_count(len(pc.unique(texts)), len(SPLITS), "splits")
    draw = (_hash_texts(texts, seed, _DRAW) >> np.uint64(11)) * 2.0**-53
    codes = np.where(draw < test, 2, np.where(draw < test + valid, 1, 0)).astype(np.uint8)
    return _without_empty(codes)


def balanced_split(
    groups: Names,
    *,
    valid: float,
    test: float,
    seed: int,
    classes: Names | None = None,
    group_prefix: int | None = None,
) -> SplitCodes:
    """Split whole groups so that the fractions of samples, and of each class, are met closely.

    Groups are dealt from large to small (equal ones in the order of their hash), each to the split
    that lacks most samples; with classes, those of the rarest class first. Without classes every
    split ends within the size of the largest group of its fraction. Unlike in
    :func:`random_split`, an added sample can move others; the order of the samples moves none.

    Args:
        groups: names of the samples' groups; the samples' own names if each stands for itself.
        valid: fraction of samples, above 0.
        test: fraction of samples, above 0; valid + test is below 1.
        seed: another seed, another split.
        classes: class of each sample, to keep class proportions (a stratified group split).
        group_prefix: see :func:`random_split`.

    Raises:
        InputError: as :func:`random_split`; also a class that is in fewer groups than splits, or
            that a split came out without.
    """
    _check_fractions(valid, test)
    texts = _grouped(groups, group_prefix)
    shares = np.array([1 - valid - test, valid, test])
    codes = _deal(texts, classes, shares, seed, "splits").astype(np.uint8)
    _without_empty(codes)
    if classes is not None:
        _check_classes_everywhere(codes, classes)
    return codes


def fold_split(
    names: Names,
    *,
    folds: int,
    fold: int,
    seed: int,
    classes: Names | None = None,
    group_prefix: int | None = None,
) -> SplitCodes:
    """Split for one round of a cross-validation: fold f is test, the next valid, the rest train.

    The folds are the same for every ``fold``, so over all rounds each sample is tested once. Where
    every sample has a name of its own, folds differ by at most one sample, in all and in each
    class; else whole groups are dealt as in :func:`balanced_split`.

    Args:
        names: of the samples, or of the groups that must stay together.
        folds: number of folds, 3 or more.
        fold: which one is the test split, from 0.
        seed: another seed, other folds.
        classes: class of each sample, to keep class proportions (stratified folds).
        group_prefix: see :func:`random_split`.

    Raises:
        InputError: a bad fold number; fewer groups than folds; a class in fewer groups than folds.
    """
    if folds < len(SPLITS) or not 0 <= fold < folds:
        raise InputError(
            f"fold {fold} of {folds}",
            remedy="there are 3 or more folds (train, valid, test), numbered from 0",
        )
    texts = _grouped(names, group_prefix)
    part = _deal(texts, classes, np.full(folds, 1 / folds), seed, "folds")
    codes = np.zeros(len(part), dtype=np.uint8)
    codes[part == fold] = 2
    codes[part == (fold + 1) % folds] = 1
    return codes


def given_split(column: Names, *, meaning: Mapping[str, str] | None = None) -> SplitCodes:
    """Take the split from a column of the samples' table.

    Args:
        column: name of each sample's split.
        meaning: what other names stand for, as ``{"training": "train"}``. Nothing is guessed.

    Raises:
        InputError: a name that is no split, with the sample and the nearest split; a split without
            a sample.
    """
    known = {split: split for split in SPLITS} | dict(meaning or {})
    for name, split in known.items():
        if split not in SPLITS:
            raise InputError(
                f"{name!r} stands for {split!r}, which is no split", remedy=_splits_are(split)
            )
    texts = _texts(column, "split")
    found = pc.index_in(texts, pa.array(list(known), pa.large_string()))
    unknown = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))
    if unknown.size:
        value = texts[int(unknown[0])].as_py()
        raise InputError(
            f"sample {int(unknown[0])} (counted from 0): {value!r} is no split",
            remedy=_splits_are(value),
        )
    code_of = np.array([SPLITS.index(split) for split in known.values()], dtype=np.uint8)
    return _without_empty(code_of[found.to_numpy(zero_copy_only=False)])


def listed_split(
    names: Names, lists: Mapping[str, Names], *, rest: str | None = None
) -> SplitCodes:
    """Take the splits from lists of names.

    Args:
        names: of the samples.
        lists: split -> names of its samples (or of groups, if ``names`` are those).
        rest: split of the samples that no list has; None refuses them.

    Raises:
        InputError: a list for no split; a listed name that no sample has or that two lists have; a
            sample that no list has; a split without a sample.
    """
    texts = _texts(names, "name")
    codes = np.full(len(texts), len(SPLITS), dtype=np.uint8)
    for split, members in lists.items():
        if split not in SPLITS:
            raise InputError(f"a list for {split!r}, which is no split", remedy=_splits_are(split))
        listed = pc.unique(_texts(members, f"name in the list of {split}"))
        absent = pc.filter(listed, pc.invert(pc.is_in(listed, texts)))
        if len(absent):
            raise InputError(
                f"{len(absent)} names of the list of {split} are no sample's, "
                f"first {absent[0].as_py()!r}",
                remedy="take them out of the list, or correct them",
            )
        inside = pc.is_in(texts, listed).to_numpy(zero_copy_only=False)
        twice = np.flatnonzero(inside & (codes < len(SPLITS)))
        if twice.size:
            other = SPLITS[codes[twice[0]]]
            raise InputError(
                f"{texts[int(twice[0])].as_py()!r} is in the lists of {other} and of {split}",
                remedy="a sample belongs to one split",
            )
        codes[inside] = SPLITS.index(split)
    left = np.flatnonzero(codes == len(SPLITS))
    if left.size and rest is None:
        raise InputError(
            f"{left.size} samples are in no list, first {texts[int(left[0])].as_py()!r}",
            remedy="add them to a list, or say which split the rest is",
        )
    if rest is not None:
        if rest not in SPLITS:
            raise InputError(f"the rest is {rest!r}, which is no split", remedy=_splits_are(rest))
        codes[left] = SPLITS.index(rest)
    return _without_empty(codes)


def _texts(names: Names, what: str) -> pa.Array:
    """Turn names into an array of texts without a missing or empty one."""
    try:
        array = pa.array(names, from_pandas=True)
    except (pa.ArrowException, UnicodeError) as error:
        raise InputError(
            f"a {what} is neither text nor integer ({error})", remedy=f"every {what} is a text"
        ) from None
    if len(array) == 0:
        raise InputError("there is no sample", remedy="give samples to split")
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer)
    if not any(kind(array.type) for kind in kinds):
        raise InputError(
            f"every {what} is of type {array.type}, neither text nor integer",
            remedy="give a column of texts or whole numbers",
        )
    texts = array.cast(pa.large_string())
    empty = pc.fill_null(pc.equal(texts, ""), True).to_numpy(zero_copy_only=False)
    if empty.any():
        raise InputError(
            f"sample {int(np.argmax(empty))} (counted from 0) has no {what}",
            remedy=f"give every sample a {what}, or leave those without out",
        )
    return texts


def _grouped(names: Names, prefix: int | None) -> pa.Array:
    """Return the names, or their first characters, as texts."""
    texts = _texts(names, "name")
    if prefix is None:
        return texts
    if prefix < 1:
        raise ValueError(f"group_prefix {prefix} is below 1")
    short = pc.less(pc.utf8_length(texts), prefix).to_numpy(zero_copy_only=False)
    if short.any():
        at = int(np.argmax(short))
        raise InputError(
            f"sample {at} (counted from 0): name {texts[at].as_py()!r} is shorter than the "
            f"{prefix} characters that make its group",
            remedy="give full names, or a shorter prefix",
        )
    return pc.utf8_slice_codeunits(texts, 0, prefix)


def _hash_texts(texts: pa.Array, *parts: int) -> npt.NDArray[np.uint64]:
    """Hash each text: ``hashing.key(*parts, bytes, word, word, ...)``, uint64, shape (texts,).

    A word is eight bytes of UTF-8, little-endian, the last one filled up with zeros.
    """
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    start, length = ends[:-1], np.diff(ends)
    padded = np.concatenate([np.frombuffer(data, np.uint8), np.zeros(_WORD, np.uint8)])
    words = np.lib.stride_tricks.sliding_window_view(padded, _WORD)
    state = mix(np.uint64(key(*parts)) ^ length.astype(np.uint64))
    for first in range(0, int(length.max()), _WORD):
        rows = np.flatnonzero(length > first)
        word = np.ascontiguousarray(words[start[rows] + first])
        word[np.arange(_WORD) >= (length[rows] - first)[:, None]] = 0
        state[rows] = mix(state[rows] ^ word.view("<u8")[:, 0].astype(np.uint64))
    return state


def _deal(
    texts: pa.Array,
    classes: Names | None,
    shares: npt.NDArray[np.float64],
    seed: int,
    parts: str,
) -> npt.NDArray[np.int64]:
    """Return the part of each sample, samples of one text together; int64, shape (samples,)."""
    encoded = texts.dictionary_encode()
    group = encoded.indices.to_numpy().astype(np.int64)
    kind, names = _class_codes(classes, len(texts))
    groups = len(encoded.dictionary)
    _check_count(groups, len(shares), parts)
    counts = np.bincount(group * len(names) + kind, minlength=groups * len(names))
    counts = counts.reshape(groups, len(names))
    spread = np.count_nonzero(counts, axis=0)
    if spread.min() < len(shares):
        rare = int(np.argmin(spread))
        raise InputError(
            f"class {names[rare]!r} is in {spread[rare]} groups, fewer than {len(shares)} {parts}",
            remedy="leave the class out or merge it with another, or don't stratify",
        )
    draws = _hash_texts(encoded.dictionary, seed, _ORDER)
    if groups == len(texts) and np.ptp(shares) == 0:
        # Each sample for itself, equal parts: dealing in turn, class after class, is exact.
        part = np.empty(groups, dtype=np.int64)
        order = np.lexsort((draws, kind[np.argsort(group)]))
        part[order] = np.arange(groups) % len(shares)
    else:
        part = _deal_groups(counts, draws, shares)
    return np.asarray(part[group])


def _deal_groups(
    counts: npt.NDArray[np.int64],
    draws: npt.NDArray[np.uint64],
    shares: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Deal groups to parts: iterative stratification (Sechidis et al. 2011), of whole groups.

    Classes take their turn from rare to common. The groups that hold a class and were not dealt
    yet go, from large to small, each to the part that lacks most samples of that class.
    """
    rarity = np.lexsort((np.arange(counts.shape[1]), counts.sum(axis=0)))
    turn = np.argmax(counts[:, rarity] > 0, axis=1)
    leading = rarity[turn]
    held = np.take_along_axis(counts, leading[:, None], axis=1)[:, 0]
    lack = shares[:, None] * counts.sum(axis=0)
    rounding = 1e-12 * counts.sum()
    part = np.empty(len(counts), dtype=np.int64)
    for group in np.lexsort((draws, -counts.sum(axis=1), -held, turn)):
        wanted = lack[:, leading[group]]
        best = np.flatnonzero(wanted >= wanted.max() - rounding)
        chosen = best[np.argmax(lack[best].sum(axis=1))] if len(best) > 1 else best[0]
        lack[chosen] -= counts[group]
        part[group] = chosen
    return part


def _class_codes(classes: Names | None, samples: int) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the classes in sorted order; without classes all samples are of one."""
    if classes is None:
        return np.zeros(samples, dtype=np.int64), ["all"]
    encoded = _texts(classes, "class").dictionary_encode()
    if len(encoded) != samples:
        raise ValueError(f"{len(encoded)} classes for {samples} samples")
    names: list[str] = encoded.dictionary.to_pylist()
    rank = np.argsort(np.argsort(names))  # sorted, so that the order of samples plays no part
    return rank[encoded.indices.to_numpy()], sorted(names)


def _check_fractions(valid: float, test: float) -> None:
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise InputError(
            f"the fractions are valid {valid} and test {test}",
            remedy="each is above 0, and their sum below 1: the rest is for training",
        )


def _check_count(groups: int, parts: int, what: str) -> None:
    if groups < parts:
        raise InputError(
            f"{groups} different names or groups for {parts} {what}",
            remedy=f"give at least {parts} samples or groups; a group is never divided",
        )


def _check_classes_everywhere(codes: SplitCodes, classes: Names) -> None:
    kind, names = _class_codes(classes, len(codes))
    held = np.bincount(codes * np.int64(len(names)) + kind, minlength=len(SPLITS) * len(names))
    missing = np.argwhere(held.reshape(len(SPLITS), len(names)) == 0)
    if len(missing):
        split, which = missing[0]
        raise InputError(
            f"split {SPLITS[split]!r} came out without a sample of class {names[which]!r}",
            remedy="larger fractions, smaller groups, or another seed; or don't stratify",
        )


def _without_empty(codes: SplitCodes) -> SplitCodes:
    """Return the codes, or say which split has no sample."""
    for code, name in enumerate(SPLITS):
        if not (codes == code).any():
            raise InputError(
                f"split {name!r} came out without a sample, of {len(codes)} in all",
                remedy="give more samples or smaller groups, a larger fraction, or another seed",
            )
    return codes


def _splits_are(value: str) -> str:
    near = difflib.get_close_matches(value.lower(), SPLITS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}splits are {', '.join(SPLITS)}"

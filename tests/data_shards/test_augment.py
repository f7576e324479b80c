"""Augmentation: pure, independent of the batch, the statistics it states, and never another one."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_shards import kernels
from data_shards.augment import (
    Augmentation,
    Draws,
    apply_codes,
    apply_labels,
    apply_tracks,
    draw,
    masked,
    strand_swap,
)
from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.order import SampleOrder
from data_shards.sequence import Codes, reverse_complement

Ids = npt.NDArray[np.int64]

ALL = Augmentation(reverse_complement=0.5, shift=20, mask=0.15)
SPAN = Augmentation(reverse_complement=0.5, shift=20, mask=0.7, mask_span=30)
SEEDS = st.integers(0, 2**63 - 1)
ID_LISTS = st.lists(st.integers(0, 2**40), min_size=1, max_size=40)


def sequences(ids: Ids, length: int = 150) -> Codes:
    """Make a sequence of each sample that depends on its number only."""
    places = np.arange(length, dtype=np.uint64)
    return (mix(ids.astype(np.uint64)[:, None] * np.uint64(1000) + places) % 5).astype(np.uint8)


def results(
    augmentation: Augmentation, seed: int, epoch: int | Ids, ids: Ids
) -> tuple[npt.NDArray[Any], ...]:
    draws = draw(augmentation, seed, epoch, ids)
    bins = sequences(ids, 24).reshape(len(ids), 6, 4)
    return (
        draws.shift,
        apply_codes(draws, sequences(ids)),
        masked(draws, 150),
        apply_tracks(draws, bins, np.array([1, 0, 2, 3])),
        apply_labels(draws, sequences(ids, 3), np.array([0, 2, 1])),
    )


@given(st.sampled_from([ALL, SPAN]), SEEDS, st.integers(0, 99), ID_LISTS, st.data())
@settings(deadline=None)  # the kernels are compiled once
def test_a_sample_is_the_same_in_any_batch(
    augmentation: Augmentation, seed: int, epoch: int, numbers: list[int], data: st.DataObject
) -> None:
    ids = np.array(numbers, dtype=np.int64)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1)))
    whole = results(augmentation, seed, epoch, ids)
    part = results(augmentation, seed, epoch, ids[chosen])
    for all_of_them, some in zip(whole, part, strict=True):
        assert np.array_equal(all_of_them[chosen], some)


@given(SEEDS, st.integers(1, 30), st.integers(0, 200))
def test_a_batch_that_reaches_into_the_next_epoch_has_the_draws_of_both(
    seed: int, rows: int, start: int
) -> None:
    order = SampleOrder(rows, seed)
    ids, epochs = order.ids(start, 50), order.epochs(start, 50)
    both = draw(ALL, seed, epochs, ids)
    for epoch in set(epochs.tolist()):
        one = draw(ALL, seed, epoch, ids[epochs == epoch])
        assert np.array_equal(both.reverse[epochs == epoch], one.reverse)
        assert np.array_equal(both.shift[epochs == epoch], one.shift)
        assert np.array_equal(both.mask_key[epochs == epoch], one.mask_key)


def test_draws_are_the_keyed_hash_of_seed_epoch_use_and_sample() -> None:
    ids = np.arange(50, dtype=np.int64)
    hashes = mix(ids.astype(np.uint64) ^ np.uint64(key(7, 3, 0xA003)))
    assert np.array_equal(draw(ALL, 7, 3, ids).mask_key, hashes)


@pytest.mark.parametrize("changed", ["seed", "epoch", "sample"])
def test_another_seed_epoch_or_sample_is_another_draw(changed: str) -> None:
    ids = np.arange(1000, dtype=np.int64)
    first = draw(ALL, 1, 1, ids)
    other = {"seed": (2, 1, ids), "epoch": (1, 2, ids), "sample": (1, 1, ids + 1000)}[changed]
    second = draw(ALL, *other)
    assert 400 < (first.reverse == second.reverse).sum() < 600
    assert (first.shift == second.shift).mean() < 0.06
    assert not (first.mask_key == second.mask_key).any()


def test_switching_one_kind_on_does_not_change_the_others() -> None:
    ids = np.arange(500, dtype=np.int64)
    whole = draw(ALL, 5, 2, ids)
    for settings_ in ({"shift": 20}, {"reverse_complement": 0.5}, {"mask": 0.15}):
        alone = draw(Augmentation.model_validate(settings_), 5, 2, ids)
        if "shift" in settings_:
            assert np.array_equal(alone.shift, whole.shift)
        if "reverse_complement" in settings_:
            assert np.array_equal(alone.reverse, whole.reverse)
        if "mask" in settings_:
            assert np.array_equal(masked(alone, 300), masked(whole, 300))


def test_kinds_of_draws_are_independent_of_each_other() -> None:
    draws = draw(ALL, 0, 0, np.arange(20_000, dtype=np.int64))
    forward, backward = draws.shift[~draws.reverse], draws.shift[draws.reverse]
    standard = 41 / 12**0.5 * (1 / len(forward) + 1 / len(backward)) ** 0.5
    assert abs(forward.mean() - backward.mean()) < 4 * standard
    share = masked(draws, 64).mean(axis=1)
    assert abs(np.corrcoef(share, draws.shift)[0, 1]) < 4 / 20_000**0.5
    assert abs(np.corrcoef(share, draws.reverse)[0, 1]) < 4 / 20_000**0.5


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_coin_of_the_reverse_complement_has_its_probability(probability: float) -> None:
    augmentation = Augmentation(reverse_complement=probability)
    heads = draw(augmentation, 3, 0, np.arange(40_000, dtype=np.int64)).reverse.mean()
    assert abs(heads - probability) <= 4 * (probability * (1 - probability) / 40_000) ** 0.5


def test_shifts_are_uniform_and_reach_both_ends() -> None:
    shift = draw(Augmentation(shift=3), 3, 0, np.arange(70_000, dtype=np.int64)).shift
    values, counts = np.unique(shift, return_counts=True)
    assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert (np.abs(counts - 10_000) < 4 * (70_000 * 6 / 49) ** 0.5).all()


@given(SEEDS, st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_a_shift_stays_within_its_limits(
    seed: int, shift: int, limits: list[tuple[int, int]]
) -> None:
    low = -np.array([a for a, _ in limits], dtype=np.int64)
    high = np.array([b for _, b in limits], dtype=np.int64)
    drawn = draw(Augmentation(shift=shift), seed, 0, np.arange(len(limits)), low, high).shift
    assert (drawn >= np.maximum(low, -shift)).all()
    assert (drawn <= np.minimum(high, shift)).all()


def test_near_an_end_the_shift_is_uniform_over_what_fits() -> None:
    n = 40_000
    none = np.zeros(n, dtype=np.int64)
    shift = draw(Augmentation(shift=3), 3, 0, np.arange(n), low=none).shift
    values, counts = np.unique(shift, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3]
    assert (np.abs(counts - n / 4) < 4 * (n * 3 / 16) ** 0.5).all()


def test_limits_that_leave_no_shift_are_refused_by_sample() -> None:
    ids = np.array([11, 12], dtype=np.int64)
    with pytest.raises(InputError, match="sample 12: no shift of up to 3 bp"):
        draw(Augmentation(shift=3), 0, 0, ids, low=np.array([-1, 4]))


@pytest.mark.parametrize("length", [1, 63, 1000, 1024, 1025, 3000])
@pytest.mark.parametrize("probability", [1 / 65536, 0.15, 0.5, 1.0])
def test_masked_positions_are_those_of_splitmix64(length: int, probability: float) -> None:
    draws = draw(Augmentation(mask=probability), 9, 4, np.arange(5, dtype=np.int64))
    words = np.arange(-(-length // 4), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    lanes = mix(draws.mask_key[:, None] + words).astype("<u8").view("<u2")[:, :length]
    assert np.array_equal(masked(draws, length), lanes < round(probability * 65536))


def test_each_position_is_masked_with_its_probability_and_alone() -> None:
    n, length = 4000, 257
    mask = masked(draw(Augmentation(mask=0.15), 9, 4, np.arange(n)), length)
    deviation = (0.15 * 0.85 / n) ** 0.5
    assert (np.abs(mask.mean(axis=0) - 0.15) < 5 * deviation).all()
    assert abs(mask.mean() - 0.15) < 4 * deviation / length**0.5
    for lag in (1, 3, 4, 64):
        pairs = (mask[:, lag:] & mask[:, :-lag]).mean()
        assert abs(pairs - 0.15**2) < 4 * (0.0225 * 0.9775 / (n * (length - lag))) ** 0.5
    counts = mask.sum(axis=1)  # binomial, as of positions that know nothing of each other
    assert abs(counts.var() / (length * 0.15 * 0.85) - 1) < 4 * (2 / n) ** 0.5


def test_a_span_is_of_exact_length_with_its_start_uniform() -> None:
    n, length, span = 20_000, 40, 33
    mask = masked(draw(Augmentation(mask=0.25, mask_span=span), 9, 4, np.arange(n)), length)
    counts = mask.sum(axis=1)
    assert set(counts.tolist()) == {0, span}
    has = counts > 0
    assert abs(has.mean() - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5
    starts = mask[has].argmax(axis=1)
    for row, start in zip(mask[has][:50], starts[:50], strict=True):
        assert row[start : start + span].all()
    values, seen = np.unique(starts, return_counts=True)
    assert values.tolist() == list(range(8))
    expected = has.sum() / 8
    assert (np.abs(seen - expected) < 4 * expected**0.5).all()


def test_a_span_may_fill_the_window_and_not_more() -> None:
    draws = draw(Augmentation(mask=1.0, mask_span=10), 0, 0, np.arange(3))
    assert masked(draws, 10).all()
    with pytest.raises(InputError, match=r"mask_span = 10 is longer than the windows \(9\)"):
        apply_codes(draws, np.zeros((3, 9), dtype=np.uint8))


@pytest.mark.parametrize("length", [1, 7, 64, 1000])
def test_codes_are_the_reverse_complement_where_drawn_then_masked(length: int) -> None:
    ids = np.arange(40, dtype=np.int64)
    draws, codes = draw(ALL, 1, 1, ids), sequences(ids, length)
    before = codes.copy()
    expected = np.where(draws.reverse[:, None], reverse_complement(codes), codes)
    expected[masked(draws, length)] = 4
    assert np.array_equal(apply_codes(draws, codes), expected)
    assert np.array_equal(codes, before), "the input is left alone"


def test_codes_of_any_layout_in_memory_will_do() -> None:
    ids = np.arange(8, dtype=np.int64)
    draws, codes = draw(ALL, 1, 1, ids), sequences(ids, 60)
    fortran, frozen = np.asfortranarray(codes), codes.copy()
    frozen.flags.writeable = False
    for same in (fortran, frozen):
        assert np.array_equal(apply_codes(draws, same), apply_codes(draws, codes))


def test_turning_twice_gives_everything_back() -> None:
    ids = np.arange(64, dtype=np.int64)
    draws = draw(Augmentation(reverse_complement=0.5), 1, 1, ids)
    swap = np.array([2, 1, 0, 4, 3])
    codes = sequences(ids, 101)
    bins = codes[:, :100].reshape(64, 20, 5).astype(np.float32)
    labels = codes[:, :5]
    assert not np.array_equal(apply_codes(draws, codes), codes)
    assert np.array_equal(apply_codes(draws, apply_codes(draws, codes)), codes)
    assert not np.array_equal(apply_tracks(draws, bins, swap), bins)
    assert np.array_equal(apply_tracks(draws, apply_tracks(draws, bins, swap), swap), bins)
    assert not np.array_equal(apply_labels(draws, labels, swap), labels)
    assert np.array_equal(apply_labels(draws, apply_labels(draws, labels, swap), swap), labels)


def test_targets_turn_with_their_sequence() -> None:
    draws = Draws(
        Augmentation(reverse_complement=0.5),
        np.array([False, True]),
        np.zeros(2, dtype=np.int64),
        np.zeros(2, dtype=np.uint64),
    )
    bins = np.arange(12, dtype=np.float16).reshape(2, 2, 3)
    turned = apply_tracks(draws, bins, np.array([0, 2, 1]))
    assert turned.dtype == np.float16
    assert turned.tolist() == [[[0, 1, 2], [3, 4, 5]], [[9, 11, 10], [6, 8, 7]]]
    assert apply_tracks(draws, bins)[1].tolist() == [[9, 10, 11], [6, 7, 8]]
    labels = np.array([[1, 2, 3], [4, 5, 6]])
    assert apply_labels(draws, labels, np.array([0, 2, 1])).tolist() == [[1, 2, 3], [4, 6, 5]]
    assert apply_labels(draws, labels) is labels


def test_doing_nothing_copies_nothing() -> None:
    ids = np.arange(6, dtype=np.int64)
    draws = draw(Augmentation(), 1, 1, ids)
    codes, bins = sequences(ids), np.zeros((6, 3, 2))
    assert apply_codes(draws, codes) is codes
    assert apply_tracks(draws, bins, np.array([1, 0])) is bins
    assert not draws.reverse.any()
    assert not draws.shift.any()
    assert not masked(draws, 10).any()


def test_strands_are_paired_by_name() -> None:
    names = ("plus", "both", "minus")
    assert strand_swap(names, [("minus", "plus")]).tolist() == [2, 1, 0]
    assert strand_swap(names, []).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="no target 'forward'"):
        strand_swap(names, [("forward", "minus")])
    with pytest.raises(InputError, match="'plus' is to be swapped twice"):
        strand_swap(names, [("plus", "minus"), ("both", "plus")])
    with pytest.raises(InputError, match="'plus' is to be swapped twice"):
        strand_swap(names, [("plus", "plus")])


@pytest.mark.parametrize("swap", [[0], [1, 2, 0], [0, 1, 3], [0, 0, 2], [-1, 1, 2]])
def test_a_swap_that_does_not_pair_is_refused(swap: list[int]) -> None:
    draws = draw(Augmentation(), 0, 0, np.arange(2))
    with pytest.raises(InputError, match=r"does not pair 3 channel\(s\)"):
        apply_labels(draws, np.zeros((2, 3)), np.array(swap))
    with pytest.raises(InputError, match=r"does not pair 3 channel\(s\)"):
        apply_tracks(draws, np.zeros((2, 1, 3)), np.array(swap))


def test_draws_of_another_batch_are_refused() -> None:
    draws = draw(ALL, 0, 0, np.arange(2))
    for call in (
        lambda: apply_codes(draws, np.zeros((3, 5), dtype=np.uint8)),
        lambda: apply_tracks(draws, np.zeros((3, 5, 1))),
        lambda: apply_labels(draws, np.zeros((3, 5))),
    ):
        with pytest.raises(ValueError, match="draws of 2 samples for 3"):
            call()


@pytest.mark.parametrize(
    "values",
    [
        {"reverse_complement": 1.1},
        {"reverse_complement": float("nan")},
        {"shift": -1},
        {"shift": 2.5},
        {"shift": 2**40},
        {"mask": -0.1},
        {"mask": 1e-6},
        {"mask_span": 5},
        {"mask": 0.5, "mask_span": -1},
        {"shear": 1},
    ],
)
def test_a_nonsensical_augmentation_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Augmentation.model_validate(values)


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [(ALL, "836bf9230e175cff"), (SPAN, "4277f4993e55823e")],
    ids=["positions", "span"],
)
def test_augmentation_never_changes_between_versions(
    augmentation: Augmentation, expected: str
) -> None:
    digest = hashlib.sha256()
    ids = np.arange(5000, 5300, dtype=np.int64)
    for epoch in (0, 1, 77):
        for array in results(augmentation, 42, epoch, ids):
            digest.update(array.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == expected


def test_kernels_work_where_compiled_code_can_not_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import numba

    real = numba.njit

    def refusing(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", refusing)
    kernels.compiled.cache_clear()
    draws = draw(Augmentation(mask=1.0), 0, 0, np.arange(2))
    assert masked(draws, 5).all()
    kernels.compiled.cache_clear()


def test_importing_does_not_start_the_compiler() -> None:
    import subprocess

    check = "import sys, data_shards.augment; sys.exit('numba' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0

"""The quality of a shuffle, against counting by hand and against full permutations."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import InputError
from data_shards.order import SampleOrder, sample_order
from data_shards.shuffling import shuffle_quality

ROWS = 200_000
CLUSTERS = np.arange(ROWS) // 5000  # 40 classes, each in one place, as contigs are


def test_two_levels_mix_clusters_nearly_as_well_as_a_full_permutation() -> None:
    measured = shuffle_quality(SampleOrder(ROWS, 1, block=256, pool=256), CLUSTERS, 256)
    assert 0.95 < measured.entropy_ratio < 1.02
    assert abs(measured.autocorrelation) < 0.05
    assert 0.9 < measured.jump < 1.1
    assert measured.batches == 256


def test_a_full_permutation_has_one_nought_and_one() -> None:
    measured = shuffle_quality(sample_order(ROWS, 1, "full"), CLUSTERS, 256)
    assert measured.entropy_ratio == pytest.approx(1, abs=0.005)
    assert measured.autocorrelation == pytest.approx(0, abs=4 / (255 * 256) ** 0.5)
    assert measured.jump == pytest.approx(1, abs=0.02)


def test_the_stored_order_is_no_shuffle() -> None:
    measured = shuffle_quality(sample_order(ROWS, 1, "none"), CLUSTERS, 256)
    assert measured.entropy_ratio < 0.05
    assert 0.99 < measured.autocorrelation <= 1
    assert measured.jump == pytest.approx(3 / (ROWS + 1))


def test_a_pool_of_one_block_is_told_from_a_real_shuffle() -> None:
    measured = shuffle_quality(SampleOrder(ROWS, 1, block=256, pool=1), CLUSTERS, 256)
    assert measured.entropy_ratio < 0.2
    assert measured.autocorrelation > 0.9
    assert measured.jump < 0.05


def test_a_rare_label_in_one_place_shows_in_the_ratio() -> None:
    label = np.arange(ROWS) < ROWS // 50
    full = shuffle_quality(sample_order(ROWS, 1, "full"), label, 256)
    blocks = shuffle_quality(sample_order(ROWS, 1), label, 256)
    streamed = shuffle_quality(sample_order(ROWS, 1, "blocks", shard_rows=4096), label, 256)
    none = shuffle_quality(sample_order(ROWS, 1, "none"), label, 256)
    assert full.entropy_ratio == pytest.approx(1, abs=0.05)
    assert full.entropy_ratio > blocks.entropy_ratio > streamed.entropy_ratio
    assert streamed.entropy_ratio > none.entropy_ratio


def entropy_of(classes: list[int]) -> float:
    counts = Counter(classes).values()
    return -sum(n / len(classes) * math.log2(n / len(classes)) for n in counts)


@given(
    st.integers(2, 60),
    st.integers(0, 99),
    st.integers(1, 20),
    st.sampled_from(["full", "blocks", "none"]),
    st.data(),
)
@settings(deadline=None)
def test_the_figures_are_those_of_counting_by_hand(
    rows: int, seed: int, kinds: int, shuffle: str, data: st.DataObject
) -> None:
    order = sample_order(rows, seed, shuffle)  # type: ignore[arg-type]
    classes = np.arange(rows) * 7 % kinds - 3  # any integers will do
    size = data.draw(st.integers(2, rows))
    measured = shuffle_quality(order, classes, size, batches=1000)
    whole = [order.ids(step * size, size) for step in range(rows // size)]
    entropy = sum(entropy_of(classes[ids].tolist()) for ids in whole) / len(whole)
    assert measured.batches == len(whole)
    assert measured.entropy == pytest.approx(entropy, abs=1e-9)
    jumps = [abs(b - a) for ids in whole for a, b in pairwise(ids.tolist())]
    assert measured.jump == pytest.approx(sum(jumps) / len(jumps) / ((rows + 1) / 3))
    assert -1 <= round(measured.autocorrelation, 12) <= 1


def test_the_expected_entropy_is_the_mean_over_many_permutations() -> None:
    classes = np.repeat([0, 1, 2], [3, 10, 27])
    found = [
        shuffle_quality(sample_order(40, seed, "full"), classes, 8).entropy_ratio
        for seed in range(400)
    ]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / 20)
    assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_one_class_is_always_mixed() -> None:
    measured = shuffle_quality(sample_order(100, 1, "none"), np.zeros(100, dtype=bool), 10)
    assert measured.entropy_ratio == 1
    assert measured.entropy == 0


def test_fewer_batches_are_spread_over_the_epoch() -> None:
    halves = np.arange(1000) // 500
    measured = shuffle_quality(sample_order(1000, 1, "none"), halves, 200, batches=5)
    assert measured.batches == 5
    assert measured.entropy == pytest.approx(1 / 5), "the middle one of five has both"


@pytest.mark.parametrize(
    ("classes", "batch_size", "batches", "problem"),
    [
        (np.zeros(9, dtype=int), 2, 1, r"classes of shape \(9,\) for an order of 10 rows"),
        (np.zeros((10, 1), dtype=int), 2, 1, r"classes of shape \(10, 1\)"),
        (np.zeros(10), 2, 1, "classes are float64"),
        (np.zeros(10, dtype=int), 1, 1, "of 1 from 10 rows"),
        (np.zeros(10, dtype=int), 11, 1, "of 11 from 10 rows"),
        (np.zeros(10, dtype=int), 2, 0, "0 batch"),
    ],
)
def test_what_can_not_be_measured_is_refused(
    classes: npt.NDArray[np.int64], batch_size: int, batches: int, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        shuffle_quality(SampleOrder(10, 1), classes, batch_size, batches)


def test_asking_for_more_batches_than_there_are_takes_all() -> None:
    classes = np.arange(1000) % 3
    every = shuffle_quality(SampleOrder(1000, 1), classes, 100, batches=10**12)
    assert every.batches == 10

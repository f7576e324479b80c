"""Weighted draws: pure, seekable, in proportion to the weights, and never others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from data_shards.errors import InputError
from data_shards.hashing import key
from data_shards.labels import label_statistics
from data_shards.order import replica_ids
from data_shards.sampling import (
    SamplingConfig,
    WeightedOrder,
    _scaled,
    sampling_weights,
    weighted_order,
)
from tests.data_shards.labelled import write_labels

ORDERS = st.builds(
    lambda weights, seed: weighted_order(np.array(weights), seed),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=50),
    st.integers(0, 2**63 - 1),
)
BALANCED = SamplingConfig(name="balanced")


# The order --------------------------------------------------------------------------------------


@given(ORDERS, st.integers(0, 2**62), st.integers(0, 300), st.integers(0, 300))
def test_any_stretch_is_what_its_positions_give_one_by_one(
    order: WeightedOrder, start: int, count: int, cut: int
) -> None:
    whole = order.ids(start, count)
    cut = min(cut, count)
    parts = [order.ids(start, cut), order.ids(start + cut, count - cut)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.int64
    assert ((whole >= 0) & (whole < order.rows)).all()
    assert order.visits(start, count).tolist() == list(range(start, start + count))
    assert order.epochs(start, count).tolist() == [
        position // order.rows for position in range(start, start + count)
    ]


@given(ORDERS, st.integers(0, 20), st.integers(1, 9), st.integers(1, 9))
def test_replicas_share_out_one_global_batch(
    order: WeightedOrder, step: int, share: int, replicas: int
) -> None:
    size = share * replicas
    parts = [replica_ids(order, step, size, replica, replicas) for replica in range(replicas)]
    assert np.array_equal(np.concatenate(parts), order.ids(step * size, size))


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_rows_are_drawn_in_proportion_to_their_weights(seed: int) -> None:
    weights = np.random.default_rng(5).random(200) * np.repeat([1.0, 10.0], 100)
    draws = 200_000
    for start in (0, 10**12):
        counts = np.bincount(weighted_order(weights, seed).ids(start, draws), minlength=200)
        expected = weights / weights.sum() * draws
        assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_neighbouring_draws_are_independent() -> None:
    drawn = weighted_order(np.array([3.0, 1.0, 2.0]), 7).ids(0, 200_000)
    pairs = np.bincount(3 * drawn[0::2] + drawn[1::2], minlength=9)
    shares = np.array([3, 1, 2]) / 6
    expected = np.outer(shares, shares).ravel() * 100_000
    assert stats.chisquare(pairs, expected).pvalue > 1e-3


def test_a_row_of_weight_0_is_never_drawn_and_a_seed_matters() -> None:
    weights = np.array([0.0, 1, 0, 0, 2, 0])
    drawn = weighted_order(weights, 3).ids(0, 10_000)
    assert set(drawn.tolist()) == {1, 4}
    assert not np.array_equal(drawn, weighted_order(weights, 4).ids(0, 10_000))


def test_the_draws_never_change_between_versions() -> None:
    weights = 1 / np.arange(1, 1001)
    ids = weighted_order(weights, 42).ids(0, 30_000)
    digest = hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "e4eb0a735e8862a4"


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(0, 2**63 - 1))
def test_a_draw_is_the_hash_of_its_position_looked_up_among_the_weights(
    weights: list[int], seed: int
) -> None:
    weights = [*weights, 16]
    order = weighted_order(np.array(weights, dtype=np.float64), seed)
    for position in (0, 1, 10**15):
        draw = key(position ^ key(seed, 0xB001)) * sum(weights) << 28 >> 64
        row = next(r for r in range(len(weights)) if draw < sum(weights[: r + 1]) << 28)
        assert order.ids(position, 1).tolist() == [row]


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**63))
def test_hashes_are_scaled_exactly(value: int, total: int) -> None:
    assert int(_scaled(np.array([value], dtype=np.uint64), total)[0]) == value * total >> 64


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ([], "shape"),
        ([[1.0, 2.0]], "shape"),
        ([1.0, -1.0], "at least 0"),
        ([0.0, 0.0], "not all 0"),
        ([1.0, np.nan], "finite"),
        ([1.0, np.inf], "finite"),
        ([1.0, 1e-12], r"row 1: weight 1e-12 is at most 2\*\*-33"),
    ],
)
def test_weights_that_can_not_be_drawn_by_are_refused(weights: list[float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        weighted_order(np.array(weights), 0)


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="positions begin at 0"):
        weighted_order(np.ones(3), 0).ids(-1, 2)


# The weights ------------------------------------------------------------------------------------


def test_half_of_the_draws_are_positive_for_a_task(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).random((5000, 3)) < [0.05, 0.5, 0.9]
    data = write_labels(
        tmp_path / "x.zarr",
        labels,
        {"train": (100, 4000), "test": (4000, 5000)},
        kind="bits",
        names=("rare", "even", "often"),
    )
    for task, name in enumerate(("rare", "even", "often")):
        weights = sampling_weights(
            data, "labels", "train", SamplingConfig(name="balanced", task=name)
        )
        positive = labels[100:4000, task]
        assert len(set(weights[positive])) == len(set(weights[~positive])) == 1
        assert weights[positive].sum() == pytest.approx(weights[~positive].sum())
        drawn = weighted_order(weights, 1).ids(0, 20_000)
        assert positive[drawn].mean() == pytest.approx(0.5, abs=0.015)


def test_a_sample_weighs_as_its_rarest_positive_task(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).random((3000, 4)) < [0.2, 0.02, 0.5, 0]
    data = write_labels(
        tmp_path / "x.zarr", labels, {"train": (0, 2500)}, kind="bits", names=tuple("abcd")
    )
    part = labels[:2500]
    frequency = part.sum(axis=0) / 2500
    none = 1 / np.mean(~part.any(axis=1))
    expected = [
        max((1 / f for f, there in zip(frequency, row, strict=True) if there), default=none)
        for row in part
    ]
    weights = sampling_weights(data, "labels", "train", BALANCED)
    assert weights == pytest.approx(np.minimum(expected, 100))
    capped = sampling_weights(
        data, "labels", "train", SamplingConfig(name="balanced", max_weight=4)
    )
    assert capped == pytest.approx(np.minimum(expected, 4))


def test_missing_labels_are_not_positive_and_do_not_count_as_frequency(tmp_path: Path) -> None:
    nan = np.nan
    labels = np.array(
        [[1, nan], [0, nan], [0, 1], [0, 0], [nan, nan], [1, 1], [0, 0], [0, nan]], dtype=np.float32
    )
    data = write_labels(tmp_path / "x.zarr", labels, {"train": (0, 8)}, names=("a", "b"))
    # a: 2 of 7, b: 2 of 4; neither: 5 of 8.
    weights = sampling_weights(data, "labels", "train", BALANCED)
    assert weights == pytest.approx([3.5, 1.6, 2, 1.6, 1.6, 3.5, 1.6, 1.6])
    of_b = sampling_weights(data, "labels", "train", SamplingConfig(name="balanced", task="b"))
    assert of_b == pytest.approx([1, 1, 3, 1, 1, 3, 1, 1])


def test_classes_get_equal_weight(tmp_path: Path) -> None:
    classes = np.repeat(np.arange(3), [700, 290, 10])
    data = write_labels(tmp_path / "x.zarr", classes, {"train": (0, 1000)}, names=tuple("abc"))
    weights = sampling_weights(data, "labels", "train", BALANCED)
    assert np.bincount(classes, weights) == pytest.approx([1000, 1000, 1000])


def test_uniform_reads_nothing(tmp_path: Path) -> None:
    data = write_labels(tmp_path / "x.zarr", np.zeros((9, 2), np.float32), {"train": (2, 9)})
    assert sampling_weights(data, "labels", "train", SamplingConfig()).tolist() == [1] * 7
    assert not data.opened


def test_a_task_without_both_classes_and_numbers_are_refused(tmp_path: Path) -> None:
    labels = np.array([[1, 0, 0.5]] * 4, dtype=np.float32)
    data = write_labels(tmp_path / "x.zarr", labels[:, :2], {"train": (0, 4)}, names=("a", "b"))
    for task, lacking in (("a", "other"), ("b", "positive")):
        with pytest.raises(InputError, match=f"task '{task}' has no {lacking} sample in train"):
            sampling_weights(data, "labels", "train", SamplingConfig(name="balanced", task=task))
    with pytest.raises(InputError, match="no task 'c'"):
        sampling_weights(data, "labels", "train", SamplingConfig(name="balanced", task="c"))
    data = write_labels(tmp_path / "y.zarr", labels, {"train": (0, 4)})
    assert not label_statistics(data, "labels", "train").binary
    with pytest.raises(InputError, match="neither 0 nor 1"):
        sampling_weights(data, "labels", "train", BALANCED)


def test_options_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="task = 'a' says nothing"):
        SamplingConfig(task="a")
    with pytest.raises(ValidationError, match=r"max_weight = 3\.0 says nothing"):
        SamplingConfig(max_weight=3)

"""The sample order: pure, seekable, the same on any grid, and never another one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.order import SampleOrder
from trainer.grid import BatchLayout

ORDERS = st.builds(
    SampleOrder,
    rows=st.integers(1, 400),
    seed=st.integers(0, 2**63 - 1),
    block=st.integers(1, 40),
    pool=st.integers(1, 12),
)


@given(ORDERS, st.integers(0, 5))
def test_each_epoch_holds_every_row_once(order: SampleOrder, epoch: int) -> None:
    ids = order.ids(epoch * order.rows, order.rows)
    assert sorted(ids.tolist()) == list(range(order.rows))


@given(ORDERS, st.integers(0, 1500), st.integers(0, 300))
@settings(max_examples=200)
def test_any_stretch_is_what_reading_from_the_start_gives(
    order: SampleOrder, start: int, count: int
) -> None:
    whole = order.ids(0, start + count)
    assert np.array_equal(order.ids(start, count), whole[start:])


@given(ORDERS, st.integers(0, 20), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 3]))
def test_replicas_and_micro_batches_share_out_one_global_batch(
    order: SampleOrder, step: int, replicas: int, micro_batches: int
) -> None:
    layout = BatchLayout(48, replicas, micro_batches)
    parts = [order.ids(layout.first(step, r), layout.per_replica) for r in range(replicas)]
    assert np.array_equal(np.concatenate(parts), order.ids(step * 48, 48))


def test_a_pool_reads_from_few_places() -> None:
    order = SampleOrder(rows=100_000, seed=1, block=100, pool=10)
    first_pool = order.ids(0, 1000)
    assert len(set((first_pool // 100).tolist())) == 10


def test_epochs_and_seeds_differ() -> None:
    order = SampleOrder(rows=1000, seed=1)
    assert not np.array_equal(order.ids(0, 1000), order.ids(1000, 1000))
    assert not np.array_equal(order.ids(0, 1000), SampleOrder(1000, seed=2).ids(0, 1000))


def test_seeking_far_is_as_cheap_as_seeking_near() -> None:
    order = SampleOrder(rows=10_000_000, seed=3)
    far = 10_000_000 * 1_000_000 + 1_234_567
    assert np.array_equal(order.ids(far, 10), order.ids(far - 5, 15)[5:])


def test_the_order_never_changes_between_versions() -> None:
    ids = SampleOrder(rows=10_007, seed=42, block=64, pool=16).ids(0, 30_000)
    digest = hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "3657641ae50bc8b2"


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        SampleOrder(rows=0, seed=1)

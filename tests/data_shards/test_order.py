"""The sample order: pure, seekable, the same on any grid, and never another one."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards import order as order_module
from data_shards.errors import InputError
from data_shards.hashing import permutation
from data_shards.order import SampleOrder, Shuffle, replica_ids, sample_order
from trainer.grid import BatchLayout, Grid, lay_out

ORDERS = st.builds(
    SampleOrder,
    rows=st.integers(1, 400),
    seed=st.integers(0, 2**63 - 1),
    block=st.integers(1, 40),
    pool=st.integers(1, 12),
    shuffled=st.booleans(),
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


# Rows, seed, block, pool; sha256 of the first three epochs as little-endian int64.
GOLDEN = [
    (1, 0, 256, 256, "9d908ecfb6b256de"),
    (7, 3, 2, 2, "78863e9cdea2d6d9"),
    (100, 1, 256, 256, "5384b40a198e1f95"),
    (1000, 42, 64, 4, "43f72b64e6d19fb5"),
    (10_007, 42, 64, 16, "08c3440fbf3e96bf"),
    (65_536, 5, 256, 256, "f3f2a056897a8050"),
    (70_001, 2**63 - 1, 256, 256, "7dad8a58aefcc67e"),
    (200_000, 9, 256, 256, "1726138afe02f997"),
    (131, 7, 131, 1, "23d425aa6f89f174"),
    (131, 7, 1, 131, "a627ad20139656bc"),
]


def digest(ids: npt.NDArray[np.int64]) -> str:
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("rows", "seed", "block", "pool", "expected"), GOLDEN)
@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
def test_the_order_is_golden_on_every_grid_batch_and_after_every_restart(
    rows: int, seed: int, block: int, pool: int, expected: str, replicas: int
) -> None:
    order = SampleOrder(rows, seed, block, pool)
    batch_size = replicas * (5 + rows // 3)
    steps = -(-3 * rows // batch_size)
    restart = steps // 2  # the second half is read first, by an order of its own
    parts: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
    for first, stop in ((restart, steps), (0, restart)):
        again = SampleOrder(rows, seed, block, pool)
        for step in range(first, stop):
            for replica in range(replicas):
                parts[step, replica] = replica_ids(again, step, batch_size, replica, replicas)
    union = np.concatenate([parts[place] for place in sorted(parts)])
    assert digest(union[: 3 * rows]) == expected
    assert np.array_equal(union, order.ids(0, len(union)))


@pytest.mark.parametrize(
    ("shuffle", "shard_rows", "expected"),
    [("full", None, "8aab6a505674c6f4"), ("blocks", 17, "f4aef53926522431")],
)
def test_the_named_orders_are_golden(
    shuffle: Shuffle, shard_rows: int | None, expected: str
) -> None:
    assert digest(sample_order(1003, 11, shuffle, shard_rows).ids(0, 3009)) == expected


def test_the_named_orders_are_what_they_say() -> None:
    full = sample_order(1000, 4, "full").ids(0, 1000)
    assert len(set(full[:100].tolist())) == 100
    assert full[:100].min() < 50
    assert full[:100].max() >= 950
    assert sample_order(1000, 4) == SampleOrder(1000, 4)
    assert sample_order(5, 4, "none").ids(3, 9).tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1]
    streamed = sample_order(1000, 4, "blocks", shard_rows=10).ids(0, 80)
    assert len(set((streamed // 10).tolist())) == 8, "whole shards, eight at a time"


def test_full_permutes_each_epoch_anew_and_stored_order_does_not() -> None:
    for shuffle, same in (("full", False), ("blocks", False), ("none", True)):
        ids = sample_order(300, 4, shuffle).ids(0, 600)
        assert np.array_equal(ids[:300], ids[300:]) == same


@pytest.mark.parametrize("shuffle", ["full", "blocks", "none"])
def test_the_work_of_a_seek_does_not_grow_with_the_position(
    monkeypatch: pytest.MonkeyPatch, shuffle: Shuffle
) -> None:
    drawn: list[int] = []

    def counted(size: int, *parts: int) -> npt.NDArray[np.int64]:
        drawn.append(size)
        return permutation(size, *parts)

    monkeypatch.setattr(order_module, "permutation", counted)
    work = []
    for position in (0, 12_345, 10**6 * 100_000 + 98_765):
        order_module._pool.cache_clear()
        order_module._block_order.cache_clear()
        drawn.clear()
        sample_order(100_000, 8, shuffle).ids(position, 10)
        work.append(sum(drawn))
    blocks = -(-100_000 // 256)
    limit = {"none": 0, "blocks": blocks + 256 * 256, "full": 1 + 100_000}[shuffle]
    assert max(work) <= limit
    if shuffle == "full":
        assert len(set(work)) == 1


@given(ORDERS, st.integers(0, 1500), st.integers(0, 300))
def test_epochs_count_whole_passes(order: SampleOrder, start: int, count: int) -> None:
    expected = [position // order.rows for position in range(start, start + count)]
    assert order.epochs(start, count).tolist() == expected


@given(ORDERS, st.integers(0, 20), st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_replicas_rows_are_its_part_in_the_layout_of_the_grid(
    order: SampleOrder, step: int, share: int, replicas: int, data: st.DataObject
) -> None:
    replica = data.draw(st.integers(0, replicas - 1))
    layout = BatchLayout(share * replicas, replicas, 1)
    expected = order.ids(layout.first(step, replica), layout.per_replica)
    assert np.array_equal(replica_ids(order, step, share * replicas, replica, replicas), expected)


@pytest.mark.parametrize(
    ("batch_size", "replicas", "nearest"), [(50, 4, "48 or 52"), (3, 4, "4"), (0, 2, "2")]
)
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do(
    batch_size: int, replicas: int, nearest: str
) -> None:
    order = SampleOrder(100, 1)
    with pytest.raises(InputError, match=f"batch size {batch_size} does not divide") as caught:
        replica_ids(order, 0, batch_size, 0, replicas)
    assert caught.value.remedy == f"the nearest batch size that does is {nearest}"
    if batch_size > 0:
        with pytest.raises(InputError) as planned:  # the planner of the grid says the same
            lay_out(batch_size, Grid(1, replicas), None)
        assert planned.value.remedy == caught.value.remedy


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        SampleOrder(rows=0, seed=1)
    with pytest.raises(ValueError, match="positions begin at 0"):
        SampleOrder(rows=5, seed=1).ids(-1, 2)
    with pytest.raises(ValueError, match="replica 2 among 2"):
        replica_ids(SampleOrder(5, 1), 0, 2, 2, 2)
    with pytest.raises(ValueError, match="must be positive"):
        sample_order(5, 1, "blocks", shard_rows=0)


def test_options_that_say_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="shard_rows = 8 says nothing to shuffle = 'full'"):
        sample_order(100, 1, "full", shard_rows=8)
    with pytest.raises(InputError, match="no shuffle 'random'") as caught:
        sample_order(100, 1, "random")  # type: ignore[arg-type]
    assert caught.value.remedy == "one of full, blocks, none"

"""Batches: one global sequence on any number of replicas, from any step, and only what is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.augment import Augmentation
from data_shards.batches import Reading, batches, read_batch
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from data_shards.order import sample_order

FIELDS = ("sequence", "labels")


@pytest.fixture
def data(danq_data: Path) -> ShardedDataset:
    return ShardedDataset(danq_data)


def test_replicas_share_one_global_batch_and_any_step_can_be_begun_at(
    data: ShardedDataset,
) -> None:
    order = sample_order(data.schema.split("train").samples, seed=5)
    alone = [read_batch(data, order, Reading("train", 64, FIELDS), step) for step in (0, 99, 5000)]
    for replicas in (2, 4, 8):
        for step, whole in zip((0, 99, 5000), alone, strict=True):
            parts = [
                read_batch(data, order, Reading("train", 64, FIELDS, replica, replicas), step)
                for replica in range(replicas)
            ]
            for name in FIELDS:
                assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    with batches(data, order, Reading("train", 64, FIELDS), 98, 101) as ahead:
        read = list(ahead)
    assert torch.equal(read[1]["sequence"], alone[1]["sequence"])
    assert len(read) == 3


def test_only_the_fields_that_are_asked_for_are_touched(data: ShardedDataset) -> None:
    order = sample_order(data.schema.split("train").samples, seed=0)
    with batches(data, order, Reading("train", 32, ("labels",)), 0, 3) as ahead:
        for batch in ahead:
            assert set(batch) == {"labels"}
    assert data.opened == {"labels"}


def test_augmented_batches_do_not_depend_on_replicas_and_differ_between_epochs(
    data: ShardedDataset,
) -> None:
    samples = data.schema.split("train").samples
    order = sample_order(samples, seed=5, shuffle="none")
    augmentation = Augmentation(reverse_complement=0.5, shift=10, mask=0.1)
    whole = read_batch(data, order, Reading("train", 64, FIELDS, 0, 1, augmentation), 0)
    parts = [
        read_batch(data, order, Reading("train", 64, FIELDS, r, 4, augmentation), 0)
        for r in range(4)
    ]
    assert torch.equal(torch.cat([part["sequence"] for part in parts]), whole["sequence"])
    plain = read_batch(data, order, Reading("train", 64, FIELDS), 0)
    assert not torch.equal(plain["sequence"], whole["sequence"])
    assert torch.equal(plain["labels"], whole["labels"])
    assert samples % 64 == 0
    later = read_batch(data, order, Reading("train", 64, FIELDS, 0, 1, augmentation), samples // 64)
    assert torch.equal(later["labels"], whole["labels"]), "the same samples, an epoch later"
    assert not torch.equal(later["sequence"], whole["sequence"])


def test_an_order_of_another_split_and_a_batch_that_does_not_divide_are_refused(
    data: ShardedDataset,
) -> None:
    order = sample_order(data.schema.split("train").samples, seed=0)
    with pytest.raises(ValueError, match="an order of 6400 rows for a split of 1600"):
        read_batch(data, order, Reading("test", 64, FIELDS), 0)
    with pytest.raises(InputError, match="65"):
        read_batch(data, order, Reading("train", 65, FIELDS, 0, 2), 0)
    with pytest.raises(InputError, match="no field 'codes'"):
        read_batch(data, order, Reading("train", 64, ("codes",)), 0)


def test_every_sample_comes_once_an_epoch(data: ShardedDataset) -> None:
    order = sample_order(data.schema.split("valid").samples, seed=1)
    seen = np.concatenate([order.ids(step * 100, 100) for step in range(order.rows // 100)])
    assert sorted(seen.tolist()) == list(range(order.rows))

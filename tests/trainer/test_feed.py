"""Both ends of the pipeline read the same samples without talking to each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from data_shards.augment import Augmentation
from data_shards.batches import Reading, read_batch
from data_shards.dataset import ShardedDataset
from data_shards.order import SampleOrder, Shuffle, sample_order
from trainer.feed import Feed
from trainer.grid import BatchLayout, EvaluationLayout


def order(data: ShardedDataset, seed: int, shuffle: Shuffle = "blocks") -> SampleOrder:
    return sample_order(data.schema.split("train").samples, seed, shuffle)


def test_first_and_last_stage_read_the_same_samples_and_only_their_own_arrays(
    danq_data: Path,
) -> None:
    first, last, oracle = (ShardedDataset(danq_data) for _ in range(3))
    inputs = Feed(first, "train", order(first, 7), inputs=True, targets=False)
    targets = Feed(last, "train", order(last, 7), inputs=False, targets=True)
    layout = BatchLayout(48, replicas=2, micro_batches=3)
    for step, replica in ((0, 0), (0, 1), (150, 1)):
        rows = inputs.rows(step, layout)[replica * 24 : (replica + 1) * 24]
        codes = torch.cat([x for x, _ in inputs.step(step, layout, replica)])
        labels = torch.cat([y for _, y in targets.step(step, layout, replica)])
        assert np.array_equal(codes, oracle.gather("sequence", rows))
        assert np.array_equal(labels, oracle.gather("labels", rows))
    assert "labels" not in first.opened, "the first stage never maps the labels"
    assert "reference" not in last.opened, "the last stage never maps the reference"


def test_training_rows_are_of_the_training_split_only(danq_data: Path) -> None:
    data = ShardedDataset(danq_data)
    feed = Feed(data, "train", order(data, 0), inputs=True, targets=True)
    layout = BatchLayout(100, 1, 1)
    seen = np.concatenate([feed.rows(step, layout) for step in range(64)])
    assert sorted(seen.tolist()) == data.split_rows("train").tolist()


def test_evaluation_reads_rows_in_order_and_pads_with_the_last(danq_data: Path) -> None:
    data = ShardedDataset(danq_data)
    feed = Feed(data, "train", order(data, 0), inputs=True, targets=True)
    rows = data.split_rows("test")[:50]
    layout = EvaluationLayout(50, replicas=2, micro_batch=8)
    read = [
        codes
        for replica in range(2)
        for some in feed.evaluation(rows, layout, replica)
        for codes, _ in some
    ]
    codes = torch.cat(read).numpy()
    assert np.array_equal(codes[:50], data.gather("sequence", rows))
    assert (codes[50:] == data.gather("sequence", rows[-1:])).all()


def test_augmented_inputs_are_those_of_the_data_sets_own_batches_and_evaluation_is_plain(
    danq_data: Path,
) -> None:
    data = ShardedDataset(danq_data)
    augment = Augmentation(reverse_complement=0.5, shift=20, mask=0.1)
    feed = Feed(data, "train", order(data, 7, "full"), inputs=True, targets=True, augment=augment)
    layout = BatchLayout(48, replicas=2, micro_batches=3)
    for replica in range(2):
        reading = Reading("train", 48, ("sequence", "labels"), replica, 2, augment)
        expected = read_batch(data, order(data, 7, "full"), reading, 150)
        step = feed.step(150, layout, replica)
        assert torch.equal(torch.cat([x for x, _ in step]), expected["sequence"])
        assert torch.equal(torch.cat([y for _, y in step]), expected["labels"])
    rows = data.split_rows("test")[:16]
    evaluated = next(feed.evaluation(rows, EvaluationLayout(16, replicas=1, micro_batch=8), 0))
    assert np.array_equal(torch.cat([x for x, _ in evaluated]), data.gather("sequence", rows))

"""From an order of samples to tensors: the one place where numpy arrays become torch's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.augment import Augmentation, draw
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from data_shards.gather import shift_limits
from data_shards.order import Order, replica_ids
from data_shards.prefetch import Prefetch

Batch = dict[str, Tensor]
"""Field name -> tensor, shape (samples, *shape of the field), as stored: codes, bits, numbers."""


@dataclass(frozen=True)
class Reading:
    """What one worker reads.

    Attributes:
        split: name of the split.
        batch_size: samples of an optimizer step over all replicas.
        fields: what to read; the arrays of other fields are not touched. NAME.mask is the mask of
            the ragged field NAME.
        replica: which replica, from 0.
        replicas: how many there are.
        augmentation: of windows; drawn from the order's seed, the epoch and the sample.
    """

    split: str
    batch_size: int
    fields: tuple[str, ...]
    replica: int = 0
    replicas: int = 1
    augmentation: Augmentation | None = None


def read_batch(data: ShardedDataset, order: Order, reading: Reading, step: int) -> Batch:
    """Read a replica's part of one optimizer step: a pure function of its arguments.

    Args:
        data: the data set.
        order: of the samples of the split.
        reading: what to read.
        step: optimizer step, from 0; any step costs the same to ask for.

    Raises:
        InputError: no such split or field, the batch does not divide, or the data set can't be
            augmented.
        ValueError: the order is of another number of samples.
    """
    entry = data.schema.split(reading.split)
    if order.rows != entry.samples:
        raise ValueError(f"an order of {order.rows} rows for a split of {entry.samples}")
    batch, replica, replicas = reading.batch_size, reading.replica, reading.replicas
    rows = entry.start + replica_ids(order, step, batch, replica, replicas)
    draws = None
    if reading.augmentation is not None:
        if data.schema.kind != "windows":
            raise InputError("only windows can be augmented", remedy="augment the rows beforehand")
        visits = order.visits(step * batch + replica * len(rows), len(rows))
        low, high = shift_limits(data.schema, data.array, rows)
        draws = draw(reading.augmentation, order.seed, visits, rows, low, high)
    batch_of: Batch = {}
    for name in reading.fields:
        field, _, part = name.partition(".")
        values = data.mask(field, rows) if part == "mask" else data.gather(name, rows, draws)
        batch_of[name] = torch.from_numpy(values)
    return batch_of


@contextmanager
def batches(
    data: ShardedDataset,
    order: Order,
    reading: Reading,
    start: int,
    stop: int,
    ahead_bytes: int = 256 << 20,
) -> Iterator[Prefetch[Batch]]:
    """Read the batches of steps ``start`` to ``stop`` (exclusive), ahead, in one thread.

    Args:
        data: the data set.
        order: of the samples of the split.
        reading: what to read.
        start: first step.
        stop: end step.
        ahead_bytes: of the batches held ready, at most (one is always held).

    Yields:
        What iterates over the batches; it knows how long it was waited for.
    """

    def item(step: int) -> Batch:
        return read_batch(data, order, reading, step)

    with Prefetch(item, start, stop, depth=8, budget_bytes=ahead_bytes) as ahead:
        yield ahead

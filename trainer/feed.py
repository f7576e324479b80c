"""Feeding the pipeline: inputs to the first stage, targets to the last, in the same order.

Both ends compute the same rows from the sample order and read their own arrays; they never talk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_shards.augment import Augmentation, Draws, draw
from data_shards.dataset import ShardedDataset
from data_shards.gather import shift_limits
from data_shards.order import Shuffle, sample_order
from trainer.grid import BatchLayout, EvaluationLayout

MicroBatch = tuple[Tensor, Tensor]

_NOTHING = torch.zeros(0)


class Feed:
    """Reads one worker's part of the data set.

    Args:
        data: the data set.
        split: training split.
        seed: of the sample order and the augmentation.
        shuffle: how thoroughly training samples are shuffled.
        augment: what is drawn for each training sample anew in each epoch.
        inputs: whether this worker is of the first stage.
        targets: whether this worker is of the last stage.
    """

    def __init__(
        self,
        data: ShardedDataset,
        split: str,
        seed: int,
        *,
        inputs: bool,
        targets: bool,
        shuffle: Shuffle = "blocks",
        augment: Augmentation | None = None,
    ) -> None:
        entry = data.schema.split(split)
        self.order = sample_order(entry.samples, seed, shuffle)
        self._augment = augment if augment != Augmentation() else None
        self._first_row = entry.start
        self._data = data
        self._inputs = inputs
        self._targets = targets

    def rows(self, step: int, layout: BatchLayout) -> npt.NDArray[np.int64]:
        """Return the samples of a step's global batch, shape (batch_size,)."""
        return self._first_row + self.order.ids(step * layout.batch_size, layout.batch_size)

    def step(self, step: int, layout: BatchLayout, replica: int) -> list[MicroBatch]:
        """Read a replica's micro-batches of a training step."""
        first = layout.first(step, replica)
        rows = self._first_row + self.order.ids(first, layout.per_replica)
        draws = None
        if self._augment is not None and self._inputs:
            epochs = self.order.epochs(first, layout.per_replica)
            low, high = shift_limits(self._data.schema, self._data.array, rows)
            draws = draw(self._augment, self.order.seed, epochs, rows, low, high)
        return self._read(rows, layout.micro_batch, draws)

    def evaluation(
        self, rows: npt.NDArray[np.int64], layout: EvaluationLayout, replica: int
    ) -> Iterator[list[MicroBatch]]:
        """Read a replica's share of a split, a few micro-batches at a time.

        Places past the end are padded with the split's last row; whoever collects the outputs of
        all replicas drops what comes after the last row.
        """
        at_once = 32
        for first in range(0, layout.micro_batches, at_once):
            count = min(at_once, layout.micro_batches - first)
            places = np.arange(*layout.places(replica, first, count))
            yield self._read(rows[np.minimum(places, len(rows) - 1)], layout.micro_batch)

    def _read(
        self, rows: npt.NDArray[np.int64], micro_batch: int, draws: Draws | None = None
    ) -> list[MicroBatch]:
        parts = len(rows) // micro_batch
        inputs: Sequence[Tensor] = [_NOTHING] * parts
        targets: Sequence[Tensor] = [_NOTHING] * parts
        if self._inputs:
            inputs = torch.from_numpy(self._data.gather("sequence", rows, draws)).split(micro_batch)
        if self._targets:
            targets = torch.from_numpy(self._data.gather("labels", rows)).split(micro_batch)
        return list(zip(inputs, targets, strict=True))

"""Feeding the pipeline: inputs to the first stage, targets to the last, in the same order.

Both ends compute the same rows from the sample order and read their own arrays; they never talk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from data_shards.augment import Augmentation, Draws, draw
from data_shards.dataset import ShardedDataset
from data_shards.gather import shift_limits
from data_shards.order import Order
from data_shards.prefetch import Prefetch
from trainer.grid import BatchLayout, EvaluationLayout
from trainer.recipe import Activations

MicroBatch = tuple[Activations, Activations]

_NOTHING = torch.zeros(0)


@dataclass(frozen=True)
class Fields:
    """What a network reads; several fields make a tuple.

    Attributes:
        inputs: for the first layer.
        targets: for the loss.
    """

    inputs: tuple[str, ...] = ("sequence",)
    targets: tuple[str, ...] = ("labels",)


class Feed:
    """Reads one worker's part of the data set.

    Args:
        data: the data set.
        split: training split.
        order: of its samples.
        fields: what the network reads.
        augment: what is drawn for each training sample anew in each epoch.
        inputs: whether this worker is of the first stage.
        targets: whether this worker is of the last stage.
    """

    def __init__(
        self,
        data: ShardedDataset,
        split: str,
        order: Order,
        *,
        inputs: bool,
        targets: bool,
        fields: Fields = Fields(),
        augment: Augmentation | None = None,
    ) -> None:
        self.order = order
        self._augment = augment if augment != Augmentation() else None
        self._first_row = data.schema.split(split).start
        self._data = data
        self._inputs = fields.inputs if inputs else ()
        self._targets = fields.targets if targets else ()

    def rows(self, step: int, layout: BatchLayout) -> npt.NDArray[np.int64]:
        """Return the samples of a step's global batch, shape (batch_size,)."""
        return self._first_row + self.order.ids(step * layout.batch_size, layout.batch_size)

    def step(self, step: int, layout: BatchLayout, replica: int) -> list[MicroBatch]:
        """Read a replica's micro-batches of a training step."""
        first = layout.first(step, replica)
        rows = self._first_row + self.order.ids(first, layout.per_replica)
        draws = None
        if self._augment is not None and self._inputs:
            visits = self.order.visits(first, layout.per_replica)
            low, high = shift_limits(self._data.schema, self._data.array, rows)
            draws = draw(self._augment, self.order.seed, visits, rows, low, high)
        return self._read(rows, layout.micro_batch, draws)

    def evaluation(
        self, rows: npt.NDArray[np.int64], layout: EvaluationLayout, replica: int
    ) -> Iterator[list[MicroBatch]]:
        """Read a replica's share of a split, a round of micro-batches at a time.

        Places past the end are padded with the split's last row; whoever collects the outputs of
        all replicas drops what comes after the last row.
        """

        def item(number: int) -> list[MicroBatch]:
            places = np.arange(*layout.places(replica, number))
            return self._read(rows[np.minimum(places, len(rows) - 1)], layout.micro_batch)

        with Prefetch(item, 0, layout.rounds) as ahead:
            yield from ahead

    def warm(self) -> None:
        """Open and verify what this worker reads, which may take a while."""
        self._read(np.array([self._first_row]), 1)

    def _read(
        self, rows: npt.NDArray[np.int64], micro_batch: int, draws: Draws | None = None
    ) -> list[MicroBatch]:
        parts = len(rows) // micro_batch
        inputs = self._gather(self._inputs, rows, micro_batch, draws) or [_NOTHING] * parts
        targets = self._gather(self._targets, rows, micro_batch, None) or [_NOTHING] * parts
        return list(zip(inputs, targets, strict=True))

    def _gather(
        self,
        names: Sequence[str],
        rows: npt.NDArray[np.int64],
        micro_batch: int,
        draws: Draws | None,
    ) -> list[Activations]:
        """Read fields of rows, cut into micro-batches; several make tuples."""
        columns = [
            torch.from_numpy(self._data.gather(name, rows, draws)).split(micro_batch)
            for name in names
        ]
        if len(columns) == 1:
            return list(columns[0])
        return list(zip(*columns, strict=True))

"""Feeding the pipeline: inputs to the first stage, targets to the last, in the same order.

Both ends compute the same rows from the sample order and read their own arrays; they never talk.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_shards.dataset import ShardedDataset
from data_shards.order import SampleOrder
from trainer.grid import BatchLayout, EvaluationLayout

MicroBatch = tuple[Tensor, Tensor]
T = TypeVar("T")

_NOTHING = torch.zeros(0)


class Feed:
    """Reads one worker's part of the data set.

    Args:
        data: the data set.
        split: training split.
        seed: of the sample order.
        inputs: whether this worker is of the first stage.
        targets: whether this worker is of the last stage.
    """

    def __init__(
        self, data: ShardedDataset, split: str, seed: int, *, inputs: bool, targets: bool
    ) -> None:
        entry = data.schema.split(split)
        self.order = SampleOrder(entry.samples, seed)
        self._first_row = entry.start
        self._data = data
        self._inputs = inputs
        self._targets = targets

    def rows(self, step: int, layout: BatchLayout) -> npt.NDArray[np.int64]:
        """Return the samples of a step's global batch, shape (batch_size,)."""
        return self._first_row + self.order.ids(step * layout.batch_size, layout.batch_size)

    def step(self, step: int, layout: BatchLayout, replica: int) -> list[MicroBatch]:
        """Read a replica's micro-batches of a training step."""
        ids = self.order.ids(layout.first(step, replica), layout.per_replica)
        return self._read(self._first_row + ids, layout.micro_batch)

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

    def _read(self, rows: npt.NDArray[np.int64], micro_batch: int) -> list[MicroBatch]:
        parts = len(rows) // micro_batch
        inputs: Sequence[Tensor] = [_NOTHING] * parts
        targets: Sequence[Tensor] = [_NOTHING] * parts
        if self._inputs:
            inputs = torch.from_numpy(self._data.gather("sequence", rows)).split(micro_batch)
        if self._targets:
            targets = torch.from_numpy(self._data.gather("labels", rows)).split(micro_batch)
        return list(zip(inputs, targets, strict=True))


class Prefetch(Generic[T]):
    """Computes the items of a sequence ahead, in order, in one thread.

    Args:
        item: from a number to the item.
        start: first number.
        stop: end number, exclusive.
        depth: items held ready at most.

    Attributes:
        waited: seconds the consumer has waited for items in all.
    """

    def __init__(self, item: Callable[[int], T], start: int, stop: int, depth: int = 2) -> None:
        self.waited = 0.0
        self._count = stop - start
        self._ready: queue.Queue[T | BaseException] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(item, start, stop), name="prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        """Yield the items; an error in the thread is raised here."""
        for _ in range(self._count):
            begin = time.perf_counter()
            item = self._ready.get()
            self.waited += time.perf_counter() - begin
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread, also in the middle of the sequence."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _work(self, item: Callable[[int], T], start: int, stop: int) -> None:
        for number in range(start, stop):
            try:
                result: T | BaseException = item(number)
            except BaseException as error:  # handed to the consumer, which raises it
                result = error
            while not self._stopped.is_set():
                try:
                    self._ready.put(result, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stopped.is_set() or isinstance(result, BaseException):
                return

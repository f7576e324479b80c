"""The order of samples: a pure function of seed and position, the same on any grid of workers.

Positions count samples over the whole training: epoch e is positions ``e * rows`` to
``(e + 1) * rows``, and each epoch is a permutation of all rows. Optimizer step s with global batch
size B takes positions ``s * B`` to ``(s + 1) * B``, so a batch may reach into the next epoch and no
sample is ever dropped. Nothing depends on the number of stages, replicas or restarts, and any
position can be asked for directly.

By default the shuffle has two levels, so that reading stays local: blocks of consecutive rows are
permuted, ``pool`` blocks at a time are taken together, and rows are permuted within the pool.
:func:`sample_order` has the other kinds, and :func:`replica_ids` a replica's part of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.hashing import permutation

Rows = npt.NDArray[np.int64]
Shuffle = Literal["full", "blocks", "none"]

_BLOCKS, _POOL = 1, 2  # the two uses of the seed
_SHARDS_HELD = 8


class Order(Protocol):
    """What readers know of an order: rows by position, on any grid and after any restart."""

    @property
    def rows(self) -> int:
        """Number of samples; also positions an epoch."""
        ...

    @property
    def seed(self) -> int:
        """Another seed, another order."""
        ...

    def ids(self, start: int, count: int) -> Rows:
        """Return the rows at positions ``start`` to ``start + count`` (exclusive), int64."""
        ...

    def visits(self, start: int, count: int) -> Rows:
        """Number the visits at these positions, int64: no row has the same number twice.

        What is drawn for a sample, as augmentation is, is drawn anew for each visit.
        """
        ...


@dataclass(frozen=True)
class SampleOrder:
    """Order over rows ``0`` to ``rows - 1``.

    Attributes:
        rows: number of samples.
        seed: another seed, another order.
        block: consecutive rows that are read together.
        pool: blocks among which rows are shuffled; memory and seek cost grow with block * pool.
        shuffled: False for the stored order in every epoch; then seed, block and pool say nothing.
    """

    rows: int
    seed: int
    block: int = 256
    pool: int = 256
    shuffled: bool = True

    def __post_init__(self) -> None:
        if self.rows < 1 or self.block < 1 or self.pool < 1:
            raise ValueError(f"rows, block and pool must be positive: {self}")

    def ids(self, start: int, count: int) -> Rows:
        """Return the rows at positions ``start`` to ``start + count`` (exclusive), int64.

        The cost does not depend on ``start``: the blocks of an epoch and the rows of the pools that
        are touched are permuted, and nothing before them.

        Raises:
            ValueError: ``start`` or ``count`` is negative.
        """
        if start < 0 or count < 0:
            raise ValueError(f"positions begin at 0: start {start}, count {count}")
        if not self.shuffled:
            return (start % self.rows + np.arange(count, dtype=np.int64)) % self.rows
        pieces: list[Rows] = []
        while count > 0:
            epoch, offset = divmod(start, self.rows)
            piece = self._pool_rows(epoch, offset)[:count]
            pieces.append(piece)
            start += len(piece)
            count -= len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def epochs(self, start: int, count: int) -> Rows:
        """Return the epoch, from 0, of each of positions ``start`` to ``start + count``, int64.

        What is drawn for a sample in an epoch needs it: a batch may reach into the next one.
        """
        epoch, offset = divmod(start, self.rows)
        return epoch + (offset + np.arange(count, dtype=np.int64)) // self.rows

    def visits(self, start: int, count: int) -> Rows:
        """Number the visits at these positions, int64: an epoch visits each row once."""
        return self.epochs(start, count)

    def _pool_rows(self, epoch: int, offset: int) -> Rows:
        """Return the rows from an offset in an epoch to the end of the pool it falls into."""
        capacity = self.block * self.pool
        number = offset // capacity
        missing = self.block - self._tail
        short = self._short_position(epoch) // self.pool
        # One block may be short; pools after the one that holds it begin that much earlier.
        if offset >= (short + 1) * capacity - missing:
            number = (offset + missing) // capacity
        first = number * capacity - (missing if number > short else 0)
        return _pool(self, epoch, number)[offset - first :]

    @property
    def _blocks(self) -> int:
        return -(-self.rows // self.block)

    @property
    def _tail(self) -> int:
        """Rows in the last block."""
        return self.rows - (self._blocks - 1) * self.block

    def _short_position(self, epoch: int) -> int:
        """Where in the epoch's sequence of blocks the last, maybe short, block stands."""
        order = _block_order(self._blocks, self.seed, epoch)
        return int(np.flatnonzero(order == self._blocks - 1)[0])


def sample_order(
    rows: int, seed: int, shuffle: Shuffle = "blocks", shard_rows: int | None = None
) -> SampleOrder:
    """Make the order that an option names.

    - "full": each epoch is one permutation of all rows. A batch reads from everywhere; memory is 8
      bytes a row for each epoch held (the last four at most), and 32 while one is drawn.
    - "blocks": the two levels of :class:`SampleOrder`. For mapped arrays blocks have 256 rows and
      pools 256 blocks. For shards that are fetched whole, give ``shard_rows``: a block is a shard,
      and a pool is 8 of them, which is what the reader has to hold at a time. Blocks are counted
      from row 0 of the order, so they are shards where the split begins with a shard.
    - "none": the stored order, each epoch the same.

    Args:
        rows: number of samples.
        seed: another seed, another order.
        shuffle: which kind.
        shard_rows: rows of a shard, with "blocks" only.

    Raises:
        InputError: ``shard_rows`` without blocks, or a kind that does not exist.
        ValueError: ``rows`` or ``shard_rows`` is not positive.
    """
    if shard_rows is not None and shuffle != "blocks":
        raise InputError(
            f"shard_rows = {shard_rows} says nothing to shuffle = {shuffle!r}",
            remedy='leave it out, or set shuffle = "blocks"',
        )
    if shuffle == "full":
        return SampleOrder(rows, seed, block=rows, pool=1)
    if shuffle == "none":
        return SampleOrder(rows, seed, shuffled=False)
    if shuffle != "blocks":
        raise InputError(f"no shuffle {shuffle!r}", remedy=f"one of {', '.join(get_args(Shuffle))}")
    if shard_rows is None:
        return SampleOrder(rows, seed)
    return SampleOrder(rows, seed, block=shard_rows, pool=_SHARDS_HELD)


def replica_ids(order: Order, step: int, batch_size: int, replica: int, replicas: int) -> Rows:
    """Return a replica's rows of an optimizer step: a contiguous part of the global batch.

    The parts of all replicas, end to end, are the same rows for any number of replicas.

    Args:
        order: the order of samples.
        step: optimizer step, from 0; any step costs the same to ask for.
        batch_size: samples of the step over all replicas.
        replica: which replica, from 0.
        replicas: how many there are.

    Returns:
        int64, shape (batch_size / replicas,).

    Raises:
        InputError: the batch does not divide; names the nearest sizes that do.
        ValueError: there is no such step or replica.
    """
    if step < 0 or not 0 <= replica < replicas:
        raise ValueError(f"no step {step} of replica {replica} among {replicas}")
    if batch_size < replicas or batch_size % replicas:
        below = batch_size // replicas * replicas
        nearest = " or ".join(str(size) for size in (below, below + replicas) if size > 0)
        raise InputError(
            f"batch size {batch_size} does not divide over {replicas} replica(s)",
            remedy=f"the nearest batch size that does is {nearest}",
        )
    share = batch_size // replicas
    return order.ids(step * batch_size + replica * share, share)


@lru_cache(maxsize=8)
def _block_order(blocks: int, seed: int, epoch: int) -> Rows:
    return permutation(blocks, seed, epoch, _BLOCKS)


@lru_cache(maxsize=4)
def _pool(order: SampleOrder, epoch: int, number: int) -> Rows:
    """Return the shuffled rows of one pool of an epoch."""
    chosen = _block_order(order._blocks, order.seed, epoch)
    chosen = chosen[number * order.pool : (number + 1) * order.pool]
    rows = (chosen[:, None] * order.block + np.arange(order.block)).ravel()
    rows = rows[rows < order.rows]
    shuffled: Rows = rows[permutation(len(rows), order.seed, epoch, _POOL, number)]
    shuffled.flags.writeable = False
    return shuffled

"""The order of samples: a pure function of seed and position, the same on any grid of workers.

Positions count samples over the whole training: epoch e is positions ``e * rows`` to
``(e + 1) * rows``, and each epoch is a permutation of all rows. Optimizer step s with global batch
size B takes positions ``s * B`` to ``(s + 1) * B``, so a batch may reach into the next epoch and no
sample is ever dropped. Nothing depends on the number of stages, replicas or restarts, and any
position can be asked for directly.

The shuffle has two levels, so that reading stays local: blocks of consecutive rows are permuted,
``pool`` blocks at a time are taken together, and rows are permuted within the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data_shards.hashing import permutation

Rows = npt.NDArray[np.int64]

_BLOCKS, _POOL = 1, 2  # the two uses of the seed


@dataclass(frozen=True)
class SampleOrder:
    """Shuffled order over rows ``0`` to ``rows - 1``.

    Attributes:
        rows: number of samples.
        seed: another seed, another order.
        block: consecutive rows that are read together.
        pool: blocks among which rows are shuffled; memory and seek cost grow with block * pool.
    """

    rows: int
    seed: int
    block: int = 256
    pool: int = 256

    def __post_init__(self) -> None:
        if self.rows < 1 or self.block < 1 or self.pool < 1:
            raise ValueError(f"rows, block and pool must be positive: {self}")

    def ids(self, start: int, count: int) -> Rows:
        """Return the rows at positions ``start`` to ``start + count`` (exclusive), int64.

        The cost does not depend on ``start``.
        """
        pieces: list[Rows] = []
        while count > 0:
            epoch, offset = divmod(start, self.rows)
            piece = self._pool_rows(epoch, offset)[:count]
            pieces.append(piece)
            start += len(piece)
            count -= len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

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

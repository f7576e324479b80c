"""Grid and batch arithmetic: who does what share of a step. Pure functions, no cluster needed."""

from __future__ import annotations

from dataclasses import dataclass

from data_shards.errors import InputError


@dataclass(frozen=True)
class Grid:
    """Workers as ``stages`` x ``replicas``; the stages of one replica have neighbouring ranks."""

    stages: int
    replicas: int

    @property
    def workers(self) -> int:
        """Number of workers."""
        return self.stages * self.replicas

    def stage(self, rank: int) -> int:
        """Stage of a worker."""
        return rank % self.stages

    def replica(self, rank: int) -> int:
        """Replica of a worker."""
        return rank // self.stages

    @property
    def reporter(self) -> int:
        """Rank that has the loss and the metrics first hand: last stage of the first replica."""
        return self.stages - 1


@dataclass(frozen=True)
class BatchLayout:
    """How a global batch is shared out.

    The batch's samples, in order, go to replicas in contiguous parts, and within a replica to
    micro-batches in contiguous parts, all of the same size, so that a mean of means is the mean.

    Attributes:
        batch_size: samples an optimizer step, over all replicas.
        replicas: data-parallel copies of the pipeline.
        micro_batches: micro-batches a replica takes its part in.
    """

    batch_size: int
    replicas: int
    micro_batches: int

    @property
    def per_replica(self) -> int:
        """Samples a replica takes each step."""
        return self.batch_size // self.replicas

    @property
    def micro_batch(self) -> int:
        """Samples in a micro-batch."""
        return self.per_replica // self.micro_batches

    def first(self, step: int, replica: int) -> int:
        """Position in the sample order of a replica's first sample of a step."""
        return step * self.batch_size + replica * self.per_replica


def lay_out(batch_size: int, grid: Grid, micro_batches: int | None) -> BatchLayout:
    """Share a global batch over a grid.

    Args:
        batch_size: samples an optimizer step.
        grid: the workers.
        micro_batches: micro-batches a replica; None chooses, see :func:`choose_micro_batches`.

    Raises:
        InputError: the batch does not divide; names the nearest sizes that do.
    """
    unit = grid.replicas * (micro_batches or 1)
    if batch_size < unit or batch_size % unit:
        below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
        nearest = " or ".join(str(size) for size in (below, above) if size > 0)
        raise InputError(
            f"batch size {batch_size} does not divide over {grid.replicas} replica(s) x "
            f"{micro_batches or 1} micro-batch(es)",
            remedy=f"the nearest batch size that does is {nearest}",
        )
    if micro_batches is None:
        micro_batches = choose_micro_batches(batch_size // grid.replicas, grid.stages)
    return BatchLayout(batch_size, grid.replicas, micro_batches)


def choose_micro_batches(share: int, stages: int) -> int:
    """Choose into how many micro-batches a replica's share of the batch is cut.

    The more, the less time stages wait for each other, but a handful of samples costs as much as a
    few dozen. So: the most that divide, up to four a stage, with 16 samples or more each; where
    there is no such number, the most that divide up to one a stage.
    """
    if stages == 1:
        return 1
    fitting = [n for n in range(2, 4 * stages + 1) if share % n == 0 and share // n >= 16]
    if fitting:
        return max(fitting)
    return max(n for n in range(1, stages + 1) if share % n == 0)


@dataclass(frozen=True)
class EvaluationLayout:
    """How the rows of a split are shared out: each once, padded to whole micro-batches.

    Attributes:
        rows: samples in the split.
        replicas: data-parallel copies of the pipeline.
        micro_batch: samples in a micro-batch.
    """

    rows: int
    replicas: int
    micro_batch: int

    @property
    def micro_batches(self) -> int:
        """Micro-batches a replica; the same for all, so that they stay in step."""
        return -(-self.rows // (self.micro_batch * self.replicas))

    def places(self, replica: int, first: int, count: int) -> tuple[int, int]:
        """Return the range of places, past the end for padding, of some of a replica's batches.

        Replica r has places ``r * micro_batches * micro_batch`` on; place i is row i of the split.

        Args:
            replica: the replica.
            first: its first micro-batch wanted.
            count: how many.
        """
        start = (replica * self.micro_batches + first) * self.micro_batch
        return start, start + count * self.micro_batch

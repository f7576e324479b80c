"""Grid and batch arithmetic: who does what share of a step. Pure functions, no cluster needed."""

from __future__ import annotations

from dataclasses import dataclass

from data_shards.errors import InputError
from trainer.config import GridConfig


@dataclass(frozen=True)
class Grid:
    """Workers as ``stages`` x ``replicas``; the stages of one replica have neighbouring ranks.

    Attributes:
        stages: workers of a pipeline.
        replicas: data-parallel copies of the pipeline.
        folded: whether each worker has two parts of the network, one from each end (DualPipeV): the
            pipeline then begins and ends at its first worker.
    """

    stages: int
    replicas: int
    folded: bool = False

    @property
    def parts(self) -> int:
        """Parts that a network is cut into."""
        return self.stages * 2 if self.folded else self.stages

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
        """Rank that has the loss and the metrics first hand: where the first replica's ends."""
        return 0 if self.folded else self.stages - 1


def grid_of(config: GridConfig) -> Grid:
    """Return the grid that a configuration asks for."""
    return Grid(config.stages, config.replicas, config.schedule == "dualpipev")


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
        micro_batches = choose_micro_batches(batch_size // grid.replicas, grid.parts)
    if grid.folded and micro_batches < grid.parts:
        raise InputError(
            f"{micro_batches} micro-batch(es) a replica, and DualPipeV with {grid.stages} stages "
            f"needs {grid.parts} or more",
            remedy="use a larger --batch-size or --micro-batches, fewer stages, or schedule 1f1b",
        )
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


def same_parts(batch_size: int, grid: Grid, micro_batch: int) -> BatchLayout | None:
    """Share a batch over another grid in micro-batches of the size it had; None if that can't be.

    Batch normalisation looks at a micro-batch at a time, so only then the numbers stay the same.
    """
    if micro_batch < 1 or batch_size % (micro_batch * grid.replicas):
        return None
    return BatchLayout(batch_size, grid.replicas, batch_size // (micro_batch * grid.replicas))


@dataclass(frozen=True)
class EvaluationLayout:
    """How the rows of a split are shared out: each once, padded to whole rounds of micro-batches.

    Attributes:
        rows: samples in the split.
        replicas: data-parallel copies of the pipeline.
        micro_batch: samples in a micro-batch.
        at_least: micro-batches that go through the pipeline together, at least; a folded pipeline
            needs some.
        at_most: and at most.
    """

    rows: int
    replicas: int
    micro_batch: int
    at_least: int = 1
    at_most: int = 32

    @property
    def rounds(self) -> int:
        """How often a replica sends micro-batches through the pipeline."""
        return -(-self._needed // self.at_most)

    @property
    def per_round(self) -> int:
        """Micro-batches of a round."""
        return max(self.at_least, -(-self._needed // self.rounds))

    @property
    def micro_batches(self) -> int:
        """Micro-batches a replica; the same for all, so that they stay in step."""
        return self.rounds * self.per_round

    @property
    def _needed(self) -> int:
        return max(1, -(-self.rows // (self.micro_batch * self.replicas)))

    def places(self, replica: int, number: int) -> tuple[int, int]:
        """Return the range of places, past the end for padding, of one of a replica's rounds.

        Replica r has places ``r * micro_batches * micro_batch`` on; place i is row i of the split.
        """
        start = (replica * self.rounds + number) * self.per_round * self.micro_batch
        return start, start + self.per_round * self.micro_batch

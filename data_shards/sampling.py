"""Weighted sampling: samples drawn with replacement, the same on any grid and after any restart.

:class:`WeightedOrder` is to rare positives what :class:`~data_shards.order.SampleOrder` is to
epochs: what is drawn at a position depends on seed, position and weights alone, and any position
can be asked for directly. Draws come from all over the split, as those of a full shuffle: arrays
should be mapped, not streamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_shards.dataset import ShardedDataset
from data_shards.documents import Document
from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.labels import LabelStatistics, label_blocks, label_statistics

Rows = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]

_DRAWS = 0xB001  # the use of the seed; order.py has 1 and 2, augment.py 0xA001 to 0xA003
_UNIT = 1 << 32  # the largest weight, in whole numbers
_LOW, _HALF = np.uint64(_UNIT - 1), np.uint64(32)


class SamplingConfig(Document):
    """How often each training sample is drawn."""

    name: Literal["uniform", "balanced"] = Field(
        "uniform",
        description='"uniform": each sample once an epoch; "balanced": with replacement, those '
        "with rare positive labels more often",
    )
    task: str | None = Field(
        None,
        description="balanced: half of the draws are positive for this task; default: each sample "
        "by its rarest positive task",
    )
    max_weight: float | None = Field(
        None,
        ge=1,
        allow_inf_nan=False,
        description="balanced: 100; most that a sample is drawn relative to another",
    )

    @model_validator(mode="after")
    def _options_say_something(self) -> Self:
        for option in ("task", "max_weight"):
            value = getattr(self, option)
            if value is not None and self.name == "uniform":
                raise ValueError(f"{option} = {value!r} says nothing while name = 'uniform'")
        return self

    @property
    def effective_max_weight(self) -> float:
        """Largest ratio of two samples' weights in use: 100 unless given."""
        return 100.0 if self.max_weight is None else self.max_weight


@dataclass(frozen=True, eq=False)
class WeightedOrder:
    """Draws of rows ``0`` to ``rows - 1``, with replacement; made by :func:`weighted_order`.

    An epoch is as many draws as there are rows. A draw costs one hash and a binary search. The
    table takes 8 bytes a row, 35 MB for 4.4 million samples, in each process.

    Attributes:
        rows: number of samples.
        seed: another seed, another order.
        ends: where each row's part of the whole numbers below ``ends[-1]`` ends, uint64, shape
            (rows,).
    """

    rows: int
    seed: int
    ends: Hashes = field(repr=False)

    def ids(self, start: int, count: int) -> Rows:
        """Return the rows at positions ``start`` to ``start + count`` (exclusive), int64.

        Raises:
            ValueError: ``start`` or ``count`` is negative.
        """
        hashes = mix(
            self.visits(start, count).astype(np.uint64) ^ np.uint64(key(self.seed, _DRAWS))
        )
        draws = _scaled(hashes, int(self.ends[-1]))
        return np.searchsorted(self.ends, draws, side="right").astype(np.int64, copy=False)

    def epochs(self, start: int, count: int) -> Rows:
        """Return the epoch, from 0, of each of positions ``start`` to ``start + count``, int64."""
        return self.visits(start, count) // self.rows

    def visits(self, start: int, count: int) -> Rows:
        """Number the visits at these positions, int64: by position, as rows come back at once."""
        if start < 0 or count < 0:
            raise ValueError(f"positions begin at 0: start {start}, count {count}")
        return np.arange(start, start + count, dtype=np.int64)


def weighted_order(weights: Weights, seed: int) -> WeightedOrder:
    """Make an order that draws rows in proportion to weights.

    Weights are rounded to whole numbers, the largest being 2**32; so the table, and with it the
    order, is the same on every machine.

    Args:
        weights: at least 0, not all of them 0, shape (rows,); a row of weight 0 is never drawn.
        seed: another seed, another order.

    Raises:
        ValueError: no weights, negative ones, ones that aren't finite, or one so small that it
            would round to 0; or more than 2**31 rows.
    """
    if weights.ndim != 1 or not 1 <= len(weights) <= 1 << 31:
        raise ValueError(f"weights have shape {weights.shape}: one a row, for up to 2**31 rows")
    largest = float(weights.max())
    if not (np.isfinite(weights).all() and weights.min() >= 0 and largest > 0):
        raise ValueError("weights must be finite, at least 0, and not all 0")
    whole = np.rint(weights / largest * _UNIT).astype(np.uint64)
    lost = np.flatnonzero((whole == 0) & (weights > 0))
    if len(lost):
        raise ValueError(
            f"row {lost[0]}: weight {weights[lost[0]]} is at most 2**-33 of the largest"
        )
    ends = np.cumsum(whole, dtype=np.uint64)
    ends.flags.writeable = False
    return WeightedOrder(len(weights), seed, ends)


def sampling_weights(
    data: ShardedDataset, field: str, split: str, config: SamplingConfig
) -> Weights:
    """Weigh the samples of a split for :func:`weighted_order`.

    - "uniform": all 1.
    - "balanced" with a task: positives of the task have together the weight of all others together.
      Where its label is missing, a sample is one of the others.
    - "balanced" without: 1 / f, f being the frequency of a sample's rarest positive task among the
      labels that are there. Samples without a positive label count as if that were a task of its
      own. For classes, each class has then the same weight.

    No sample weighs more than ``max_weight`` times another.

    Args:
        data: the data set.
        field: of labels; read in blocks, twice where it isn't of bits.
        split: name of the split.
        config: how to weigh.

    Returns:
        float64, shape (rows of the split,).

    Raises:
        InputError: no such field, split or task; or the task is not there in both classes.
    """
    rows = data.schema.split(split).samples
    if config.name == "uniform":
        return np.ones(rows)
    statistics = label_statistics(data, field, split)
    if not statistics.binary:
        raise InputError(
            f"field {field!r} has labels that are neither 0 nor 1: none of them is positive",
            remedy='set sampling.name = "uniform"',
        )
    most = config.effective_max_weight
    if config.task is not None:
        positive = _positive(data, field, split, statistics.task(config.task))
        return _two_classes(positive, config.task, split, most)
    return _by_rarest(data, field, split, statistics, most)


def _positive(data: ShardedDataset, field: str, split: str, task: int) -> npt.NDArray[np.bool_]:
    blocks = label_blocks(data, field, split)
    return np.concatenate([block.positive[:, task].copy() for block in blocks])


def _two_classes(positive: npt.NDArray[np.bool_], task: str, split: str, most: float) -> Weights:
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        lacking = "other" if count else "positive"
        raise InputError(
            f"task {task!r} has no {lacking} sample in {split}: there is nothing to balance",
            remedy='name another sampling.task, or set sampling.name = "uniform"',
        )
    return np.where(positive, min(max(others / count, 1 / most), most), 1.0)


def _by_rarest(
    data: ShardedDataset, field: str, split: str, statistics: LabelStatistics, most: float
) -> Weights:
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = statistics.present / statistics.positives
    rarest_first = np.argsort(-np.nan_to_num(inverse, posinf=0.0), kind="stable")
    inverse = np.minimum(inverse[rarest_first], most)
    first = data.schema.split(split).start
    weights = np.empty(statistics.samples)
    none = np.empty(statistics.samples, dtype=np.bool_)
    for block in label_blocks(data, field, split):
        positive = block.positive.take(rarest_first, axis=1)  # four times as fast as an index
        part = slice(block.start - first, block.start - first + len(positive))
        rarest = positive.argmax(axis=1)
        weights[part] = inverse[rarest]
        none[part] = ~positive[np.arange(len(positive)), rarest]
    if none.any():
        weights[none] = min(statistics.samples / int(none.sum()), most)
    return weights


def _scaled(hashes: Hashes, total: int) -> Hashes:
    """Return ``floor(hash * total / 2**64)``, exactly: hashes become numbers below ``total``."""
    high, low = hashes >> _HALF, hashes & _LOW
    total_high, total_low = np.uint64(total >> 32), np.uint64(total) & _LOW
    upper, lower = high * total_low, low * total_high
    carry = (upper & _LOW) + (lower & _LOW) + (low * total_low >> _HALF)
    scaled: Hashes = high * total_high + (upper >> _HALF) + (lower >> _HALF) + (carry >> _HALF)
    return scaled

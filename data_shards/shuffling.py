"""How good a shuffle is: what a cheap order loses against a full permutation, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from data_shards.order import Order


@dataclass(frozen=True)
class ShuffleQuality:
    """What a shuffle does to batches. A full permutation has 1, 0 and 1, up to chance.

    Attributes:
        entropy_ratio: mean entropy of the classes within a batch, over its expectation in a full
            permutation; 1 also where there is one class only.
        autocorrelation: of the rows of consecutive samples of a batch (rows are ranks of the stored
            order), -1 to 1; about 1 in stored order.
        jump: mean distance, in rows, between consecutive samples of a batch, over its expectation
            in a full permutation.
        entropy: the mean entropy within a batch, bits.
        batches: how many batches were measured.
    """

    entropy_ratio: float
    autocorrelation: float
    jump: float
    entropy: float
    batches: int


def shuffle_quality(
    order: Order, classes: npt.NDArray[Any], batch_size: int, batches: int = 256
) -> ShuffleQuality:
    """Measure an order on batches that are spread evenly over its first epoch.

    Args:
        order: the order of samples.
        classes: integers or booleans, shape (rows,): what should be mixed, as the contig of each
            row or one label.
        batch_size: samples in a batch, 2 or more.
        batches: how many to measure; all whole batches of the epoch where it has fewer.

    Returns:
        Means over the batches; deterministic.

    Raises:
        InputError: classes of another number of rows or of another type; batches of fewer than 2
            samples, of more than there are rows, or none.
    """
    _check(order, classes, batch_size, batches)
    whole = order.rows // batch_size
    measured = min(batches, whole)
    steps = [place * (whole - 1) // max(measured - 1, 1) for place in range(measured)]
    rows = np.stack([order.ids(step * batch_size, batch_size) for step in steps])
    kinds, numbers, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    entropy = _within(numbers[rows], len(kinds))
    expected = _expected(sizes, batch_size)
    middle = (order.rows - 1) / 2  # the mean rank, known and so not estimated
    before, after = rows[:, :-1] - middle, rows[:, 1:] - middle
    scale = float(np.sqrt((before**2).sum() * (after**2).sum()))
    return ShuffleQuality(
        entropy / expected if len(kinds) > 1 else 1.0,
        float((before * after).sum()) / scale if scale else 0.0,
        float(np.abs(after - before).mean() / ((order.rows + 1) / 3)),
        entropy,
        measured,
    )


def _check(order: Order, classes: npt.NDArray[Any], batch_size: int, batches: int) -> None:
    if classes.shape != (order.rows,):
        raise InputError(
            f"classes of shape {classes.shape} for an order of {order.rows} rows",
            remedy="give one class a row",
        )
    if classes.dtype.kind not in "iub":
        raise InputError(
            f"classes are {classes.dtype}, not integers or booleans",
            remedy="number the classes, or cut a continuous label into a few",
        )
    if not 2 <= batch_size <= order.rows or batches < 1:
        raise InputError(
            f"{batches} batch(es) of {batch_size} from {order.rows} rows can't be measured",
            remedy="take at least one batch, of 2 samples up to all rows",
        )


def _within(numbers: npt.NDArray[np.int64], kinds: int) -> float:
    """Return the mean entropy within batches, bits; class numbers have shape (batches, size)."""
    batches, size = numbers.shape
    places = numbers + np.arange(batches)[:, None] * kinds
    counts = np.unique(places, return_counts=True)[1]
    return max(0.0, float(np.log2(size) - (counts * np.log2(counts)).sum() / (batches * size)))


def _expected(sizes: npt.NDArray[np.int64], batch_size: int) -> float:
    """Return the expected entropy, bits, of a batch drawn from all rows without replacement.

    The count of a class in such a batch is hypergeometric, so this is exact and not another sample.
    """
    from scipy.stats import hypergeom

    several, times = np.unique(sizes, return_counts=True)  # classes of one size expect the same
    counts = np.arange(1, batch_size + 1)
    weights = counts * np.log2(counts)
    rows = int(sizes.sum())
    mean = sum(
        int(number) * float(hypergeom.pmf(counts, rows, int(size), batch_size) @ weights)
        for size, number in zip(several, times, strict=True)
    )
    return float(np.log2(batch_size) - mean / batch_size)

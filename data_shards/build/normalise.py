"""Normalising numbers, fitted on the training samples only and applied alike to all others.

Blocks have shape (samples, features); NaN is a missing value and stays one. Steps are applied in
the order given, and each is fitted on what the ones before it make of the training samples. What
was fitted is plain numbers, stored as JSON without loss, so that prediction applies the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_shards.documents import Document
from data_shards.errors import InputError

Block = npt.NDArray[Any]
Blocks = Callable[[], Iterable[Block]]
"""Each call begins anew at the first training sample: fitting reads them once for each step."""

Step = Literal["log1p", "zscore", "minmax", "quantile"]

_Floats = npt.NDArray[np.float64]


class Log1p(Document):
    """log(1 + x); refuses x <= -1, where it is undefined."""

    step: Literal["log1p"] = "log1p"


class ZScore(Document):
    """(x - mean) / sd of a feature over the training samples that have it (divisor: their number).

    Attributes:
        mean: of each feature.
        sd: of each feature; 0 for those that are constant in training. They become 0 everywhere.
    """

    step: Literal["zscore"] = "zscore"
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    @property
    def constant(self) -> tuple[int, ...]:
        """Numbers of the features without variance, which say nothing."""
        return tuple(i for i, sd in enumerate(self.sd) if sd == 0)


class MinMax(Document):
    """(x - low) / (high - low) of a feature: 0 to 1 in training.

    Attributes:
        low: smallest training value of each feature.
        high: largest one; equal to low for features that are constant in training. They become 0
            everywhere.
        clip: whether values beyond low and high become 0 and 1; else they lie outside 0 to 1.
    """

    step: Literal["minmax"] = "minmax"
    low: tuple[float, ...]
    high: tuple[float, ...]
    clip: bool

    @property
    def constant(self) -> tuple[int, ...]:
        """Numbers of the features without variance, which say nothing."""
        pairs = zip(self.low, self.high, strict=True)
        return tuple(i for i, (low, high) in enumerate(pairs) if low == high)


class Quantile(Document):
    """Quantile normalisation (Bolstad et al. 2003): every sample gets one distribution.

    The r-th smallest value of a sample becomes the r-th of the training samples' mean sorted
    values, as in R's preprocessCore, normalize.quantiles: equal values get the reference at their
    mean rank, which for an even number of them is the mean of two. A sample with missing values
    is spread over the whole distribution by linear interpolation between ranks.

    Attributes:
        reference: mean of the training samples' sorted values, one a feature.
    """

    step: Literal["quantile"] = "quantile"
    reference: tuple[float, ...]


_AnyStep = Log1p | ZScore | MinMax | Quantile
FittedStep = Annotated[_AnyStep, Field(discriminator="step")]


class Fitted(Document):
    """Steps with their parameters, in order.

    Attributes:
        features: number of features that it was fitted on.
        steps: what to do.
    """

    features: int
    steps: tuple[FittedStep, ...]


def fit(blocks: Blocks, steps: Sequence[Step], *, clip: bool = False) -> Fitted:
    """Fit steps on training samples, block by block.

    Memory is a block and a few numbers a feature. Other block sizes give the same result up to
    rounding.

    Args:
        blocks: call it for the training samples, in blocks of shape (samples, features) of float
            or integer; NaN is missing. It is called once for the number of features, and once for
            each step.
        steps: in the order of their application.
        clip: for "minmax", whether values beyond the training range are clipped to 0 and 1.

    Returns:
        The fitted steps; their ``constant`` lists features without variance.

    Raises:
        InputError: no sample; infinite values; blocks that differ in width; a feature without a
            value in training (for "zscore", "minmax"); a value <= -1 for "log1p"; a sample with
            fewer than two values for "quantile"; clip without "minmax".
    """
    if clip and "minmax" not in steps:
        raise InputError("clip is set without minmax", remedy='add "minmax" to the steps')
    first = next(iter(blocks()), None)
    if first is None:
        raise InputError("there is no training sample", remedy="give samples to fit on")
    features = np.shape(first)[-1]
    done: list[_AnyStep] = []
    for step in steps:
        done.append(_fit_step(step, _transformed(blocks, features, tuple(done)), clip))
    return Fitted(features=features, steps=tuple(done))


def apply(fitted: Fitted, block: Block) -> npt.NDArray[np.float32]:
    """Apply fitted steps to samples.

    Args:
        fitted: what :func:`fit` returned.
        block: shape (samples, features), float or integer; NaN is missing.

    Returns:
        float32, same shape, NaN where the block has it. Computed in float64.

    Raises:
        InputError: another number of features, infinite values, a value <= -1 for "log1p", a
            sample with fewer than two values for "quantile", or a result too large for float32.
    """
    values = _applied(fitted.steps, _checked(block, fitted.features, 0), 0)
    with np.errstate(over="ignore"):
        out = values.astype(np.float32)
    if np.isinf(out).any():
        row, column = np.argwhere(np.isinf(out))[0]
        raise InputError(
            f"sample {row}, feature {column} (counted from 0): {values[row, column]} is too large "
            "for float32",
            remedy="correct it, or normalise it by another step",
        )
    return out


def _transformed(
    blocks: Blocks, features: int, steps: Sequence[_AnyStep]
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the training samples as the steps so far make them."""
    samples = 0
    for block in blocks():
        values = _applied(steps, _checked(block, features, samples), samples)
        yield values
        samples += len(values)
    if samples == 0:
        raise InputError("there is no training sample", remedy="give samples to fit on")


def _checked(block: Block, features: int, before: int) -> _Floats:
    """Return a block as float64, or say which value is infinite; ``before``: samples before it."""
    if block.ndim != 2 or block.dtype.kind not in "fiu":
        raise ValueError(f"a block of {block.ndim} axes and type {block.dtype}")
    if block.shape[1] != features:
        raise InputError(
            f"{block.shape[1]} features where {features} were fitted",
            remedy="give the same features in the same order",
        )
    values = block.astype(np.float64, copy=False)
    _refuse(np.isinf(values), values, before, "not finite", "correct it; NaN is a missing value")
    return values


def _refuse(
    bad: npt.NDArray[np.bool_], values: _Floats, before: int, problem: str, remedy: str
) -> None:
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"sample {before + row}, feature {column} (counted from 0): {values[row, column]} is "
            f"{problem}",
            remedy=remedy,
        )


def _fit_step(step: Step, blocks: Iterator[_Floats], clip: bool) -> _AnyStep:
    if step == "log1p":
        before = 0
        for values in blocks:  # nothing to learn, but a value to refuse must not come out later
            _log1p(values, before)
            before += len(values)
        return Log1p()
    if step == "zscore":
        return _fit_zscore(blocks)
    if step == "minmax":
        return _fit_minmax(blocks, clip)
    return _fit_quantile(blocks)


def _applied(steps: Sequence[_AnyStep], values: _Floats, before: int) -> _Floats:
    for step in steps:
        with np.errstate(over="ignore"):
            done = _apply_step(step, values, before)
        remedy = "correct it, or take the logarithm first"
        _refuse(np.isinf(done), values, before, f"too large for {step.step}", remedy)
        values = done
    return values


def _apply_step(step: _AnyStep, values: _Floats, before: int) -> _Floats:
    if isinstance(step, Log1p):
        return _log1p(values, before)
    if isinstance(step, ZScore):
        return _scaled(values, np.array(step.mean), np.array(step.sd))
    if isinstance(step, MinMax):
        low = np.array(step.low)
        scaled = _scaled(values, low, np.array(step.high) - low)
        return np.clip(scaled, 0, 1) if step.clip else scaled
    return _quantile(values, np.array(step.reference), before)


def _log1p(values: _Floats, before: int) -> _Floats:
    remedy = "log1p is for counts and other values from 0 up: are these logarithms already?"
    _refuse(values <= -1, values, before, "not above -1", remedy)
    return np.log1p(values)


def _scaled(values: _Floats, origin: _Floats, scale: _Floats) -> _Floats:
    """(values - origin) / scale, and 0 for features whose scale is 0."""
    constant = scale == 0
    out = (values - origin) / np.where(constant, 1, scale)
    out[:, constant] = np.where(np.isnan(values[:, constant]), np.nan, 0)
    return out


def _extremes(values: _Floats) -> tuple[_Floats, _Floats]:
    """Smallest and largest value of each feature; inf and -inf for one that has none."""
    low = np.fmin.reduce(values, axis=0, initial=np.inf)
    return low, np.fmax.reduce(values, axis=0, initial=-np.inf)


def _refuse_unseen(low: _Floats, high: _Floats) -> None:
    unseen = np.flatnonzero(low > high)
    if unseen.size:
        raise InputError(
            f"{unseen.size} features have no value in any training sample, first "
            f"{unseen[:5].tolist()} (counted from 0)",
            remedy="leave these features out",
        )


def _fit_zscore(blocks: Iterator[_Floats]) -> ZScore:
    """Merge the moments of blocks (Chan, Golub and LeVeque 1979)."""
    count = mean = square = np.zeros(1)
    low, high = np.full(1, np.inf), np.full(1, -np.inf)
    for values in blocks:
        known = ~np.isnan(values)
        here = known.sum(axis=0).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            center = np.where(known, values, 0).sum(axis=0) / np.maximum(here, 1)
            spread = (np.where(known, values - center, 0) ** 2).sum(axis=0)
            both = np.maximum(count + here, 1)
            shift = center - mean
            mean = mean + shift * here / both
            square = square + spread + shift**2 * count * here / both
        count = count + here
        block_low, block_high = _extremes(values)
        low, high = np.minimum(low, block_low), np.maximum(high, block_high)
    _refuse_unseen(low, high)
    constant = low == high
    sd = np.where(constant, 0, np.sqrt(square / count))
    huge = np.flatnonzero(~np.isfinite(sd))
    if huge.size:
        raise InputError(
            f"feature {huge[0]} (counted from 0) has values to {high[huge[0]]}: too large for a "
            "standard deviation",
            remedy="correct them, or take the logarithm first",
        )
    return ZScore(mean=tuple(np.where(constant, low, mean).tolist()), sd=tuple(sd.tolist()))


def _fit_minmax(blocks: Iterator[_Floats], clip: bool) -> MinMax:
    low, high = np.full(1, np.inf), np.full(1, -np.inf)
    for values in blocks:
        block_low, block_high = _extremes(values)
        low, high = np.minimum(low, block_low), np.maximum(high, block_high)
    _refuse_unseen(low, high)
    with np.errstate(over="ignore"):
        huge = np.flatnonzero(np.isinf(high - low))
    if huge.size:
        raise InputError(
            f"feature {huge[0]} (counted from 0) goes from {low[huge[0]]} to {high[huge[0]]}: too "
            "far for float64",
            remedy="correct its values",
        )
    return MinMax(low=tuple(low.tolist()), high=tuple(high.tolist()), clip=clip)


def _fit_quantile(blocks: Iterator[_Floats]) -> Quantile:
    total, samples = np.zeros(1), 0
    for values in blocks:
        features = values.shape[1]
        known = _known(values, samples)
        place = np.arange(features) * ((known - 1) / (features - 1))[:, None]
        # Missing values are sorted last, and no place reaches them.
        total = total + _between(np.sort(values, axis=1), place, known[:, None]).sum(axis=0)
        samples += len(values)
    return Quantile(reference=tuple((total / samples).tolist()))


def _quantile(values: _Floats, reference: _Floats, before: int) -> _Floats:
    from scipy.stats import rankdata

    missing = np.isnan(values)
    known = _known(values, before)
    rank = rankdata(np.where(missing, np.inf, values), axis=1)  # missing ones get the last ranks
    place = (rank - 1) * ((len(reference) - 1) / (known - 1))[:, None]
    table = np.broadcast_to(reference, values.shape)
    out = _between(table, np.minimum(place, len(reference) - 1), np.array(len(reference)))
    return np.where(missing, np.nan, out)


def _known(values: _Floats, before: int) -> npt.NDArray[np.int64]:
    """Count the values of each sample, and refuse a sample with fewer than two."""
    known = np.asarray(np.count_nonzero(~np.isnan(values), axis=1), dtype=np.int64)
    few = np.flatnonzero(known < 2)
    if few.size:
        raise InputError(
            f"sample {before + few[0]} (counted from 0) has {known[few[0]]} values: quantile "
            "normalisation needs two or more",
            remedy="leave the sample out",
        )
    return known


def _between(
    table: _Floats, place: _Floats, count: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Interpolate along rows: the value at a fractional place, below ``count``."""
    below = np.minimum(np.floor(place).astype(np.int64), count - 1)
    above = np.minimum(below + 1, count - 1)
    share = place - below
    low, high = (np.take_along_axis(table, at, axis=1) for at in (below, above))
    return np.asarray(low * (1 - share) + high * share)

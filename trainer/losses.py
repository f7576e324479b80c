"""Losses for rare positives and for missing labels, as functions of logits.

The engine averages the losses of micro-batches, then the gradients of replicas. So that a result
does not depend on how many of them there are, a loss may divide by nothing that is counted in a
micro-batch: each loss here is a sum over labels, divided by batch x tasks and by constants of the
training split. The mean over equal parts of a batch is then the loss of the batch.

``elementwise`` functions go from outputs and targets, shape (B, T), to the loss of each label,
shape (B, T); :func:`masked` makes a loss of one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_shards.documents import Document
from data_shards.errors import InputError

if TYPE_CHECKING:  # the command line reads configurations and does without torch
    from torch import Tensor

    from data_shards.labels import LabelStatistics

    Loss = Callable[[Tensor, Tensor], Tensor]
    Weight = Tensor | float

LossName = Literal["plain", "weighted", "focal", "balanced"]
Weights = npt.NDArray[np.float64]

_SAYS_SOMETHING: dict[LossName, set[str]] = {
    "plain": set(),
    "weighted": {"max_weight"},
    "focal": {"gamma", "alpha"},
    "balanced": {"gamma", "beta", "max_weight"},
}


class LossConfig(Document):
    """How rare positives count; labels that are missing never do."""

    name: LossName = Field(
        "plain",
        description='"plain": the recipe\'s own; "weighted": positives of a task count as many '
        'times as negatives are more frequent; "focal": what is already right counts less; '
        '"balanced": classes count by their effective number of samples',
    )
    gamma: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="focal: 2, balanced: 0; 0 is cross-entropy"
    )
    alpha: float | None = Field(
        None, gt=0, lt=1, description="focal: positives count alpha, negatives 1 - alpha"
    )
    beta: float | None = Field(
        None, ge=0, lt=1, description="balanced: 0.9999; 0 weighs nothing, near 1 by frequency"
    )
    max_weight: float | None = Field(
        None,
        ge=1,
        allow_inf_nan=False,
        description="weighted, balanced: 100; most that one class counts relative to the other",
    )

    @model_validator(mode="after")
    def _options_say_something(self) -> Self:
        for option in ("gamma", "alpha", "beta", "max_weight"):
            value = getattr(self, option)
            if value is not None and option not in _SAYS_SOMETHING[self.name]:
                raise ValueError(f"{option} = {value} says nothing while name = {self.name!r}")
        return self

    @property
    def effective_gamma(self) -> float:
        """Focusing exponent in use: 2 (Lin et al. 2017) for "focal", else 0, unless given."""
        if self.gamma is not None:
            return self.gamma
        return 2.0 if self.name == "focal" else 0.0

    @property
    def effective_beta(self) -> float:
        """Beta in use: 0.9999 (Cui et al. 2019) unless given."""
        return 0.9999 if self.beta is None else self.beta

    @property
    def effective_max_weight(self) -> float:
        """Largest ratio of the weights of a task's classes in use: 100 unless given."""
        return 100.0 if self.max_weight is None else self.max_weight


# Elementwise losses -----------------------------------------------------------------------------


def weighted(logits: Tensor, labels: Tensor, positive: Weight, negative: Weight) -> Tensor:
    """Cross-entropy of logits whose classes count by weights.

    ``-positive * y * log p - negative * (1 - y) * log(1 - p)``, with p the sigmoid of the logit.

    Args:
        logits: shape (B, T).
        labels: 0 to 1, shape (B, T).
        positive: weight of positives, scalar or (T,).
        negative: weight of negatives, scalar or (T,).

    Returns:
        Shape (B, T); finite, with its gradient, for any finite logit.
    """
    return positive * labels * _softplus(-logits) + negative * (1 - labels) * _softplus(logits)


def focal(
    logits: Tensor,
    labels: Tensor,
    gamma: float,
    positive: Weight = 1.0,
    negative: Weight = 1.0,
) -> Tensor:
    """Focal loss: cross-entropy times the probability of the other class, to the power gamma.

    Lin et al. 2017, equations 4 and 5: ``-positive * y * (1 - p)**gamma * log p`` and the same for
    negatives, with p the sigmoid of the logit. Their alpha is ``positive = alpha, negative = 1 -
    alpha``.

    Args:
        logits: shape (B, T).
        labels: 0 or 1, shape (B, T).
        gamma: 0 is :func:`weighted`.
        positive: weight of positives, scalar or (T,).
        negative: weight of negatives, scalar or (T,).

    Returns:
        Shape (B, T); finite, with its gradient, for any finite logit.
    """
    if gamma == 0:
        return weighted(logits, labels, positive, negative)
    # -log p and -log(1 - p); so exp(-gamma * off) is (1 - p)**gamma, without a root's slope at 0.
    on, off = _softplus(-logits), _softplus(logits)
    positives = positive * labels * on * (-gamma * off).exp()
    return positives + negative * (1 - labels) * off * (-gamma * on).exp()


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared difference, shape (B, T)."""
    return (outputs - targets).square()


def poisson(outputs: Tensor, counts: Tensor) -> Tensor:
    """Negative Poisson log likelihood of counts, less its part that no output changes.

    ``rate - count * log(rate)`` with ``rate = softplus(output)``, as Basenji has it (Kelley et al.
    2018): unlike ``exp``, it does not overflow.

    Args:
        outputs: shape (B, T).
        counts: at least 0, shape (B, T).

    Returns:
        Shape (B, T); finite, with its gradient, for any finite output. May be negative.
    """
    edge = -15.0  # log(softplus(x)) = x - exp(x) / 2 + O(exp(2 x)), where softplus(x) may be 0
    low, high = outputs.clamp(max=edge), outputs.clamp(min=edge)
    log_rate = (low - low.exp() / 2).where(outputs < edge, _softplus(high).log())
    return _softplus(outputs) - counts * log_rate


def elementwise(loss: Loss) -> Loss:
    """Take a loss that is the mean over samples and tasks apart, into the loss of each label."""
    import torch

    def one(output: Tensor, target: Tensor) -> Tensor:
        return loss(output.reshape(1, 1), target.reshape(1, 1))

    def each(outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = torch.vmap(one)(outputs.flatten(), targets.flatten())
        return losses.view_as(outputs)

    return each


def _softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), to the last bits on both sides."""
    import torch

    return -torch.nn.functional.logsigmoid(-x)


# Losses -----------------------------------------------------------------------------------------


def masked(loss: Loss, share: float) -> Loss:
    """Make a scalar loss in which missing labels, NaN in the targets, do not count.

    It is the sum over the labels that are there, divided by ``B * T * share``: over the training
    split the mean over labels that are there, and in each batch a part of that which does not
    depend on what other batches lack.

    Args:
        loss: elementwise.
        share: labels that are there as a part of all, in the training split; above 0.

    Returns:
        From outputs (B, T) and targets (B, T) to a scalar; ValueError where shapes differ.
    """

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.shape != targets.shape:
            shapes = f"{tuple(outputs.shape)}, targets {tuple(targets.shape)}"
            raise ValueError(f"outputs have shape {shapes}")
        missing = targets.isnan()
        losses = loss(outputs, targets.masked_fill(missing, 0))
        return losses.masked_fill(missing, 0).mean() / share

    return mean


def class_weights(config: LossConfig, statistics: LabelStatistics) -> tuple[Weights, Weights]:
    """Weigh the positives and the negatives of each task.

    - "weighted": negatives 1, positives r = negatives / positives.
    - "balanced": positives and negatives in proportion to 1 / E, with sum 2, where E = (1 -
      beta**n) / (1 - beta) is the effective number of n samples (Cui et al. 2019, equations 2 and
      4). A class without samples counts as one with one.
    - "focal": alpha and 1 - alpha, or 1 and 1.

    The ratio of the two is kept between ``1 / max_weight`` and ``max_weight``.

    Returns:
        Weights of positives and of negatives, float64, shape (tasks,).
    """
    ones = np.ones(len(statistics.names))
    if config.name == "focal" and config.alpha is not None:
        return config.alpha * ones, (1 - config.alpha) * ones
    if config.name not in ("weighted", "balanced"):
        return ones, ones
    positives = np.maximum(statistics.positives, 1).astype(np.float64)
    negatives = np.maximum(statistics.negatives, 1).astype(np.float64)
    if config.name == "balanced":
        positives, negatives = (
            _effective(n, config.effective_beta) for n in (positives, negatives)
        )
    most = config.effective_max_weight
    ratio = np.clip(negatives / positives, 1 / most, most)
    if config.name == "weighted":
        return ratio, ones
    return 2 * ratio / (1 + ratio), 2 / (1 + ratio)


def _effective(samples: Weights, beta: float) -> Weights:
    """Return the effective number of samples, (1 - beta**n) / (1 - beta)."""
    if beta == 0:
        return np.ones_like(samples)
    effective: Weights = -np.expm1(samples * np.log(beta)) / (1 - beta)
    return effective


def build_loss(config: LossConfig, statistics: LabelStatistics | None, plain: Loss) -> Loss:
    """Make the loss that a configuration asks for.

    Args:
        config: which.
        statistics: of the labels of the training split; None only with "plain", where then no
            label may be missing.
        plain: the recipe's own loss, the mean over samples and tasks. "plain" is this function
            itself where no label of any split is missing, else the same without those.

    Returns:
        From outputs (B, T) and targets (B, T), NaN where a label is missing, to a scalar.

    Raises:
        InputError: there are no labels, they are not 0 and 1 where the loss needs classes, or the
            recipe's loss is no mean over labels, so that it can't do without the missing.
        ValueError: no statistics for a loss that needs them.
    """
    if config.name == "plain" and (statistics is None or statistics.complete):
        return plain
    if statistics is None:
        raise ValueError(f"loss {config.name!r} needs statistics of the labels")
    if statistics.share == 0:
        raise InputError("the training split has no labels", remedy="check the field of targets")
    if config.name == "plain":
        _refuse_no_mean(plain, len(statistics.names))
        return masked(elementwise(plain), statistics.share)
    if not statistics.binary:
        raise InputError(
            f"loss.name = {config.name!r} needs labels that are 0 or 1, and there are others",
            remedy='use loss.name = "plain"',
        )
    return masked(_classes(config, statistics), statistics.share)


def _classes(config: LossConfig, statistics: LabelStatistics) -> Loss:
    """Bind a loss of two classes to its constants."""
    import torch

    weights = [torch.from_numpy(each) for each in class_weights(config, statistics)]
    gamma = config.effective_gamma

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        positive, negative = (weight.to(logits) for weight in weights)
        return focal(logits, labels, gamma, positive, negative)

    return loss


def _refuse_no_mean(loss: Loss, tasks: int) -> None:
    """Compare a loss with the mean of what its elements give, on two made-up samples."""
    import torch

    outputs = torch.linspace(-2, 2, 2 * tasks).view(2, tasks)
    targets = (torch.arange(2 * tasks) % 3 == 0).float().view(2, tasks)
    why = "it is not the mean over samples and tasks"
    try:
        whole, parts = loss(outputs, targets), elementwise(loss)(outputs, targets).mean()
        if torch.allclose(whole, parts, rtol=1e-4, atol=1e-6):
            return
    except (RuntimeError, ValueError) as error:
        why = f"of one label it is an error: {error}"
    raise InputError(
        f"labels are missing, and the recipe's loss can't do without them: {why}",
        remedy="choose another loss.name, or a field without missing labels",
    )

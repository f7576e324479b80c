"""Scores of multi-label predictions, by torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_shards.store.schema import TaskEntry

IGNORED = -1  # the target of a sample that a task is not scored on
_CURVE_POINTS = 400
BINS = 10


@dataclass(frozen=True)
class TaskScore:
    """Scores of one task.

    Attributes:
        task: its name.
        scored: samples it was scored on.
        positives: of those.
        auroc: area under the ROC curve; NaN where a class is missing.
        aupr: average precision; NaN where a class is missing.
    """

    task: str
    scored: int
    positives: int
    auroc: float
    aupr: float


@dataclass(frozen=True)
class Curves:
    """ROC and precision-recall curve of one task, thinned to at most 400 points each."""

    task: str
    fpr: list[float]
    tpr: list[float]
    recall: list[float]
    precision: list[float]


@dataclass(frozen=True)
class Reliability:
    """How one task's probabilities compare with what is the case, in ten bins of equal width.

    A bin has its lower end, and not its upper one; the last has both.

    Attributes:
        task: its name.
        samples: in each bin.
        positives: of those.
        predicted: their mean probability; NaN in an empty bin.
    """

    task: str
    samples: list[int]
    positives: list[int]
    predicted: list[float]

    def confusion(self) -> tuple[int, int, int, int]:
        """Count true negatives, false positives, false negatives, true positives at one half."""
        half = BINS // 2
        below, above = sum(self.samples[:half]), sum(self.samples[half:])
        missed, hit = sum(self.positives[:half]), sum(self.positives[half:])
        return below - missed, above - hit, missed, hit


@dataclass(frozen=True)
class Scores:
    """Scores of a model on a split.

    Attributes:
        samples: number of samples.
        loss: mean loss; None for models that have none of ours.
        tasks: one score a task.
        curves: one a task that has both classes, or empty if not asked for.
        reliability: likewise.
    """

    samples: int
    loss: float | None
    tasks: tuple[TaskScore, ...]
    curves: tuple[Curves, ...] = ()
    reliability: tuple[Reliability, ...] = ()

    @property
    def auroc(self) -> float:
        """Mean over the tasks that have one."""
        return _mean([score.auroc for score in self.tasks])

    @property
    def aupr(self) -> float:
        """Mean over the tasks that have one."""
        return _mean([score.aupr for score in self.tasks])

    def badness(self, monitor: Literal["loss", "auroc", "aupr"]) -> float | None:
        """Return what shall become lower: the loss, or the negative of a mean score."""
        return {"loss": self.loss, "auroc": -self.auroc, "aupr": -self.aupr}[monitor]

    def plain(self) -> dict[str, Any]:
        """Return everything but the curves as plain values; undefined scores are None."""
        return {
            "samples": self.samples,
            "loss": self.loss,
            "auroc_mean": _finite(self.auroc),
            "aupr_mean": _finite(self.aupr),
            "tasks": {
                score.task: {k: _finite(v) for k, v in asdict(score).items() if k != "task"}
                for score in self.tasks
            },
        }


def mask_targets(
    labels: npt.NDArray[np.uint8], tasks: Sequence[TaskEntry]
) -> npt.NDArray[np.int64]:
    """Mark the samples that a conditional task is not scored on.

    Args:
        labels: zeros and ones, shape (samples, tasks).
        tasks: the label columns; a task with ``given`` counts only where those are positive.

    Returns:
        Same shape, with :data:`IGNORED` where a task does not count.
    """
    targets = labels.astype(np.int64)
    names = [task.name for task in tasks]
    for column, task in enumerate(tasks):
        if task.given:
            conditions = [names.index(other) for other in task.given]
            targets[~labels[:, conditions].all(axis=1), column] = IGNORED
    return targets


def score(
    probabilities: Tensor,
    targets: Tensor,
    tasks: Sequence[TaskEntry],
    *,
    loss: float | None = None,
    curves: bool = False,
) -> Scores:
    """Score predictions, exactly: every threshold counts.

    Args:
        probabilities: shape (samples, tasks), any float dtype.
        targets: 0, 1 or :data:`IGNORED`, int64, same shape.
        tasks: the label columns.
        loss: mean loss of the samples, to keep with the scores.
        curves: also compute the curves.
    """
    # Imported where it is used: it takes a second, which every worker would pay at its start.
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    scores: list[TaskScore] = []
    drawn: list[Curves] = []
    reliable: list[Reliability] = []
    for column, task in enumerate(tasks):
        counted = targets[:, column] != IGNORED
        p, y = probabilities[counted, column], targets[counted, column]
        positives = int(y.sum())
        auroc = aupr = math.nan
        if 0 < positives < len(y):
            auroc = float(binary_auroc(p, y, thresholds=None))
            aupr = float(binary_average_precision(p, y, thresholds=None))
            if curves:
                drawn.append(_curves(task.name, p, y))
                reliable.append(_reliability(task.name, p, y))
        scores.append(TaskScore(task.name, len(y), positives, auroc, aupr))
    return Scores(len(targets), loss, tuple(scores), tuple(drawn), tuple(reliable))


def _curves(task: str, p: Tensor, y: Tensor) -> Curves:
    from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

    fpr, tpr, _ = binary_roc(p, y, thresholds=None)
    precision, recall, _ = binary_precision_recall_curve(p, y, thresholds=None)
    return Curves(task, _thin(fpr), _thin(tpr), _thin(recall), _thin(precision))


def _reliability(task: str, p: Tensor, y: Tensor) -> Reliability:
    bins = (p * BINS).long().clamp(0, BINS - 1)
    samples = torch.bincount(bins, minlength=BINS)
    positives = torch.bincount(bins, weights=y.double(), minlength=BINS)
    total = torch.bincount(bins, weights=p.double(), minlength=BINS)
    return Reliability(
        task, samples.tolist(), positives.long().tolist(), (total / samples).tolist()
    )


def _thin(values: Tensor) -> list[float]:
    """Keep first, last and evenly spaced points between."""
    if len(values) > _CURVE_POINTS:
        values = values[torch.linspace(0, len(values) - 1, _CURVE_POINTS).long()]
    thinned: list[float] = values.double().tolist()
    return thinned


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value

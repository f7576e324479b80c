"""Scores of multi-label predictions, by torchmetrics, reduced over the replicas that hold them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.classification import (
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelPrecisionRecallCurve,
    MultilabelROC,
)

from data_shards.schema import TaskEntry

IGNORED = -1  # the target of a sample that a task is not scored on
_CURVE_POINTS = 400


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
class Scores:
    """Scores of a model on a split.

    Attributes:
        samples: number of samples.
        loss: mean loss; None for models that have none of ours.
        tasks: one score a task.
        curves: one a task, or empty if not asked for.
    """

    samples: int
    loss: float | None
    tasks: tuple[TaskScore, ...]
    curves: tuple[Curves, ...] = ()

    @property
    def auroc(self) -> float:
        """Mean over the tasks that have one."""
        return _mean([score.auroc for score in self.tasks])

    @property
    def aupr(self) -> float:
        """Mean over the tasks that have one."""
        return _mean([score.aupr for score in self.tasks])

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
    loss_sum: float | None = None,
    curves: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Scores:
    """Score predictions; with a process group, over the samples of all its members.

    Args:
        probabilities: shape (samples, tasks), float32; this worker's samples, each once.
        targets: 0, 1 or :data:`IGNORED`, int64, same shape.
        tasks: the label columns.
        loss_sum: sum over samples of the loss per sample, if there is one.
        curves: also compute the curves.
        group: workers that hold the other samples; every member must call this.

    Returns:
        The same scores on every member.
    """
    counts = torch.tensor(
        [len(targets), loss_sum if loss_sum is not None else math.nan], dtype=torch.float64
    )
    per_task = torch.stack([(targets != IGNORED).sum(0), (targets == 1).sum(0)]).double().cpu()
    if group is not None:
        dist.all_reduce(counts, group=group)
        dist.all_reduce(per_task, group=group)
    scored, positives = per_task.long().tolist()
    defined = [0 < p < n for p, n in zip(positives, scored, strict=True)]
    auroc = _compute(MultilabelAUROC, probabilities, targets, group, average="none")
    aupr = _compute(MultilabelAveragePrecision, probabilities, targets, group, average="none")
    samples = int(counts[0])
    return Scores(
        samples=samples,
        loss=float(counts[1]) / samples if loss_sum is not None else None,
        tasks=tuple(
            TaskScore(
                task.name,
                int(scored[i]),
                int(positives[i]),
                float(auroc[i]) if defined[i] else math.nan,
                float(aupr[i]) if defined[i] else math.nan,
            )
            for i, task in enumerate(tasks)
        ),
        curves=_curves(probabilities, targets, tasks, group) if curves else (),
    )


def _compute(
    kind: Any,
    probabilities: Tensor,
    targets: Tensor,
    group: dist.ProcessGroup | None,
    **options: Any,
) -> Any:
    """Run one exact multi-label metric of torchmetrics over all members of the group."""
    metric = kind(
        num_labels=targets.shape[1],
        thresholds=None,
        ignore_index=IGNORED,
        validate_args=True,
        process_group=group,
        distributed_available_fn=lambda: group is not None,
        **options,
    )
    with warnings.catch_warnings():
        # It warns where a class is missing and returns zero; score() reports NaN there.
        warnings.simplefilter("ignore")
        metric.update(probabilities.cpu(), targets.cpu())
        return metric.compute()


def _curves(
    probabilities: Tensor,
    targets: Tensor,
    tasks: Sequence[TaskEntry],
    group: dist.ProcessGroup | None,
) -> tuple[Curves, ...]:
    fpr, tpr, _ = _compute(MultilabelROC, probabilities, targets, group)
    precision, recall, _ = _compute(MultilabelPrecisionRecallCurve, probabilities, targets, group)
    return tuple(
        Curves(task.name, _thin(fpr[i]), _thin(tpr[i]), _thin(recall[i]), _thin(precision[i]))
        for i, task in enumerate(tasks)
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

"""A trial of a sweep: one network trained and validated, watched after each epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.loop import Worker, fit, go_back, in_training
from trainer.losses import build_loss
from trainer.metrics import Scores
from trainer.recipes import get_recipe


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to, on every worker.

    Attributes:
        valid: scores of the best epoch on the validation split. The test split is not looked at.
        best_epoch: which one, from 1.
        epochs: that were trained.
        steps: optimizer steps.
        seconds: wall time of training and validation, over all attempts.
        parameters: trainable weights.
    """

    valid: Scores
    best_epoch: int
    epochs: int
    steps: int
    seconds: float
    parameters: int


def run_trial(worker: Worker) -> TrialResult:
    """Train the recipe's network on this worker's grid; every worker calls this.

    Raises:
        CalledAwayError: it shall go on elsewhere, or later; its state is saved.
        PrunedError: the watcher wants no more of it.
        TrainingDivergedError: a loss makes no sense.
    """
    config = worker.job.config
    recipe = get_recipe(config.recipe)
    loss = build_loss(config.loss, worker.job.labels, recipe.loss)
    with in_training(worker, recipe.network, loss, config.cut_of(model=True)) as net:
        fitted = fit(worker, net, loss)
        progress = fitted.progress
        valid = go_back(worker, net, loss, fitted)
    assert progress.best_epoch is not None
    return TrialResult(
        valid,
        progress.best_epoch,
        math.ceil(progress.step * config.batch_size / net.feed.order.rows),
        progress.step,
        progress.seconds,
        sum(net.plan.parameters),
    )

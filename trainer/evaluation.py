"""Evaluation: every sample of a split exactly once, through the same stages as training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data_shards.dataset import WindowsDataset
from trainer.engine import Engine
from trainer.feed import Feed
from trainer.grid import EvaluationLayout
from trainer.metrics import Scores, mask_targets, score
from trainer.recipe import Loss

Advance = Callable[[int, int], None]
"""Called with samples done and samples in all."""


def predict_split(
    engine: Engine,
    feed: Feed,
    data: WindowsDataset,
    split: str,
    advance: Advance = lambda *_: None,
) -> Tensor | None:
    """Run a split through the pipeline.

    Returns:
        On last stages the outputs (logits) of this replica's share, in row order, float32, shape
        (share, tasks); elsewhere None.
    """
    rows = data.split_rows(split)
    layout = EvaluationLayout(len(rows), engine.grid.replicas, engine.layout.micro_batch)
    replica = engine.grid.replica(engine.stage.global_rank)
    outputs: list[Tensor] = []
    done = 0
    for micro_batches in feed.evaluation(rows, layout, replica):
        outputs += engine.predict(micro_batches)
        done += len(micro_batches) * layout.micro_batch * layout.replicas
        advance(min(done, len(rows)), len(rows))
    if not engine.is_last:
        return None
    start, stop = layout.share(replica)
    return torch.cat(outputs)[: stop - start]


def evaluate(
    engine: Engine,
    feed: Feed,
    data: WindowsDataset,
    split: str,
    loss: Loss,
    *,
    curves: bool = False,
    advance: Advance = lambda *_: None,
) -> Scores | None:
    """Score a split; every worker calls this, last stages get the scores, others None.

    Args:
        engine: the trained network.
        feed: this worker's reader.
        data: the data set.
        split: which one.
        loss: mean over samples and tasks, from logits and labels.
        curves: also compute ROC and precision-recall curves.
        advance: told the progress.
    """
    logits = predict_split(engine, feed, data, split, advance)
    if logits is None:
        return None
    rows = data.split_rows(split)
    layout = EvaluationLayout(len(rows), engine.grid.replicas, engine.layout.micro_batch)
    start, stop = layout.share(engine.grid.replica(engine.stage.global_rank))
    labels = data.labels(rows[start:stop])
    logits = logits.cpu()
    loss_sum = 0.0
    if len(logits):
        mean = loss(logits.double(), torch.from_numpy(labels.astype(np.float64)))
        loss_sum = float(mean) * len(logits)
    return score(
        torch.sigmoid(logits),
        torch.from_numpy(mask_targets(labels, data.schema.tasks)),
        data.schema.tasks,
        loss_sum=loss_sum,
        curves=curves,
        group=engine.replica_group if engine.grid.replicas > 1 else None,
    )

"""Evaluation: every sample of a split exactly once, through the same stages as training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from data_shards.dataset import ShardedDataset
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
    data: ShardedDataset,
    split: str,
    advance: Advance = lambda *_: None,
) -> Tensor | None:
    """Run a split through the pipeline; every worker calls this.

    Returns:
        On last stages the outputs (logits) of all samples in row order, float32, on the host, shape
        (samples, tasks); elsewhere None.
    """
    rows = data.split_rows(split)
    layout = EvaluationLayout(len(rows), engine.grid.replicas, engine.layout.micro_batch)
    if engine.grid.folded:
        # DeepSpeed 0.19.8 keeps the two halves of a micro-batch as many buffers apart as there are
        # micro-batches in training, so another number in evaluation mixes them up.
        count = engine.layout.micro_batches
        layout = replace(layout, at_least=count, at_most=count)
    outputs: list[Tensor] = []
    done = 0
    with engine.averaged():
        for micro_batches in feed.evaluation(rows, layout, engine.replica):
            outputs += engine.predict(micro_batches)
            done += len(micro_batches) * layout.micro_batch * layout.replicas
            advance(min(done, len(rows)), len(rows))
    if not engine.is_last:
        return None
    # Replicas hold consecutive shares of equal size; what pads the last of them comes at the end.
    mine = torch.cat(outputs)
    shares = [torch.empty_like(mine) for _ in range(layout.replicas)]
    dist.all_gather(shares, mine, group=engine.replica_group)
    return torch.cat(shares)[: len(rows)].cpu()


def evaluate(
    engine: Engine,
    feed: Feed,
    data: ShardedDataset,
    split: str,
    loss: Loss,
    *,
    curves: bool = False,
    advance: Advance = lambda *_: None,
) -> Callable[[], Scores | None]:
    """Predict a split; every worker calls this.

    Args:
        engine: the trained network.
        feed: this worker's reader.
        data: the data set.
        split: which one.
        loss: mean over samples and tasks, from logits and labels.
        curves: also compute ROC and precision-recall curves.
        advance: told the progress.

    Returns:
        What scores it, and takes a while: on the reporter it gives the scores, elsewhere None.
    """
    logits = predict_split(engine, feed, data, split, advance)
    if logits is None or not engine.is_reporter:
        return lambda: None
    return partial(_score, logits.double(), data, split, loss, curves)


def _score(logits: Tensor, data: ShardedDataset, split: str, loss: Loss, curves: bool) -> Scores:
    """Score logits in float64: in float32, logits that differ can have the same probability."""
    labels = data.labels(data.split_rows(split))
    return score(
        torch.sigmoid(logits),
        torch.from_numpy(mask_targets(labels, data.schema.tasks)),
        data.schema.tasks,
        loss=float(loss(logits, torch.from_numpy(labels.astype(np.float64)))),
        curves=curves,
    )

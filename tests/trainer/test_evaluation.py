"""Evaluation scores every sample exactly once, on any grid, as scikit-learn would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from data_shards.dataset import ShardedDataset
from tests.workers import on_workers
from trainer.config import OptimizerConfig
from trainer.grid import BatchLayout, Grid
from trainer.recipe import build_layer, shape_of
from trainer.recipes.danq import danq_layers, loss


@pytest.mark.slow
def test_every_sample_is_predicted_once_and_scored_as_scikit_learn_scores(
    danq_data: Path, tmp_path: Path
) -> None:
    grid, seed, micro = Grid(2, 2), 3, 23  # 1,600 samples are no multiple of 2 x 23

    def work() -> Any:
        import torch.distributed as dist

        from trainer.engine import Engine, prepare
        from trainer.evaluation import evaluate, predict_split
        from trainer.feed import Feed

        prepare("cpu")
        data = ShardedDataset(danq_data)
        layers = danq_layers("small", shape_of(data.schema))
        layout = BatchLayout(micro * 2 * 2, 2, 2)
        engine = Engine(layers, (0, 3), grid, layout, loss, 4, OptimizerConfig(), seed)
        feed = Feed(data, "train", seed, inputs=engine.is_first, targets=engine.is_last)
        told: list[tuple[int, int]] = []
        logits = predict_split(engine, feed, data, "test", lambda *n: told.append(n))
        scores = evaluate(engine, feed, data, "test", loss)
        # training goes on after an evaluation as if there had been none
        first = float(engine.train_step(0, feed.step(0, layout, engine.replica)))
        box: list[Any] = [None] * grid.workers
        mine = (None if logits is None else logits.numpy(), scores and scores.plain(), told, first)
        dist.all_gather_object(box, mine)
        engine.close()
        return box

    results = on_workers(grid, work, tmp_path)
    data = ShardedDataset(danq_data)
    layers = danq_layers("small", shape_of(data.schema))
    network = nn.Sequential(*(build_layer(layer, seed, i) for i, layer in enumerate(layers))).eval()
    rows = data.split_rows("test")
    with torch.no_grad():
        expected = network(torch.from_numpy(data.gather("sequence", rows))).numpy()
    labels = data.labels(rows)
    for rank, (logits, scores, told, _) in enumerate(results):
        assert told[-1] == (1600, 1600)
        assert (logits is None) == (grid.stage(rank) == 0)
        assert (scores is None) == (rank != grid.reporter)
        if logits is not None:
            np.testing.assert_allclose(logits, expected, atol=1e-6)
    logits, scores, *_ = results[grid.reporter]
    assert scores["samples"] == 1600
    mean = float(loss(torch.from_numpy(expected), torch.from_numpy(labels.astype(np.float32))))
    assert scores["loss"] == pytest.approx(mean, abs=1e-6)
    both = (labels[:, 0] & labels[:, 1]) > 0
    for column, (name, kept) in enumerate(
        [("motif_a", both | True), ("motif_b", both | True), ("a_before_b", both),
         ("a_before_b_near", both)]
    ):  # fmt: skip
        y, p = labels[kept, column], logits[kept, column]
        assert scores["tasks"][name]["auroc"] == pytest.approx(roc_auc_score(y, p), abs=1e-6)
        aupr = average_precision_score(y, p)
        assert scores["tasks"][name]["aupr"] == pytest.approx(aupr, abs=1e-5)
    losses = {first for *_, first in results}
    assert len(losses) == 1, "all workers know the same loss"

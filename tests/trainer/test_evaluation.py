"""Evaluation scores every sample exactly once, on any grid, as scikit-learn would."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from data_shards.dataset import ShardedDataset
from data_shards.order import sample_order
from tests.ranks import on_ranks
from trainer.config import GridConfig, RunConfig
from trainer.grid import BatchLayout, Grid
from trainer.objective import unpack_bits
from trainer.recipe import build_layer, shape_of
from trainer.recipes.danq import danq_layers, loss

SEED, MICRO = 3, 23  # 1,600 samples are no multiple of 2 x 23


def evaluate_on(grid: Grid, place: Path) -> Any:
    """Predict and score the test split, then take a step, on each rank."""
    from trainer.engine import Engine, prepare
    from trainer.evaluation import evaluate, predict_split
    from trainer.feed import Feed
    from trainer.stage import Cut

    prepare("cpu")
    data = ShardedDataset(place)
    layers = danq_layers("small", shape_of(data.schema))
    parts = 8 // grid.replicas
    layout = BatchLayout(MICRO * 8, grid.replicas, parts)
    config = RunConfig(
        recipe="danq", seed=SEED, grid=GridConfig(stages=grid.stages, replicas=grid.replicas)
    )
    cut = Cut((0, 3, 5, 6), schedule="dualpipev") if grid.folded else Cut((0, 3))
    decode = partial(unpack_bits, tasks=4)
    engine = Engine(layers, cut, grid, layout, loss, decode, config)
    order = sample_order(data.schema.split("train").samples, SEED)
    feed = Feed(data, "train", order, inputs=engine.is_first, targets=engine.is_last)
    told: list[tuple[int, int]] = []
    logits = predict_split(engine, feed, data, "test", lambda *n: told.append(n))
    scores = evaluate(engine, feed, data, "test", loss)()
    # training goes on after an evaluation as if there had been none
    first = float(engine.train_step(0, feed.step(0, layout, engine.replica), 1e-3))
    engine.close()
    return None if logits is None else logits.numpy(), scores and scores.plain(), told, first


@pytest.mark.slow
@pytest.mark.parametrize("grid", [Grid(2, 2), Grid(2, 1, folded=True)], ids=["2x2", "2x1-folded"])
def test_every_sample_is_predicted_once_and_scored_as_scikit_learn_scores(
    grid: Grid, danq_data: Path
) -> None:
    results = on_ranks(grid.workers, evaluate_on, grid, danq_data)
    seed = SEED
    data = ShardedDataset(danq_data)
    layers = danq_layers("small", shape_of(data.schema))
    network = nn.Sequential(*(build_layer(layer, seed, i) for i, layer in enumerate(layers))).eval()
    rows = data.split_rows("test")
    with torch.no_grad():
        expected = network(torch.from_numpy(data.gather("sequence", rows))).numpy()
    labels = data.labels(rows)
    for rank, (logits, scores, told, _) in enumerate(results):
        assert told[-1] == (1600, 1600)
        assert (logits is None) == (grid.stage(rank) != grid.reporter)
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

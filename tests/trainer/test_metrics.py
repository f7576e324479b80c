"""Scores against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from data_shards.store.schema import TaskEntry
from trainer.metrics import IGNORED, mask_targets, score


def entries(*names: str) -> list[TaskEntry]:
    return [TaskEntry(name=name, rule="r") for name in names]


@given(st.integers(0, 10_000), st.integers(5, 200), st.booleans())
@settings(deadline=None, max_examples=40)
def test_auroc_and_aupr_are_what_scikit_learn_computes(seed: int, n: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random((n, 3)).astype(np.float32)
    if ties:
        p = np.round(p, 1)
    targets = rng.integers(0, 2, (n, 3))
    targets[rng.random((n, 3)) < 0.2] = IGNORED
    scores = score(torch.from_numpy(p), torch.from_numpy(targets), entries("a", "b", "c"))
    for column, task in enumerate(scores.tasks):
        kept = targets[:, column] != IGNORED
        y, q = targets[kept, column], p[kept, column]
        assert (task.scored, task.positives) == (kept.sum(), y.sum())
        if 0 < y.sum() < len(y):
            assert task.auroc == pytest.approx(roc_auc_score(y, q), abs=1e-6)
            assert task.aupr == pytest.approx(average_precision_score(y, q), abs=1e-6)
        else:
            assert math.isnan(task.auroc) and math.isnan(task.aupr)


def test_the_means_leave_out_undefined_tasks_and_json_says_none() -> None:
    p = torch.tensor([[0.1, 0.5], [0.9, 0.5]])
    targets = torch.tensor([[0, 0], [1, 0]])
    scores = score(p, targets, entries("a", "b"), loss=1.5)
    assert scores.auroc == 1.0
    assert scores.loss == 1.5
    plain = scores.plain()
    assert plain["tasks"]["b"]["auroc"] is None
    assert plain["auroc_mean"] == 1.0


def test_a_conditional_task_counts_only_where_its_conditions_hold() -> None:
    tasks = [
        TaskEntry(name="a", rule="r"),
        TaskEntry(name="b", rule="r"),
        TaskEntry(name="order", given=("a", "b"), rule="r"),
    ]
    labels = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=np.uint8)
    assert mask_targets(labels, tasks)[:, 2].tolist() == [1, 0, IGNORED, IGNORED, IGNORED]
    assert np.array_equal(mask_targets(labels, tasks)[:, :2], labels[:, :2])


def test_curves_are_scikit_learns_thinned() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, (3000, 1))
    p = ((0.3 * y + rng.random((3000, 1))) / 1.3).astype(np.float32)
    scores = score(torch.from_numpy(p), torch.from_numpy(y), entries("a"), curves=True)
    [curve] = scores.curves
    assert len(curve.fpr) == len(curve.tpr) <= 400
    assert len(curve.recall) == len(curve.precision) <= 400
    fpr, tpr, _ = roc_curve(y[:, 0], p[:, 0], drop_intermediate=False)
    # torchmetrics and scikit-learn walk the same thresholds
    points = np.stack([fpr, tpr], axis=1)
    for mine in zip(curve.fpr, curve.tpr, strict=True):
        assert np.abs(points - mine).max(axis=1).min() < 1e-6
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)

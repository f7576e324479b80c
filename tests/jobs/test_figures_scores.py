"""Pictures of scores say how sure they are; intervals are those of the textbooks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from data_shards.store.schema import TaskEntry
from jobs import figures_scores
from jobs.figures import save
from jobs.figures_scores import auroc_interval, calibration_error, draw_ranking, draw_roc, wilson
from trainer.metrics import Scores, score


def scores(tasks: int, samples: int = 300, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (samples, tasks))
    logits = rng.normal(size=(samples, tasks)) + labels * np.linspace(0.2, 3, tasks)
    p = torch.from_numpy(1 / (1 + np.exp(-logits)))
    entries = [TaskEntry(name=f"t{i}", rule="x") for i in range(tasks)]
    return score(p, torch.from_numpy(labels), entries, curves=True)


@pytest.mark.parametrize(("hits", "samples"), [(0, 10), (3, 10), (10, 10), (57, 400)])
def test_rates_have_wilsons_interval(hits: int, samples: int) -> None:
    expected = binomtest(hits, samples).proportion_ci(method="wilson")
    assert wilson(hits, samples) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_areas_have_an_interval_that_holds_the_truth_as_often_as_it_says() -> None:
    truth, held = 0.760, 0  # of two normals, one apart
    rng = np.random.default_rng(1)
    for _ in range(400):
        x, y = rng.normal(size=60), rng.normal(1.0, size=40)
        area = float((y[:, None] > x).mean())
        low, high = auroc_interval(area, 40, 60)
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.98
    assert all(math.isnan(end) for end in auroc_interval(math.nan, 0, 10))


def test_bins_and_confusion_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 500)
    p = np.clip(rng.normal(0.3 + 0.4 * y, 0.2), 0, 1)
    [task] = score(
        torch.from_numpy(p)[:, None],
        torch.from_numpy(y)[:, None],
        [TaskEntry(name="t", rule="x")],
        curves=True,
    ).reliability
    expected = confusion_matrix(y, p >= 0.5).ravel()
    assert task.confusion() == tuple(expected)
    rates, predicted = calibration_curve(y, p, n_bins=10)
    ours = [
        (k / n, m)
        for n, k, m in zip(task.samples, task.positives, task.predicted, strict=True)
        if n
    ]
    assert np.allclose([rate for rate, _ in ours], rates)
    assert np.allclose([mean for _, mean in ours], predicted)
    assert 0 < calibration_error(task) < 0.2


def test_curves_are_drawn_with_their_areas_twelve_at_most() -> None:
    [axes] = draw_roc(scores(3)).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(labels) == 3
    assert labels[0].startswith("t0 (0.")
    assert " to " in labels[0], "with its interval"
    [axes] = draw_roc(scores(30)).axes
    assert "first 12 of 30 tasks" in axes.get_title()


def test_ranking_shows_the_best_first_and_the_ends_of_a_long_list() -> None:
    [axes] = draw_ranking(scores(4)).axes
    assert [tick.get_text()[:2] for tick in axes.get_yticklabels()] == ["t3", "t2", "t1", "t0"]
    [axes] = draw_ranking(scores(60)).axes
    assert "the best and worst 20 of 60 tasks" in axes.get_title()


@pytest.mark.parametrize("name", ["roc", "pr", "calibration", "confusion", "ranking"])
@pytest.mark.parametrize("tasks", [0, 1, 5, 30])
def test_every_picture_can_be_drawn_of_any_number_of_tasks(
    name: str, tasks: int, tmp_path: Path
) -> None:
    drawn = getattr(figures_scores, f"draw_{name}")(scores(tasks))
    assert save(drawn, tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")

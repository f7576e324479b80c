"""Losses equal their papers' formulas, stay finite, and do not care how a batch is cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    mse_loss,
    poisson_nll_loss,
)

from data_shards.errors import InputError
from data_shards.labels import LabelStatistics
from trainer.losses import (
    LossConfig,
    build_loss,
    class_weights,
    elementwise,
    focal,
    masked,
    poisson,
    squared_error,
    weighted,
)
from trainer.recipes.danq import loss as danq_loss

TASKS = 3
NAN = math.nan
CONFIGS = [
    LossConfig(),
    LossConfig(name="weighted"),
    LossConfig(name="focal"),
    LossConfig(name="focal", gamma=0.5, alpha=0.25),
    LossConfig(name="balanced"),
    LossConfig(name="balanced", beta=0.9, gamma=1),
]
Elementwise = Callable[[Tensor, Tensor], Tensor]
POSITIVE, NEGATIVE = torch.tensor([1.0, 7.5, 0.2]), torch.tensor([1.0, 0.5, 3.0])
CLASSES: list[Elementwise] = [
    lambda x, y: weighted(x, y, POSITIVE.to(x), NEGATIVE.to(x)),
    lambda x, y: focal(x, y, 0.0),
    lambda x, y: focal(x, y, 0.5, POSITIVE.to(x), NEGATIVE.to(x)),
    lambda x, y: focal(x, y, 2.0, 0.25, 0.75),
]


def counts(
    positives: list[int], negatives: list[int], samples: int = 1000, binary: bool = True
) -> LabelStatistics:
    on, off = np.array(positives), np.array(negatives)
    names = tuple(f"task{i}" for i in range(len(on)))
    complete = bool((on + off == samples).all())
    return LabelStatistics(names, samples, on + off, on, binary, complete)


GAPS = counts([10, 300, 0], [990, 200, 100])


def made_up(samples: int, seed: int = 0, missing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Logits, and labels of which a part is missing, shape (samples, TASKS)."""
    torch.manual_seed(seed)
    labels = (torch.rand(samples, TASKS) < 0.3).float()
    labels[torch.rand(samples, TASKS) < missing] = NAN
    return 3 * torch.randn(samples, TASKS), labels


# Formulas ---------------------------------------------------------------------------------------


def test_weighted_is_cross_entropy_with_weights_as_scikit_learn_has_it() -> None:
    logits, labels = made_up(40)
    losses = weighted(logits.double(), labels.double(), POSITIVE.double(), NEGATIVE.double())
    for task in range(TASKS):
        y, p = labels[:, task].numpy(), logits[:, task].double().sigmoid().numpy()
        weights = np.where(y == 1, POSITIVE[task].item(), NEGATIVE[task].item())
        expected = log_loss(y, p, sample_weight=weights) * weights.sum()
        assert losses[:, task].sum().item() == pytest.approx(expected, rel=1e-7)
    ours = weighted(logits, labels, POSITIVE, 1.0)
    torch.testing.assert_close(
        ours,
        binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=POSITIVE),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.25, 0.9])
def test_focal_is_the_formula_of_its_paper(gamma: float, alpha: float) -> None:
    logits, labels = (each.double() for each in made_up(50))
    p = logits.sigmoid()
    p_t = p * labels + (1 - p) * (1 - labels)
    alpha_t = alpha * labels + (1 - alpha) * (1 - labels)
    expected = -alpha_t * (1 - p_t) ** gamma * p_t.log()
    torch.testing.assert_close(focal(logits, labels, gamma, alpha, 1 - alpha), expected)


def test_poisson_is_torchs_of_the_softplus_rate() -> None:
    outputs = torch.linspace(-30, 30, 241, dtype=torch.float64)
    rate = outputs.exp().log1p()
    for count in (0.0, 1.0, 17.0):
        y = torch.full_like(outputs, count)
        expected = poisson_nll_loss(rate, y, log_input=False, eps=0, reduction="none")
        torch.testing.assert_close(poisson(outputs, y), expected, rtol=1e-12, atol=1e-12)


def test_weights_of_classes_are_those_of_the_formulas() -> None:
    statistics = counts([10, 500, 800], [990, 500, 200])
    positive, negative = class_weights(LossConfig(name="weighted"), statistics)
    assert positive.tolist() == [99, 1, 0.25]
    assert negative.tolist() == [1, 1, 1]
    positive, negative = class_weights(LossConfig(name="balanced", beta=0.99), statistics)
    for task, (on, off) in enumerate([(10, 990), (500, 500), (800, 200)]):
        inverse = [(1 - 0.99) / (1 - 0.99**n) for n in (on, off)]
        expected = [2 * each / sum(inverse) for each in inverse]
        assert [positive[task], negative[task]] == pytest.approx(expected)
    positive, negative = class_weights(LossConfig(name="focal", alpha=0.3), statistics)
    assert (positive.tolist(), negative.tolist()) == ([0.3] * 3, [0.7] * 3)


def test_balanced_goes_from_no_weights_to_those_by_frequency() -> None:
    statistics = counts([10, 900], [990, 100])
    none = class_weights(LossConfig(name="balanced", beta=0), statistics)
    assert [each.tolist() for each in none] == [[1, 1], [1, 1]]
    positive, negative = class_weights(LossConfig(name="balanced", beta=1 - 1e-9), statistics)
    assert positive / negative == pytest.approx([99, 1 / 9], rel=1e-4)


@pytest.mark.parametrize("name", ["weighted", "balanced"])
def test_the_ratio_of_weights_has_a_limit_both_ways(name: Any) -> None:
    statistics = counts([1, 999, 0, 1000], [999, 1, 1000, 0])
    config = LossConfig(name=name, max_weight=20, beta=0.9999 if name == "balanced" else None)
    positive, negative = class_weights(config, statistics)
    assert positive / negative == pytest.approx([20, 1 / 20, 20, 1 / 20])
    assert np.isfinite([positive, negative]).all()


# Numerics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [*CLASSES, poisson])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_are_finite_for_any_logit(
    loss: Elementwise, dtype: torch.dtype
) -> None:
    sizes = torch.tensor([0, 1e-6, 1, 14.9, 15.1, 20, 50, 88, 100, 745, 1e3, 1e4], dtype=dtype)
    logits = torch.cat([-sizes, sizes])[:, None].repeat(1, TASKS).requires_grad_()
    for label in (0.0, 1.0):
        value = loss(logits, torch.full_like(logits, label))
        [gradient] = torch.autograd.grad(value.sum(), logits)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_a_logit_that_is_far_off_costs_its_size() -> None:
    logits = torch.tensor([[-1e4, 1e4]])
    labels = torch.tensor([[1.0, 0.0]])
    for value in (weighted(logits, labels, 1.0, 1.0), focal(logits, labels, 2.0)):
        assert value.tolist() == [[1e4, 1e4]]
    for value in (weighted(-logits, labels, 1.0, 1.0), focal(-logits, labels, 2.0)):
        assert value.tolist() == [[0, 0]]


@pytest.mark.parametrize("loss", [*CLASSES, squared_error, poisson])
def test_gradients_are_those_of_finite_differences(loss: Elementwise) -> None:
    logits, labels = made_up(6)
    logits = torch.cat([logits, torch.tensor([[-18.0, 0.0, 18.0]])]).double().requires_grad_()
    labels = torch.cat([labels, torch.ones(1, TASKS)]).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,))
    gaps = labels.masked_fill(torch.rand(labels.shape) < 0.4, NAN)
    assert torch.autograd.gradcheck(lambda x: masked(loss, 0.6)(x, gaps), (logits,))


# Missing labels and equal parts -----------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@given(
    seed=st.integers(0, 2**31),
    parts=st.integers(1, 8),
    size=st.integers(1, 6),
    missing=st.sampled_from([0.0, 0.1, 0.6, 0.95, 1.0]),
)
@settings(max_examples=20, deadline=None)
def test_the_mean_over_equal_parts_is_the_loss_of_the_batch(
    config: LossConfig, seed: int, parts: int, size: int, missing: float
) -> None:
    loss = build_loss(config, GAPS, danq_loss)
    logits, labels = made_up(parts * size, seed, missing)
    logits, labels = logits.double().requires_grad_(), labels.double()
    whole = loss(logits, labels)
    pieces = zip(logits.split(size), labels.split(size), strict=True)
    mean = torch.stack([loss(x, y) for x, y in pieces]).mean()
    assert mean.item() == pytest.approx(whole.item(), rel=1e-6, abs=1e-12)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (whole, mean)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)
    assert (gradients[0][labels.isnan()] == 0).all()


@pytest.mark.parametrize(
    ("loss", "plain"),
    [
        (danq_loss, binary_cross_entropy_with_logits),
        (mse_loss, mse_loss),
        (poisson_nll_loss, poisson_nll_loss),
    ],
)
def test_over_the_split_the_recipes_loss_is_the_mean_over_labels_that_are_there(
    loss: Any, plain: Any
) -> None:
    logits, labels = made_up(64, missing=0.4)
    there = ~labels.isnan()
    present = there.sum(dim=0).numpy()
    positives = (labels == 1).sum(dim=0).numpy()
    statistics = LabelStatistics(("a", "b", "c"), 64, present, positives, True, False)
    logits.requires_grad_()
    value = build_loss(LossConfig(), statistics, loss)(logits, labels)
    expected = plain(logits[there], labels[there])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits)
    )


def test_labels_none_of_which_are_there_cost_nothing() -> None:
    for config in CONFIGS:
        logits = torch.randn(4, TASKS, requires_grad=True)
        value = build_loss(config, GAPS, danq_loss)(logits, torch.full((4, TASKS), NAN))
        value.backward()
        assert value.item() == 0
        assert logits.grad is not None
        assert (logits.grad == 0).all()


def test_losses_are_float32_scalars_and_weigh_each_task_by_its_own() -> None:
    statistics = counts([10, 500, 900], [990, 500, 100])
    loss = build_loss(LossConfig(name="weighted"), statistics, danq_loss)
    logits, labels = made_up(30)
    value = loss(logits, labels)
    assert (value.shape, value.dtype) == ((), torch.float32)
    weights = torch.tensor([99, 1, 1 / 9])
    expected = binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    torch.testing.assert_close(value, expected)


def test_elementwise_undoes_the_mean() -> None:
    logits, labels = made_up(5)
    expected = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    torch.testing.assert_close(elementwise(danq_loss)(logits, labels), expected)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 1\), targets \(4,\)"):
        masked(squared_error, 1.0)(torch.zeros(4, 1), torch.zeros(4))


# Configuration ----------------------------------------------------------------------------------


def test_plain_is_the_recipes_own_loss_where_no_label_is_missing() -> None:
    assert build_loss(LossConfig(), None, danq_loss) is danq_loss
    assert build_loss(LossConfig(), counts([1, 2], [999, 998]), danq_loss) is danq_loss
    assert build_loss(LossConfig(), GAPS, danq_loss) is not danq_loss


def per_task(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets).square() * torch.tensor([1.0, 2, 3])).mean()


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum()


def coupled(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(outputs.log_softmax(dim=1) * targets).mean()


@pytest.mark.parametrize("loss", [per_task, summed, coupled])
def test_a_recipes_loss_that_is_no_mean_over_labels_can_not_be_masked(loss: Any) -> None:
    with pytest.raises(InputError, match="labels are missing, and the recipe's loss can't"):
        build_loss(LossConfig(), GAPS, loss)


def test_losses_of_classes_need_classes_and_statistics() -> None:
    numbers = counts([1, 2], [3, 4], binary=False)
    with pytest.raises(InputError, match=r"loss\.name = 'focal' needs labels that are 0 or 1"):
        build_loss(LossConfig(name="focal"), numbers, danq_loss)
    with pytest.raises(InputError, match="has no labels"):
        build_loss(LossConfig(), counts([0, 0], [0, 0]), danq_loss)
    with pytest.raises(ValueError, match="needs statistics"):
        build_loss(LossConfig(name="weighted"), None, danq_loss)


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 2},
        {"name": "weighted", "beta": 0.9},
        {"name": "weighted", "gamma": 0},
        {"name": "focal", "max_weight": 3},
        {"name": "balanced", "alpha": 0.5},
    ],
)
def test_options_that_say_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="says nothing while name = "):
        LossConfig(**options)


def test_effective_values_are_the_papers_unless_given() -> None:
    assert LossConfig(name="focal").effective_gamma == 2
    assert LossConfig(name="balanced").effective_gamma == 0
    assert LossConfig(name="balanced").effective_beta == 0.9999
    assert LossConfig(name="focal", gamma=0).effective_gamma == 0
    assert LossConfig(name="weighted").effective_max_weight == 100

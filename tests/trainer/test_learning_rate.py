"""The learning rate equals torch's schedulers, and can be computed for any step alone."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from trainer.config import ScheduleConfig
from trainer.learning_rate import epochs_done, learning_rate, plateau_drops

BASE = 0.3

schedules = st.builds(
    ScheduleConfig,
    name=st.sampled_from(["constant", "cosine", "step", "plateau"]),
    warmup_steps=st.integers(0, 50),
    floor=st.floats(0, 1),
    every_epochs=st.integers(1, 5),
    factor=st.floats(0.01, 0.99),
)


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)


def rates_of_torch(scheduler: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def warmed_up(scheduler: Any, warm_up: int) -> Any:
    ramp = lr_scheduler.LinearLR(
        scheduler.optimizer, start_factor=1 / (warm_up + 1), total_iters=warm_up
    )
    return lr_scheduler.SequentialLR(scheduler.optimizer, [ramp, scheduler], [warm_up])


@pytest.mark.parametrize("warm_up", [0, 1, 7])
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_cosine_equals_cosine_annealing_after_linear_lr(warm_up: int, floor: float) -> None:
    steps = 40
    config = ScheduleConfig(name="cosine", warmup_steps=warm_up, floor=floor)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer(), steps - warm_up, eta_min=floor * BASE)
    expected = rates_of_torch(warmed_up(cosine, warm_up) if warm_up else cosine, steps + 1)
    rates = [learning_rate(config, BASE, step, steps, 5.0, 0) for step in range(steps + 1)]
    assert rates == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert rates[-1] == pytest.approx(floor * BASE, abs=1e-15)


@pytest.mark.parametrize("warm_up", [1, 7])
def test_constant_equals_constant_lr_after_linear_lr(warm_up: int) -> None:
    config = ScheduleConfig(warmup_steps=warm_up)
    constant = lr_scheduler.ConstantLR(optimizer(), factor=1.0)
    expected = rates_of_torch(warmed_up(constant, warm_up), 20)
    rates = [learning_rate(config, BASE, step, 20, 5.0, 0) for step in range(20)]
    assert rates == pytest.approx(expected, rel=1e-9)


def test_step_equals_step_lr() -> None:
    config = ScheduleConfig(name="step", every_epochs=3, factor=0.5)
    expected = rates_of_torch(lr_scheduler.StepLR(optimizer(), 3 * 4, gamma=0.5), 60)
    rates = [learning_rate(config, BASE, step, 60, 4.0, 0) for step in range(60)]
    assert rates == pytest.approx(expected, rel=1e-9)


@given(
    losses=st.lists(st.integers(0, 5).map(float) | st.just(math.nan) | st.just(math.inf)),
    patience=st.integers(0, 4),
    floor=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_plateau_equals_reduce_lr_on_plateau(
    losses: list[float], patience: int, floor: float
) -> None:
    config = ScheduleConfig(name="plateau", patience=patience, factor=0.5, floor=floor)
    torch_s = lr_scheduler.ReduceLROnPlateau(
        optimizer(), factor=0.5, patience=patience, threshold=0, min_lr=floor * BASE, eps=0
    )
    for epoch, loss in enumerate(losses, start=1):
        torch_s.step(loss)
        drops = plateau_drops(losses[:epoch], patience)
        rate = learning_rate(config, BASE, 10 * epoch, 10**6, 10.0, drops)
        assert rate == pytest.approx(torch_s.optimizer.param_groups[0]["lr"], rel=1e-9)


def test_plateau_drops_once_patience_is_exceeded_and_counts_anew() -> None:
    assert [plateau_drops([1.0] * n, 2) for n in range(9)] == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert plateau_drops([3.0, 3.0, 2.0, 2.0, 1.0, 1.0], 1) == 0


@given(schedules, st.integers(0, 400), st.integers(1, 300), st.floats(0.1, 50), st.integers(0, 9))
def test_rates_lie_between_the_floor_and_the_base_after_warm_up_and_below_base_in_it(
    config: ScheduleConfig, step: int, steps: int, per_epoch: float, drops: int
) -> None:
    rate = learning_rate(config, BASE, step, steps, per_epoch, drops)
    assert rate > 0 or (config.floor == 0 and step >= steps)
    assert rate <= BASE * (1 + 1e-12)
    if step >= config.warmup_steps:
        assert rate >= config.floor * BASE * (1 - 1e-12)


@given(schedules, st.integers(1, 300), st.integers(0, 9))
def test_warm_up_rises_in_equal_steps_up_to_the_schedule_s_first_rate(
    config: ScheduleConfig, more: int, drops: int
) -> None:
    warm_up = config.warmup_steps
    steps, per_epoch = warm_up + more, 1e6
    rates = [
        learning_rate(config, BASE, step, steps, per_epoch, drops) for step in range(warm_up + 1)
    ]
    straight = [rates[-1] * (step + 1) / (warm_up + 1) for step in range(warm_up + 1)]
    assert rates == pytest.approx(straight, rel=1e-9)
    after = config.model_copy(update={"warmup_steps": 0})
    assert rates[-1] == learning_rate(after, BASE, 0, steps, per_epoch, drops)


@given(schedules, st.integers(1, 200), st.floats(1, 50))
def test_without_warm_up_rates_never_rise(
    config: ScheduleConfig, steps: int, per_epoch: float
) -> None:
    config = config.model_copy(update={"warmup_steps": 0})
    rates = [learning_rate(config, BASE, step, steps, per_epoch, 1) for step in range(steps)]
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_run_shorter_than_its_warm_up_only_rises() -> None:
    config = ScheduleConfig(name="cosine", warmup_steps=9)
    rates = [learning_rate(config, 1.0, step, 3, 1.0, 0) for step in range(3)]
    assert rates == pytest.approx([0.1, 0.2, 0.3])


@given(st.integers(0, 10**6), st.integers(1, 10**4), st.integers(1, 10**6))
def test_epochs_done_equals_integer_arithmetic(step: int, batch: int, samples: int) -> None:
    assert epochs_done(step, samples / batch) == step * batch // samples

"""Losses that would do harm: which they are, and what is remembered of the others."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import FailureConfig
from trainer.guard import LossGuard


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_finite_number_is_always_bad(loss: float) -> None:
    guard = LossGuard(FailureConfig())
    assert guard.fault(loss) == f"is {loss}"
    assert not guard.accepts(0, loss)
    assert guard.skipped == [0]
    assert guard.recent == []


@given(st.lists(st.floats(0.01, 10), max_size=150), st.floats(0.01, 1000))
def test_a_spike_is_so_many_times_the_median_of_the_last_64(
    before: list[float], loss: float
) -> None:
    guard = LossGuard(FailureConfig(spike=5))
    guard.remember(before)
    recent = before[-64:]
    bad = len(recent) >= 16 and loss > 5 * statistics.median(recent)
    assert (guard.fault(loss) is not None) == bad
    assert guard.accepts(7, loss) != bad
    assert guard.recent == (recent if bad else [*before, loss][-64:])


def test_without_a_limit_no_finite_loss_is_bad() -> None:
    guard = LossGuard(FailureConfig())
    guard.remember([1.0] * 64)
    assert guard.fault(1e30) is None


def test_only_skipping_needs_each_loss_before_its_update() -> None:
    assert LossGuard(FailureConfig(bad_loss="skip")).active
    assert not LossGuard(FailureConfig(bad_loss="stop", spike=3)).active


def test_twenty_bad_losses_in_a_row_are_hopeless_and_a_good_one_between_is_not() -> None:
    guard = LossGuard(FailureConfig(bad_loss="skip"))
    for step in range(19):
        guard.accepts(step, math.nan)
    assert not guard.hopeless
    guard.accepts(19, 0.5)
    for step in range(20, 39):
        guard.accepts(step, math.nan)
    assert not guard.hopeless
    guard.accepts(39, math.nan)
    assert guard.hopeless


@given(st.lists(st.floats(0.01, 10), max_size=40), st.floats(0.01, 1000))
def test_a_restored_guard_judges_as_the_one_that_was_saved(
    losses: list[float], loss: float
) -> None:
    first, second = (LossGuard(FailureConfig(bad_loss="skip", spike=3)) for _ in range(2))
    for step, value in enumerate(losses):
        first.accepts(step, value)
    second.restore(first.recent, first.skipped)
    assert second.fault(loss) == first.fault(loss)
    assert second.skipped == first.skipped

"""Speed is that of the steps since the last look."""

from __future__ import annotations

import pytest

from trainer.speed import Speed


def test_an_interval_has_its_own_speed_wait_and_operations() -> None:
    now = [100.0]
    speed = Speed(samples=8, peak=4.0, clock=lambda: now[0])
    now[0] += 2.0
    assert speed.since(4, waited=0.5, flop=None) == {
        "train/step_seconds": 0.5,
        "train/samples_per_second": 16.0,
        "train/data_wait_seconds": 0.5,
        "train/data_wait_percent": 25.0,
    }
    now[0] += 50.0  # a validation
    speed.go_on()
    now[0] += 1.0
    figures = speed.since(10, waited=0.6, flop=1e10)
    assert figures["train/samples_per_second"] == 80.0
    assert figures["train/data_wait_percent"] == pytest.approx(10.0)
    assert figures["train/tflop_per_second"] == pytest.approx(0.8)
    assert figures["train/mfu_percent"] == pytest.approx(20.0)


def test_without_a_known_peak_no_utilisation_is_told() -> None:
    now = [0.0]
    speed = Speed(samples=1, peak=None, clock=lambda: now[0])
    now[0] = 1.0
    assert "train/mfu_percent" not in speed.since(1, 0.0, 1e9)

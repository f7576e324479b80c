"""What layers cost: bytes to the byte, times with the right order of size, every kind of layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig
from trainer.planning.costs import LayerCost, interpolate
from trainer.planning.measuring import measure, update_rate
from trainer.recipe import Layer, Shape
from trainer.recipes.danq import danq_layers


class Embed(nn.Module):
    """Integers to numbers, and the integers passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.table(x), x


class Select(nn.Module):
    """Picks the numbers; has no weights."""

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return x[0] * (x[1] > 0).unsqueeze(-1)


class Slow(nn.Module):
    """Takes 1 s forward and 5 s backward, by the clock of the test."""

    def forward(self, x: Tensor) -> Tensor:
        return _Slow.apply(x)  # type: ignore[no-any-return,no-untyped-call]


class _Slow(torch.autograd.Function):
    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        CLOCK[0] += 1.0
        return x.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        CLOCK[0] += 5.0
        return gradient


CLOCK = [0.0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass in slow layers only."""
    monkeypatch.setattr("time.perf_counter", lambda: CLOCK[0])


def linear(size: int, outputs: int) -> Layer:
    return Layer("linear", lambda: nn.Linear(size, outputs))


def test_measuring_gives_each_layer_of_danq_a_time_and_its_size() -> None:
    layers = danq_layers("small", Shape(300, 4))
    costs = measure(layers, torch.zeros(5, 300, dtype=torch.uint8), seed=0, repeats=1)
    assert [cost.name for cost in costs] == [layer.name for layer in layers]
    assert all(cost.forward > 0 for cost in costs)
    assert costs[0].output_bytes == 5 * 4 * 300 * 4
    assert [cost.parameters > 0 for cost in costs] == [
        False, True, False, True, False, True, True,
    ]  # fmt: skip
    assert all(cost.parameter_bytes >= 4 * cost.parameters for cost in costs)


def test_bytes_are_what_autograd_keeps_each_storage_once() -> None:
    layers = [linear(6, 8), Layer("relu", nn.ReLU), linear(8, 3)]
    first, relu, last = measure(layers, torch.zeros(5, 6), seed=0, repeats=1)
    assert (first.parameters, first.parameter_bytes) == (56, 224)
    assert first.activation_bytes == 5 * 6 * 4, "its input; not its weights"
    assert relu.activation_bytes == 5 * 8 * 4, "its output"
    assert last.activation_bytes == 0, "its input is the output that the layer before keeps"
    assert [cost.output_bytes for cost in (first, relu, last)] == [160, 160, 60]


def test_a_part_of_a_larger_batch_keeps_its_own_storage_only() -> None:
    batch = torch.zeros(100, 6)
    [cost] = measure([linear(6, 8)], batch[:5].clone(), seed=0, repeats=1)
    assert cost.activation_bytes == 5 * 6 * 4


def test_tuples_integers_and_layers_without_weights_are_measured() -> None:
    layers = [Layer("embed", Embed), Layer("select", Select), linear(4, 2)]
    costs = measure(layers, torch.ones(5, 7, dtype=torch.int64), seed=0, repeats=1)
    assert [cost.parameters for cost in costs] == [40, 0, 10]
    assert costs[0].output_bytes == 5 * 7 * (4 * 4 + 8)
    assert costs[1].output_bytes == 5 * 7 * 4 * 4


def test_forward_and_backward_are_timed_apart(clock: None) -> None:
    layers = [linear(4, 4), Layer("slow", Slow), linear(4, 4)]
    first, slow, _ = measure(layers, torch.zeros(2, 4), seed=0, repeats=2)
    assert (slow.forward, slow.backward, slow.seconds) == (1.0, 5.0, 6.0)
    assert first.seconds == 0.0


def test_a_layer_before_all_weights_has_no_backward_pass(clock: None) -> None:
    [slow, _] = measure([Layer("slow", Slow), linear(4, 4)], torch.zeros(2, 4), seed=0)
    assert (slow.forward, slow.backward) == (1.0, 0.0)


def test_bf16_halves_what_crosses_a_cut() -> None:
    layers = [linear(6, 8), linear(8, 8)]
    [plain, _] = measure(layers, torch.zeros(5, 6), seed=0, repeats=1)
    [half, _] = measure(layers, torch.zeros(5, 6), seed=0, repeats=1, precision="bf16")
    assert half.output_bytes * 2 == plain.output_bytes
    assert half.parameter_bytes == plain.parameter_bytes


def test_interpolation_is_linear_between_neighbours() -> None:
    small = [LayerCost("x", 1.0, 2.0, 5, 20, 100, 40)]
    large = [LayerCost("x", 3.0, 4.0, 5, 20, 200, 80)]
    larger = [LayerCost("x", 9.0, 9.0, 5, 20, 300, 90)]
    measured = {10: small, 20: large, 40: larger}
    assert interpolate(measured, 20) == large
    assert interpolate(measured, 15) == [LayerCost("x", 2.0, 3.0, 5, 20, 150, 60)]
    assert interpolate(measured, 30)[0].forward == 6.0
    for size in (9, 41):
        with pytest.raises(ValueError, match="not within"):
            interpolate(measured, size)


def test_an_optimizer_is_timed_by_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.0, 9.0, 10.0, 14.0, 20.0, 22.0, 30.0, 33.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(readings))
    costs = [LayerCost("x", 1.0, 1.0, weights, 4 * weights, 8, 8) for weights in (5, 4000, 90)]
    rate = update_rate(OptimizerConfig(name="adamw"), costs, torch.device("cpu"), repeats=3)
    assert rate == 2.0 / 4096, "the fastest of all, in rows of 1,024 for the largest layer"

"""Averaged weights: the formula, the swap for evaluation, and what checkpoints hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data_shards.errors import CorruptDataError
from trainer.ema import ExponentialAverage


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.LSTM(3, 2))


def average_of(module: nn.Module, decay: float = 0.75) -> ExponentialAverage:
    return ExponentialAverage(list(module.named_parameters()), decay)


def move(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator))


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_averages_equal_those_of_torch() -> None:
    module = network()
    ours = average_of(module)
    torch_s = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.75))
    torch_s.update_parameters(module)  # its first call copies the weights
    for seed in range(5):
        move(module, seed)
        ours.update()
        torch_s.update_parameters(module)
    expected = dict(torch_s.module.named_parameters())
    assert ours.tensors.keys() == expected.keys()
    for name, value in ours.tensors.items():
        torch.testing.assert_close(value, expected[name].detach(), rtol=0, atol=1e-6)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0, 0.999))
def test_an_average_is_the_weighted_sum_of_all_weights_so_far(
    weights: list[float], decay: float
) -> None:
    weight = nn.Parameter(torch.tensor([weights[0]], dtype=torch.float64))
    ours = ExponentialAverage([("w", weight)], decay)
    for value in weights[1:]:
        weight.data.fill_(value)
        ours.update()
    n = len(weights) - 1
    shares = [decay**n, *((1 - decay) * decay ** (n - i) for i in range(1, n + 1))]
    expected = sum(share * value for share, value in zip(shares, weights, strict=True))
    assert ours.tensors["w"].item() == pytest.approx(expected, abs=1e-9)


def test_the_first_average_is_the_weight_and_still_weights_stay_their_average_to_the_bit() -> None:
    module = network()
    ours = average_of(module, 0.999)
    for _ in range(10):
        ours.update()
    assert equal(dict(ours.tensors), dict(module.named_parameters()))


def test_a_swap_evaluates_the_averages_and_gives_the_weights_back_to_the_bit() -> None:
    module = network()
    ours = average_of(module)
    move(module, 1)
    ours.update()
    before, averages = copies(module), {n: t.clone() for n, t in ours.tensors.items()}
    places = [weight.data_ptr() for weight in module.parameters()]
    with ours.swapped():
        assert equal(dict(module.named_parameters()), averages)
        assert not torch.equal(module[0].weight, before["0.weight"])
        module[1].running_mean.fill_(7.0)
    assert (module[1].running_mean == 7).all(), "buffers are not part of the swap"
    module[1].running_mean.zero_()
    assert equal(copies(module), before)
    assert equal(dict(ours.tensors), averages)
    assert [weight.data_ptr() for weight in module.parameters()] == places


def test_weights_come_back_after_an_exception() -> None:
    module = network()
    ours = average_of(module)
    move(module, 1)
    before = copies(module)
    with pytest.raises(ZeroDivisionError), ours.swapped():
        raise ZeroDivisionError
    assert equal(copies(module), before)
    with ours.swapped():  # and a swap is possible again
        assert not equal(copies(module), before)


def test_averages_do_not_change_while_swapped() -> None:
    ours = average_of(network())
    with ours.swapped():
        with pytest.raises(RuntimeError, match="can't update while"):
            ours.update()
        with pytest.raises(RuntimeError, match="can't load while"):
            ours.load(ours.tensors)
        with pytest.raises(RuntimeError, match="can't swap while"), ours.swapped():
            pass


def test_going_on_from_saved_averages_is_exact() -> None:
    module = network()
    ours = average_of(module)
    move(module, 1)
    ours.update()
    saved = {name: value.clone() for name, value in ours.tensors.items()}
    again = average_of(module)
    again.load(saved)
    move(module, 2)
    for average in (ours, again):
        average.update()
    assert equal(dict(again.tensors), dict(ours.tensors))
    assert not equal(dict(again.tensors), saved), "loading copies"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("other", torch.zeros(3), "missing or unknown: other"),
        ("0.bias", torch.zeros(4), r"0\.bias is torch\.float32 \[4\], not torch\.float32 \[3\]"),
        ("0.bias", torch.zeros(3).double(), r"0\.bias is torch\.float64"),
    ],
)
def test_averages_of_another_network_are_refused_untouched(
    name: str, value: Tensor, words: str
) -> None:
    ours = average_of(network())
    before = {n: t.clone() for n, t in ours.tensors.items()}
    wrong = {n: t + 1 for n, t in before.items()} | {name: value}
    with pytest.raises(CorruptDataError, match=words):
        ours.load(wrong)
    assert equal(dict(ours.tensors), before)


def test_frozen_parameters_have_no_average_and_an_empty_stage_works() -> None:
    module = network()
    module[0].requires_grad_(False)
    assert all(not name.startswith("0.") for name in average_of(module).tensors)
    empty = ExponentialAverage([], 0.9)
    empty.update()
    with empty.swapped():
        assert dict(empty.tensors) == {}


def test_a_decay_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="decay 1"):
        ExponentialAverage([], 1)

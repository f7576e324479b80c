"""Counted operations are those that plain loops count."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.flops import PEAKS, MultiplyAdds, multiply_adds, peak_of, training_flop


def test_multiply_adds_are_those_of_plain_loops() -> None:
    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True, bidirectional=True)

        def forward(self, x: torch.Tensor) -> Any:
            return self.lstm(x.transpose(1, 2))[0].flatten(1)

    network = [nn.Conv1d(2, 3, 4), States(), nn.Linear(7 * 10, 6)]
    scanned = sum(1 for _ in product(range(3), range(7), range(2), range(4)))
    gates = sum(4 * 5 * (3 + 5) for _ in product(range(7), range(2)))
    dense = 70 * 6
    inputs = torch.zeros(2, 2, 10)
    assert multiply_adds(network, inputs) == scanned + gates + dense
    assert training_flop(network, inputs) == 6 * (scanned + gates + dense)
    assert all(module.training for module in network)
    image = [nn.Conv2d(4, 6, (2, 3), groups=2)]
    assert multiply_adds(image, torch.zeros(1, 4, 5, 5)) == 6 * (4 * 3) * 2 * (2 * 3)


def test_the_most_specific_peak_counts() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3", "bf16") == 989.0
    assert peak_of("NVIDIA H100 PCIe", "bf16") == 756.0
    assert peak_of("NVIDIA L4", "fp32") == 30.3
    assert peak_of("NVIDIA L40S", "fp32") == 91.6
    assert peak_of("Abacus", "fp32") is None
    for name in PEAKS:
        assert PEAKS[name] == {p: peak_of(name, p) for p in ("fp32", "bf16")}


def test_a_pass_that_is_computed_again_counts_once() -> None:
    layer = nn.Linear(3, 5)
    x = torch.ones(7, 3, requires_grad=True)
    with MultiplyAdds([layer]) as counted:
        output: Any = checkpoint(layer, x, use_reentrant=False)
        output.sum().backward()
    assert counted.total == 7 * 3 * 5
    layer(x)
    assert counted.total == 7 * 3 * 5, "nothing counts any more"


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_counts_its_projections_and_its_products(batch_first: bool) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)

        def forward(self, x: torch.Tensor) -> Any:
            return self.attention(x, x, x)[0]

    projections = sum(6 * 6 for _ in product(range(4), range(5)))  # q, k, v, out; 5 positions
    products = sum(6 for _ in product(range(5), range(5))) * 2  # with keys, with values
    x = torch.ones(2, 5, 6) if batch_first else torch.ones(5, 2, 6)
    with MultiplyAdds([module := Attends()]) as counted:
        module(x)
    assert counted.total == 2 * (projections + products)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_count_each_layer_direction_and_gate(kind: Any) -> None:
    module = kind(3, 5, num_layers=2, bidirectional=True)
    gates = {nn.LSTM: 4, nn.GRU: 3}[kind]
    inputs = (3, 2 * 5)  # of the first layer, and of the second: both directions
    expected = sum(gates * 5 * (size + 5) for _, size, _ in product(range(7 * 2), inputs, range(2)))
    with MultiplyAdds([module]) as counted:
        module(torch.ones(7, 2, 3))
    assert counted.total == expected
    with MultiplyAdds([module]) as counted:
        module(input=torch.ones(7, 2, 3))
    assert counted.total == expected, "however it is called"


def test_a_projecting_lstm_counts_its_projections() -> None:
    module = nn.LSTM(3, 5, proj_size=2)
    with MultiplyAdds([module]) as counted:
        module(torch.ones(7, 1, 3))
    assert counted.total == 7 * (4 * 5 * (3 + 2) + 5 * 2)

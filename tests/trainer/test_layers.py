"""Layers against their definitions; dropout is the same however samples are grouped."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from data_shards.sequence import encode
from trainer.layers import BiLSTM, ConvPool, Dense, KeyedDropout, OneHot, compile_in_place
from trainer.recipe import Layer, build_layer


def test_one_hot_has_a_row_a_base_and_zeros_for_unknown_ones() -> None:
    codes = torch.from_numpy(encode("ACGTN")[None].copy())
    expected = torch.cat([torch.eye(4), torch.zeros(1, 4)]).T[None]
    assert torch.equal(OneHot()(codes), expected)


def test_conv_pool_is_convolution_relu_and_pooling() -> None:
    layer = ConvPool(4, 3, 5, 2)
    x = torch.randn(2, 4, 20)
    expected = nn.functional.max_pool1d(torch.relu(layer.conv(x)), 2)
    assert torch.equal(layer(x), expected)
    assert layer(x).shape == (2, 3, 8)


def test_the_lstm_trains_one_bias_a_gate_as_keras_does() -> None:
    layer = BiLSTM(6, 5)
    trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    assert trained == 2 * 4 * 5 * (6 + 5 + 1)
    assert layer(torch.randn(3, 6, 7)).shape == (3, 7, 10)
    assert layer(torch.randn(3, 6, 7)).is_contiguous()


def test_dense_flattens() -> None:
    x = torch.randn(2, 3, 4)
    layer = Dense(12, 5, relu=False)
    assert torch.allclose(layer(x), layer.linear(x.reshape(2, 12)))
    assert (Dense(12, 5, relu=True)(x) >= 0).all()


def dropout(rate: float, seed: int = 1) -> KeyedDropout:
    layer = KeyedDropout(rate).train()
    layer.bind(seed, layer=2, part=0)
    return layer


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 1000))
@settings(deadline=None)
def test_a_samples_mask_does_not_depend_on_its_micro_batch(sizes: list[int], first: int) -> None:
    x = torch.ones(sum(sizes), 3, 5)
    layer = dropout(0.4)
    layer.position = first
    whole = layer(x)
    begin = 0
    for size in sizes:
        layer.position = first + begin
        assert torch.equal(layer(x[begin : begin + size]), whole[begin : begin + size])
        begin += size


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_the_share_dropped_is_the_rate_and_the_mean_is_kept(rate: float) -> None:
    out = dropout(rate)(torch.ones(200, 1000))
    zeros = (out == 0).float()
    assert abs(zeros.mean().item() - rate) < 0.005
    assert abs(out.mean().item() - 1) < 0.02 / (1 - rate)
    # neither rows nor columns are favoured
    assert (zeros.mean(0) - rate).abs().max() < 0.2
    assert (zeros.mean(1) - rate).abs().max() < 0.1


def test_masks_are_independent_between_samples_and_elements() -> None:
    kept = (dropout(0.5)(torch.ones(400, 400)) != 0).double()
    correlation = torch.corrcoef(kept) - torch.eye(400)
    across = torch.corrcoef(kept.T) - torch.eye(400)
    assert correlation.abs().max() < 0.3
    assert across.abs().max() < 0.3


def test_masks_differ_by_seed_layer_part_and_position() -> None:
    x = torch.ones(4, 50)
    masks = []
    for seed, layer, part, position in ((1, 2, 0, 0), (2, 2, 0, 0), (1, 3, 0, 0), (1, 2, 1, 0),
                                        (1, 2, 0, 4)):  # fmt: skip
        module = KeyedDropout(0.5).train()
        module.bind(seed, layer, part)
        module.position = position
        masks.append(module(x))
    for i, one in enumerate(masks):
        assert not any(torch.equal(one, other) for other in masks[i + 1 :])


def test_the_mask_never_changes_between_versions() -> None:
    layer = dropout(0.5, seed=7)
    layer.position = 12345
    kept = (layer(torch.ones(2, 16)) != 0).int().tolist()
    assert kept == [
        [1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0],
        [1, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1],
    ]


def test_evaluation_drops_nothing() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(dropout(0.9).eval()(x), x)


def test_an_impossible_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="not in"):
        KeyedDropout(1.0)


def test_initial_weights_depend_on_seed_and_index_only() -> None:
    layer = Layer("dense", lambda: Dense(4, 4, relu=True))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = build_layer(layer, 3, 1).linear.weight
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's generator is untouched"
    torch.manual_seed(99)
    assert torch.equal(build_layer(layer, 3, 1).linear.weight, first)
    assert not torch.equal(build_layer(layer, 3, 2).linear.weight, first)
    assert not torch.equal(build_layer(layer, 4, 1).linear.weight, first)


@pytest.mark.slow
def test_a_compiled_layer_drops_what_it_dropped_before() -> None:
    def layer() -> nn.Module:
        return build_layer(
            Layer("d", lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), KeyedDropout(0.5))), 1, 2
        )

    plain, compiled = layer(), layer()
    compile_in_place(compiled)
    for position in (0, 4):
        x = torch.randn(4, 8)
        for module in (plain, compiled):
            next(p for p in module.modules() if isinstance(p, KeyedDropout)).position = position
        torch.testing.assert_close(compiled(x), plain(x))
        assert (compiled(x) == 0).any()

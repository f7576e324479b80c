"""A network starts from another's weights, as far as it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from data_shards.errors import InputError
from tests.trainer.checkpoint.networks import (
    NAMES,
    network,
    optimizer_of,
    save,
    saved,
    states_of,
)
from trainer.checkpoint.transfer import load_for_transfer, plan_transfer


def test_layers_are_matched_by_name_wherever_they_stand() -> None:
    plan = plan_transfer(
        ["in", "conv", "conv", "old"], ["conv", "extra", "conv", "in"], skip=["extra"],
        freeze=["conv"],
    )  # fmt: skip
    assert plan.sources == (1, None, 2, 0)
    assert plan.frozen == (True, False, True, False)
    assert plan.unused == ("old",)


def test_a_misspelt_layer_is_refused_with_the_nearest() -> None:
    for option in ("skip", "freeze"):
        choice = {"skip": [], "freeze": [], option: ["haed"]}
        with pytest.raises(InputError, match=f"{option}: the network has no layer 'haed'") as error:
            plan_transfer(NAMES, NAMES, **choice)
        assert error.value.remedy == "did you mean 'head'?"


def test_a_layer_that_only_the_network_has_must_be_named_as_fresh() -> None:
    with pytest.raises(InputError, match=r"no layer for 'heads' .*nearest is 'head'") as error:
        plan_transfer(["conv", "head"], ["conv", "heads"], skip=[], freeze=[])
    assert "add 'heads' to the layers to skip" in str(error.value.remedy)
    with pytest.raises(InputError, match="no layer for 'conv'"):
        plan_transfer(["conv"], ["conv", "conv"], skip=[], freeze=[])


def test_choices_that_learn_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="skipped and frozen"):
        plan_transfer(["a", "b"], ["a", "b"], skip=["a"], freeze=["a"])
    with pytest.raises(InputError, match="all layers are frozen"):
        plan_transfer(["a", "b"], ["a", "b"], skip=[], freeze=["a", "b"])


def test_a_new_head_keeps_its_weights_and_the_rest_are_loaded(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    net = network(1)
    net[5] = nn.Linear(6, 7)
    head = {key: value.clone() for key, value in net[5].state_dict().items()}
    places = {id(p) for p in net.parameters()}
    plan = load_for_transfer(
        checkpoint, NAMES, list(enumerate(net)), skip=["head"], freeze=["scale", "norm"]
    )
    assert plan.sources == (0, 1, 2, 3, 4, None)
    for index in range(5):
        with checkpoint.weights(index) as file:
            for key in file.keys:
                value = net[index].state_dict()[key.partition("/")[2]]
                assert torch.equal(file.tensor(key), value)
    assert all(torch.equal(head[key], value) for key, value in net[5].state_dict().items())
    assert places == {id(p) for p in net.parameters()}
    for index, module in enumerate(net):
        for name, parameter in module.named_parameters():
            frozen = index < 2 or name == "second.bias"
            assert parameter.requires_grad is not frozen, (index, name)


def test_a_worker_fills_its_own_layers_only(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    (checkpoint.folder / "layer-05-head.safetensors").unlink()
    net = network(1)
    load_for_transfer(checkpoint, NAMES, [(1, net[1])])
    assert net[1].num_batches_tracked == 3
    assert torch.equal(net[3].weight, network(1)[3].weight)


def test_a_layer_of_another_shape_is_refused_before_any_is_loaded(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    net = network(1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    wide = nn.Linear(6, 7)
    local = [*list(enumerate(net))[:5], (5, wide)]
    with pytest.raises(InputError, match=r"layer 5 \(head\): .* has shape \(2.* in the checkpoint, "
                                         r"\(7") as error:  # fmt: skip
        load_for_transfer(checkpoint, NAMES, local)
    assert "start fresh" in str(error.value.remedy)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_averages_are_loaded_when_asked_for(tmp_path: Path) -> None:
    net = network(0)
    optimizer = optimizer_of("sgd", list(net.parameters()))
    averages = [
        {name: torch.randn_like(p) for name, p in module.named_parameters() if p.requires_grad}
        for module in net
    ]
    checkpoint = save(tmp_path / "with", 1, states_of(net, optimizer, averages))
    other = network(1)
    load_for_transfer(checkpoint, NAMES, list(enumerate(other)), ema=True)
    for index, module in enumerate(other):
        for name, value in module.named_parameters():
            expected = averages[index].get(name, net[index].state_dict()[name])
            assert torch.equal(value, expected)
    with pytest.raises(InputError, match="no averaged weights"):
        load_for_transfer(saved(tmp_path / "without"), NAMES, list(enumerate(other)), ema=True)

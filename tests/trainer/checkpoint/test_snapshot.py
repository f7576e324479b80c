"""Snapshots are copies, taken of what belongs to a layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from data_shards.errors import InputError
from tests.trainer.checkpoint.networks import network, optimizer_of, states_of, train
from trainer.checkpoint.snapshot import HostBuffers, layer_state


def everything(net: nn.Sequential, optimizer: torch.optim.Optimizer) -> set[int]:
    live = [*net.parameters(), *net.buffers()]
    live += [value for state in optimizer.state.values() for value in state.values()]
    return {tensor.data_ptr() for tensor in live}


@pytest.mark.parametrize("reused", [False, True])
def test_training_does_not_change_a_snapshot(reused: bool) -> None:
    net = network(0)
    optimizer = optimizer_of("adamw", list(net.parameters()))
    train(net, optimizer, range(2))
    states = states_of(net, optimizer, buffers=HostBuffers() if reused else None)
    tensors = [t for s in states for t in ((s.tensors or {}) | s.optimizer).values()]
    copies = [tensor.clone() for tensor in tensors]
    train(net, optimizer, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))
    assert not everything(net, optimizer) & {tensor.data_ptr() for tensor in tensors}
    assert not any(tensor.requires_grad for tensor in tensors)


def test_buffers_are_used_again_and_hold_the_new_values() -> None:
    net = network(0)
    optimizer = optimizer_of("adamw", list(net.parameters()))
    train(net, optimizer, range(2))
    buffers = HostBuffers()
    places = []
    for step in range(2, 4):
        train(net, optimizer, range(step, step + 1))
        states = states_of(net, optimizer, buffers=buffers)
        for a, b in zip(states, states_of(net, optimizer), strict=True):
            assert a.tensors is not None
            assert b.tensors is not None
            assert a.tensors.keys() == b.tensors.keys()
            assert a.optimizer.keys() == b.optimizer.keys()
            assert all(torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors)
            assert all(torch.equal(a.optimizer[key], b.optimizer[key]) for key in a.optimizer)
        places.append(
            {t.data_ptr() for s in states for t in ((s.tensors or {}) | s.optimizer).values()}
        )
    assert places[0] == places[1]


def test_a_buffer_is_not_used_for_another_shape_or_dtype() -> None:
    buffers = HostBuffers()
    for source in (torch.ones(3), torch.ones(4), torch.ones(4, dtype=torch.int64)):
        copy = buffers.copy(0, "param/x", source)
        assert copy.dtype == source.dtype
        assert torch.equal(copy, source)


def test_who_does_not_write_weights_has_only_its_share_of_the_state() -> None:
    net = network(0)
    head = net[5]
    optimizer = torch.optim.AdamW([head.bias])
    head(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    state = layer_state(5, "head", head, optimizer, None, weights=False, part=1)
    assert state.tensors is None
    assert state.optimizer.keys() == {"step/bias", "exp_avg/bias", "exp_avg_sq/bias"}
    assert layer_state(3, "dense", net[3], optimizer, None, weights=False).optimizer == {}


def test_state_that_a_checkpoint_cannot_hold_is_refused() -> None:
    class Counting(nn.Module):
        def get_extra_state(self) -> object:
            return 3

        def set_extra_state(self, state: object) -> None: ...

    empty = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    with pytest.raises(InputError, match="Counting keeps _extra_state"):
        layer_state(0, "x", Counting(), empty, None, weights=True)


def test_optimizer_state_that_is_no_tensor_is_refused() -> None:
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters())
    optimizer.state[layer.weight] = {"calls": 3}
    with pytest.raises(TypeError, match="'calls' of weight as int"):
        layer_state(0, "x", layer, optimizer, None, weights=True)

"""What is restored goes on as if it had never stopped."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_shards.errors import CorruptDataError, InputError
from tests.trainer.checkpoint.networks import (
    KINDS,
    NAMES,
    Twice,
    network,
    optimizer_of,
    save,
    saved,
    states_of,
    train,
    writer_of,
)
from trainer.checkpoint.format import step_folder
from trainer.checkpoint.reader import Checkpoint
from trainer.checkpoint.restore import restore_layer
from trainer.checkpoint.snapshot import layer_state


def assert_same_state(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    """PyTorch's own account of two optimizers is the same, to dtype, device and stride."""
    left, right = a.state_dict()["state"], b.state_dict()["state"]
    assert left.keys() == right.keys()
    for number, state in left.items():
        assert state.keys() == right[number].keys()
        for key, value in state.items():
            other = right[number][key]
            assert (value.dtype, value.device) == (other.dtype, other.device)
            assert value.stride() == other.stride()
            assert not other.requires_grad
            assert torch.equal(value, other)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(KINDS), st.integers(0, 4), st.integers(0, 3))
def test_training_goes_on_bit_for_bit(kind: str, before: int, fresh: int) -> None:
    net = network(0)
    optimizer = optimizer_of(kind, list(net.parameters()))
    train(net, optimizer, range(before))
    other = network(1)
    resumed = optimizer_of(kind, list(other.parameters()))
    train(other, resumed, range(50, 50 + fresh))  # what it held before is forgotten
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save(Path(folder), before, states_of(net, optimizer))
        for index, module in enumerate(other):
            restore_layer(checkpoint, index, module, resumed, None)
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert_same_state(optimizer, resumed)
    steps = range(before, before + 3)
    assert train(net, optimizer, steps) == train(other, resumed, steps)
    assert_same_state(optimizer, resumed)


@settings(deadline=None, max_examples=6)
@given(st.sampled_from(KINDS), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_replicas_that_share_out_the_state_may_become_more_or_fewer(
    kind: str, writers: int, readers: int, seed: int
) -> None:
    net = network(0)
    whole = optimizer_of(kind, list(net.parameters()))
    train(net, whole, range(3))
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(seed)

    def share(parameters: list[nn.Parameter], count: int) -> list[list[nn.Parameter]]:
        owners = torch.randint(count, (len(parameters),), generator=generator).tolist()
        return [
            [p for p, owner in zip(parameters, owners, strict=True) if owner == replica]
            for replica in range(count)
        ]

    with tempfile.TemporaryDirectory() as folder:
        all_writers = [
            writer_of(Path(folder), rank=rank, workers=writers) for rank in range(writers)
        ]
        for rank, part in enumerate(share(trainable, writers)):
            optimizer = optimizer_of(kind, part or [nn.Parameter(torch.zeros(1))])
            optimizer.state.update({p: whole.state[p] for p in part if p in whole.state})
            states = states_of(net, optimizer, weights=rank == 0, part=rank)
            all_writers[rank].save(3, states)
        for writer in all_writers:
            assert writer.close(60)
            assert writer.faults() == []
        checkpoint = Checkpoint.open(Path(folder) / step_folder(3))
        other = network(1)
        parameters = [parameter for parameter in other.parameters() if parameter.requires_grad]
        merged = optimizer_of(kind, parameters)
        for part in share(parameters, readers):
            optimizer = optimizer_of(kind, part or [nn.Parameter(torch.zeros(1))])
            for index, module in enumerate(other):
                restore_layer(checkpoint, index, module, optimizer, None)
            assert optimizer.state.keys() <= set(part)
            merged.state.update(optimizer.state)
    assert_same_state(whole, merged)


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_laid_out_as_pytorch_lays_it_out(kind: str, tmp_path: Path) -> None:
    def make(seed: int) -> tuple[nn.Conv2d, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return conv, optimizer_of(kind, list(conv.parameters()))

    conv, optimizer = make(0)
    conv(torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)).sum().backward()
    conv.weight.grad = conv.weight.grad.contiguous(memory_format=torch.channels_last)
    optimizer.step()
    writer = writer_of(tmp_path, layers=["conv"])
    writer.save(1, [layer_state(0, "conv", conv, optimizer, None, weights=True)])
    assert writer.close(60)
    other, resumed = make(1)
    restore_layer(Checkpoint.open(tmp_path / step_folder(1)), 0, other, resumed, None)
    assert_same_state(optimizer, resumed)


def test_averages_are_filled_in_place(tmp_path: Path) -> None:
    net = network(0)
    optimizer = optimizer_of("sgd", list(net.parameters()))
    averages = [
        {name: torch.randn_like(p) for name, p in module.named_parameters() if p.requires_grad}
        for module in net
    ]
    checkpoint = save(tmp_path, 1, states_of(net, optimizer, averages))
    empty = [{name: torch.zeros_like(p) for name, p in layer.items()} for layer in averages]
    places = [value.data_ptr() for layer in empty for value in layer.values()]
    for index, module in enumerate(network(1)):
        restore_layer(checkpoint, index, module, None, empty[index])
    for before, after in zip(averages, empty, strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert places == [value.data_ptr() for layer in empty for value in layer.values()]


def test_averages_that_were_not_saved_are_missed(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    head = network(1)[5]
    before = {key: value.clone() for key, value in head.state_dict().items()}
    with pytest.raises(InputError, match=r"layer 5 \(head\) has no averaged weight") as error:
        restore_layer(checkpoint, 5, head, None, {"weight": torch.zeros(2, 6)})
    assert "optimizer.ema" in str(error.value.remedy)
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


def test_weights_can_be_loaded_in_a_narrower_float(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    exact, narrow = network(1)[3], network(1)[3].to(torch.bfloat16)
    restore_layer(checkpoint, 3, exact, None, None)
    restore_layer(checkpoint, 3, narrow, None, None)
    assert torch.equal(narrow.weight, exact.weight.to(torch.bfloat16))


def test_another_shape_is_refused_with_layer_and_both_shapes(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    with pytest.raises(InputError, match=r"layer 5 \(head\): weight has shape \(2, 6\) in the "
                                         r"checkpoint, \(2, 9\) in the network"):  # fmt: skip
        restore_layer(checkpoint, 5, nn.Linear(9, 2), None, None)


def test_other_tensors_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    with pytest.raises(InputError, match=r"layer 5 \(head\): only the checkpoint has bias"):
        restore_layer(checkpoint, 5, nn.Linear(6, 2, bias=False), None, None)
    with pytest.raises(InputError, match="only the network has bias"):
        restore_layer(checkpoint, 4, nn.Linear(6, 2), None, None)


def test_numbers_of_another_kind_are_refused(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    norm = nn.BatchNorm1d(6)
    norm.num_batches_tracked = torch.tensor(0.0)
    with pytest.raises(InputError, match=r"num_batches_tracked is torch\.int64 in the checkpoint"):
        restore_layer(checkpoint, 1, norm, None, None)


@pytest.mark.parametrize(("before", "after"), [("adamw", "momentum"), ("adamw", "rmsprop"),
                                               ("momentum", "sgd"), ("rmsprop", "adamw"),
                                               ("rmsprop", "rmsprop-momentum")])  # fmt: skip
def test_another_optimizer_is_refused_before_anything_is_loaded(
    before: str, after: str, tmp_path: Path
) -> None:
    checkpoint = saved(tmp_path, kind=before)
    head = network(1)[5]
    weight = head.weight.clone()
    optimizer = optimizer_of(after, list(head.parameters()))
    with pytest.raises(InputError, match=r"layer 5 \(head\): .* was saved with .* keeps "):
        restore_layer(checkpoint, 5, head, optimizer, None)
    assert torch.equal(head.weight, weight)
    assert not optimizer.state


def test_state_in_two_files_is_refused(tmp_path: Path) -> None:
    net = network(0)
    optimizer = optimizer_of("adamw", list(net.parameters()))
    train(net, optimizer, range(1))
    writers = [writer_of(tmp_path, rank=rank, workers=2) for rank in range(2)]
    for rank, writer in enumerate(writers):
        writer.save(1, states_of(net, optimizer, weights=rank == 0, part=rank))
    assert all(writer.close(60) for writer in writers)
    checkpoint = Checkpoint.open(tmp_path / step_folder(1))
    with pytest.raises(CorruptDataError, match=r"optimizer-1.*another file has the state of"):
        restore_layer(checkpoint, 5, net[5], optimizer, None)


def test_a_weight_with_two_names_stays_one_weight(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    twice = Twice(6)
    restore_layer(checkpoint, 2, twice, None, None)
    assert twice.first.weight is twice.second.weight
    content = load_file(checkpoint.folder / "layer-02-dense.safetensors")
    assert torch.equal(content["param/first.weight"], twice.first.weight)
    assert content.keys() == {"param/first.weight", "param/first.bias", "param/second.bias"}
    states = load_file(checkpoint.folder / "layer-02-dense.optimizer.safetensors")
    assert {key.partition("/")[2] for key in states} == {
        "first.weight",
        "first.bias",
    }


def test_files_of_a_layer_are_what_safetensors_itself_writes(tmp_path: Path) -> None:
    """So that any reader of safetensors reads them; the content is compared above."""
    checkpoint = saved(tmp_path / "a")
    path = checkpoint.folder / f"layer-00-{NAMES[0]}.safetensors"
    tensors: dict[str, Tensor] = load_file(path)
    save_file(tensors, tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
    assert tensors["param/shift"].dtype == torch.bfloat16

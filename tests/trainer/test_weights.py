"""Weights by layer: written whole, read by anyone, refused when changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from data_shards.errors import CorruptDataError
from trainer.recipe import Shape, build_layer
from trainer.recipes.danq import danq_layers
from trainer.weights import layer_file, load_weights, save_weights

SHAPE = Shape(300, 4)


@pytest.fixture(autouse=True)
def one_process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0,
                            world_size=1)  # fmt: skip
    yield
    dist.destroy_process_group()


def network(seed: int) -> list[tuple[int, nn.Module]]:
    layers = danq_layers("small", SHAPE)
    return [(index, build_layer(layer, seed, index)) for index, layer in enumerate(layers)]


NAMES = [layer.name for layer in danq_layers("small", SHAPE)]


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    saved, loaded = network(1), network(2)
    save_weights(tmp_path / "w", NAMES, saved, writer=True, about={"epoch": 3})
    load_weights(tmp_path / "w", NAMES, loaded)
    for (_, a), (_, b) in zip(saved, loaded, strict=True):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name])
    assert json.loads((tmp_path / "w" / "index.json").read_text())["epoch"] == 3
    assert not list(tmp_path.glob(".w*"))


def test_each_layer_is_a_file_of_its_own(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", NAMES, network(1), writer=True, about={})
    tensors = load_file(tmp_path / "w" / layer_file(3, "lstm"))
    assert "lstm.weight_ih_l0" in tensors
    [(_, lstm)] = [part for part in network(5) if part[0] == 3]
    load_weights(tmp_path / "w", NAMES, [(3, lstm)])
    assert torch.equal(lstm.state_dict()["lstm.weight_ih_l0"], tensors["lstm.weight_ih_l0"])


def test_a_changed_or_missing_layer_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", NAMES, network(1), writer=True, about={})
    path = tmp_path / "w" / layer_file(1, "conv")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptDataError, match=r"layer-01-conv.*missing or changed"):
        load_weights(tmp_path / "w", NAMES, network(1))
    path.unlink()
    with pytest.raises(CorruptDataError, match=r"layer-01-conv.*missing or changed"):
        load_weights(tmp_path / "w", NAMES, network(1))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", NAMES, network(1), writer=True, about={})
    with pytest.raises(CorruptDataError, match="the network has"):
        load_weights(tmp_path / "w", NAMES[:-1], network(1)[:-1])


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptDataError, match=r"index\.json: can't be read"):
        load_weights(tmp_path, NAMES, network(1))

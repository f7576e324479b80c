"""An exported model is plain PyTorch's."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_shards.errors import CorruptDataError, InputError
from tests.trainer.checkpoint.networks import (
    NAMES,
    network,
    optimizer_of,
    save,
    saved,
    states_of,
    train,
    writer_of,
)
from trainer.checkpoint.export import export_model
from trainer.checkpoint.format import step_folder
from trainer.checkpoint.reader import Checkpoint
from trainer.checkpoint.snapshot import layer_state

PLAIN = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from torch import nn
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(),
                    nn.Linear(8 * 10, 2))
net.load_state_dict(load_file(sys.argv[1] + "/model.safetensors"), strict=True)
net.eval()
with torch.no_grad():
    save_file({"y": net(torch.linspace(-1, 1, 3 * 4 * 12).reshape(3, 4, 12))}, sys.argv[2])
assert not {"trainer", "data_shards", "jobs"} & sys.modules.keys()
print(json.load(open(sys.argv[1] + "/model.json"))["layers"][0]["name"])
"""


def test_plain_pytorch_loads_it_without_us(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv1d(4, 8, 3),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 10, 2),
    )
    net(torch.randn(6, 4, 12)).sum().backward()  # so that running statistics are their own
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.step()
    names = ["conv", "norm", "relu", "flat", "head"]
    writer = writer_of(tmp_path / "run", layers=names)
    states = [
        layer_state(n, name, module, optimizer, None, weights=True)
        for n, (name, module) in enumerate(zip(names, net, strict=True))
    ]
    writer.save(1, states)
    assert writer.close(60)
    export_model(Checkpoint.open(tmp_path / "run" / step_folder(1)), tmp_path / "model", ema=False)
    command = [sys.executable, "-I", "-c", PLAIN, str(tmp_path / "model"), str(tmp_path / "y")]
    ran = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "conv\n"
    net.eval()
    with torch.no_grad():
        expected = net(torch.linspace(-1, 1, 3 * 4 * 12).reshape(3, 4, 12))
    torch.testing.assert_close(load_file(tmp_path / "y")["y"], expected, rtol=0, atol=1e-6)


def test_awkward_layers_come_back_bit_for_bit(tmp_path: Path) -> None:
    net = network(0)
    optimizer = optimizer_of("adamw", list(net.parameters()))
    train(net, optimizer, range(3))
    checkpoint = save(tmp_path / "run", 3, states_of(net, optimizer))
    export_model(checkpoint, tmp_path / "model", ema=False, about={"recipe": "x"})
    other = network(1)
    other.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"), strict=True)
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    described = json.loads((tmp_path / "model" / "model.json").read_bytes())
    assert (described["step"], described["averaged"]) == (3, False)
    assert described["about"] == {"recipe": "x"}
    assert [layer["name"] for layer in described["layers"]] == list(NAMES)
    assert described["layers"][1]["tensors"]["num_batches_tracked"] == {
        "dtype": "int64",
        "shape": [],
    }
    assert described["layers"][5]["parameters"] == 14
    content = (tmp_path / "model" / described["file"]["name"]).read_bytes()
    assert described["file"]["bytes"] == len(content)
    assert described["file"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_parameters_are_counted_once_however_many_names_they_have(tmp_path: Path) -> None:
    export_model(saved(tmp_path / "run"), tmp_path / "model", ema=False)
    described = json.loads((tmp_path / "model" / "model.json").read_bytes())
    counts = [sum(p.numel() for p in module.parameters()) for module in network(0)]
    assert [layer["parameters"] for layer in described["layers"]] == counts
    assert described["parameters"] == sum(counts)


def test_averages_stand_for_the_weights_that_have_them(tmp_path: Path) -> None:
    net = network(0)
    optimizer = optimizer_of("sgd", list(net.parameters()))
    train(net, optimizer, range(1))
    averages = [
        {name: torch.randn_like(p) for name, p in module.named_parameters() if p.requires_grad}
        for module in net
    ]
    checkpoint = save(tmp_path / "run", 1, states_of(net, optimizer, averages))
    export_model(checkpoint, tmp_path / "averaged", ema=True)
    export_model(checkpoint, tmp_path / "last", ema=False)
    averaged = load_file(tmp_path / "averaged" / "model.safetensors")
    last = load_file(tmp_path / "last" / "model.safetensors")
    expected = {
        key: averages[int(key.partition(".")[0])].get(key.partition(".")[2], value)
        for key, value in net.state_dict().items()
    }
    expected["2.second.weight"] = averages[2]["first.weight"]
    assert averaged.keys() == last.keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(last[key], value)
        assert torch.equal(averaged[key], expected[key]), key


def test_averages_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no averaged weights"):
        export_model(saved(tmp_path / "run"), tmp_path / "model", ema=True)
    assert not (tmp_path / "model").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="exists"):
        export_model(saved(tmp_path / "run"), tmp_path / "model", ema=False)


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "run")
    path = checkpoint.folder / "layer-03-dense.safetensors"
    save_file({"param/weight": torch.zeros(6, 6), "param/bias": torch.zeros(6)}, path)
    with pytest.raises(CorruptDataError, match="layer-03-dense"):
        export_model(checkpoint, tmp_path / "model", ema=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

"""Export: what plain PyTorch loads without us computes what the run's model computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from jobs.console import Console
from jobs.export import best_weights, config_of, export
from jobs.runfolder import find_run_folder
from tests.jobs.conftest import Demo
from trainer.trained import assemble

pytestmark = pytest.mark.slow

# Small DanQ for 300 bp and 4 tasks, as a person would write it who has nothing of ours.
PLAIN = """
import json, sys
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

class OneHot(nn.Module):
    def forward(self, codes):
        return torch.eye(5)[codes.long()][..., :4].transpose(1, 2)

class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 64, 26)
    def forward(self, x):
        return nn.functional.max_pool1d(torch.relu(self.conv(x)), 13)

class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(64, 32, batch_first=True, bidirectional=True)
    def forward(self, x):
        return self.lstm(x.transpose(1, 2))[0]

class Dense(nn.Module):
    def __init__(self, inputs, units, relu):
        super().__init__()
        self.linear, self.relu = nn.Linear(inputs, units), relu
    def forward(self, x):
        x = self.linear(x.flatten(1))
        return torch.relu(x) if self.relu else x

network = nn.Sequential(
    OneHot(), Conv(), nn.Identity(), Lstm(), nn.Identity(),
    Dense(21 * 64, 64, True), Dense(64, 4, False)
)
network.load_state_dict(load_file(sys.argv[1] + "/model.safetensors"))
codes = torch.from_numpy(np.load(sys.argv[2]))
with torch.no_grad():
    np.save(sys.argv[3], torch.sigmoid(network.eval()(codes)).numpy())
assert not {"trainer", "data_shards", "jobs"} & set(sys.modules)
"""


def test_plain_pytorch_loads_an_exported_model_and_computes_the_same(
    demo: Demo, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    result = export(demo.result["run_id"], out, demo.runs, None, Console(json=True))
    assert result["network"] == "danq"
    about = json.loads((out / "model.json").read_text())["about"]
    assert about["tasks"] == ["motif_a", "motif_b", "a_before_b", "a_before_b_near"]
    assert about["run_id"] == demo.result["run_id"]
    folder = find_run_folder(demo.runs, str(demo.run_folder))
    data = ShardedDataset(folder.identity().data)
    codes = data.gather("sequence", data.split_rows("test")[:64])
    np.save(tmp_path / "codes.npy", codes)
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    arguments = [script, out, tmp_path / "codes.npy", tmp_path / "out.npy"]
    subprocess.run([sys.executable, *arguments], check=True, cwd=tmp_path)
    model = assemble(config_of(folder), data.schema, best_weights(folder, "danq"))
    with torch.no_grad():
        expected = model(torch.from_numpy(codes)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)


def test_a_wrong_run_network_or_folder_is_refused_with_what_there_is(
    demo: Demo, tmp_path: Path
) -> None:
    console = Console(json=True)
    run = str(demo.run_folder)
    with pytest.raises(InputError, match="no run is called 'nope'"):
        export("nope", tmp_path / "x", demo.runs, None, console)
    with pytest.raises(InputError, match="no network 'lstm'") as caught:
        export(run, tmp_path / "x", demo.runs, "lstm", console)
    assert "danq-no-lstm" in (caught.value.remedy or "")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists"):
        export(run, tmp_path / "there", demo.runs, None, console)

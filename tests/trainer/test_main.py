"""Training under plain torchrun, without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from trainer.config import GridConfig, RunConfig


@pytest.mark.slow
def test_torchrun_trains_and_started_again_goes_on(danq_data: Path, tmp_path: Path) -> None:
    config = RunConfig(
        recipe="danq",
        size="small",
        epochs=1,
        baselines=False,
        grid=GridConfig(stages=2, device="cpu"),
    )
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", "2", "-m", "trainer", file, danq_data, tmp_path / "r"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answers = []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert answers[0]["danq"]["samples"] == 1600
    assert answers[0] == answers[1], "the second finds the training finished"
    wrong = [*torchrun, "--nproc-per-node", "1", "-m", "trainer", file, danq_data, tmp_path / "r"]
    done = subprocess.run(wrong, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "torchrun starts 1 worker(s), and the grid has 2" in done.stderr

"""The worked example of the page on sweeps runs, line by line, as it is written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "sweeps.md"


@pytest.mark.slow
def test_the_worked_example_of_sweeps_runs(tmp_path: Path) -> None:
    text = PAGE.read_text().partition("## A worked example")[2]
    [block, *_] = re.findall(r"```\n(.*?)```", text, re.S)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    for line in block.strip().splitlines():
        words = shlex.split(line.replace("--epochs 30", "--epochs 1"))
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "trials.parquet").is_file()
    assert (tmp_path / "best.toml").read_text().startswith("# trial ")

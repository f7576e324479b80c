"""The demo, run once as a user runs it, for all tests that look at what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Demo:
    """What a demo gave: its JSON object, what it said, where it ran, and its process group."""

    result: dict[str, Any]
    stderr: str
    folder: Path
    group: int

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def run_folder(self) -> Path:
        return Path(self.result["folder"])


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    command = Path(sys.executable).with_name("replisome")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    process = subprocess.Popen(
        [command, "demo", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return Demo(json.loads(stdout.splitlines()[-1]), stderr, folder, process.pid)

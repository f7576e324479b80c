"""What the tests of sweeps share: the command in a process, and a small data set."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.runfolder import RunFolder
from jobs.sweep.folder import SweepIdentity, find_sweep
from jobs.sweep.results import load_study

SMALL = ("--size", "small", "--epochs", "2", "--set", "grid.cut=parameters")


class Sweeps:
    """Runs ``replisome sweep`` on a data set, in a folder of its own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.runs = folder / "runs"

    def begin(self, name: str, *flags: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Begin a sweep; with one thread a worker, as another number sums in another order."""
        return self.start("danq", "--data", self.data, "--name", name, *flags, **environment)

    def resume(self, name: str, *flags: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Go on with a sweep."""
        return self.start("--resume", name, *flags, **environment)

    def start(self, *words: str | Path, **environment: str) -> subprocess.Popen[str]:
        command = Path(sys.executable).with_name("replisome")
        said = (self.folder / "said").open("a")
        return subprocess.Popen(
            [command, "sweep", *words, "--runs", self.runs, "--json"],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
        )

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def folder_of(self, name: str) -> RunFolder:
        return find_sweep(self.runs, name)

    def study(self, name: str) -> Any:
        identity = SweepIdentity.of(self.folder_of(name))
        assert identity is not None
        return load_study(identity.storage, identity.study)

    def until(self, process: subprocess.Popen[str], what: Callable[[], Any]) -> Any:
        """Wait until something is true, while the sweep is at work."""
        deadline = time.monotonic() + 180
        while not (value := what()):
            assert process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        return value

    def worker(self, name: str, rank: int) -> int:
        """Return the process of a worker of the newest group."""
        log = self.folder_of(name).log
        files = list(log.glob(f"slot-*/workers/{rank}.json"))
        newest = max(files, key=lambda path: path.stat().st_mtime)
        return int(json.loads(newest.read_text())["pid"])


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a command; return its JSON object with its exit status."""
    stdout, _ = process.communicate(timeout=400)
    answer: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return {**answer, "exit": process.returncode}


def kill_all(process: subprocess.Popen[str]) -> None:
    """End a driver and all that it started, as a power cut does."""
    tree = [psutil.Process(process.pid)]
    tree += tree[0].children(recursive=True)
    for victim in tree:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.communicate()
    psutil.wait_procs(tree, timeout=30)


@pytest.fixture
def sweeps(danq_data: Path, tmp_path: Path) -> Sweeps:
    return Sweeps(danq_data, tmp_path)

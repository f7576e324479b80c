"""A command, its time and the memory of all processes that it starts."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_PAUSE = 0.5  # seconds between two looks; a look costs milliseconds


@dataclass(frozen=True)
class Footprint:
    """What a command took.

    Attributes:
        begun: when it was started, seconds since the epoch.
        seconds: until it ended.
        resident: bytes that its processes had at most, shared pages counted in each (RSS).
        proportional: the same, shared pages counted once (PSS); 0 where it can't be read.
        processes: at most.
    """

    begun: float
    seconds: float
    resident: int
    proportional: int
    processes: int


class CommandError(Exception):
    """A command failed; has its last words."""


def watch(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], limit: float
) -> Footprint:
    """Run a command to its end.

    Raises:
        CommandError: it failed, or took longer than ``limit`` seconds.
    """
    most = _Most()
    with tempfile.TemporaryFile("w+") as output:
        begun = time.time()
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        over = threading.Event()
        thread = threading.Thread(target=_look, args=(process.pid, most, over), daemon=True)
        thread.start()
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            over.set()
            thread.join()
            if process.poll() is None:
                process.terminate()
                process.wait()
        seconds = time.time() - begun
        if code != 0:
            output.seek(0)
            lines = [line.strip() for line in output if line.strip()]
            words = next((line for line in reversed(lines) if "rror" in line), "no message")
            raise CommandError(f"exit status {code}: {words}")
    return Footprint(begun, seconds, most.resident, most.proportional, most.processes)


@dataclass
class _Most:
    resident: int = 0
    proportional: int = 0
    processes: int = 0


def _look(root: int, most: _Most, over: threading.Event) -> None:
    while not over.wait(_PAUSE):
        try:
            parent = psutil.Process(root)
            processes = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        resident = proportional = 0
        for process in processes:
            try:
                memory = process.memory_full_info()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            resident += memory.rss
            proportional += getattr(memory, "pss", 0)
        most.resident = max(most.resident, resident)
        most.proportional = max(most.proportional, proportional)
        most.processes = max(most.processes, len(processes))

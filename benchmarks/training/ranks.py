"""Functions run by processes of one group, without Ray; each gives back plain values.

    python -m benchmarks.training.ranks MODULE:FUNCTION ARGUMENTS.json RESULT.json

is one of these processes; :func:`on_ranks` starts them.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_LIMIT = 1800.0  # seconds until processes that say nothing are given up


class RankError(Exception):
    """A process ended without a result; has its last words."""


def on_ranks(
    workers: int,
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    threads: int,
) -> list[Any]:
    """Run ``work(**arguments)`` in processes of their own; return what each gives back, by rank.

    Args:
        workers: how many processes.
        work: a function of a module; in it the process group is up, and torch has its threads.
        arguments: plain values.
        threads: of torch, in each process.

    Raises:
        RankError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="rpl-bench-") as name:
        folder = Path(name)
        (folder / "arguments.json").write_text(json.dumps(dict(arguments)))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "WORLD_SIZE": str(workers),
            "LOCAL_WORLD_SIZE": str(workers),
            "BENCHMARK_MEET": str(folder / "meet"),
        }
        command = [sys.executable, "-m", "benchmarks.training.ranks"]
        command += [f"{work.__module__}:{work.__qualname__}", str(folder / "arguments.json")]
        processes = []
        for rank in range(workers):
            log = (folder / f"{rank}.log").open("w")
            processes.append(
                subprocess.Popen(
                    [*command, str(folder / f"{rank}.json")],
                    cwd=ROOT,
                    env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
            log.close()
        try:
            _wait(processes, folder)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(workers)]


def _wait(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Wait until all have ended well, or one has not."""
    deadline = time.monotonic() + _LIMIT
    while any(process.poll() is None for process in processes):
        failed = [rank for rank, one in enumerate(processes) if one.poll() not in (None, 0)]
        if failed or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for rank, process in enumerate(processes):
        if process.poll() not in (None, 0):
            raise RankError(f"rank {rank}: {(folder / f'{rank}.log').read_text()[-3000:]}")
    if any(process.poll() is None for process in processes):
        raise RankError(f"no result in {_LIMIT:.0f} s")


def main() -> None:
    import torch
    import torch.distributed as dist

    place, arguments, result = sys.argv[1:]
    module, _, name = place.partition(":")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group(
        "gloo",
        init_method=f"file://{os.environ['BENCHMARK_MEET']}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=_LIMIT),
    )
    work = getattr(importlib.import_module(module), name)
    given = work(**json.loads(Path(arguments).read_text()))
    Path(result).write_text(json.dumps(given))
    sys.stdout.flush()
    os._exit(0)  # threads of the process group would be waited for


if __name__ == "__main__":
    main()

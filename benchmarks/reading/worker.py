"""The process that one contender reads in: opened once, then told through a pipe what to do.

    python -m benchmarks.reading.worker GROUP CONTENDER FOLDER full|quick CORE

Requests are lines of JSON on standard input, replies on standard output: ``{"do": "check"}``,
``{"do": "slice", "round": 3, "seconds": 1.0}``. What a library prints goes to standard error.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.reading.contenders.registry import CONTENDERS
from benchmarks.reading.data import FULL, QUICK
from benchmarks.reading.groups import GROUPS, fault
from benchmarks.reading.task import Contender, Query, Reader, Task


def cpu_seconds() -> float:
    """CPU seconds of all threads of this process and of the processes that it started."""
    children = 0.0
    for task in Path("/proc/self/task").glob("*/children"):
        for child in task.read_text().split():
            fields = Path("/proc", child, "stat").read_text().rpartition(")")[2].split()
            children += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return time.process_time() + children


def slice_(reader: Reader, queries: list[Query], seconds: float, *, whole: bool) -> dict[str, Any]:
    """Read for so long; count units, CPU seconds (all threads) and seconds by the clock."""
    units = 0
    wall, cpu = time.perf_counter(), cpu_seconds()
    deadline = wall + seconds
    for query in itertools.cycle(queries):
        for answer in reader(query):
            units += len(answer[0])
            if not whole and time.perf_counter() >= deadline:
                break
        if time.perf_counter() >= deadline:
            break
    return {
        "units": units,
        "cpu": cpu_seconds() - cpu,
        "wall": time.perf_counter() - wall,
    }


def check(task: Task, contender: Contender, reader: Reader) -> dict[str, Any]:
    """Compare the first batch with numpy's; tell the versions that gave it."""
    query = GROUPS[task.group].queries(task, 0)[0]
    answer = next(iter(reader(query)))
    versions = {}
    for package in contender.packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {"fault": fault(task, query, answer, contender.form), "versions": versions}


def serve(task: Task, contender: Contender, reply: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests until standard input ends."""
    reader = contender.open(task)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "check":
            reply(check(task, contender, reader))
        else:
            queries = GROUPS[task.group].queries(task, request["round"])
            reply(slice_(reader, queries, request["seconds"], whole=contender.whole))


def main() -> None:
    group, name, folder, size, core = sys.argv[1:]
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    contender = CONTENDERS[group, name]
    if contender.threads == "one":
        os.sched_setaffinity(0, {int(core)})
    task = GROUPS[group].task(Path(folder), QUICK if size == "quick" else FULL)
    try:
        serve(task, contender, reply)
    except Exception as error:  # the table shows it; the driver can't see into this process
        traceback.print_exc()
        reply({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()

"""What a checkpoint costs training, and how long it takes to go on from one."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.training.contenders import build_engine, engine_step, median, micro_batches
from benchmarks.training.effort import Effort
from benchmarks.training.networks import Workload, workload
from benchmarks.training.ranks import on_ranks
from benchmarks.training.report import Report, Table, spread
from trainer.checkpoint.reader import Checkpoint, find_latest
from trainer.checkpoint.restore import restore_layer
from trainer.checkpoint.snapshot import layer_state
from trainer.checkpoint.writer import CheckpointWriter
from trainer.engine import Engine, prepare
from trainer.together import told

INTERVAL = 60.0  # seconds between two saves
_BATCH, _PARTS = 20, 4  # steps short beside the writing, whose cost does not depend on them
CUTS: dict[int, tuple[int, ...]] = {1: (0,), 2: (0, 4)}  # DanQ, by stages


def save(folder: str, stages: int, quick: bool, rounds: int) -> dict[str, Any]:
    """Train, and save now and then; every worker runs this."""
    prepare("cpu")
    work = workload("danq", quick=quick)
    engine = _engine(work, stages)
    step = engine_step(engine, work, micro_batches(work.batches(2, _BATCH), _PARTS))
    names = [layer.name for layer in work.layers]
    rank = dist.get_rank()
    writer = CheckpointWriter(Path(folder), rank, stages, names, "benchmark", keep=2)
    step()
    usual: list[float] = []
    slowed: list[float] = []
    for number in range(rounds + 1):
        for _ in range(5):
            begin = time.perf_counter()
            step()
            usual.append(time.perf_counter() - begin)
        buffers = writer.buffers()
        states = [
            layer_state(
                index, names[index], module, engine.optimizer, None, weights=True, buffers=buffers
            )
            for index, module in engine.stage.local_layers()
        ]
        writer.save(number, states, {"network": "danq"})
        begin, steps, written = time.perf_counter(), 0, False
        while not written:
            step()
            steps += 1
            written = _everywhere(writer.wait(0))
        slowed.append(time.perf_counter() - begin - steps * median(usual[-5:]))
    writer.close()
    if faults := writer.faults():
        raise RuntimeError(faults[0])
    # The first save makes its buffers in host memory, once a run.
    first, *reports = writer.reports()
    return {
        "first": first.snapshot,
        "snapshot": [one.snapshot for one in reports],
        "stalled": [one.stalled for one in reports],
        "write": [one.write for one in reports],
        "slowed": slowed[1:],
        "bytes": first.bytes,
        "step": median(usual),
    }


def restore(folder: str, stages: int, quick: bool) -> dict[str, float]:
    """Go on from the newest checkpoint, as after a restart; every worker runs this."""
    prepare("cpu")
    work = workload("danq", quick=quick)
    engine = _engine(work, stages)
    dist.barrier()
    begin = time.perf_counter()
    found = find_latest(Path(folder), print) if dist.get_rank() == 0 else None
    place = told(str(found.folder) if found else None, source=0)
    middle = time.perf_counter()
    if place is None:
        raise FileNotFoundError(f"{folder} has no checkpoint")
    checkpoint = Checkpoint.open(Path(place))
    for index, module in engine.stage.local_layers():
        restore_layer(checkpoint, index, module, engine.optimizer, None)
    dist.barrier()
    end = time.perf_counter()
    engine_step(engine, work, micro_batches(work.batches(1, _BATCH), _PARTS))()
    return {"find": middle - begin, "load": end - middle}


def _engine(work: Workload, stages: int) -> Engine:
    return build_engine(work, _BATCH, _PARTS, CUTS[stages])


def _everywhere(done: bool) -> bool:
    flag = torch.tensor(int(done))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def report(effort: Effort) -> Report:
    """Measure and write up."""
    rows = []
    for stages in CUTS:
        with tempfile.TemporaryDirectory(prefix="rpl-bench-", dir=_place(effort)) as folder:
            arguments = {"folder": folder, "stages": stages, "quick": effort.quick}
            threads = max(1, effort.cores // stages)
            rounds = arguments | {"rounds": effort.rounds}
            saves = on_ranks(stages, save, rounds, threads=threads)
            restores = on_ranks(stages, restore, arguments, threads=threads)
        rows.append(_row(stages, threads, saves, restores))
    return Report(
        "Checkpoints: their cost, and the time to go on from one",
        [
            "DanQ, 1,000 bp and 919 tasks, RMSprop: weights and one state of the optimizer. "
            "Stopped = (copy to host memory) + (wait for the save before), from the writer's own "
            "reports: training stands still. Slowed = (seconds of the steps that ran while files "
            "were written, flushed and hashed) - (as many median steps without): the writer "
            f"takes a core now and then. Fraction = seconds a save / {INTERVAL:.0f} s, for a save "
            "a minute; of several workers the slowest. The first save of a run also makes its "
            "buffers. To go on: find the newest checkpoint, then verify the checksums of its "
            "files and load weights and optimizer state; starting the processes comes on top "
            "(see the table of peers).",
            f"Medians over {effort.rounds} saves.",
        ],
        [
            Table(
                (
                    "workers",
                    "MB",
                    "stopped, s",
                    "fraction",
                    "first save stopped, s",
                    "slowed, s",
                    "stopped and slowed, fraction",
                    "written in, s",
                    "find, s",
                    "verify and load, s",
                ),
                rows,
            )
        ],
    )


def _place(effort: Effort) -> Path:
    effort.cache.mkdir(parents=True, exist_ok=True)
    return effort.cache


def _row(
    stages: int, threads: int, saves: list[dict[str, Any]], restores: list[dict[str, float]]
) -> tuple[str, ...]:
    stopped = [
        max(a + b for a, b in zip(columns[::2], columns[1::2], strict=True))
        for columns in zip(
            *(column for one in saves for column in (one["snapshot"], one["stalled"])), strict=True
        )
    ]
    slowed = [max(values) for values in zip(*(one["slowed"] for one in saves), strict=True)]
    written = [max(values) for values in zip(*(one["write"] for one in saves), strict=True)]
    both = median(stopped) + max(0.0, median(slowed))
    return (
        f"stages: {stages}, threads of each: {threads}",
        f"{sum(one['bytes'] for one in saves) / 1e6:,.0f}",
        spread(stopped),
        f"{median(stopped) / INTERVAL:.2%}",
        f"{max(one['first'] for one in saves):.3f}",
        spread(slowed, 2),
        f"{both / INTERVAL:.2%}",
        f"{median(written):.2f}",
        f"{max(one['find'] for one in restores):.2f}",
        f"{max(one['load'] for one in restores):.2f}",
    )

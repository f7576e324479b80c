"""DanQ trained by what users would pick: our command, Lightning, DeepSpeed, Selene."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training import data
from benchmarks.training.contenders import median
from benchmarks.training.effort import Effort
from benchmarks.training.envs import interpreter
from benchmarks.training.footprint import CommandError, Footprint, watch
from benchmarks.training.ranks import ROOT
from benchmarks.training.report import Report, Table, spread

BATCH = 100
_LIMIT = 900.0  # seconds until a command is given up
_SKIPPED = 3  # first steps: memory is taken, caches are cold


@dataclass(frozen=True)
class Task:
    """A network and what it is trained on.

    Attributes:
        size: of DanQ.
        dataset: makes the data set.
        epochs: over it.
    """

    size: str
    dataset: Callable[[Path], Path]
    epochs: int


TASKS = {
    "danq-small": Task("small", data.danq_short, 4),
    "danq": Task("paper", data.danq_brief, 2),
}


@dataclass(frozen=True)
class Peer:
    """One way to train.

    Attributes:
        name: as the table shows it.
        environment: where it runs, see ``envs.py``.
        module: of ``scripts``; empty for our command.
        stages: processes, one core each; or one process with all cores.
        launcher: starts the module.
    """

    name: str
    environment: str
    module: str = ""
    stages: int = 1
    launcher: tuple[str, ...] = ("-m",)


def _torchrun(stages: int) -> tuple[str, ...]:
    count = ("--nproc-per-node", str(stages))
    return ("-m", "torch.distributed.run", "--standalone", *count, "-m")


PEERS = (
    Peer("**replisome train**", "main"),
    Peer("**replisome train, 2 stages**", "main", stages=2),
    Peer("PyTorch Lightning", "lightning", "with_lightning"),
    Peer("DeepSpeed, torchrun", "main", "with_deepspeed", 1, _torchrun(1)),
    Peer("DeepSpeed, torchrun, 2 stages", "main", "with_deepspeed", 2, _torchrun(2)),
    Peer("Selene", "selene", "with_selene"),
)


@dataclass
class Outcome:
    """What came out for one of them.

    Attributes:
        peer: who.
        rates: samples a second, of each run.
        starts: seconds from the command to the end of the first step.
        footprints: of each run.
        versions: of its packages.
        fault: why there are no numbers.
    """

    peer: Peer
    rates: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    fault: str | None = None


Moment = tuple[int, float]
"""Steps taken, and when that was, in seconds since the epoch."""


def rate(moments: Sequence[Moment], per_epoch: int, batch: int) -> float:
    """Return samples a second, between epochs' ends and without the first steps.

    Args:
        moments: in order.
        per_epoch: steps an epoch: what comes between its last step and the next one's first
            (validation, saving, new worker processes) is not counted.
        batch: samples a step.
    """
    steps, seconds = 0, 0.0
    for (before, begin), (after, end) in pairwise(moments):
        place = before % per_epoch
        if before >= _SKIPPED and place > 0 and place + after - before <= per_epoch:
            steps += after - before
            seconds += end - begin
    return steps * batch / seconds


def first_step(moments: Sequence[Moment], step: float) -> float:
    """Return when the first step was over: logged, or reckoned back from the first that was.

    Args:
        moments: in order.
        step: seconds of one.
    """
    steps, moment = moments[0]
    return moment - (steps - 1) * step


def logged_moments(log: Path) -> list[Moment]:
    """Read from a run's ``metrics.jsonl`` when steps of training were over."""
    moments = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "metrics" and "train/loss" in event["values"]:
            moments.append((int(event["step"]), float(event["time"])))
    return moments


def export(dataset: Path, folder: Path) -> int:
    """Write the training samples for the peers, once; return how many there are.

    As ``codes.npy`` and ``labels.npy``, and for Selene ``samples.h5``, one-hot.
    """
    import h5py

    from data_shards.dataset import ShardedDataset

    opened = ShardedDataset(dataset)
    rows = opened.split_rows("train")
    if not (folder / "samples.h5").exists():
        folder.mkdir(parents=True, exist_ok=True)
        codes = opened.gather("sequence", rows)
        packed = opened.gather("labels", rows)
        tasks = len(opened.schema.tasks)
        labels = np.unpackbits(packed, axis=1, count=tasks, bitorder="little").astype(np.float32)
        np.save(folder / "codes.npy", codes)
        np.save(folder / "labels.npy", labels)
        unfinished = folder / "unfinished.h5"
        with h5py.File(unfinished, "w") as file:
            file["sequences"] = np.eye(5, 4, dtype=np.uint8)[codes]
            file["targets"] = labels
        unfinished.rename(folder / "samples.h5")
    return len(rows)


def _command(
    peer: Peer, task: Task, python: Path, dataset: Path, samples: Path, work: Path, effort: Effort
) -> list[str]:
    """Write the command line of one run."""
    threads = max(1, effort.cores // peer.stages)
    epochs = 1 if effort.quick else task.epochs
    if not peer.module:
        return [
            *(str(python.with_name("replisome")), "train", "danq", "--data", str(dataset)),
            *("--size", task.size, "--stages", str(peer.stages), "--batch-size", str(BATCH)),
            *("--epochs", str(epochs), "--no-baselines", "--runs", str(work), "--name", "run"),
        ]
    return [
        *(str(python), *peer.launcher, f"benchmarks.training.scripts.{peer.module}"),
        *("--data", str(samples), "--size", task.size, "--batch", str(BATCH)),
        *("--epochs", str(epochs), "--threads", str(threads), "--stages", str(peer.stages)),
        *("--result", str(work / "times.json"), "--work", str(work)),
    ]


def _run(outcome: Outcome, command: list[str], work: Path, per_epoch: int, *, keep: bool) -> None:
    """Run one of them once; keep what came out, or only what went wrong."""
    python = Path(command[0]).parent
    # A user's shell has the environment's commands on its path; DeepSpeed looks for ninja there.
    environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    try:
        footprint = watch(command, work, environment, _LIMIT)
    except CommandError as error:
        outcome.fault = str(error)
        return
    if outcome.peer.module:
        found: dict[str, Any] = json.loads((work / "times.json").read_text())
        moments = [(number, moment) for number, moment in enumerate(found["times"], start=1)]
        outcome.versions = found["versions"]
    else:
        moments = logged_moments(next(work.glob("danq/*/metrics.jsonl")))
    if keep:
        speed = rate(moments, per_epoch, BATCH)
        outcome.rates.append(speed)
        outcome.starts.append(first_step(moments, BATCH / speed) - footprint.begun)
        outcome.footprints.append(footprint)


def train(name: str, effort: Effort) -> list[Outcome]:
    """Let everybody train in turns; a first run, which is not counted, warms caches."""
    task = TASKS[name]
    dataset = task.dataset(effort.cache)
    samples = effort.cache / f"{dataset.stem}-samples"
    per_epoch = export(dataset, samples) // BATCH
    outcomes, pythons = [Outcome(peer) for peer in PEERS], {}
    for outcome in outcomes:
        python = interpreter(outcome.peer.environment, effort.envs, _say)
        if isinstance(python, str):
            outcome.fault = python
        else:
            pythons[outcome.peer.name] = python
    rounds = 1 if effort.quick else min(effort.rounds, 3)
    for number in range(0 if effort.quick else -1, rounds):
        for outcome in outcomes if number % 2 == 0 else reversed(outcomes):
            if outcome.fault is not None:
                continue
            with tempfile.TemporaryDirectory(prefix="rpl-bench-") as folder:
                work = Path(folder)
                peer = outcome.peer
                command = _command(peer, task, pythons[peer.name], dataset, samples, work, effort)
                _run(outcome, command, work, per_epoch, keep=number >= 0)
            _say(f"{name}, round {number + 1} of {rounds}: {outcome.peer.name}")
    return outcomes


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


FORMULA = (
    "Everybody trains the same DanQ (300 bp, 4 tasks) on the same simulated samples (a Zarr data "
    "set of `replisome data build danq`; for the others exported once, to arrays and to HDF5), "
    f"with RMSprop, batch {BATCH}, float32, by one command, on all cores of the machine: one "
    "process with as many threads, or two stages with one thread each. Samples/s = samples / "
    f"seconds between the ends of steps, without the first {_SKIPPED} steps and without what comes "
    "between epochs. First step = seconds from the command to the end of the first step. Memory "
    "is that of all processes of the command, at most: PSS counts a page that processes share "
    "once, RSS in each. Medians over runs; a run of each, uncounted, comes first."
)
NOTES = (
    "`replisome train` starts a private Ray, measures where to cut, logs to MLflow, validates "
    "after each epoch, saves checkpoints and tests; its moments are those of `metrics.jsonl`.",
    "PyTorch Lightning: LightningModule and DataLoader with one worker process, as gReLU trains. "
    "DeepSpeed: PipelineModule, cut by `parameters`, five micro-batches where there are two "
    "stages; its first start on a machine also compiles an operator, for about a minute. Selene: "
    "TrainModel on an HDF5 file in memory, without its learning-rate scheduler, whose default "
    "arguments PyTorch 2.13 refuses. The scripts are in `benchmarks/training/scripts`.",
)


def report(effort: Effort) -> Report:
    """Measure and write up."""
    page = Report(
        "DanQ, trained by what users would pick",
        [FORMULA, f"{1 if effort.quick else min(effort.rounds, 3)} runs of each, in turns."],
    )
    for name in effort.chosen(tuple(TASKS)):
        page.tables.append(_table(name, train(name, effort)))
    page.paragraphs += NOTES
    return page


def _table(name: str, outcomes: Sequence[Outcome]) -> Table:
    best = next((one for one in outcomes if not one.peer.module and one.rates), None)
    rows = []
    for one in outcomes:
        versions = ", ".join(f"{package} {number}" for package, number in one.versions.items())
        title = f"{one.peer.name}{f' ({versions})' if versions else ''}"
        if one.fault is not None:
            rows.append((title, f"no number: {one.fault}", "", "", "", "", ""))
            continue
        speed = median(one.rates)
        rows.append(
            (
                title,
                spread(one.rates, 0),
                f"{speed / median(best.rates):.2f}" if best else "",
                spread(one.starts, 1),
                f"{median([f.proportional for f in one.footprints]) / 1e6:,.0f}",
                f"{median([f.resident for f in one.footprints]) / 1e6:,.0f}",
                str(max(f.processes for f in one.footprints)),
            )
        )
    return Table(
        (
            "trained by",
            "samples/s",
            "beside ours",
            "first step after, s",
            "PSS, MB",
            "RSS, MB",
            "processes",
        ),
        rows,
        f"DanQ, {TASKS[name].size}",
    )

"""Worker groups without Ray that come to harm on purpose: killed, stopped, fed with nonsense.

The ranks are forked from a server that has imported everything, as in ``tests.ranks``; here each is
a process whose end is part of the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from jobs.configure import configure
from tests.ranks import _CONTEXT as CONTEXT

Kind = Literal["kill", "stop", "fail", "nan", "spike", "delete", "damage", "shorten", "slow"]


@dataclass(frozen=True)
class Harm:
    """What befalls a rank before it takes a step.

    Attributes:
        kind: SIGKILL or SIGSTOP; an error of its own; the losses of the step NaN or a thousand
            times as high; a file removed, or changed in a bit, or cut in half; a pause.
        rank: whose.
        step: which.
        path: the file.
    """

    kind: Kind
    rank: int
    step: int
    path: str = ""


@dataclass(frozen=True)
class End:
    """How a rank ended: exit code, what it returned, or the error's type and text."""

    code: int | None
    value: Any = None
    error: str = ""
    text: str = ""


def job_of(
    data: Path, folder: Path, grid: tuple[int, int], steps: int, settings: Mapping[str, Any] = {}
) -> Any:
    """Make the job of a small DanQ: an epoch of 100 steps, saved every 5 steps."""
    from data_shards.dataset import ShardedDataset
    from trainer.config import merge
    from trainer.results import TrainJob

    base = {
        "size": "small",
        "batch_size": 64,
        "epochs": 9,
        "baselines": False,
        "grid": {"stages": grid[0], "replicas": grid[1], "cut": "parameters", "device": "cpu"},
        "checkpoint": {"steps": 5, "seconds": 1000.0},
        "failure": {"hang_seconds": 30.0},
    }
    config = configure("danq", None, merge(base, settings))
    for name in ("log", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return TrainJob.of(config, ShardedDataset(data), folder, "cpu", max_steps=steps)


def run_group(job: Any, *harms: Harm, grace: float = 10.0) -> list[End]:
    """Run the training loop on all ranks until each has ended, one way or another.

    Once one rank has failed, the others get ``grace`` seconds to end by themselves before they are
    killed; Ray does not give them as much.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"
    with tempfile.TemporaryDirectory(prefix="rpl-group-") as folder:
        ranks = [
            CONTEXT.Process(target=_rank, args=(rank, job, harms, folder))
            for rank in range(job.grid.workers)
        ]
        for process in ranks:
            process.start()
        deadline = time.monotonic() + 120
        failed = False
        while time.monotonic() < deadline and any(process.is_alive() for process in ranks):
            time.sleep(0.02)
            ended = [rank for rank, process in enumerate(ranks) if not process.is_alive()]
            if not failed and any(
                _end(rank, ranks[rank].exitcode, Path(folder)).value is None for rank in ended
            ):
                failed, deadline = True, time.monotonic() + grace
        for process in ranks:
            if process.is_alive():
                process.kill()
            process.join()
        return [_end(rank, process.exitcode, Path(folder)) for rank, process in enumerate(ranks)]


def until_done(job: Any, *harms: Harm, restarts: int = 3) -> list[End]:
    """Run the group, and run it again without harm while it fails, as ``jobs.launch`` does."""
    ends = run_group(job, *harms)
    for attempt in range(1, restarts + 1):
        if all(end.value is not None for end in ends):
            return ends
        ends = run_group(replace(job, attempt=attempt))
    return ends


@dataclass(frozen=True)
class Trace:
    """What a run leaves that must not depend on what befell it."""

    losses: tuple[float, ...]
    weights: dict[str, str]
    best: dict[str, str]


def trace_of(job: Any) -> Trace:
    """Read the losses, and the checksums of the last state's and the best epoch's files."""
    from trainer.history import read_losses

    def newest(kind: str) -> dict[str, str]:
        folder = max((job.checkpoints / "danq" / kind).glob("step-*"))
        index = json.loads((folder / "index.json").read_text())
        return {file["name"]: file["sha256"] for file in index["files"]}

    return Trace(read_losses(job.losses("danq")), newest("state"), newest("best"))


def notes_of(job: Any) -> list[str]:
    """Read the lines that the run wrote for people."""
    lines = (job.run_folder / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["text"] for event in events if event["kind"] == "note"]


def _end(rank: int, code: int | None, folder: Path) -> End:
    path = folder / f"{rank}.pickle"
    if not path.exists():
        return End(code)
    value, error, text = pickle.loads(path.read_bytes())
    return End(code, value, error, text)


def _rank(rank: int, job: Any, harms: Sequence[Harm], folder: str) -> None:
    import torch
    import torch.distributed as dist

    workers = str(job.grid.workers)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    os.environ |= {"WORLD_SIZE": workers, "LOCAL_WORLD_SIZE": workers}
    torch.set_num_threads(1)
    answer: tuple[Any, str, str]
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{Path(folder) / 'meet'}",
            rank=rank,
            world_size=job.grid.workers,
            timeout=timedelta(seconds=job.config.failure.hang_seconds),
        )
        with _befalling([harm for harm in harms if harm.rank == rank]):
            from trainer.loop import run_worker

            answer = (run_worker(job), "", "")
    except BaseException as error:
        answer = (None, type(error).__name__, f"{error}\n{traceback.format_exc()}")
    partial = Path(folder) / f"{rank}.partial"
    partial.write_bytes(pickle.dumps(answer))
    partial.rename(Path(folder) / f"{rank}.pickle")
    os._exit(0)


@contextlib.contextmanager
def _befalling(harms: Sequence[Harm]) -> Iterator[None]:
    """Make an engine come to harm; in a forked process, so that nothing has to be undone."""
    from trainer.engine import Engine

    take = Engine.train_step

    def harmed(self: Any, step: int, micro_batches: Any, rate: float) -> Any:
        loss = self.objective._loss
        for harm in harms:
            if harm.step == step:
                _befall(harm, self)
        try:
            return take(self, step, micro_batches, rate)
        finally:
            self.objective._loss = loss

    Engine.train_step = harmed  # type: ignore[method-assign]
    yield


def _befall(harm: Harm, engine: Any) -> None:
    path, loss = Path(harm.path), engine.objective._loss
    match harm.kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "fail":
            raise ArithmeticError(f"made up at step {harm.step}")
        case "nan":
            engine.objective._loss = lambda *batch: loss(*batch) * float("nan")
        case "spike":
            engine.objective._loss = lambda *batch: loss(*batch) * 1000
        case "delete":
            path.unlink()
        case "damage":
            flip(path)
        case "shorten":
            os.truncate(path, path.stat().st_size // 2)
        case "slow":
            time.sleep(1.5)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        [byte] = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))

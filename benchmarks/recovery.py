"""Time to recover, and steps lost: workers and nodes harmed on purpose, under a small DanQ.

``python -m benchmarks.recovery`` measures and writes ``results/recovery.md``. Steps are slowed down
to a third of a second, so that what is measured is the recovery and not the machine's load by the
training itself. Nodes are simulated: several Ray nodes on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "recovery.md"
STEP_SECONDS = 0.3
BATCH = 200  # 32 steps an epoch: each is logged
HANG_SECONDS = 6.0
NOTICE_MS = 20_000
QUIET = 0.4  # part of all cores that is busy; the slowed run takes about a quarter
PATIENCE = 180.0  # seconds for anything to happen


@dataclass(frozen=True)
class Recovery:
    """One harm and what came of it.

    Attributes:
        case: what was done.
        seconds: from the harm to the first step that had not been taken before the run stopped, or
            was taken again.
        lost: steps that were taken again.
        busy: how busy the machine was just before, part of all cores; the run's own steps included.
        said: what the run told its user.
    """

    case: str
    seconds: float
    lost: int
    busy: float
    said: list[str]


# The run ----------------------------------------------------------------------------------------


def settings(stages: int, replicas: int) -> dict[str, Any]:
    """Return the settings of the run."""
    return {
        "size": "small",
        "batch_size": BATCH,
        "epochs": 1000,
        "patience": 1000,
        "baselines": False,
        "optimizer": {"name": "sgd", "lr": 0.01},
        "grid": {"stages": stages, "replicas": replicas, "cut": "parameters", "device": "cpu"},
        "checkpoint": {"steps": 10},
        "failure": {"hang_seconds": HANG_SECONDS},
    }


def drive(data: Path, folder: Path, stages: int, replicas: int) -> None:
    """Train until interrupted, on the cluster that RAY_ADDRESS names or a private one."""
    import jobs.launch
    from data_shards.dataset import ShardedDataset
    from jobs.cluster import cluster, share
    from jobs.configure import configure
    from trainer.grid import grid_of
    from trainer.results import TrainJob

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, if started in background
    config = configure("danq", None, settings(stages, replicas))
    said = (folder / "said.jsonl").open("a")

    def say(text: str) -> None:
        said.write(json.dumps([time.time(), text]) + "\n")
        said.flush()

    for name in ("log", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    jobs.launch._work = slowed(jobs.launch._work)  # type: ignore[assignment]
    with cluster() as found:
        job = TrainJob.of(config, ShardedDataset(data), folder, "cpu")
        try:
            jobs.launch.launch(
                job, share(found, grid_of(config.grid), "cpu"), folder / "log", say, wait=90
            )
        except Exception as error:
            say(f"{type(error).__name__}: {error}")
            raise


def slowed(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the worker's function with a pause in each step."""

    def slow(job: Any) -> Any:
        from trainer.engine import Engine

        take = Engine.train_step

        def paused(*arguments: Any) -> Any:
            time.sleep(STEP_SECONDS)
            return take(*arguments)

        Engine.train_step = paused  # type: ignore[method-assign,assignment]
        return work(job)

    return slow


class Drive:
    """A run in a process of its own, followed by its event log."""

    def __init__(self, data: Path, folder: Path, grid: tuple[int, int], patience: float) -> None:
        self.folder, self.patience = folder, patience
        folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--drive", data, folder, *grid]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.recovery", *map(str, arguments)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=(folder / "stdout").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def events(self) -> list[dict[str, Any]]:
        """Read the event log."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def steps(self, since: float = 0.0) -> list[tuple[float, int]]:
        """Return time and number (from 1) of each step that was logged since."""
        return [
            (event["time"], event["step"])
            for event in self.events()
            if "train/loss" in event["values"] and event["time"] > since
        ]

    def said(self, since: float = 0.0) -> list[str]:
        """Return what the run told its user since."""
        path = self.folder / "said.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [text for at, text in map(json.loads, lines) if at > since]

    def until(self, what: str, true: Callable[[], Any]) -> Any:
        """Wait until something is true."""
        deadline = time.monotonic() + PATIENCE
        while not (value := true()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "stdout").read_text()[-3000:]
                raise RuntimeError(f"no {what}; said {self.said()}; log:\n{log}")
            time.sleep(0.05)
        return value

    def more_steps(self, count: int) -> None:
        """Wait until so many steps were taken since now."""
        now = time.time()
        self.until(f"{count} steps", lambda: len(self.steps(now)) >= count)

    def recovery(self, case: str, harm: Callable[[], None]) -> Recovery:
        """Wait for a quiet moment, do harm, and wait until the run goes on."""
        busy = quiet_moment(self.patience)
        begin = time.time()
        harm()
        at, text = self.until(
            "restart after " + case,
            lambda: next(
                (
                    (event["time"], event["text"])
                    for event in self.events()
                    if event["text"].startswith("goes on at step") and event["time"] > begin
                ),
                None,
            ),
        )
        resumed = int(text.split()[4].rstrip(",").replace(",", ""))
        first, _ = self.until("step", lambda: self.steps(at))[0]
        taken = max(step for when, step in self.steps() if when < at)
        return Recovery(case, first - begin, taken - resumed, busy, self.said(begin))

    def worker(self, number: int) -> int:
        """Return the process id of a worker."""
        signed_in = (self.folder / "log").glob(f"ray-*/workers/{number}.json")
        newest = max(signed_in, key=lambda path: path.stat().st_mtime)
        return int(json.loads(newest.read_text())["pid"])

    def end(self) -> list[float]:
        """Interrupt the run; return the losses of its steps."""
        from trainer.history import read_losses

        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        return list(read_losses(self.folder / "losses" / "danq.f64"))

    def close(self) -> None:
        """End the run's processes, whatever their state."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


# The harm ---------------------------------------------------------------------------------------


def quiet_moment(patience: float) -> float:
    """Wait until others leave the machine alone, or so long; return how busy it is, 0 to 1."""
    import psutil

    deadline = time.monotonic() + patience
    while True:
        busy = psutil.cpu_percent(interval=1.0) / 100
        if busy < QUIET or time.monotonic() > deadline:
            return busy


def workers_harmed(
    data: Path, folder: Path, times: int, patience: float
) -> tuple[list[Recovery], list[float]]:
    """Kill a worker so many times, then stop one; on a private cluster, 2 stages."""
    with contextlib.closing(Drive(data, folder, (2, 1), patience)) as run:
        found = []
        run.more_steps(10)  # the first checkpoint
        for number in range(times):
            run.more_steps(12)  # a checkpoint, or the run gives up after some restarts
            kill = partial(os.kill, run.worker(number % 2), signal.SIGKILL)
            found.append(run.recovery("worker killed", kill))
        run.more_steps(7)
        stop = partial(os.kill, run.worker(1), signal.SIGSTOP)
        found.append(run.recovery("worker hangs", stop))
        run.more_steps(12)
        return found, run.end()


def nodes_harmed(data: Path, folder: Path, patience: float) -> tuple[list[Recovery], list[float]]:
    """Take nodes away and bring them back; 2 stages x 2 replicas on 2 nodes of 2 CPUs."""
    with contextlib.ExitStack() as stack:
        cluster, add = stack.enter_context(ray_nodes())
        first, second = add(), add()
        run = stack.enter_context(contextlib.closing(Drive(data, folder, (2, 2), patience)))
        found = []

        def take(node: Any) -> None:
            cluster.remove_node(node, allow_graceful=False)

        run.more_steps(17)
        found.append(run.recovery("node lost", lambda: take(second)))
        run.more_steps(3)
        added: list[Any] = []
        found.append(run.recovery("node returns", lambda: added.append(add())))
        [third] = added
        run.more_steps(3)
        found.append(run.recovery("notice", lambda: notify(third.node_id)))
        take(third)
        run.more_steps(7)

        def all_lost() -> None:
            take(first)
            run.until("wait", lambda: [text for text in run.said() if "waiting for nodes" in text])
            add()

        found.append(run.recovery("no room", all_lost))
        run.more_steps(12)
        return found, run.end()


@contextlib.contextmanager
def ray_nodes() -> Iterator[tuple[Any, Callable[[], Any]]]:
    """Start a Ray cluster whose head takes no work; yields it and what adds a node of 2 CPUs."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield cluster, lambda: cluster.add_node(num_cpus=2)
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()
        cluster.shutdown()


def notify(node: str) -> None:
    """Tell the cluster that a node is about to be taken away, as a cloud's notice does."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # ray has no types
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client = GcsClient(address=os.environ["RAY_ADDRESS"])
    deadline = int(time.time() * 1000) + NOTICE_MS
    accepted, why = client.drain_node(node, reason, "notice", deadline)
    if not accepted:
        raise RuntimeError(why)


# The table --------------------------------------------------------------------------------------


def main() -> None:
    """Measure, or do one part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drive", nargs=4, metavar=("DATA", "FOLDER", "STAGES", "REPLICAS"))
    parser.add_argument("--case", choices=("workers", "nodes"))
    parser.add_argument("--data", type=Path, help="a DanQ data set; default: simulated")
    parser.add_argument("--folder", type=Path, help="where the run leaves its files")
    parser.add_argument("--times", type=int, default=5, help="workers killed")
    parser.add_argument(
        "--patience", type=float, default=60.0, help="seconds to wait for a quiet moment, each time"
    )
    options = parser.parse_args()
    if options.drive:
        data, folder, stages, replicas = options.drive
        with contextlib.suppress(KeyboardInterrupt):
            drive(Path(data), Path(folder), int(stages), int(replicas))
        return
    with tempfile.TemporaryDirectory(prefix="rpl-", dir="/tmp") as scratch:
        os.environ.setdefault("RAY_TMPDIR", scratch)
        folder = options.folder or Path(scratch)
        data = options.data or simulated(folder)
        found: list[Recovery] = []
        losses: dict[str, list[float]] = {}
        if options.case != "nodes":
            recoveries, losses["workers"] = workers_harmed(
                data, folder / "w", options.times, options.patience
            )
            found += recoveries
        if options.case != "workers":
            recoveries, losses["nodes"] = nodes_harmed(data, folder / "n", options.patience)
            found += recoveries
    if options.case:
        print(json.dumps({"recoveries": [asdict(r) for r in found], "losses": losses}))
        return
    RESULT.write_text(report(found))


def simulated(folder: Path) -> Path:
    """Build the danq recipe's simulated data set."""
    command = Path(sys.executable).with_name("replisome")
    raw, out = folder / "raw", folder / "x.zarr"
    for arguments in (
        ["data", "simulate", "danq", "--out", str(raw)],
        ["data", "build", "danq", "--from", str(raw), "--out", str(out)],
    ):
        subprocess.run([command, *arguments], check=True, capture_output=True)
    return out


def report(found: list[Recovery]) -> str:
    """Return the table as Markdown."""
    import platform

    import psutil
    import ray
    import torch

    rows = []
    for case in dict.fromkeys(recovery.case for recovery in found):
        of = [recovery for recovery in found if recovery.case == case]
        seconds = [recovery.seconds for recovery in of]
        lost = max(recovery.lost for recovery in of)
        rows.append(
            f"| {case} | {len(of)} | {statistics.median(seconds):.1f} "
            f"({min(seconds):.1f} to {max(seconds):.1f}) | {lost} | "
            f"{statistics.median(recovery.busy for recovery in of):.0%} |"
        )
    load = os.getloadavg()[1]
    return "\n".join(
        [
            "# Recovery",
            "",
            "`python -m benchmarks.recovery`",
            "",
            f"{time.strftime('%Y-%m-%d')}; {psutil.cpu_count()} cores, "
            f"{psutil.virtual_memory().total >> 30} GiB; Linux {platform.release()}; Python "
            f"{platform.python_version()}, torch {torch.__version__}, ray {ray.__version__}; load "
            f"average of the last 5 minutes {load:.1f}, the benchmark's own included.",
            "",
            f"Small DanQ, a step of {STEP_SECONDS:g} s, a checkpoint every 10 steps. Time from the "
            "harm to the first step after it: median (range). Steps lost were taken again, with "
            "the same losses. Busy: part of all cores in the second before, with the run's own; "
            "what others do during a recovery makes it longer.",
            "",
            "| case | times | seconds | steps lost | busy before |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()

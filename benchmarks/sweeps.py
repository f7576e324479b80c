"""What a trial costs beside its training: warm slots against Ray Tune and against plain Optuna.

``python -m benchmarks.sweeps`` measures and writes ``results/sweeps.md``. All three run the same
training (small DanQ, one worker) on the same machine, one after the other.

A trial's overhead is the time from the start of its training to the start of the next one's, less
the training itself; the first trial of each, which pays for the start, is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "sweeps.md"
EPOCHS = 2
LONG = 30.0  # seconds of the trial that the ratio is told for
TARGET, TUNE_TARGET = 0.6, 20.0


@dataclass(frozen=True)
class Trial:
    """When a trial's training began, and how long it took; seconds."""

    begin: float
    seconds: float


@dataclass(frozen=True)
class Found:
    """What a contender needed.

    Attributes:
        name: of the contender.
        start: seconds from its start to the first training.
        overheads: of each trial but the last.
        training: seconds of the median trial.
    """

    name: str
    start: float
    overheads: list[float]
    training: float

    @property
    def overhead(self) -> float:
        """Of the median trial."""
        return statistics.median(self.overheads)


def found(name: str, start: float, trials: list[Trial]) -> Found:
    """Work a contender's trials out."""
    trials = sorted(trials, key=lambda trial: trial.begin)
    gaps = [b.begin - a.begin - a.seconds for a, b in pairwise(trials)]
    training = statistics.median(trial.seconds for trial in trials)
    return Found(name, trials[0].begin - start, gaps, training)


# The training -----------------------------------------------------------------------------------


def train_once(data: str, folder: Path, settings: dict[str, Any], watcher: Any = None) -> Trial:
    """Train once in this process, whose process group is up; note when and how long."""
    import torch.distributed as dist

    from data_shards.dataset import ShardedDataset
    from jobs.configure import configure
    from trainer.engine import prepare
    from trainer.events import EventWriter
    from trainer.loop import Worker
    from trainer.results import TrainJob
    from trainer.trial import run_trial

    dataset = ShardedDataset(data)
    config = configure("danq", None, settings)
    (folder / "log").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    job = TrainJob.of(config, dataset, folder, "cpu")
    events = EventWriter(folder / "metrics.jsonl")
    begin = time.time()
    worker = Worker(job, dist.get_rank(), prepare("cpu"), dataset, events, watcher)
    result = run_trial(worker)
    return Trial(begin, result.seconds)


def settings_of(lr: float) -> dict[str, Any]:
    """Return the settings of a trial."""
    return {
        "size": "small",
        "epochs": EPOCHS,
        "baselines": False,
        "optimizer": {"lr": lr},
        "grid": {"stages": 1, "replicas": 1, "cut": "parameters", "device": "cpu"},
    }


# The contenders ---------------------------------------------------------------------------------


def warm_slots(data: Path, folder: Path, trials: int, slots: int = 1) -> tuple[Found, float]:
    """Run ``replisome sweep``; return what it needed, and the seconds of all trials together."""
    space = folder / "space.toml"
    space.write_text('["optimizer.lr"]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n')
    name = f"slots-{slots}"
    command = [
        Path(sys.executable).with_name("replisome"), "sweep", "danq", "--data", data,
        "--name", name, "--runs", folder / "runs", "--space", space, "--size", "small",
        "--epochs", str(EPOCHS), "--set", "grid.cut=parameters", "--sampler", "random",
        "--pruner", "none", "--trials", str(trials), "--slots", str(slots), "--json",
    ]  # fmt: skip
    start = time.time()
    subprocess.run(command, check=True, capture_output=True)
    from jobs.sweep.results import load_study

    sweep = folder / "runs" / "danq" / name
    identity = json.loads((sweep / "sweep.json").read_text())
    study = load_study(identity["storage"], identity["study"])
    done = [
        Trial(trial.datetime_start.timestamp(), trial.user_attrs["replisome.train_seconds"])
        for trial in study.trials
        if trial.datetime_start is not None
    ]
    ends = [
        trial.datetime_complete.timestamp() for trial in study.trials if trial.datetime_complete
    ]
    span = max(ends) - min(trial.begin for trial in done)
    return found("replisome, warm slot", start, done), span


def plain_optuna(data: str, folder: Path, trials: int) -> Found:
    """Run the same training from Optuna's own loop, in one process."""
    import optuna
    import torch.distributed as dist

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    start = time.time()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
    done: list[Trial] = []

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        done.append(train_once(data, folder / str(trial.number), settings_of(lr)))
        return 0.0

    storage = f"sqlite:///{folder / 'study.db'}"
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=trials)
    return found("Optuna, one process", start, done)


def ray_tune(data: str, folder: Path, trials: int) -> Found:
    """Run the same training as Ray Train jobs under Ray Tune, with OptunaSearch and ASHA.

    On a Ray with its own defaults. Without the dashboard a trial's resources are not given back
    (Ray Train asks it which trials have ended), and the second trial waits for ever.
    """
    # Ray would else leave a token in the home folder.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray

    # A slot to spare: a trial's function waits beside its workers.
    ray.init(
        address="local",
        include_dashboard=True,
        dashboard_port=_free_port(),
        num_cpus=(os.cpu_count() or 1) + 1,
    )
    try:
        start, done = time.time(), _tuned(data, folder, trials)
    finally:
        ray.shutdown()
    return found("Ray Tune, OptunaSearch and ASHA", start, done)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tuned(data: str, folder: Path, trials: int) -> list[Trial]:
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    log = folder / "trials.jsonl"

    def work(config: dict[str, Any]) -> None:
        import ray.train

        def report(epoch: int, scores: Any) -> bool:
            ray.train.report({"loss": scores.loss, "epoch": epoch})
            return False

        place = Path(tempfile.mkdtemp(dir=folder))
        done = train_once(data, place / "run", settings_of(config["lr"]), report)
        with log.open("a") as stream:
            stream.write(json.dumps([done.begin, done.seconds]) + "\n")

    def trial(config: dict[str, Any]) -> None:
        TorchTrainer(
            work,
            train_loop_config=config,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(
                storage_path=str(folder / "train"), callbacks=[TuneReportCallback()]
            ),
        ).fit()

    tune.Tuner(
        tune.with_resources(trial, {"cpu": 0.01}),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=trials,
            max_concurrent_trials=1,
            search_alg=OptunaSearch({"lr": tune.loguniform(1e-4, 1e-2)}, metric="loss", mode="min"),
            scheduler=ASHAScheduler(time_attr="epoch", max_t=EPOCHS, grace_period=EPOCHS),
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune")),
    ).fit()
    return [Trial(*json.loads(line)) for line in log.read_text().splitlines()]


# The table --------------------------------------------------------------------------------------


def main() -> None:
    """Measure, or do one contender's part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", choices=("plain", "tune"), help="only this one, as JSON")
    parser.add_argument("--data", type=Path, help="a DanQ data set; default: simulated")
    parser.add_argument("--folder", type=Path, help="where files are left")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--tune-trials", type=int, default=4, help="of Ray Tune, which is slow")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rpl-", dir="/tmp") as scratch:
        os.environ.setdefault("RAY_TMPDIR", scratch)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        folder = options.folder or Path(scratch)
        if options.contender:
            contend = plain_optuna if options.contender == "plain" else ray_tune
            one = contend(str(options.data), folder, options.trials)
            sys.stdout.write(json.dumps(one.__dict__) + "\n")
            return
        from benchmarks.recovery import simulated

        data = options.data or simulated(folder)
        rows = [
            apart("plain", data, folder / "plain", options.trials),
            apart("tune", data, folder / "tune", options.tune_trials),
        ]
        warm, _ = warm_slots(data, folder, options.trials)
        _, together = warm_slots(data, folder, options.trials, slots=2)
    RESULT.write_text(report([warm, *rows], options.trials / together * 3600))


def apart(contender: str, data: Path, folder: Path, trials: int) -> Found:
    """Run a contender in a process of its own."""
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.sweeps", "--contender", contender]
    command += ["--data", str(data), "--folder", str(folder), "--trials", str(trials)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def report(rows: list[Found], per_hour: float) -> str:
    """Return the table as Markdown."""
    import platform
    from importlib.metadata import version

    import psutil

    warm, plain, tune = rows
    table = [
        f"| {row.name} | {len(row.overheads) + 1} | {row.start:.1f} | {row.training:.2f} | "
        f"{row.overhead:.2f} ({min(row.overheads):.2f} to {max(row.overheads):.2f}) | "
        f"{(LONG + row.overhead) / (LONG + plain.overhead):.2f} |"
        for row in rows
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "optuna", "torch"))
    return "\n".join(
        [
            "# Sweeps",
            "",
            "`python -m benchmarks.sweeps`",
            "",
            f"{time.strftime('%Y-%m-%d')}; {psutil.cpu_count()} cores; Linux {platform.release()}; "
            f"{versions}; small DanQ, {EPOCHS} epochs, one worker, one thread, a trial at a time.",
            "",
            "Overhead: from the start of a training to the start of the next, less the training: "
            "median (range). Last column: (30 s + overhead) / (30 s + Optuna's overhead).",
            "",
            "| | trials | first training after, s | training, s | overhead a trial, s | "
            "30-s trials, times Optuna's time |",
            "|---|---:|---:|---:|---:|---:|",
            *table,
            "",
            f"A warm trial's overhead is {tune.overhead / warm.overhead:.0f} times less than Ray "
            f"Tune's (target {TUNE_TARGET:.0f}; {TARGET} s at most). Two slots: {per_hour:.0f} "
            "trials an hour.",
            "",
        ]
    )


if __name__ == "__main__":
    main()

"""``replisome train``: from a data set to a tracked, scored model beside its baselines."""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_shards.dataset import ShardedDataset
from data_shards.documents import parse, read_toml
from data_shards.errors import InputError
from jobs.cluster import Cluster, Share, cluster, share
from jobs.configure import continued, preflight
from jobs.console import Bars, Console
from jobs.journal import Journal, Status
from jobs.provenance import command_line, git_commit
from jobs.runfolder import Identity, RunFolder, create_run_folder, find_run_folder
from jobs.sight import check_sight
from trainer.config import RunConfig
from trainer.events import FILE_NAME, Event, EventWriter
from trainer.grid import grid_of
from trainer.recipe import EstimatorBaseline
from trainer.recipes import get_recipe

if TYPE_CHECKING:
    from jobs.delivery import Delivery
    from trainer.metrics import Scores
    from trainer.results import TrainJob


@dataclass(frozen=True)
class TrainRequest:
    """What a person asked for.

    Attributes:
        config: resolved configuration.
        data: path or URL of the data set.
        runs: the folder of all runs.
        experiment: name of the experiment; by default the recipe's.
        name: name of the run; by default made up.
    """

    config: RunConfig
    data: str
    runs: Path
    experiment: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class _Run:
    """A run at work: what it is, and where it is written down."""

    config: RunConfig
    data: ShardedDataset
    folder: RunFolder
    journal: Journal


def train(request: TrainRequest, console: Console) -> dict[str, Any]:
    """Train, evaluate, compare with the baselines and log everything.

    Returns:
        The result, as plain values.

    Raises:
        InputError: before anything is written.
    """
    config = request.config
    with contextlib.ExitStack() as stack:
        data = _checked(config, request.data, console)
        workers, found = _workers(config, stack, console)
        check_sight(workers.resources, request.runs, data)
        from jobs.record import data_schema, run_parameters
        from trainer.results import TrainJob

        folder = create_run_folder(
            request.runs, request.experiment or config.recipe, request.name, config.size
        )
        stack.enter_context(folder.owned())
        folder.write_config(config)
        job = TrainJob.of(config, data, folder.path, workers.device)
        parameters = run_parameters(job, data, workers, found)
        tags = {
            "replisome.folder": str(folder.path),
            "replisome.recipe": config.recipe,
            "replisome.phase": "train",
            "replisome.data": data.attributes.fingerprint[:12],
            "mlflow.source.name": command_line(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": git_commit() or "unknown",
            "mlflow.user": getpass.getuser(),
        }
        if job_id := os.environ.get("REPLISOME_JOB"):
            tags["replisome.job"] = job_id
        fingerprint = data.attributes.fingerprint
        folder.write_identity(Identity(data=str(data.place), fingerprint=fingerprint))
        journal = Journal(folder.path)
        journal.begin(folder.experiment, folder.name, parameters, tags)
        journal.data(data.place, fingerprint, data_schema(data.schema))
        console.say(f"run {folder.experiment}/{folder.name}, in {folder.path}")
        return _run(_Run(config, data, folder, journal), job, workers, console)


def resume(run: str, runs: Path, flags: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """Go on with a run whose driver is gone, from its last checkpoint, in its own MLflow run.

    Args:
        run: its folder, EXPERIMENT/RUN, name or MLflow id.
        runs: the folder of all runs.
        flags: where it shall compute from now on; what is not given stays.
        console: where to say what happens.

    Returns:
        The result, as :func:`train` returns it.

    Raises:
        InputError: there is no such run, another driver is at work on it, the data set is another
            than it began with, or a flag would change what is computed.
    """
    folder = find_run_folder(runs, run)
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.owned())
        identity = folder.identity()
        path = folder.path / "config.toml"
        saved = parse(RunConfig, read_toml(path, remedy="it is a run's own file"), path)
        config = continued(saved, flags)
        data = _checked(config, identity.data, console)
        if data.attributes.fingerprint != identity.fingerprint:
            raise InputError(
                f"is not the data set that the run began with (fingerprint "
                f"{data.attributes.fingerprint[:12]}, then {identity.fingerprint[:12]})",
                path=identity.data,
                remedy="bring the old one back, or begin a new run",
            )
        workers, _ = _workers(config, stack, console)
        check_sight(workers.resources, folder.root, data)
        from trainer.results import TrainJob

        journal = Journal(folder.path)
        journal.status("RUNNING")
        journal.tags({"replisome.resumed": command_line()})
        console.say(f"run {folder.experiment}/{folder.name} goes on, in {folder.path}")
        job = TrainJob.of(config, data, folder.path, workers.device)
        return _run(_Run(config, data, folder, journal), job, workers, console)


def _checked(config: RunConfig, place: str, console: Console) -> ShardedDataset:
    """Open the data set and find what would fail later."""
    with console.step("check data"):
        data = ShardedDataset(place)
        preflight(config, data)
    return data


def _workers(
    config: RunConfig, stack: contextlib.ExitStack, console: Console
) -> tuple[Share, Cluster]:
    """Connect to the cluster and see what each worker gets of it."""
    with console.step("start Ray"):
        found = stack.enter_context(cluster())
        workers = share(found, grid_of(config.grid), config.grid.device)
    for note in workers.notes:
        console.say(note)
    return workers, found


def _run(run: _Run, job: TrainJob, workers: Share, console: Console) -> dict[str, Any]:
    """Train and score everything that the run compares, and record it."""
    from jobs.launch import launch
    from jobs.record import record_results

    config, folder, journal = run.config, run.folder, run.journal
    recipe = get_recipe(config.recipe)
    with (
        console.bars() as bars,
        _delivering(run, recipe.network.name, bars, console) as delivery,
        _status(journal),
    ):
        begin = time.perf_counter()
        bars.say("starting the workers ...")
        results = launch(job, workers, folder.log, bars.say)
        working = sum(result.seconds for result in results)
        console.seconds["start and stop workers"] = time.perf_counter() - begin - working
        for result in results:
            console.seconds[f"train {result.network}"] = result.fit.seconds
            console.seconds[f"cut and test {result.network}"] = max(
                0.0, result.seconds - result.fit.seconds
            )
        scores = {result.network: result.test for result in results}
        for baseline in recipe.estimators if config.baselines else ():
            with console.step(f"fit {baseline.name}"):
                scores[baseline.name] = _score_estimator(baseline, run, bars)
        with console.step("draw figures"):
            record_results(journal, folder, results, scores)
        journal.model(results[0].fit.weights)
    return {
        "run_id": delivery.run_id,
        "experiment": folder.experiment,
        "run": folder.name,
        "folder": str(folder.path),
        "model": delivery.model,
        "data_fingerprint": run.data.attributes.fingerprint,
        "metrics": {name: score.plain() for name, score in scores.items()},
        "cut": {result.network: list(result.plan.cut) for result in results},
        "seconds": console.seconds,
    }


@contextlib.contextmanager
def _delivering(run: _Run, main: str, bars: Bars, console: Console) -> Iterator[Delivery]:
    """Follow the run's event logs: progress to the bars, everything to MLflow."""
    from jobs.delivery import Delivery, Store

    def watch(event: Event) -> None:
        if event.kind == "progress":
            name = f"{event.network}: {event.text}"
            bars.update(name, int(event.values["done"]), int(event.values["total"]))
        elif event.kind == "note":
            bars.say(f"{event.network}: {event.text}")

    delivery = Delivery(Store(run.folder.root), run.folder.path, main, watch, bars.say)
    try:
        yield delivery
    finally:
        with console.step("log to MLflow"):
            left = delivery.close()
        if left:
            bars.say(
                f"{left:,} entries wait on disk for MLflow: replisome track sync "
                f"--runs {run.folder.root} delivers them"
            )


def _score_estimator(baseline: EstimatorBaseline, run: _Run, bars: Bars) -> Scores:
    """Fit a baseline on the training split and score it on the test split, like a network."""
    import torch

    from trainer.events import log_scores
    from trainer.metrics import mask_targets, score

    data = run.data
    rows = data.split_rows("train")
    if len(rows) > baseline.max_samples:
        kept = np.linspace(0, len(rows) - 1, baseline.max_samples).astype(np.int64)
        bars.say(f"{baseline.name}: fits {len(kept):,} of {len(rows):,} samples, evenly spaced")
        rows = rows[kept]
    estimator = baseline.build(run.config.seed)
    estimator.fit(
        data.gather("sequence", rows),
        data.labels(rows),
        lambda done, total: bars.update(f"{baseline.name}: fitting", done, total),
    )
    rows = data.split_rows("test")
    targets = mask_targets(data.labels(rows), data.schema.tasks)
    probabilities = torch.from_numpy(estimator.predict(data.gather("sequence", rows)))
    scores = score(probabilities, torch.from_numpy(targets), data.schema.tasks)
    events = EventWriter(run.folder.path / FILE_NAME)  # the workers have closed it
    log_scores(events, baseline.name, 0, "test", scores)
    events.close()
    return scores


@contextlib.contextmanager
def _status(journal: Journal) -> Iterator[None]:
    """Have MLflow show what became of the run, however the block ends."""
    status: Status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        journal.tags({"error": str(error)[:500]})
        raise
    finally:
        journal.tags({"replisome.status": status.lower()})
        journal.status(status)

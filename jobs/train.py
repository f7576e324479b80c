"""``replisome train``: from a data set to a tracked, scored model beside its baselines."""

from __future__ import annotations

import contextlib
import getpass
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_shards.dataset import ShardedDataset
from jobs.cluster import Share, cluster, share
from jobs.configure import preflight
from jobs.console import Bars, Console
from jobs.provenance import command_line, git_commit
from jobs.runfolder import RunFolder, create_run_folder
from trainer.config import RunConfig
from trainer.events import FILE_NAME, Event, EventWriter
from trainer.grid import Grid
from trainer.recipe import EstimatorBaseline
from trainer.recipes import get_recipe
from trainer.system import file_name

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from trainer.metrics import Scores


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


def train(request: TrainRequest, console: Console) -> dict[str, Any]:
    """Train, evaluate, compare with the baselines and log everything.

    Returns:
        The result, as plain values.

    Raises:
        InputError: before anything is written.
    """
    config = request.config
    with console.step("check data"):
        data = ShardedDataset(request.data)
        preflight(config, data)
    with contextlib.ExitStack() as stack:
        with console.step("start Ray"):
            found = stack.enter_context(cluster())
            grid = Grid(config.grid.stages, config.grid.replicas)
            workers = share(found, grid, config.grid.device)
        for note in workers.notes:
            console.say(note)
        from jobs.record import run_parameters
        from jobs.tracking import log_dataset, open_store, start_run

        folder = create_run_folder(
            request.runs, request.experiment or config.recipe, request.name, config.size
        )
        folder.write_config(config)
        client = open_store(request.runs)
        parameters = run_parameters(config, data, workers, found)
        tags = {
            "replisome.folder": str(folder.path),
            "mlflow.source.name": command_line(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": git_commit() or "unknown",
            "mlflow.user": getpass.getuser(),
        }
        run_id = start_run(client, request.runs, folder.experiment, folder.name, parameters, tags)
        console.say(f"run {folder.experiment}/{folder.name}, in {folder.path}")
        stack.enter_context(_closing_run(client, run_id))
        log_dataset(client, run_id, data.place, data.attributes.fingerprint)
        return _run(request, data, folder, workers, client, run_id, console)


def _run(
    request: TrainRequest,
    data: ShardedDataset,
    folder: RunFolder,
    workers: Share,
    client: MlflowClient,
    run_id: str,
    console: Console,
) -> dict[str, Any]:
    """Train and score everything that the run compares, and record it."""
    from jobs.launch import launch
    from jobs.record import record_model, record_results
    from trainer.results import TrainJob

    config = request.config
    recipe = get_recipe(config.recipe)
    job = TrainJob(config, data.place, folder.path, workers.device)
    main, nodes = recipe.network.name, workers.nodes
    with console.bars() as bars, _delivering(client, run_id, folder, main, nodes, bars):
        begin = time.perf_counter()
        bars.say("starting the workers ...")
        results = launch(job, workers, folder.log)
        working = sum(result.seconds for result in results)
        console.seconds["start and stop workers"] = time.perf_counter() - begin - working
        for result in results:
            console.seconds[f"train {result.network}"] = result.fit.seconds
            console.seconds[f"cut and test {result.network}"] = result.seconds - result.fit.seconds
        scores = {result.network: result.test for result in results}
        for baseline in recipe.estimators if config.baselines else ():
            with console.step(f"fit {baseline.name}"):
                scores[baseline.name] = _score_estimator(baseline, config, data, folder, bars)
    with console.step("log figures and model"):
        record_results(client, run_id, folder, results, scores)
        model = record_model(run_id, folder, request.runs, config, data, results[0].fit.weights)
    return {
        "run_id": run_id,
        "experiment": folder.experiment,
        "run": folder.name,
        "folder": str(folder.path),
        "model": model,
        "data_fingerprint": data.attributes.fingerprint,
        "metrics": {name: score.plain() for name, score in scores.items()},
        "cut": {result.network: list(result.plan.cut) for result in results},
        "seconds": console.seconds,
    }


@contextlib.contextmanager
def _delivering(
    client: MlflowClient, run_id: str, folder: RunFolder, main: str, nodes: int, bars: Bars
) -> Iterator[None]:
    """Follow the run's event logs: progress to the bars, metrics to MLflow."""
    from jobs.tracking import Delivery

    def watch(event: Event) -> None:
        if event.kind == "progress":
            name = f"{event.network}: {event.text}"
            bars.update(name, int(event.values["done"]), int(event.values["total"]))
        elif event.kind == "note":
            bars.say(f"{event.network}: {event.text}")

    logs = [folder.path / FILE_NAME, *(folder.log / file_name(n) for n in range(nodes))]
    delivery = Delivery(client, run_id, logs, main, watch, bars.say)
    try:
        yield
    finally:
        if left := delivery.close():
            bars.say(f"{left:,} metrics were not delivered to MLflow; all are in {logs[0]}")


def _score_estimator(
    baseline: EstimatorBaseline,
    config: RunConfig,
    data: ShardedDataset,
    folder: RunFolder,
    bars: Bars,
) -> Scores:
    """Fit a baseline on the training split and score it on the test split, like a network."""
    import torch

    from trainer.events import log_scores
    from trainer.metrics import mask_targets, score

    rows = data.split_rows("train")
    if len(rows) > baseline.max_samples:
        kept = np.linspace(0, len(rows) - 1, baseline.max_samples).astype(np.int64)
        bars.say(f"{baseline.name}: fits {len(kept):,} of {len(rows):,} samples, evenly spaced")
        rows = rows[kept]
    estimator = baseline.build(config.seed)
    estimator.fit(
        data.gather("sequence", rows),
        data.labels(rows),
        lambda done, total: bars.update(f"{baseline.name}: fitting", done, total),
    )
    rows = data.split_rows("test")
    targets = mask_targets(data.labels(rows), data.schema.tasks)
    probabilities = torch.from_numpy(estimator.predict(data.gather("sequence", rows)))
    scores = score(probabilities, torch.from_numpy(targets), data.schema.tasks)
    events = EventWriter(folder.path / FILE_NAME)  # the workers have closed it
    log_scores(events, baseline.name, 0, "test", scores)
    events.close()
    return scores


@contextlib.contextmanager
def _closing_run(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Close the run in MLflow with what became of it, however the block ends."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        client.set_tag(run_id, "error", str(error)[:500])
        raise
    finally:
        client.set_terminated(run_id, status)

"""``replisome predict`` and ``evaluate``: a trained network on any data set of its shape."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from jobs.cluster import cluster, share
from jobs.console import Bars, Console
from jobs.export import best_weights, config_of
from jobs.runfolder import RunFolder, find_run_folder
from trainer.config import Device
from trainer.grid import Grid
from trainer.recipes import get_recipe

if TYPE_CHECKING:
    import pyarrow as pa

    from trainer.results import PredictJob

_LOOK = 0.3  # seconds between two looks at how far it is


@dataclass(frozen=True)
class PredictRequest:
    """What a person asked for.

    Attributes:
        run: the run that trained: folder, EXPERIMENT/RUN, name or MLflow id.
        runs: the folder of all runs.
        data: the data set; by default the one it was trained on.
        split: which part of it.
        network: by default the recipe's model.
        batch_size: samples at a time; changes memory and speed, not results.
        stages: pipeline stages.
        replicas: copies of the pipeline.
        device: of the workers.
    """

    run: str
    runs: Path
    data: str | None = None
    split: str = "test"
    network: str | None = None
    batch_size: int = 256
    stages: int = 1
    replicas: int = 1
    device: Device | None = None


@dataclass(frozen=True)
class Predicted:
    """Logits of a split.

    Attributes:
        data: the data set.
        network: that predicted.
        logits: float32, shape (samples, tasks), in the order of the split's rows.
    """

    data: ShardedDataset
    network: str
    logits: npt.NDArray[np.float32]


def predict(request: PredictRequest, out: Path, console: Console) -> dict[str, Any]:
    """Write the probability of each task for each sample of a split as Parquet.

    Raises:
        InputError: no such run or split, the data set has another shape, or ``out`` exists.
    """
    if out.exists():
        raise InputError("exists", path=out, remedy="give another --out, or remove it")
    predicted = _predict(request, console)
    import pyarrow.parquet as pq

    table = _table(predicted, request.split)
    pq.write_table(table, out)
    console.say(f"wrote {out}: {table.num_rows:,} samples, {table.num_columns} columns")
    return {"out": str(out), "samples": table.num_rows, "columns": table.column_names}


def evaluate(request: PredictRequest, console: Console) -> dict[str, Any]:
    """Score a run's network on a split.

    Raises:
        InputError: as :func:`predict`.
    """
    predicted = _predict(request, console)
    import torch

    from trainer.metrics import mask_targets, score

    data = predicted.data
    labels = data.labels(data.split_rows(request.split))
    logits = torch.from_numpy(predicted.logits).double()
    recipe = get_recipe(data.schema.recipe or config_of(_folder(request)).recipe)
    scores = score(
        torch.sigmoid(logits),
        torch.from_numpy(mask_targets(labels, data.schema.tasks)),
        data.schema.tasks,
        loss=float(recipe.loss(logits, torch.from_numpy(labels.astype(np.float64)))),
    )
    from jobs.summary import scores_table

    console.show(scores_table({predicted.network: scores.plain()}, request.split))
    return {"network": predicted.network, "split": request.split, "scores": scores.plain()}


def _folder(request: PredictRequest) -> RunFolder:
    return find_run_folder(request.runs, request.run)


def _predict(request: PredictRequest, console: Console) -> Predicted:
    folder = _folder(request)
    config = config_of(folder)
    recipe = get_recipe(config.recipe)
    names = [network.name for network in recipe.networks(baselines=True)]
    name = request.network or names[0]
    if name not in names:
        raise InputError(
            f"recipe {config.recipe!r} has no network {name!r}", remedy=f"it has {', '.join(names)}"
        )
    weights = best_weights(folder, name)
    data = ShardedDataset(request.data or folder.identity().data)
    data.schema.split(request.split)
    from trainer.trained import check_weights_fit

    check_weights_fit(config, data, name, weights)
    grid = Grid(request.stages, request.replicas)
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(cluster())
        workers = share(found, grid, request.device)
        for note in workers.notes:
            console.say(note)
        from jobs.launch import run_group
        from trainer.results import PredictJob

        # Beside the run, which all workers can see.
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix=".predict-", dir=folder.path))
        )
        job = PredictJob(
            config,
            weights,
            name,
            data.place,
            request.split,
            workers.device,
            grid,
            request.batch_size,
            scratch / "logits.npy",
            scratch / "progress",
        )
        with console.bars() as bars, _following(job.progress, name, bars):
            run_group(_work, job, grid, workers, scratch / "ray")
        return Predicted(data, name, np.load(job.out))


def _work(job: PredictJob) -> int:
    from trainer.prediction import predict_worker

    return predict_worker(job)


@contextlib.contextmanager
def _following(progress: Path, name: str, bars: Bars) -> Iterator[None]:
    """Show how far the workers are."""
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(_LOOK):
            if progress.is_file() and (text := progress.read_text()):
                done, total = map(int, text.split())
                bars.update(f"{name}: predicting", done, total)

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _table(predicted: Predicted, split: str) -> pa.Table:
    """Return row number, locus and probability of each task, a row a sample."""
    import pyarrow as pa

    from trainer.trained import probabilities

    data = predicted.data
    rows = data.split_rows(split)
    columns: dict[str, Any] = {"row": rows}
    if data.schema.kind == "windows":
        loci, window = data.loci, data.schema.window
        names = np.array(data.schema.reference.names, dtype=object)
        start = loci.start[rows]
        columns |= {
            "contig": pa.array(names[loci.contig[rows]]).dictionary_encode(),
            "start": start,
            "end": start + window.length,
            "strand": np.where(loci.strand[rows] < 0, "-", "+"),
        }
    chances = probabilities(predicted.logits)
    columns |= {
        task: np.ascontiguousarray(chances[:, column])
        for column, task in enumerate(data.schema.task_names)
    }
    return pa.table(columns)

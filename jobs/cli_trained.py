"""What can be done with a trained run: ``export``, ``evaluate``, ``predict``. Their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.command import Json, run

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder, EXPERIMENT/RUN, name or MLflow id.")
]
Runs = Annotated[Path, typer.Option(help="Folder of all runs and of the tracking database.")]
NetworkName = Annotated[
    str | None, typer.Option(help="Another network of the recipe than its model.")
]
Data = Annotated[
    str | None, typer.Option(help="Another data set. [default: the one it was trained on]")
]
Split = Annotated[str, typer.Option(help="Which part of the data set.")]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Samples at a time; results do not depend on it.")
]
Stages = Annotated[int, typer.Option(min=1, help="Pipeline stages.")]
Replicas = Annotated[int, typer.Option(min=1, help="Copies of the pipeline.")]
Device = Annotated[
    Literal["cpu", "gpu"] | None,
    typer.Option(help="[default: gpu where every worker can have one]"),
]


def export(
    run_: Run,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    network: NetworkName = None,
    runs: Runs = Path("runs"),
    json_: Json = False,
) -> None:
    """Write a run's best weights as two files that plain PyTorch loads.

    model.safetensors has the keys of an nn.Sequential of the layers; model.json says what goes in
    and out, and where it comes from.

    Example: replisome export danq/RUN --out danq-model
    """
    from jobs.export import export as export_run

    run(json_, lambda console: export_run(run_, out, runs, network, console))


def evaluate(
    run_: Run,
    data: Data = None,
    split: Split = "test",
    network: NetworkName = None,
    batch_size: BatchSize = 256,
    stages: Stages = 1,
    replicas: Replicas = 1,
    device: Device = None,
    runs: Runs = Path("runs"),
    json_: Json = False,
) -> None:
    """Score a run's best weights on a split, of this or another data set.

    Example: replisome evaluate danq/RUN --data other.zarr --split test
    """
    from jobs.predict import PredictRequest
    from jobs.predict import evaluate as evaluate_run

    request = PredictRequest(run_, runs, data, split, network, batch_size, stages, replicas, device)
    run(json_, lambda console: evaluate_run(request, console))


def predict(
    run_: Run,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    data: Data = None,
    split: Split = "test",
    network: NetworkName = None,
    batch_size: BatchSize = 256,
    stages: Stages = 1,
    replicas: Replicas = 1,
    device: Device = None,
    runs: Runs = Path("runs"),
    json_: Json = False,
) -> None:
    """Write a run's predictions for a split: locus and probability of each task, as Parquet.

    Example: replisome predict danq/RUN --split test --out predictions.parquet
    """
    from jobs.predict import PredictRequest
    from jobs.predict import predict as predict_run

    request = PredictRequest(run_, runs, data, split, network, batch_size, stages, replicas, device)
    run(json_, lambda console: predict_run(request, out, console))

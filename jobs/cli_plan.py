"""``replisome plan``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.command import Json, RecipeName, run
from jobs.console import Console


def plan(
    recipe: RecipeName,
    data: Annotated[str, typer.Option(help="The data set: X.zarr, or s3://bucket/X.zarr.")],
    nodes: Annotated[int, typer.Option(min=1, help="Equal nodes.")] = 1,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="Workers a node. [default: the GPUs, or else CPUs, of this one]"),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="GB/s between two workers of a node. [default: GPU 25, CPU 3.5]"
        ),
    ] = None,
    network: Annotated[
        float | None,
        typer.Option(min=1e-6, help="GB/s between two nodes. [default: GPU 12.5, CPU 1.25]"),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=1e-6, help="GB that a worker may take. [default: what this device has]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples an optimizer step, over all replicas.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Variant of the network. [default: paper]")] = (
        None
    ),
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of the settings; flags win over it.")
    ] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None,
        typer.Option(help="Of this machine, to measure on. [default: gpu where there is one]"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 10,
    picture: Annotated[
        Path | None, typer.Option(help="PNG file for the timeline of the best one.")
    ] = None,
    json_: Json = False,
) -> None:
    """Predict which grid trains fastest, and what it takes.

    Measures each layer of the recipe's network on this machine, on real batches (once: results are
    kept), and predicts for all grids of stages x replicas and all numbers of micro-batches the time
    of a step, its bubble and the memory of each stage, with the best cut for each. The predictions
    are for workers like the one that measures: run it on the kind of machine that will train.

    \b
    Examples:
      replisome plan danq --data x.zarr --gpus 2
      replisome plan danq --data x.zarr --nodes 2 --gpus 4 --network 12.5 --picture plan.png
      replisome plan danq --data x.zarr --gpus 8 --memory 16 --batch-size 1024
    """
    from jobs.configure import configure
    from jobs.plan import PlanRequest
    from jobs.plan import plan as make_plan

    grid = {"device": device, "memory_gb": memory}
    flags: dict[str, Any] = {
        "batch_size": batch_size,
        "size": size,
        "grid": {key: value for key, value in grid.items() if value is not None},
    }
    given = {key: value for key, value in flags.items() if value is not None}

    def work(console: Console) -> dict[str, Any]:
        request = PlanRequest(
            configure(recipe, config, given),
            data,
            nodes,
            gpus,
            bandwidth=None if bandwidth is None else bandwidth * 1e9,
            network=None if network is None else network * 1e9,
            top=top,
            picture=picture,
        )
        return make_plan(request, console)

    run(json_, work)

"""``replisome sweep``: campaigns of trials. Options are declared here; the rest is in sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from data_shards.errors import InputError
from jobs.command import Json, run
from jobs.console import Console


class _Group(typer.core.TyperGroup):
    """``sweep RECIPE ...`` is short for ``sweep run RECIPE ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = set(self.commands)
        if args and args[0] not in known and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweep_app = typer.Typer(
    cls=_Group,
    help="""Search settings, or train a list of members, in many trials.

\b
  replisome sweep danq --data x.zarr --trials 50 --slots 2       search, and log it all
  replisome sweep status NAME                                    how it stands
  replisome sweep best NAME --out best.toml                      for: train --config best.toml
  replisome sweep run --help                                     all options
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Runs = Annotated[Path, typer.Option(help="Folder of all runs and of the tracking database.")]
Name = Annotated[str, typer.Argument(metavar="SWEEP", help="Its name, or EXPERIMENT/SWEEP.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Database of the study: postgresql://user@host/db, or set REPLISOME_STORAGE. "
        "[default: a file in the sweep's folder]"
    ),
]


@sweep_app.command("run")
def run_(
    recipe: Annotated[str | None, typer.Argument(help="Name of the recipe.")] = None,
    data: Annotated[str | None, typer.Option(help="The data set.")] = None,
    trials: Annotated[int | None, typer.Option(help="End after so many trials.", min=1)] = None,
    slots: Annotated[int, typer.Option(help="Trials at a time.")] = 1,
    stages: Annotated[int | None, typer.Option(help="Stages of each trial. [default: 1]")] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Replicas of each trial. [default: 1]")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Variant of the network.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a trial, at most.")] = None,
    device: Annotated[Literal["cpu", "gpu"] | None, typer.Option()] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of all trials; repeatable."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            help='TOML file: ["optimizer.lr"] low, high, log, step; or choices; and when. '
            "[default: learning rate, batch size, momentum, weight decay]"
        ),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            metavar="seeds=N|FILE", help="Train a list instead: N seeds, or [[member]] tables."
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="loss, auroc or aupr of the validation, seconds, or parameters; several make a "
            "Pareto front. [default: loss]"
        ),
    ] = None,
    sampler: Annotated[
        Literal["tpe", "gp", "cmaes", "qmc", "random", "grid"] | None,
        typer.Option(help="[default: tpe]"),
    ] = None,
    pruner: Annotated[
        Literal["median", "halving", "hyperband", "patient", "none"] | None,
        typer.Option(help="[default: median; none for several objectives]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampler. [default: 0]")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Begin no trial after so many hours.", min=0)
    ] = None,
    worker_hours: Annotated[
        float | None,
        typer.Option(help="Begin no trial after so many hours of workers (GPUs).", min=0),
    ] = None,
    retries: Annotated[
        int, typer.Option(help="Times that a trial whose workers died is tried again.", min=0)
    ] = 1,
    halve: Annotated[
        bool,
        typer.Option("--halve-micro-batch", help="When memory runs out, try with half of it."),
    ] = False,
    keep: Annotated[
        Literal["best", "all"], typer.Option(help="Trials whose weights are kept.")
    ] = "best",
    storage: Storage = None,
    resume: Annotated[
        str | None, typer.Option(metavar="SWEEP", help="Go on with a sweep that ended or died.")
    ] = None,
    runs: Runs = Path("runs"),
    experiment: Annotated[str | None, typer.Option(help="[default: the recipe's name]")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep. [default: made up]")] = None,
    json_: Json = False,
) -> None:
    """Search settings, or train a list, with an Optuna study.

    Each of --slots worker groups stays up and runs trial after trial. Ctrl-C once: trials save and
    leave, and --resume goes on with them; twice: they end at once, and --resume goes on from their
    last checkpoints. A trial that validates badly is pruned after an epoch. The test split is not
    looked at.

    \b
    Examples:
      replisome sweep danq --data x.zarr --trials 50 --slots 2 --size small
      replisome sweep danq --data x.zarr --space space.toml --sampler gp --hours 8
      replisome sweep danq --data x.zarr --members seeds=10
      replisome sweep --resume danq/SWEEP --trials 100
    """
    from jobs.configure import read_settings
    from jobs.sweep.campaign import run_sweep
    from jobs.sweep.request import Wish, make_request, objectives
    from trainer.config import merge

    flags = {"size": size, "epochs": epochs}
    grid = {"stages": stages, "replicas": replicas, "device": device}
    given: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    if kept := {key: value for key, value in grid.items() if value is not None}:
        given["grid"] = kept

    def work(console: Console) -> dict[str, Any]:
        wish = Wish(
            recipe,
            data,
            config,
            merge(given, read_settings(settings or [])),
            space,
            members,
            objectives(objective or []),
            sampler,
            pruner,
            seed,
            trials,
            None if hours is None else hours * 3600,
            None if worker_hours is None else worker_hours * 3600,
            slots,
            retries,
            halve,
            keep,
            storage,
            runs,
            experiment,
            name,
            resume,
        )
        with console.step("check data"):
            request = make_request(wish)
        result = run_sweep(request, console)
        _show(result, console)
        return result

    run(json_, work)


@sweep_app.command()
def status(name: Name, runs: Runs = Path("runs"), json_: Json = False) -> None:
    """Say how a sweep stands, as its driver last saw it.

    Example: replisome sweep status danq/SWEEP
    """
    import time

    from jobs.sweep.folder import SweepStatus, find_sweep

    def work(console: Console) -> dict[str, Any]:
        folder = find_sweep(runs, name)
        found = SweepStatus.read(folder)
        if found is None:
            raise InputError("has no status yet", path=folder.path, remedy="wait some seconds")
        age = time.time() - found.at
        console.show(f"{found.summary} ({age:.0f} s ago)")
        for trial in found.running:
            console.show(f"  trial {trial['trial']}, epoch {trial['epoch']}: {trial['settings']}")
        return {**found.model_dump(mode="json"), "folder": str(folder.path)}

    run(json_, work)


@sweep_app.command()
def best(
    name: Name,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("best.toml"),
    trial: Annotated[int | None, typer.Option(help="Another trial than the best.")] = None,
    storage: Storage = None,
    runs: Runs = Path("runs"),
    json_: Json = False,
) -> None:
    """Write the best trial's configuration; train --config takes it.

    Example: replisome sweep best danq/SWEEP --out best.toml
    """
    from jobs.sweep.results import write_best

    def work(console: Console) -> dict[str, Any]:
        found = write_best(_study(name, runs, storage), out, trial)
        console.show(f"trial {found['trial']}, {found['values']}: {out}")
        return found

    run(json_, work)


@sweep_app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path("trials.parquet"),
    storage: Storage = None,
    runs: Runs = Path("runs"),
    json_: Json = False,
) -> None:
    """Write all trials as a table: settings, objectives, curves, cost.

    Example: replisome sweep export danq/SWEEP --out trials.parquet
    """
    from jobs.sweep.results import trial_table

    def work(console: Console) -> dict[str, Any]:
        import pyarrow.parquet as pq

        table = trial_table(_study(name, runs, storage))
        pq.write_table(table, out)
        console.show(f"{table.num_rows} trials: {out}")
        return {"trials": table.num_rows, "columns": table.column_names, "out": str(out)}

    run(json_, work)


def _order(order: str, name: str, runs: Path, json_: bool) -> None:
    from jobs.sweep.folder import command, find_sweep

    def work(console: Console) -> dict[str, Any]:
        folder = find_sweep(runs, name)
        if not folder.driven():
            raise InputError("no driver is at work on it", path=folder.path, remedy="see: status")
        command(folder, order)
        console.show(f"{folder.name}: asked to {order}")
        return {"folder": str(folder.path), "order": order}

    run(json_, work)


@sweep_app.command()
def pause(name: Name, runs: Runs = Path("runs"), json_: Json = False) -> None:
    """End a sweep for now: running trials save and leave; --resume goes on with them.

    Example: replisome sweep pause danq/SWEEP
    """
    _order("pause", name, runs, json_)


@sweep_app.command()
def drain(name: Name, runs: Runs = Path("runs"), json_: Json = False) -> None:
    """Begin no trial any more; those that run end in their own time.

    Example: replisome sweep drain danq/SWEEP
    """
    _order("drain", name, runs, json_)


@sweep_app.command()
def cancel(name: Name, runs: Runs = Path("runs"), json_: Json = False) -> None:
    """End a sweep for good: running trials are ended and have failed.

    Example: replisome sweep cancel danq/SWEEP
    """
    _order("cancel", name, runs, json_)


def _study(name: str, runs: Path, storage: str | None) -> Any:
    from jobs.sweep.folder import SweepIdentity, find_sweep
    from jobs.sweep.request import storage_again
    from jobs.sweep.results import load_study

    folder = find_sweep(runs, name)
    identity = SweepIdentity.of(folder)
    assert identity is not None
    return load_study(storage_again(storage, identity), identity.study)


def _show(result: dict[str, Any], console: Console) -> None:
    counts = result["counts"]
    console.show(
        f"{counts['complete']} trials done, {counts['pruned']} pruned, {counts['failed']} failed"
    )
    found = result["best"]
    if found is not None:
        values = ", ".join(f"{name} {value:.4g}" for name, value in found["values"].items())
        console.show(f"best: trial {found['trial']}, {values}")
        console.show(f"again: replisome train --config {found['config']}")
    if result["ended"] == "pause":
        console.show(f"goes on with: replisome sweep --resume {result['folder']}")

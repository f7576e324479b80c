"""The ``replisome`` command. Options are declared here; what they do is elsewhere in ``jobs``.

Exit status: 0 success, 2 bad input or configuration, 1 a failure at work, 130 interrupted.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from data_shards.errors import InputError
from jobs.cli_data import data_app
from jobs.cli_jobs import doctor, jobs_app, submit
from jobs.cli_plan import plan
from jobs.cli_sweep import sweep_app
from jobs.cli_track import track_app
from jobs.cli_trained import evaluate, export, predict
from jobs.command import Json, RecipeName, failed, run
from jobs.console import Console

_EXAMPLES = """
\b
Examples:
  replisome demo                                    simulated genome to scored model, in minutes
  replisome data simulate danq --out raw/           FASTA and BED files with a planted grammar
  replisome data build danq --from raw/ --out x.zarr
  replisome data show x.zarr
  replisome train danq --data x.zarr --size small --stages 2
  replisome ui                                      browse the runs

\b
Every command takes --json: progress to stderr, stdout's last line is one JSON object.
Exit status: 0 success, 2 bad input or configuration, 1 a failure at work.
"""

app = typer.Typer(
    help="Distributed, pipeline-parallel training for deep learning in genomics.\n" + _EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(
    help="The systems that can be trained.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data")
app.add_typer(sweep_app, name="sweep")
app.add_typer(jobs_app, name="jobs")
app.add_typer(track_app, name="track")
app.add_typer(recipes_app, name="recipes")

Runs = Annotated[Path, typer.Option(help="Folder of all runs and of the tracking database.")]


@recipes_app.command("list")
def recipes_list(json_: Json = False) -> None:
    """List the recipes.

    Example: replisome recipes list
    """
    from jobs.recipes import list_recipes

    run(json_, list_recipes)


@recipes_app.command("show")
def recipes_show(name: RecipeName, json_: Json = False) -> None:
    """Show a recipe: paper, sample, layers, baselines, default hyper-parameters.

    Example: replisome recipes show danq
    """
    from jobs.recipes import show_recipe

    run(json_, lambda console: show_recipe(name, console))


Data = Annotated[
    str | None, typer.Option(help="The data set: X.zarr, or s3://bucket/X.zarr. Needed to begin.")
]
TrainRecipe = Annotated[
    str | None,
    typer.Argument(metavar="[RECIPE]", help="Name of the recipe; not needed with --resume."),
]
Stages = Annotated[int | None, typer.Option(help="Pipeline stages. [default: 1]")]
Replicas = Annotated[int | None, typer.Option(help="Copies of the pipeline. [default: 1]")]
Size = Annotated[str | None, typer.Option(help="Variant of the network. [default: paper]")]
BatchSize = Annotated[
    int | None, typer.Option(help="Samples an optimizer step, over all replicas.")
]
ShuffleName = Annotated[
    Literal["full", "blocks", "none"] | None,
    typer.Option(help="How training samples are shuffled. [default: blocks]"),
]
MicroBatches = Annotated[
    int | None,
    typer.Option(help="Micro-batches a replica. [default: what divides, up to 4 a stage]"),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training split.")]
Optimizer = Annotated[Literal["sgd", "adamw", "rmsprop"] | None, typer.Option()]
LearningRate = Annotated[float | None, typer.Option(help="Learning rate.")]
Momentum = Annotated[
    float | None, typer.Option(help="Momentum of SGD and RMSprop, beta1 of AdamW.")
]
WeightDecay = Annotated[
    float | None, typer.Option(help="L2 penalty; for AdamW decoupled. [default: 0]")
]
Clip = Annotated[
    float | None, typer.Option(help="Clip the gradient's global norm to this. [default: 0, do not]")
]
Seed = Annotated[
    int | None, typer.Option(help="Of sample order, initial weights and dropout. [default: 0]")
]
DeviceName = Annotated[
    Literal["cpu", "gpu"] | None,
    typer.Option(help="[default: gpu where every worker can have one]"),
]
Baselines = Annotated[
    bool | None,
    typer.Option("--baselines/--no-baselines", help="Also run the recipe's baselines."),
]
Precision = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(help="bf16: matrix products in bfloat16, weights in float32. [default: fp32]"),
]
CutAt = Annotated[
    str | None,
    typer.Option(help="measured, parameters, uniform, or first layers: 0,3,5. [default: measured]"),
]
Pipeline = Annotated[
    Literal["1f1b", "dualpipev"] | None,
    typer.Option(help="Order of a pipeline's work. [default: 1f1b]"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other setting, as schedule.name=cosine or optimizer.ema=0.999; repeatable.",
    ),
]
InitFrom = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="Start from the best weights of a run, or a checkpoint."),
]
Fresh = Annotated[
    list[str] | None,
    typer.Option(help="With --init-from: a layer that starts fresh all the same; repeatable."),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(help="With --init-from: a layer that stays as it is; repeatable."),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Go on with a run: its folder, EXPERIMENT/RUN, its name, or its MLflow id.",
    ),
]
Config = Annotated[
    Path | None, typer.Option(help="TOML file with any of the settings; flags win over it.")
]
Experiment = Annotated[str | None, typer.Option(help="[default: the recipe's name]")]
RunName = Annotated[str | None, typer.Option(help="Name of the run. [default: made up]")]


@app.command()
def train(
    recipe: TrainRecipe = None,
    data: Data = None,
    stages: Stages = None,
    replicas: Replicas = None,
    size: Size = None,
    batch_size: BatchSize = None,
    micro_batches: MicroBatches = None,
    cut: CutAt = None,
    pipeline: Pipeline = None,
    precision: Precision = None,
    shuffle: ShuffleName = None,
    epochs: Epochs = None,
    optimizer: Optimizer = None,
    lr: LearningRate = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    clip: Clip = None,
    seed: Seed = None,
    device: DeviceName = None,
    baselines: Baselines = None,
    settings: Settings = None,
    config: Config = None,
    init_from: InitFrom = None,
    fresh: Fresh = None,
    freeze: Freeze = None,
    resume: Resume = None,
    runs: Runs = Path("runs"),
    experiment: Experiment = None,
    name: RunName = None,
    json_: Json = False,
) -> None:
    """Train, test, compare with baselines, log it all.

    The network is cut into --stages by measured time; each stage is a worker, and --replicas
    copies of the pipeline share each batch. Runs on a private Ray on this machine, or on the
    cluster that RAY_ADDRESS names.

    \b
    Examples:
      replisome train danq --data x.zarr --size small --stages 2
      replisome train danq --data x.zarr --replicas 2 --optimizer sgd --lr 0.05
      replisome train danq --data x.zarr --set schedule.name=cosine --set optimizer.ema=0.999
      replisome train danq --data y.zarr --init-from danq/RUN --fresh tasks --freeze conv
      replisome train danq --data x.zarr --config runs/danq/RUN/config.toml
      replisome train --resume danq/RUN --replicas 1
    The last but one repeats a run; the last goes on with one that was killed, from its newest
    checkpoint, on as many workers as there are now.
    """
    from jobs.configure import configure, init_settings, read_settings
    from jobs.summary import show_run
    from jobs.train import TrainRequest
    from jobs.train import resume as resume_run
    from jobs.train import train as train_run
    from trainer.config import merge

    flags = {
        "size": size,
        "seed": seed,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "epochs": epochs,
        "baselines": baselines,
        "optimizer": {
            "name": optimizer,
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "clip": clip,
        },
        "grid": {
            "stages": stages,
            "replicas": replicas,
            "micro_batches": micro_batches,
            "cut": _cut(cut),
            "schedule": pipeline,
            "device": device,
        },
        "precision": precision,
    }

    def work(console: Console) -> dict[str, Any]:
        init = init_settings(init_from, fresh or [], freeze or [], runs)
        given = merge(_given(flags), init, read_settings(settings or []))
        if resume is not None:
            if recipe or data or config or experiment or name:
                raise InputError(
                    "--resume takes recipe, data, configuration and names from the run",
                    remedy="say: replisome train --resume RUN, with grid options at most",
                )
            result = resume_run(resume, runs, given, console)
        elif recipe is None or data is None:
            raise InputError(
                "a recipe and --data are needed",
                remedy="replisome train danq --data x.zarr, or: replisome train --resume RUN",
            )
        else:
            resolved = configure(recipe, config, given)
            result = train_run(TrainRequest(resolved, data, runs, experiment, name), console)
        show_run(result, runs, console)
        return result

    run(json_, work)


app.command()(plan)
for command in (export, evaluate, predict, submit, doctor):
    app.command()(command)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for its files and data set.")] = Path("demo"),
    runs: Runs = Path("runs"),
    seed: Annotated[int, typer.Option(help="Of the genome and of the training.")] = 0,
    json_: Json = False,
) -> None:
    """Go the whole way on a simulated genome, in minutes.

    Simulates raw files, builds a data set, trains small DanQ as two pipeline stages, evaluates it
    beside its baselines, and logs everything.

    Example: replisome demo
    """
    from jobs.demo import run_demo
    from jobs.summary import show_run

    def work(console: Console) -> dict[str, Any]:
        result = run_demo(out, runs, seed, console)
        show_run(result, runs, console)
        return result

    run(json_, work)


@app.command()
def ui(
    runs: Runs = Path("runs"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 5000,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Database: postgresql://user@host/db. [default: sqlite in the runs folder, or "
            "MLFLOW_BACKEND_STORE_URI]",
            envvar="MLFLOW_BACKEND_STORE_URI",
            show_envvar=False,
        ),
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Where files are: s3://bucket/path. [default: runs folder]")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name under which browsers reach it; repeatable."),
    ] = None,
    json_: Json = False,
) -> None:
    """Serve the MLflow pages of the runs until Ctrl-C.

    Beyond this machine (--host 0.0.0.0) it wants a password. With --json, stdout gets one object
    with the address as soon as the page answers.

    \b
    Examples:
      replisome ui --port 5000
      replisome ui --host 0.0.0.0 --backend postgresql://mlflow@db/mlflow --artifacts s3://lab/runs
    """
    from jobs.ui import Service, serve

    console = Console(json_)
    try:
        serve(Service(runs, host, port, backend, artifacts, tuple(allow_host or ())), console)
    except InputError as error:
        raise failed(console, str(error), 2) from None
    except RuntimeError as error:
        raise failed(console, str(error), 1) from None


def _cut(text: str | None) -> str | list[int] | None:
    """Read a cut: a method's name, or layer numbers."""
    if text is None or not text.replace(",", "").strip().isdigit():
        return text
    return [int(number) for number in text.split(",")]


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Keep the flags that were given."""
    kept: dict[str, Any] = {}
    for key, value in flags.items():
        inner = _given(value) if isinstance(value, dict) else value
        if inner is not None and inner != {}:
            kept[key] = inner
    return kept


def main() -> None:
    """Entry point of the console script; a polite kill ends a command as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    app()

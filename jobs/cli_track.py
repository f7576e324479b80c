"""``replisome track``: what MLflow knows of the runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.command import Json, run
from jobs.console import Console

track_app = typer.Typer(
    help="""MLflow's record of the runs.

\b
  replisome track sync --runs runs     deliver what MLflow missed while it was away
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@track_app.callback()
def _group() -> None:
    """Keep ``sync`` a command of its own while it is the only one."""


@track_app.command()
def sync(
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    patience: Annotated[float, typer.Option(help="Seconds to wait for MLflow, each run.")] = 30.0,
    json_: Json = False,
) -> None:
    """Deliver to MLflow what waits on disk; what has arrived is not sent again.

    A run trains on while MLflow is away, whether at its start, on its way or at its end.

    Example: MLFLOW_TRACKING_URI=http://mlflow:5000 replisome track sync --runs /shared/runs
    """
    from jobs.sync import sync as deliver

    def work(console: Console) -> dict[str, Any]:
        return deliver(runs, patience, console)

    run(json_, work)

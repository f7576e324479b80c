"""The page that closes a run: scores beside the baselines, where the time went, what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.console import Console


def show_run(result: Mapping[str, Any], runs: Path, console: Console) -> None:
    """Show the result of ``train``."""
    models = list(result["metrics"])
    table = Table(title="held-out test split", title_justify="left")
    table.add_column("task")
    for metric in ("AUROC", "AUPR"):
        for model in models:
            table.add_column(f"{metric}\n{model}", justify="right")
    tasks = list(result["metrics"][models[0]]["tasks"])
    for task in tasks:
        cells = [
            _number(result["metrics"][model]["tasks"][task][metric])
            for metric in ("auroc", "aupr")
            for model in models
        ]
        table.add_row(task, *cells)
    table.add_section()
    means = [
        _number(result["metrics"][model][f"{metric}_mean"])
        for metric in ("auroc", "aupr")
        for model in models
    ]
    table.add_row("mean", *means)
    console.show(table)
    times = Table("step", "seconds", title="time", title_justify="left")
    for step, seconds in console.seconds.items():
        times.add_row(step, f"{seconds:.1f}")
    console.show(times)
    console.show(f"run folder: {result['folder']}")
    console.show(f"browse it:  replisome ui --runs {runs}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"

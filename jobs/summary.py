"""The page that closes a run: scores beside the baselines, where the time went, what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.console import Console


def show_run(result: Mapping[str, Any], runs: Path, console: Console) -> None:
    """Show the result of ``train``."""
    console.show(scores_table(result["metrics"], "test"))
    times = Table("step", "seconds", title="time", title_justify="left")
    for step, seconds in console.seconds.items():
        times.add_row(step, f"{seconds:.1f}")
    console.show(times)
    console.show(f"run folder: {result['folder']}")
    console.show(f"browse it:  replisome ui --runs {runs}")


def scores_table(models: Mapping[str, Any], split: str) -> Table:
    """Return the scores of a split as a table: AUROC / AUPR, a row a task, a column a model."""
    title = f"AUROC / AUPR on the {'held-out ' if split == 'test' else ''}{split} split"
    table = Table(title=title, title_justify="left")
    table.add_column("task", overflow="fold")
    for model in models:
        table.add_column(model, justify="right", overflow="fold")
    for task in next(iter(models.values()))["tasks"]:
        cells = [_pair(scores["tasks"][task], "") for scores in models.values()]
        table.add_row(task, *cells)
    table.add_section()
    table.add_row("mean", *(_pair(scores, "_mean") for scores in models.values()))
    return table


def _pair(scores: Mapping[str, float | None], suffix: str) -> str:
    values = [scores[f"{metric}{suffix}"] for metric in ("auroc", "aupr")]
    return " / ".join("undefined" if value is None else f"{value:.3f}" for value in values)

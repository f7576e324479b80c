"""Pictures of a run, drawn from its event log and results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.events import EventReader
from trainer.metrics import Scores
from trainer.results import StagePlan

_COLOURS = ("#1f5fa8", "#d9772b", "#3a8f56", "#8a4fa3", "#b8423f", "#6b6b6b")
_MAX_CURVES = 12
Series = dict[str, tuple[list[float], list[float]]]


def read_series(log: Path, name: str) -> Series:
    """Read a metric of every network from an event log: network -> (steps, values)."""
    series: Series = {}
    for event in EventReader(log).new():
        if event.kind == "metrics" and name in event.values:
            steps, values = series.setdefault(event.network, ([], []))
            while steps and steps[-1] >= event.step:  # these were lost, and done again
                steps.pop()
                values.pop()
            steps.append(float(event.step))
            values.append(event.values[name])
    return series


def draw_training(log: Path) -> Figure:
    """Training and validation loss, and validation AUROC and AUPR, against the optimizer step."""
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2)
    train, valid = read_series(log, "train/loss"), read_series(log, "valid/loss")
    for colour, network in zip(_COLOURS, train, strict=False):
        left.plot(*train[network], color=colour, alpha=0.45, linewidth=1, label=f"{network}, train")
        if network in valid:
            left.plot(*valid[network], color=colour, marker="o", label=f"{network}, validation")
    name_axes(left, "optimizer step", "loss")
    for style, metric in (("-", "auroc"), ("--", "aupr")):
        for colour, (network, points) in zip(
            _COLOURS, read_series(log, f"valid/{metric}").items(), strict=False
        ):
            label = f"{network}, {metric.upper()}"
            right.plot(*points, color=colour, linestyle=style, marker=".", label=label)
    name_axes(right, "optimizer step", "mean over tasks, validation")
    return figure


def draw_comparison(models: Mapping[str, Scores]) -> Figure:
    """AUROC and AUPR of each task on the test split, the model beside its baselines."""
    tasks = [score.task for score in next(iter(models.values())).tasks][:_MAX_CURVES]
    figure = new_figure(max(8.0, 2.0 + 1.1 * len(tasks)), 6)
    rows = figure.subplots(2, 1, sharex=True)
    width = 0.8 / len(models)
    for axes, metric in zip(rows, ("auroc", "aupr"), strict=True):
        for number, (name, scores) in enumerate(models.items()):
            values = [getattr(score, metric) for score in scores.tasks[:_MAX_CURVES]]
            places = [i + number * width for i in range(len(tasks))]
            axes.bar(places, values, width * 0.92, color=colour_of(number), label=name)
        axes.set_ylabel(metric.upper())
        axes.set_ylim(0, 1)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    rows[0].axhline(0.5, color="0.6", linewidth=1)
    rows[0].legend(
        fontsize=8, frameon=False, ncols=len(models), loc="lower left", bbox_to_anchor=(0, 1.0)
    )
    rows[1].set_xticks(
        [i + 0.4 - width / 2 for i in range(len(tasks))], tasks, rotation=20, ha="right"
    )
    return figure


def draw_stages(plans: Mapping[str, StagePlan]) -> Figure:
    """Each network's layers as blocks, one row a network, coloured by the stage they run on.

    The width of a block is the layer's measured time (forward and backward, one micro-batch); where
    nothing was measured, all blocks are equally wide.
    """
    figure = new_figure(10, 1.2 + 1.1 * len(plans))
    rows = figure.subplots(len(plans), 1, squeeze=False)[:, 0]
    for axes, (name, plan) in zip(rows, plans.items(), strict=True):
        widths = [cost.seconds * 1e3 for cost in plan.costs] or [1.0] * len(plan.layers)
        left = 0.0
        for index, (layer, width) in enumerate(zip(plan.layers, widths, strict=True)):
            stage = plan.stage_of(index)
            label = f"stage {stage}" if index in plan.cut[: plan.stages] else None
            axes.barh(0, width, left=left, color=colour_of(stage), edgecolor="white", label=label)
            if width > 0.012 * len(layer) * sum(widths):
                axes.text(
                    left + width / 2, 0, layer, ha="center", va="center", color="white", fontsize=8
                )
            left += width
        axes.set_yticks([0], [name])
        axes.set_xlim(0, left)
        unit = "ms a micro-batch, forward + backward" if plan.costs else "layers (not measured)"
        axes.set_xlabel(unit, fontsize=8)
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG."""
    figure.savefig(path, dpi=110)
    return path


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure; inches."""
    return Figure(figsize=(width, height), layout="constrained")


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Name the axes, and show a grid and a legend."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="0.92")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)


def colour_of(number: int) -> str:
    """Return the colour of a line by its number."""
    return _COLOURS[number % len(_COLOURS)]

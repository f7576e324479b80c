"""Pictures of scores, with how sure they are: curves with bands, calibration, confusion, ranking.

Bands and bars are 95 % intervals: Wilson's for rates, Hanley and McNeil's (1982, Radiology 143:29)
for the area under the ROC curve. They say how far chance in the samples reaches, given independent
samples; neighbouring windows are not quite that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.figures import colour_of, name_axes, new_figure
from trainer.metrics import Curves, Reliability, Scores, TaskScore

_MAX_CURVES = 12
_MAX_BARS = 40
_Z = 1.96


def wilson(hits: float, samples: float) -> tuple[float, float]:
    """Return the interval of a rate; (0, 1) where there is nothing to tell from."""
    if samples <= 0:
        return 0.0, 1.0
    rate, z2 = hits / samples, _Z * _Z
    middle = (rate + z2 / (2 * samples)) / (1 + z2 / samples)
    spread = _Z / (1 + z2 / samples)
    spread *= math.sqrt(max(0.0, rate * (1 - rate)) / samples + z2 / (4 * samples**2))
    return max(0.0, middle - spread), min(1.0, middle + spread)


def auroc_interval(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return Hanley and McNeil's interval of an area under a ROC curve."""
    if min(positives, negatives) < 1 or math.isnan(area):
        return math.nan, math.nan
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area)
    variance += (positives - 1) * (q1 - area * area) + (negatives - 1) * (q2 - area * area)
    spread = _Z * math.sqrt(max(0.0, variance) / (positives * negatives))
    return max(0.0, area - spread), min(1.0, area + spread)


def draw_roc(scores: Scores) -> Figure:
    """ROC curves of the test split with bands, a line a task."""
    figure = new_figure(6, 5.5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for number, (curve, task) in enumerate(_drawn(scores)):
        low, high = auroc_interval(task.auroc, task.positives, task.scored - task.positives)
        text = f"{curve.task} ({task.auroc:.3f}, {low:.3f} to {high:.3f})"
        bands = [wilson(rate * task.positives, task.positives) for rate in curve.tpr]
        _curve(axes, curve.fpr, curve.tpr, bands, number, text)
    name_axes(axes, "false positive rate", "true positive rate")
    axes.set_title(_title("ROC, test", scores))
    return figure


def draw_pr(scores: Scores) -> Figure:
    """Precision-recall curves of the test split with bands, a line a task."""
    figure = new_figure(6, 5.5)
    axes = figure.subplots()
    for number, (curve, task) in enumerate(_drawn(scores)):
        text = f"{curve.task} ({task.aupr:.3f}, by chance {task.positives / task.scored:.3f})"
        bands = []
        for recall, precision in zip(curve.recall, curve.precision, strict=True):
            hits = recall * task.positives
            bands.append(wilson(hits, hits / precision if precision > 0 else 0.0))
        _curve(axes, curve.recall, curve.precision, bands, number, text)
    name_axes(axes, "recall", "precision")
    axes.set_ylim(0, 1.02)
    axes.set_title(_title("Precision-recall, test", scores))
    return figure


def draw_calibration(scores: Scores) -> Figure:
    """What part is positive of the samples that are given a probability, a line a task."""
    figure = new_figure(6, 5.5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for number, task in enumerate(scores.reliability[:_MAX_CURVES]):
        bins = [place for place, count in enumerate(task.samples) if count]
        rates = [task.positives[i] / task.samples[i] for i in bins]
        bands = [wilson(task.positives[i], task.samples[i]) for i in bins]
        pairs = list(zip(rates, bands, strict=True))
        below = [max(0.0, rate - low) for rate, (low, _) in pairs]
        above = [max(0.0, high - rate) for rate, (_, high) in pairs]
        axes.errorbar(
            [task.predicted[i] for i in bins],
            rates,
            yerr=[below, above],
            color=colour_of(number),
            marker="o",
            markersize=4,
            linewidth=1,
            elinewidth=0.8,
            label=f"{task.task} (error {calibration_error(task):.3f})",
        )
    name_axes(axes, "predicted probability, mean of a bin", "part that is positive")
    axes.set_title(_title("Calibration, test", scores))
    return figure


def calibration_error(task: Reliability) -> float:
    """Return the expected calibration error: |predicted - positive|, averaged over the samples."""
    total = sum(task.samples)
    gaps = [
        abs(task.predicted[i] * count - task.positives[i])
        for i, count in enumerate(task.samples)
        if count
    ]
    return sum(gaps) / total if total else math.nan


def draw_confusion(scores: Scores) -> Figure:
    """Confusion matrices at probability one half, a square a task; rows are what is the case."""
    tasks = scores.reliability[:_MAX_CURVES]
    columns = min(4, max(1, len(tasks)))
    rows = max(1, math.ceil(len(tasks) / columns))
    figure = new_figure(2.6 * columns, 2.7 * rows + 0.4)
    squares = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, task in zip(squares, tasks, strict=False):
        negative, false_alarm, missed, positive = task.confusion()
        counts = [[negative, false_alarm], [missed, positive]]
        shares = [[count / max(1, sum(row)) for count in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for y, row in enumerate(counts):
            for x, count in enumerate(row):
                dark = "white" if shares[y][x] > 0.6 else "black"
                text = f"{count:,}\n{shares[y][x]:.1%}"
                axes.text(x, y, text, ha="center", va="center", color=dark, fontsize=8)
        axes.set_xticks([0, 1], ["called 0", "called 1"], fontsize=8)
        axes.set_yticks([0, 1], ["is 0", "is 1"], fontsize=8)
        axes.set_title(task.task, fontsize=9)
    for axes in squares[len(tasks) :]:
        axes.set_axis_off()
    return figure


def draw_ranking(scores: Scores) -> Figure:
    """AUROC of the tasks with intervals, the best first; of many tasks, the ends of the list."""
    known = [task for task in scores.tasks if not math.isnan(task.auroc)]
    ranked = sorted(known, key=lambda task: -task.auroc)
    shown = ranked if len(ranked) <= _MAX_BARS else [*ranked[:20], *ranked[-20:]]
    figure = new_figure(8, 1.2 + 0.24 * max(4, len(shown)))
    axes = figure.subplots()
    for place, task in enumerate(shown):
        low, high = auroc_interval(task.auroc, task.positives, task.scored - task.positives)
        axes.plot([low, high], [place, place], color="0.6", linewidth=2)
        axes.plot(task.auroc, place, marker="o", color=colour_of(0), markersize=5)
    axes.axvline(0.5, color="0.75", linewidth=1)
    names = [f"{task.task} ({task.positives:,} of {task.scored:,})" for task in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("AUROC, test, with 95 % interval")
    axes.grid(axis="x", color="0.92")
    if len(shown) < len(ranked):
        axes.set_title(f"the best and worst 20 of {len(ranked)} tasks", fontsize=10)
    return figure


def _drawn(scores: Scores) -> list[tuple[Curves, TaskScore]]:
    by_name = {task.task: task for task in scores.tasks}
    return [(curve, by_name[curve.task]) for curve in scores.curves[:_MAX_CURVES]]


def _curve(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    bands: Sequence[tuple[float, float]],
    number: int,
    text: str,
) -> None:
    lows, highs = [low for low, _ in bands], [high for _, high in bands]
    axes.fill_between(x, lows, highs, color=colour_of(number), alpha=0.15, linewidth=0)
    axes.plot(x, y, color=colour_of(number), label=text)


def _title(what: str, scores: Scores) -> str:
    tasks = len(scores.curves)
    return what if tasks <= _MAX_CURVES else f"{what}: first {_MAX_CURVES} of {tasks} tasks"

"""The timeline of a step as a picture: a row a worker, measured or predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

if TYPE_CHECKING:
    from trainer.planning.pipeline import Span
    from trainer.timeline import Fractions

# Work is dark, waiting is pale, so that a glance at the picture tells how busy the stages are.
_COLOURS = {
    "forward": "#1f5fa8",
    "backward": "#3a8f56",
    "receive": "#f3d3b3",
    "send": "#e3a76b",
    "load": "#e8d44d",
    "reduce": "#8a4fa3",
    "step": "#b8423f",
    "other": "#6b6b6b",
}
_LABELS = {"receive": "receive (wait)", "send": "send (wait)", "step": "optimizer"}
_BUBBLE = "#f4f4f4"
_COLUMNS = ("compute", "wait", "load", "reduce", "optimizer", "bubble")
_HEIGHT = 0.78  # of a bar; rows are 1 apart


def draw_timeline(
    spans: Sequence[Span],
    fractions: Mapping[int, Fractions] | None = None,
    stages: int | None = None,
    title: str = "",
) -> Figure:
    """Draw what each worker did when; numbers in the bars are micro-batches.

    Args:
        spans: of any ranks and kinds, at least one.
        fractions: of each rank, for the table on the right; None draws no table.
        stages: workers a replica, for the names of rows; None if all ranks are one replica.
        title: above the picture.
    """
    ranks = sorted({span.rank for span in spans})
    begin, end = min(span.start for span in spans), max(span.end for span in spans)
    scale, unit = (1e3, "ms") if end - begin < 10 else (1.0, "s")
    width = (end - begin) * scale
    height = 1.5 + 0.42 * len(ranks)
    figure = Figure(figsize=(14 if fractions else 11, height), layout="constrained")
    if fractions:
        axes, table = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        _draw_table(table, {row: fractions[rank] for row, rank in enumerate(ranks)})
    else:
        axes = figure.subplots()
    for row, rank in enumerate(ranks):
        axes.barh(row, width, height=_HEIGHT, color=_BUBBLE)
        _draw_row(axes, row, [span for span in spans if span.rank == rank], begin, scale, width)
    axes.set_xlim(0, width)
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    per_replica = stages or max(ranks) + 1
    axes.set_yticks(range(len(ranks)), [_row_name(rank, per_replica, ranks) for rank in ranks])
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10, loc="left")
    _draw_legend(figure, {span.kind for span in spans})
    return figure


def _draw_row(
    axes: Axes, row: int, spans: Sequence[Span], begin: float, scale: float, width: float
) -> None:
    """Draw one worker's spans, and micro-batch numbers in the bars that have room for them."""
    for kind, colour in _COLOURS.items():
        bars = [
            ((span.start - begin) * scale, (span.end - span.start) * scale)
            for span in spans
            if span.kind == kind
        ]
        edge = "white" if kind in ("forward", "backward") else "none"
        axes.broken_barh(
            bars,
            (row - _HEIGHT / 2, _HEIGHT),
            facecolors=colour,
            edgecolors=edge,
            linewidth=0.5,
        )
    for span in spans:
        if span.kind not in ("forward", "backward") or span.micro_batch is None:
            continue
        text = str(span.micro_batch)
        if (span.end - span.start) * scale > 0.009 * len(text) * width:
            middle = ((span.start + span.end) / 2 - begin) * scale
            axes.text(middle, row, text, ha="center", va="center", color="white", fontsize=8)


def _draw_table(axes: Axes, fractions: Mapping[int, Fractions]) -> None:
    """Write each row's fractions beside it, in percent."""
    axes.set_xlim(-0.5, len(_COLUMNS) - 0.5)
    for column, name in enumerate(_COLUMNS):
        axes.text(
            column,
            1.01,
            f"{name}\n%",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=8,
            color="0.35",
        )
        for row, parts in fractions.items():
            value = 100 * getattr(parts, name)
            axes.text(column, row, f"{value + 0.0:.1f}", ha="center", va="center", fontsize=9)
    axes.axis("off")


def _draw_legend(figure: Figure, kinds: set[str]) -> None:
    handles = [
        Patch(color=colour, label=_LABELS.get(kind, kind))
        for kind, colour in _COLOURS.items()
        if kind in kinds
    ]
    handles.append(Patch(facecolor=_BUBBLE, edgecolor="0.8", label="bubble"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False
    )


def _row_name(rank: int, stages: int, ranks: Sequence[int]) -> str:
    stage = f"stage {rank % stages}"
    return stage if max(ranks) < stages else f"replica {rank // stages}, {stage}"

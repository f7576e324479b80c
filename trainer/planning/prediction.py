"""How long a step will take on some grid, and what it will take of each worker's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config import CutMethod
from trainer.grid import BatchLayout, Grid
from trainer.planning.conditions import Conditions
from trainer.planning.costs import LayerCost
from trainer.planning.cut import check_cut, check_stages, plain_cut
from trainer.planning.hardware import Hardware
from trainer.planning.pipeline import Timeline
from trainer.planning.problem import Problem
from trainer.planning.search import FoundCut, assess_cut, best_cut


@dataclass(frozen=True)
class Prediction:
    """What a step is predicted to be, for workers like the one that layers were measured on.

    Not in it: reading data (which should happen meanwhile) and the loss.

    Attributes:
        seconds: of an optimizer step.
        samples_per_second: over all replicas.
        bubble: part of the pipeline's step in which stages wait for each other, mean over stages.
        transfer: part of it in which messages are on their way, mean over stages.
        reduce: seconds in which gradients are averaged over replicas, of the slowest stage.
        update: seconds of the optimizer's step, of the slowest stage.
        sharing: how much longer the step takes because workers share cores; 1 where they do not.
        bytes: memory of each stage.
        cut: first layer of each part.
        recompute: for each part, whether it computes activations again.
        timeline: of one replica, as if workers did not share cores.
    """

    seconds: float
    samples_per_second: float
    bubble: float
    transfer: float
    reduce: float
    update: float
    sharing: float
    bytes: tuple[int, ...]
    cut: tuple[int, ...]
    recompute: tuple[bool, ...]
    timeline: Timeline


def predict(
    costs: Sequence[LayerCost],
    layout: BatchLayout,
    conditions: Conditions,
    hardware: Hardware,
    method: CutMethod | tuple[int, ...] = "measured",
) -> Prediction:
    """Predict a step.

    Where more workers share a node than can compute at once (``hardware.cores``), the step can't be
    shorter than all their computing together, divided by the cores: the larger of that and the
    simulated time is predicted.

    Args:
        costs: of all layers, for the layout's micro-batch.
        layout: how batches are shared out.
        conditions: all else.
        hardware: that the conditions are for.
        method: how to cut, or the cut.

    Raises:
        InputError: the network can't be cut so, or the cut does not fit the memory.
    """
    found = choose_cut(costs, conditions, method)
    timeline, stages = found.timeline, conditions.grid.stages
    slowest = {"reduce": 0.0, "step": 0.0}
    for span in timeline.spans:
        if span.kind in slowest:
            slowest[span.kind] = max(slowest[span.kind], span.end - span.start)
    seconds = timeline.seconds
    if hardware.cores is not None:
        seconds = max(seconds, _computing(found, conditions.grid, hardware) / hardware.cores)
    return Prediction(
        seconds=seconds,
        samples_per_second=layout.batch_size / seconds,
        bubble=sum(timeline.bubble) / stages,
        transfer=sum(timeline.transfer) / stages / timeline.seconds,
        reduce=slowest["reduce"],
        update=slowest["step"],
        sharing=seconds / timeline.seconds,
        bytes=found.bytes,
        cut=found.first,
        recompute=found.recompute,
        timeline=timeline,
    )


def choose_cut(
    costs: Sequence[LayerCost], conditions: Conditions, method: CutMethod | tuple[int, ...]
) -> FoundCut:
    """Cut a measured network by a method, or assess the cut that is given.

    Raises:
        InputError: the network can't be cut so, or the cut does not fit the memory.
    """
    parameters = [cost.parameters for cost in costs]
    check_stages(parameters, conditions.grid)
    first = None if method == "measured" else plain_cut(parameters, conditions.grid.parts, method)
    if first is not None:
        check_cut(first, parameters, conditions.grid)
    problem = Problem.of(costs, conditions)
    return best_cut(problem) if first is None else assess_cut(problem, first)


def _computing(found: FoundCut, grid: Grid, hardware: Hardware) -> float:
    """Return the seconds that all workers of the first node compute in a step."""
    here = [grid.stage(rank) for rank in range(min(hardware.per_node, grid.workers))]
    return sum(
        (span.end - span.start) * here.count(span.rank)
        for span in found.timeline.spans
        if span.kind in ("forward", "backward", "step")
    )

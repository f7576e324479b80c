"""All grids that some hardware allows, with what is predicted of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from data_shards.errors import InputError
from trainer.config import RunConfig
from trainer.grid import BatchLayout, Grid
from trainer.planning.conditions import Conditions
from trainer.planning.costs import LayerCost, interpolate
from trainer.planning.cut import check_stages
from trainer.planning.hardware import Hardware
from trainer.planning.prediction import Prediction, predict

_MOST_MICRO_BATCHES = 32  # a stage; the bubble is then below 1/32, and more only costs more


@dataclass(frozen=True)
class Candidate:
    """A way to train.

    Attributes:
        grid: the workers.
        layout: how batches are shared out; None if they can't be.
        zero: ZeRO stage: 1 if replicas share out the optimizer's state.
        prediction: None if it is refused.
        refused: why, or "".
    """

    grid: Grid
    layout: BatchLayout | None
    zero: int
    prediction: Prediction | None
    refused: str = ""


def layouts(
    config: RunConfig, hardware: Hardware, parameters: Sequence[int]
) -> Iterator[tuple[Grid, BatchLayout | None, str]]:
    """List all grids of up to all workers, with all numbers of micro-batches that divide.

    Up to 32 a stage: more of them would gain next to nothing.

    Args:
        config: of the run; says batch size and schedule, and may fix the number of micro-batches.
        hardware: the workers.
        parameters: trainable weights of each layer.

    Yields:
        A grid, its layout, and why it is refused, or "".
    """
    folded = config.grid.schedule == "dualpipev"
    for stages in range(1, hardware.workers + 1):
        try:
            check_stages(parameters, Grid(stages, 1, folded))
        except InputError as error:
            yield Grid(stages, 1, folded), None, error.problem
            return  # and so it is for all that have more
        for replicas in range(1, hardware.workers // stages + 1):
            grid = Grid(stages, replicas, folded)
            share, rest = divmod(config.batch_size, replicas)
            if rest:
                reason = f"batch size {config.batch_size} does not divide over {replicas} replicas"
                yield grid, None, reason
                continue
            counts = [
                count
                for count in range(1, min(share, _MOST_MICRO_BATCHES * grid.parts) + 1)
                if share % count == 0
                and (not folded or count >= grid.parts)
                and config.grid.micro_batches in (None, count)
            ]
            if not counts:
                yield grid, None, f"no allowed number of micro-batches divides {share} samples"
            for count in counts:
                yield grid, BatchLayout(config.batch_size, replicas, count), ""


def rank(
    measured: Mapping[int, Sequence[LayerCost]],
    config: RunConfig,
    hardware: Hardware,
    update: float = 0.0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Candidate]:
    """Predict all grids and numbers of micro-batches; the most samples a second first.

    Each is cut as ``config.grid.cut`` says, by default with the shortest step; stages that would
    not fit the memory compute their activations again, if ``config.grid.recompute`` allows it.
    ZeRO-1 is taken where ``config.grid.zero`` says so, and where without it a stage would not fit
    or would have to compute again. Of equally fast ones the one with fewer workers comes first.
    Those that are refused come last.

    Args:
        measured: costs of the layers, from micro-batch size; interpolated between sizes.
        config: of the run.
        hardware: nodes, links, memory.
        update: seconds of the optimizer's step for one weight.
        advance: told how many are predicted, of how many.
    """
    parameters = [cost.parameters for cost in next(iter(measured.values()))]
    listed = list(layouts(config, hardware, parameters))
    candidates = []
    for number, (grid, layout, reason) in enumerate(listed):
        if layout is None:
            candidates.append(Candidate(grid, None, config.grid.zero, None, reason))
        else:
            candidates.append(_best_of(measured, config, hardware, update, grid, layout))
        advance(number + 1, len(listed))
    return sorted(candidates, key=_place)


def _place(candidate: Candidate) -> tuple[float, int, int]:
    speed = candidate.prediction.samples_per_second if candidate.prediction else 0.0
    count = candidate.layout.micro_batches if candidate.layout else 0
    return -speed, candidate.grid.workers, count


def _best_of(
    measured: Mapping[int, Sequence[LayerCost]],
    config: RunConfig,
    hardware: Hardware,
    update: float,
    grid: Grid,
    layout: BatchLayout,
) -> Candidate:
    """Predict one layout, with ZeRO-1 if it needs that."""
    if not min(measured) <= layout.micro_batch <= max(measured):
        text = f"micro-batches of {layout.micro_batch} were not measured (up to {max(measured)})"
        return Candidate(grid, layout, config.grid.zero, None, text)
    costs = interpolate(measured, layout.micro_batch)
    found: list[Candidate] = []
    refusals: list[InputError] = []
    for zero in (config.grid.zero,) if config.grid.zero or grid.replicas == 1 else (0, 1):
        conditions = Conditions.of(config, grid, layout, hardware, update)
        conditions = replace(conditions, upkeep=replace(conditions.upkeep, zero=zero == 1))
        try:
            prediction = predict(costs, layout, conditions, hardware, config.grid.cut)
        except InputError as error:
            refusals.append(error)
            continue
        found.append(Candidate(grid, layout, zero, prediction))
        if config.grid.recompute == "on" or not any(prediction.recompute):
            break
    if not found:
        return Candidate(grid, layout, config.grid.zero, None, refusals[-1].problem)
    return min(found, key=_place)

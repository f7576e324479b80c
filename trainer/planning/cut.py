"""Cuts that need no measuring, and whether a cut is possible at all.

A cut is the first layer of each part; a stage is one part, or two under DualPipeV. Each part needs
a layer with weights: a part without any has nothing to train.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from data_shards.errors import InputError
from trainer.config import CutMethod
from trainer.grid import Grid


def check_stages(parameters: Sequence[int], grid: Grid) -> None:
    """Refuse more stages than there are layers with weights for.

    Args:
        parameters: trainable weights of each layer.
        grid: the workers.

    Raises:
        InputError: says how many there can be.
    """
    having = sum(count > 0 for count in parameters)
    if grid.parts <= having:
        return
    per_stage = grid.parts // grid.stages
    need = "needs at least one" if per_stage == 1 else "of DualPipeV needs at least two"
    most = having // per_stage
    raise InputError(
        f"{grid.stages} stages, but only {having} of the network's {len(parameters)} layers have "
        f"weights, and a stage {need}",
        remedy=f"use --stages {most} or fewer (more replicas use more workers)"
        if most
        else "use grid.schedule = 1f1b",
    )


def check_cut(cut: Sequence[int], parameters: Sequence[int], grid: Grid) -> None:
    """Check a cut that was given, or made by a method that knows nothing of this rule.

    Args:
        cut: first layer of each part.
        parameters: trainable weights of each layer.
        grid: the workers.

    Raises:
        InputError: it is not one rising list of first layers from 0, or it leaves a part without
            weights.
    """
    check_stages(parameters, grid)
    parts = grid.parts
    what = f"{parts}" if not grid.folded else f"{parts} (two a stage)"
    bounds = [*cut, len(parameters)]
    rising = all(a < b for a, b in pairwise(bounds))
    if len(cut) != parts or cut[0] != 0 or not rising:
        raise InputError(
            f"grid.cut = {list(cut)} is not {what} rising layer numbers from 0 below "
            f"{len(parameters)}",
            remedy="give the first layer of each stage, as [0, 4] for two stages",
        )
    for part, (start, stop) in enumerate(pairwise(bounds)):
        if not any(parameters[start:stop]):
            name = "part" if grid.folded else "stage"
            raise InputError(
                f"grid.cut = {list(cut)}: {name} {part} has no layer with weights",
                remedy="move the cut so that each stage has a layer that trains",
            )


def uniform_cut(layers: int, parts: int) -> tuple[int, ...]:
    """Cut into equal numbers of layers; the first parts have one more where it does not divide.

    As DeepSpeed's "uniform" (``deepspeed.runtime.utils.partition_uniform``).
    """
    size, residual = divmod(layers, parts)
    return tuple(part * size + min(part, residual) for part in range(parts))


def parameters_cut(parameters: Sequence[int], parts: int) -> tuple[int, ...]:
    """Cut into parts of similar numbers of weights.

    As DeepSpeed's "parameters" (``deepspeed.runtime.utils.partition_balanced``): a dynamic
    programme over (layers, parts) that keeps for each the cut with the least difference between the
    largest and the smallest part. It is not exact: that difference of a whole is not a function of
    the differences of its beginnings.

    Args:
        parameters: trainable weights of each layer; no fewer layers than parts.
        parts: how many.
    """
    n = len(parameters)
    if n <= parts:
        return uniform_cut(n, parts)
    sums = [0]
    for count in parameters:
        sums.append(sums[-1] + count)
    # (difference, largest, smallest, where the last part starts) of layers[:i] in j parts
    infinite = float("inf")
    unknown = (infinite, infinite, infinite, 0)
    best: dict[tuple[int, int], tuple[float, float, float, int]] = {(0, 0): (0, 0, infinite, 0)}
    for i in range(1, n + 1):
        for j in range(1, min(i, parts) + 1):
            for k in range(i):
                difference, largest, smallest, _ = best.get((k, j - 1), unknown)
                largest = max(largest, sums[i] - sums[k])
                smallest = min(smallest, sums[i] - sums[k])
                difference = largest - smallest
                # Of equal ones the last counts, as there; impossible ones are equal too.
                if best.get((i, j), unknown)[0] >= difference:
                    best[i, j] = (difference, largest, smallest, k)
    cut = [n]
    for j in range(parts, 0, -1):
        cut.append(best[cut[-1], j][3])
    return tuple(reversed(cut[1:]))


def plain_cut(
    parameters: Sequence[int], parts: int, method: CutMethod | tuple[int, ...]
) -> tuple[int, ...]:
    """Return a cut for which nothing has to be measured.

    Raises:
        ValueError: the method is "measured", and there is more than one part.
    """
    if not isinstance(method, str):
        return method
    if parts == 1:
        return (0,)
    if method == "uniform":
        return uniform_cut(len(parameters), parts)
    if method == "parameters":
        return parameters_cut(parameters, parts)
    raise ValueError("a measured cut needs measurements")

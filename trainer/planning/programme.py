"""Cuts by dynamic programming, where there are too many to try all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.planning.problem import Needs, Pieces, Problem
from trainer.planning.tables import Floats, Places

_PROPOSALS = 64
StageCost = Callable[[Pieces, Needs], Floats]
"""What a stage with these parts costs; inf where that can't be."""


@dataclass(frozen=True)
class Proposal:
    """A cut and its value: what was minimised."""

    value: float
    first: tuple[int, ...]


def propose(problem: Problem) -> list[Proposal]:
    """Propose cuts that fit the memory, the best first; none if none fits.

    1F1B: those that minimise

        sum_s t_s + (m - 1) max_s t_s,

    t_s being the time that stage s spends on one micro-batch, its messages included: the step time
    of a pipeline whose slowest stage never waits (Zheng et al. 2022, Alpa, section 5.2). The least
    value is exact: among cuts whose slowest stage takes no more than t, dynamic programming finds
    the least sum; t goes through the times of all possible stages, from the least bottleneck up,
    until ``(m - 1) t`` plus the least sum of all exceeds the best value. All cuts on the way are
    proposed, at most 64. The value does not know how passes interlock, so the cut with the least is
    not always the fastest.

    DualPipeV: the cut whose slowest stage, both parts together, is fastest; its value is that time.
    """
    if problem.conditions.grid.folded:
        fastest = _nested(problem, lambda pieces, needs: _pass_times(problem, pieces, needs))
        return [] if fastest is None else [fastest]
    stages = range(problem.conditions.grid.stages)
    times = [_table(problem, stage, _with_messages(problem, stage)) for stage in stages]
    return _least_steps(times, problem.conditions.micro_batches)[:_PROPOSALS]


def smallest_need(problem: Problem) -> float:
    """Return the bytes of the largest stage in the cut where that is smallest."""

    def least(_: Pieces, needs: Needs) -> Floats:
        return needs.least

    if problem.conditions.grid.folded:
        best = _nested(problem, least)
    else:
        stages = range(problem.conditions.grid.stages)
        best = _least([_table(problem, stage, least) for stage in stages], np.maximum)
    if best is None:
        raise ValueError("there are fewer layers with weights than parts")
    return best.value


def _least_steps(times: list[Floats], micro_batches: int) -> list[Proposal]:
    """Return cuts in the order of their value, see :func:`propose`; times[s][start, stop]."""
    least, bottleneck = _least(times, np.add), _least(times, np.maximum)
    if least is None or bottleneck is None:
        return []
    limits = np.unique(np.concatenate([table[np.isfinite(table)] for table in times]))
    found: dict[tuple[int, ...], float] = {}
    best = float("inf")
    for limit in limits[limits >= bottleneck.value]:
        if least.value + (micro_batches - 1) * limit >= best:
            break
        capped = _least([np.where(table <= limit, table, np.inf) for table in times], np.add)
        if capped is None:  # rounding: the bottleneck is a sum of no others, so this can't be
            continue
        bounds = [*capped.first, len(times[0]) - 1]
        slowest = max(float(table[bounds[s], bounds[s + 1]]) for s, table in enumerate(times))
        found[capped.first] = capped.value + (micro_batches - 1) * slowest
        best = min(best, found[capped.first])
    return sorted(
        (Proposal(value, first) for first, value in found.items()), key=lambda found: found.value
    )


def _least(costs: list[Floats], combine: np.ufunc) -> Proposal | None:
    """Find the cut with the least sum (or maximum) over stages; costs[s][start, stop]."""
    values = np.full(len(costs[0]), np.inf)
    values[0] = 0.0
    origins = []
    for table in costs:
        together = combine(values[:, None], table)
        origins.append(together.argmin(0))
        values = together.min(0)
    if not np.isfinite(values[-1]):
        return None
    first: list[int] = []
    stop = len(values) - 1
    for origin in reversed(origins):
        stop = int(origin[stop])
        first.insert(0, stop)
    return Proposal(float(values[-1]), tuple(first))


def _table(problem: Problem, stage: int, cost: StageCost) -> Floats:
    """Return the cost of a stage by its start and stop, shape (n + 1, n + 1)."""
    places = np.arange(problem.tables.layers + 1)
    start, stop = np.meshgrid(places, places, indexing="ij")
    pieces = [(start, stop)]
    values = cost(pieces, problem.stage_needs(stage, pieces))
    return np.where(_trains(problem, start, stop), values, np.inf)


def _nested(problem: Problem, cost: StageCost) -> Proposal | None:
    """Find the cut into nested pairs of parts whose costliest pair costs least.

    From the innermost stage outwards, for all ranges of layers that it and those within may have:
    the least over where the stage's own two parts end and begin.
    """
    n, stages = problem.tables.layers, problem.conditions.grid.stages
    inner = np.full((n + 1, n + 1), np.inf)  # [start, stop]: costliest of the stages within
    np.fill_diagonal(inner, 0.0)  # within the innermost one there is nothing
    origins: list[dict[tuple[int, int], tuple[int, int]]] = []
    for stage in reversed(range(stages)):
        outer, origin = np.full((n + 1, n + 1), np.inf), {}
        ranges = [(0, n)] if stage == 0 else [(i, j) for i in range(n) for j in range(i + 2, n + 1)]
        for start, stop in ranges:
            value, place = _best_pair(problem, stage, cost, inner, start, stop)
            outer[start, stop], origin[start, stop] = value, place
        inner = outer
        origins.append(origin)
    if not np.isfinite(inner[0, n]):
        return None
    first, last = [0], []
    at = (0, n)
    for origin in reversed(origins):
        at = origin[at]
        first.append(at[0])
        last.append(at[1])
    # The innermost stage's parts meet: one bound, not two.
    return Proposal(float(inner[0, n]), (*first, *reversed(last[:-1])))


def _best_pair(
    problem: Problem, stage: int, cost: StageCost, inner: Floats, start: int, stop: int
) -> tuple[float, tuple[int, int]]:
    """Find where a stage's first part best ends and its second begins, within a range of layers."""
    places = np.arange(start, stop + 1)
    end, begin = np.meshgrid(places, places, indexing="ij")
    pieces = [(np.full_like(end, start), end), (begin, np.full_like(end, stop))]
    values = np.maximum(
        cost(pieces, problem.stage_needs(stage, pieces)), inner[start : stop + 1, start : stop + 1]
    )
    allowed = _trains(problem, *pieces[0]) & _trains(problem, *pieces[1]) & (end <= begin)
    values = np.where(allowed, values, np.inf)
    place = int(values.argmin())
    return float(values.flat[place]), (int(end.flat[place]), int(begin.flat[place]))


def _with_messages(problem: Problem, stage: int) -> StageCost:
    links, stages = problem.conditions.links, problem.conditions.grid.stages

    def cost(pieces: Pieces, needs: Needs) -> Floats:
        [(start, stop)] = pieces
        seconds = _pass_times(problem, pieces, needs)
        if stage > 0:
            seconds = seconds + 2 * links[stage - 1].seconds(problem.tables.handed[start])
        if stage < stages - 1:
            seconds = seconds + 2 * links[stage].seconds(problem.tables.handed[stop])
        return seconds

    return cost


def _pass_times(problem: Problem, pieces: Pieces, needs: Needs) -> Floats:
    """Return a stage's passes of one micro-batch; inf where it does not fit the memory."""
    tables = problem.tables
    forward = sum(tables.forward[stop] - tables.forward[start] for start, stop in pieces)
    backward = sum(tables.backward[stop] - tables.backward[start] for start, stop in pieces)
    own = 2 * len(pieces) * problem.conditions.overhead.each_pass
    seconds = np.asarray(forward * (1 + needs.recompute) + backward + own, float)
    return np.where(needs.bytes <= problem.limit, seconds, np.inf)


def _trains(problem: Problem, start: Places, stop: Places) -> Places:
    weights = problem.tables.weights
    return np.asarray((start < stop) & (weights[stop] > weights[start]))

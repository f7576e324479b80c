"""The best cut of a network under given conditions.

Up to 20,000 possible cuts, the best one is found exactly, by the event simulator: cuts are tried in
the order of a lower bound of their step time until the bound exceeds the best time found. Beyond
that, it is the fastest, simulated, of what dynamic programming proposes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError
from trainer.planning.pipeline import Timeline
from trainer.planning.problem import Problem
from trainer.planning.programme import propose, smallest_need
from trainer.planning.streams import owner
from trainer.planning.tables import Places

EXACT_UP_TO = 20_000
"""Cuts of which the best is found exactly."""

_ROUNDING = 1e-9  # by which a lower bound may exceed the simulated time, as a part of it


@dataclass(frozen=True)
class FoundCut:
    """A cut and what it means.

    Attributes:
        first: first layer of each part.
        recompute: for each part, whether it computes activations again.
        bytes: memory of each stage.
        timeline: of one step.
    """

    first: tuple[int, ...]
    recompute: tuple[bool, ...]
    bytes: tuple[int, ...]
    timeline: Timeline


def best_cut(problem: Problem, exact_up_to: int = EXACT_UP_TO) -> FoundCut:
    """Find the cut with the shortest simulated step that fits; in a tie, that sends fewer bytes.

    Args:
        problem: its network has enough layers with weights
            (:func:`trainer.planning.cut.check_stages`).
        exact_up_to: number of possible cuts up to which all of them count.

    Raises:
        InputError: no cut fits the memory; says what the smallest need is, and what may help.
    """
    layers, parts = problem.tables.layers, problem.conditions.grid.parts
    if comb(layers - 1, parts - 1) <= exact_up_to:
        cuts = all_cuts(layers, parts)
        cuts = cuts[(np.diff(problem.tables.weights[cuts], axis=-1) > 0).all(-1)]
    else:
        cuts = np.array([[*cut.first, layers] for cut in propose(problem)], np.int64)
        cuts = cuts.reshape(-1, parts + 1)
    needs = problem.needs(cuts)
    fits = (needs.bytes <= problem.limit).all(-1)
    if not fits.any():
        raise _does_not_fit(problem, smallest_need(problem), "no cut fits")
    return _fastest(problem, cuts[fits], needs.recompute[fits])


def assess_cut(problem: Problem, first: tuple[int, ...]) -> FoundCut:
    """Say what a cut that was given means.

    Raises:
        InputError: it does not fit the memory.
    """
    bounds = np.array([[*first, problem.tables.layers]], np.int64)
    needs = problem.needs(bounds)
    if (needs.bytes > problem.limit).any():
        text = f"the cut {list(first)} does not fit"
        raise _does_not_fit(problem, float(needs.least.max()), text)
    return _fastest(problem, bounds, needs.recompute)


def all_cuts(layers: int, parts: int) -> Places:
    """Return all cuts into non-empty parts, as bounds: shape (cuts, parts + 1)."""
    inner = np.array(list(combinations(range(1, layers), parts - 1)), np.int64)
    inner = inner.reshape(comb(layers - 1, parts - 1), parts - 1)
    return np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, layers)))


def _fastest(problem: Problem, cuts: Places, recompute: npt.NDArray[np.bool_]) -> FoundCut:
    """Simulate cuts, from the lowest bound up, while one may still be the best."""
    lowest = problem.lower_bounds(cuts, recompute)
    best: tuple[float, float] = (float("inf"), 0.0)
    chosen: tuple[int, Timeline] | None = None
    for number in np.argsort(lowest, kind="stable").tolist():
        if lowest[number] > best[0] * (1 + _ROUNDING):
            break
        timeline = problem.timeline(cuts[number], recompute[number])
        value = (timeline.seconds, float(problem.tables.handed[cuts[number]].sum()))
        if chosen is None or value < best:
            best, chosen = value, (number, timeline)
    if chosen is None:
        raise ValueError("there are no cuts")
    number, timeline = chosen
    stages = problem.conditions.grid.stages
    again = recompute[number]
    return FoundCut(
        first=tuple(cuts[number, :-1].tolist()),
        recompute=tuple(
            bool(again[owner(part, stages)]) for part in range(problem.conditions.grid.parts)
        ),
        bytes=tuple(int(size) for size in problem.needs(cuts[number][None]).bytes[0]),
        timeline=timeline,
    )


def _does_not_fit(problem: Problem, least: float, what: str) -> InputError:
    conditions = problem.conditions
    ways = ["more stages", "more micro-batches (smaller ones)"]
    if conditions.recompute == "off":
        ways.append('grid.recompute = "auto"')
    upkeep = conditions.upkeep
    if upkeep.state and upkeep.replicas > 1 and not upkeep.zero:
        ways.append("grid.zero = 1")
    return InputError(
        f"{what}: a stage may take {problem.limit / 1e9:.3g} GB, and the largest of "
        f"{conditions.grid.stages} needs {least / 1e9:.3g} GB at least",
        remedy=f"try {', '.join(ways)}, or workers with more memory (grid.memory_gb)",
    )

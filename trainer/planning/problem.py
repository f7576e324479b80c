"""A network under given conditions: what any cut of it costs, for many cuts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from trainer.planning.conditions import Conditions
from trainer.planning.costs import LayerCost
from trainer.planning.memory import kept_weights, stage_bytes
from trainer.planning.pipeline import Durations, Timeline, simulate
from trainer.planning.streams import Stream, in_flight, owner, parts_of, streams
from trainer.planning.tables import Floats, Places, Tables

Pieces = list[tuple[Places, Places]]


@dataclass(frozen=True)
class Needs:
    """What stages take, for many cuts at once; arrays of one shape.

    Attributes:
        recompute: whether the stage computes activations again.
        bytes: what it then takes.
        least: what it takes at least, computing again or not, as allowed.
    """

    recompute: npt.NDArray[np.bool_]
    bytes: Floats
    least: Floats


@dataclass(frozen=True)
class Problem:
    """Layers and conditions, with what follows from them.

    Attributes:
        tables: of the layers.
        conditions: of the cut.
        streams: of each stage.
        alive: of each stage, see :func:`trainer.planning.streams.in_flight`.
    """

    tables: Tables
    conditions: Conditions
    streams: tuple[Stream, ...]
    alive: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(cls, costs: Sequence[LayerCost], conditions: Conditions) -> Problem:
        """Prepare a problem."""
        orders = streams(conditions.schedule, conditions.grid.stages, conditions.micro_batches)
        return cls(
            Tables.of(costs), conditions, orders, tuple(in_flight(stream) for stream in orders)
        )

    def pieces(self, bounds: Places, stage: int) -> Pieces:
        """Return where a stage's parts begin and end, for cuts (..., parts + 1)."""
        grid = self.conditions.grid
        return [
            (bounds[..., part], bounds[..., part + 1])
            for part in parts_of(stage, grid.stages, self.conditions.schedule)
        ]

    def needs(self, bounds: Places) -> Needs:
        """Say what stages take: bounds (cuts, parts + 1) to arrays (cuts, stages)."""
        stages = range(self.conditions.grid.stages)
        needs = [self.stage_needs(stage, self.pieces(bounds, stage)) for stage in stages]
        return Needs(
            np.stack([need.recompute for need in needs], -1),
            np.stack([need.bytes for need in needs], -1),
            np.stack([need.least for need in needs], -1),
        )

    def stage_needs(self, stage: int, pieces: Pieces) -> Needs:
        """Decide whether a stage with these parts computes activations again, and what it takes.

        Under "auto" it does where it would not fit else. That is the best there is: it costs the
        stage time and gains it memory, no stage's memory depends on another's choice, and no step
        gets shorter if one of its passes gets longer (all its times are sums and maxima of those).
        """
        conditions = self.conditions
        plain, again = (
            stage_bytes(
                self.tables, pieces, self.alive[stage], conditions.upkeep, recompute=recompute
            )
            for recompute in (False, True)
        )
        if conditions.recompute == "auto":
            chosen = plain > self.limit
            return Needs(chosen, np.where(chosen, again, plain), np.minimum(plain, again))
        on = conditions.recompute == "on"
        taken = again if on else plain
        return Needs(np.full(plain.shape, on), taken, taken)

    @property
    def limit(self) -> float:
        """Bytes that a stage may take."""
        return float("inf") if self.conditions.memory is None else self.conditions.memory

    def times(
        self, bounds: Places, recompute: npt.NDArray[np.bool_]
    ) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return the durations of many cuts.

        Args:
            bounds: shape (cuts, parts + 1).
            recompute: shape (cuts, stages).

        Returns:
            Forward and backward passes (cuts, parts), messages (cuts, parts - 1), averaging and
            update (cuts, stages), as in :class:`trainer.planning.pipeline.Durations`.
        """
        tables, conditions = self.tables, self.conditions
        grid, own = conditions.grid, conditions.overhead
        owners = [owner(part, grid.stages) for part in range(grid.parts)]
        forward = np.diff(tables.forward[bounds], axis=-1)
        backward = np.diff(tables.backward[bounds], axis=-1)
        backward = backward + np.where(recompute[:, owners], forward, 0.0) + own.each_pass
        forward = forward + own.each_pass
        messages = [
            conditions.links[min(a, b)].seconds(tables.handed[bounds[:, part + 1]])
            if a != b
            else np.zeros(len(bounds))
            for part, (a, b) in enumerate(pairwise(owners))
        ]
        message = np.stack(messages, -1) if messages else np.zeros((len(bounds), 0))
        reduce, update = [], []
        for stage in range(grid.stages):
            pieces = self.pieces(bounds, stage)
            weights = sum(tables.weights[b] - tables.weights[a] for a, b in pieces)
            reduce.append(conditions.reduce_seconds(stage, np.asarray(weights, float)))
            kept = kept_weights(tables, pieces, conditions.upkeep)
            update.append(conditions.update * kept + own.each_step)
        return forward, backward, message, np.stack(reduce, -1), np.stack(update, -1)

    def timeline(self, bounds: Places, recompute: npt.NDArray[np.bool_]) -> Timeline:
        """Simulate one cut: bounds (parts + 1,), recompute (stages,)."""
        times = self.times(bounds[None], recompute[None])
        return simulate(self.streams, Durations(*(array[0].tolist() for array in times)))

    def lower_bounds(self, bounds: Places, recompute: npt.NDArray[np.bool_]) -> Floats:
        """Return times that the step of each cut can't be shorter than, shape (cuts,).

        With F_k, B_k the passes of part k and C_k the message after it, stage s of p can't begin
        before the first micro-batch has come to it, then has m forward and m backward passes (and
        under 1F1B as many messages, which block it), and after its last pass the gradient still
        goes all the way back:

            sum_{k<s} (F_k + B_k)  +  2 sum_{k<s-1} C_k  +  m (F_s + B_s + 2 C_{s-1} + 2 C_s)

        or, instead of the way back, its own averaging and update. Under 1F1B there is a second
        bound: its first backward pass comes after the first micro-batch has been to the last stage
        and come back, when it has done w = min(m, p - s) forward passes:

            sum_k F_k + C_k  +  sum_{k>s} B_k + C_{k-1}  +  m B_s + (m - w) F_s  +  sum_{k<s} B_k
        """
        forward, backward, message, reduce, update = self.times(bounds, recompute)
        grid, m = self.conditions.grid, self.conditions.micro_batches
        p, best = grid.stages, np.zeros(len(bounds))
        finish = reduce + update
        for stage in range(p):
            parts = parts_of(stage, p, self.conditions.schedule)
            work = sum(forward[:, part] + backward[:, part] for part in parts)
            there = forward[:, :stage].sum(-1)
            back = backward[:, :stage].sum(-1)
            if not grid.folded:
                ways = message[:, max(0, stage - 1) : stage + 1].sum(-1)
                work = work + 2 * ways
                before = message[:, : max(0, stage - 1)].sum(-1)
                there, back = there + before, back + before
            end = np.maximum(back + finish[:, 0], finish[:, stage])
            best = np.maximum(best, there + m * work + end)
            if not grid.folded:
                begun = min(m, p - stage)
                turn = forward.sum(-1) + message.sum(-1)
                turn = turn + backward[:, stage + 1 :].sum(-1) + message[:, stage:].sum(-1)
                rest = m * backward[:, stage] + (m - begun) * forward[:, stage]
                best = np.maximum(best, turn + rest + end)
        return np.asarray(best)

"""What a stage takes of a worker's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.config import OptimizerConfig, RunConfig
from trainer.planning.tables import Floats, Places, Tables

_WEIGHT = 4  # bytes: weights, gradients and the optimizer's state are float32


def state_factor(config: OptimizerConfig) -> int:
    """Return how many tensors the size of the weights an optimizer keeps."""
    if config.name == "adamw":
        return 2
    momentum = config.effective_momentum > 0
    return int(momentum) + (config.name == "rmsprop")


@dataclass(frozen=True)
class Upkeep:
    """What training keeps for each weight, beside the weight and its gradient.

    Attributes:
        state: tensors of the optimizer.
        ema: whether averaged weights are kept.
        replicas: copies of the pipeline.
        zero: whether replicas share out the optimizer's state, each tensor whole (ZeRO-1).
    """

    state: int
    ema: bool
    replicas: int
    zero: bool

    @classmethod
    def of(cls, config: RunConfig, replicas: int) -> Upkeep:
        """Return what a configuration asks for."""
        optimizer = config.optimizer
        return cls(state_factor(optimizer), optimizer.ema > 0, replicas, config.grid.zero == 1)


def kept_weights(tables: Tables, pieces: Sequence[tuple[Places, Places]], upkeep: Upkeep) -> Floats:
    """Return of how many weights a worker keeps the optimizer's state.

    Under ZeRO-1 the fullest replica has about the mean over replicas, but no less than the largest
    tensor, for which we take the largest layer.
    """
    total = _total([_between(tables.weights, piece) for piece in pieces])
    if not upkeep.zero:
        return total
    largest = np.maximum.reduce([tables.largest[start, stop] for start, stop in pieces])
    return np.maximum(total / upkeep.replicas, largest)


def stage_bytes(
    tables: Tables,
    pieces: Sequence[tuple[Places, Places]],
    alive: Sequence[tuple[int, ...]],
    upkeep: Upkeep,
    *,
    recompute: bool,
) -> Floats:
    """Return the bytes that a stage takes, for many cuts at once.

    Weights, gradients, the optimizer's state and averaged weights; for each micro-batch in flight
    what autograd keeps, the input as received and as cloned, and the output until its gradient
    comes; one buffer to receive inputs and one for the gradient of outputs. With replicas,
    gradients are averaged in a flat copy, when no activations are kept any more. With recomputing,
    a micro-batch in flight keeps only inputs and output, and one has all its activations again.
    The micro-batch as it was read, the loss, and a layer's temporaries are left out.

    Args:
        tables: of the layers.
        pieces: first layer and end of each part of the stage, arrays that broadcast together.
        alive: micro-batches in flight in each part, see :func:`trainer.planning.streams.in_flight`.
        upkeep: what is kept for each weight.
        recompute: whether activations are computed again.
    """
    activations = [_between(tables.activations, piece) for piece in pieces]
    received = [tables.handed[start] for start, _ in pieces]
    sent = [tables.handed[stop] for _, stop in pieces]
    weights = _total([_between(tables.weights, piece) for piece in pieces])
    own = _total([_between(tables.weight_bytes, piece) for piece in pieces])
    own = own + _WEIGHT * weights * (1 + upkeep.ema)
    own = own + _WEIGHT * upkeep.state * kept_weights(tables, pieces, upkeep)
    kept = [2 * start + stop for start, stop in zip(received, sent, strict=True)]
    if not recompute:
        kept = [both + more for both, more in zip(kept, activations, strict=True)]
    passing = np.maximum.reduce(
        [_total([n * size for n, size in zip(counts, kept, strict=True)]) for counts in alive]
    )
    passing = passing + _total([*received, *sent])
    if recompute:
        passing = passing + np.maximum.reduce(activations)
    if upkeep.replicas > 1:
        passing = np.maximum(passing, _WEIGHT * weights)
    return np.asarray(own + passing, float)


def _between(table: Floats, piece: tuple[Places, Places]) -> Floats:
    start, stop = piece
    return table[stop] - table[start]


def _total(arrays: Sequence[Floats]) -> Floats:
    return np.asarray(np.add.reduce(list(arrays)))

"""Sums over neighbouring layers, for many cuts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.planning.costs import LayerCost

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
"""Numbers of layers where a part starts or stops; start < stop <= number of layers."""


@dataclass(frozen=True)
class Tables:
    """Running sums over n layers; each shape (n + 1,), a part's sum is ``t[stop] - t[start]``.

    Attributes:
        forward: seconds of forward passes.
        backward: seconds of backward passes.
        weights: trainable weights.
        weight_bytes: bytes of all weights.
        activations: bytes kept for the backward pass.
        handed: not a sum: bytes that layer i gets from the layer before; 0 at both ends, where
            nothing crosses a cut.
        largest: not a sum: shape (n + 1, n + 1), trainable weights of the largest layer of a part.
    """

    forward: Floats
    backward: Floats
    weights: Floats
    weight_bytes: Floats
    activations: Floats
    handed: Floats
    largest: Floats

    @classmethod
    def of(cls, costs: Sequence[LayerCost]) -> Tables:
        """Sum up the costs of layers."""
        n = len(costs)
        handed = [0.0, *(float(cost.output_bytes) for cost in costs[:-1]), 0.0]
        weights = np.array([cost.parameters for cost in costs], float)
        largest = np.zeros((n + 1, n + 1))
        for start in range(n):
            largest[start, start + 1 :] = np.maximum.accumulate(weights[start:])
        return cls(
            forward=_sums([cost.forward for cost in costs]),
            backward=_sums([cost.backward for cost in costs]),
            weights=_sums([cost.parameters for cost in costs]),
            weight_bytes=_sums([cost.parameter_bytes for cost in costs]),
            activations=_sums([cost.activation_bytes for cost in costs]),
            handed=np.array(handed),
            largest=largest,
        )

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.forward) - 1


def _sums(values: Sequence[float]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.asarray(values, float))])

"""Exponential moving average of weights (Polyak and Juditsky, 1992), for evaluation and export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn

from data_shards.errors import CorruptDataError


class ExponentialAverage:
    """Averages of the weights of one stage: ``average += (1 - decay) * (weight - average)``.

    The first average is the initial weight, so there is no bias towards zero to correct, and
    weights that stand still are their own average to the bit. Parameters that require no gradient
    have none: they are their own average. Buffers (batch-norm statistics) are not averaged: those
    of the weights serve the averages too.

    Replicas hold the same weights and update alike, so nothing is sent.

    Args:
        named: the parameters, on the device they will stay on; averages have their dtype.
        decay: in [0, 1); 0.999 averages about the last 1000 steps.
    """

    def __init__(self, named: Sequence[tuple[str, nn.Parameter]], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        self.decay = decay
        self._weights = {name: weight for name, weight in named if weight.requires_grad}
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._is_swapped = False

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The averages by parameter name: live tensors, that :meth:`update` changes in place."""
        return MappingProxyType(self._averages)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now; call once after each optimizer step.

        Raises:
            RuntimeError: inside :meth:`swapped`, where the weights are the averages.
        """
        self._refuse_if_swapped("update")
        if self._weights:
            weights: list[Tensor] = list(self._weights.values())
            torch._foreach_lerp_(list(self._averages.values()), weights, 1 - self.decay)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over averages from a checkpoint.

        Args:
            tensors: what :attr:`tensors` had; on any device.

        Raises:
            CorruptDataError: a name, shape or dtype differs; nothing has been changed.
            RuntimeError: inside :meth:`swapped`.
        """
        self._refuse_if_swapped("load")
        if tensors.keys() != self._averages.keys():
            different = sorted(tensors.keys() ^ self._averages.keys())
            raise CorruptDataError(f"averaged weights missing or unknown: {', '.join(different)}")
        for name, average in self._averages.items():
            found = tensors[name]
            if (found.shape, found.dtype) != (average.shape, average.dtype):
                raise CorruptDataError(
                    f"averaged weight {name} is {found.dtype} {list(found.shape)}, "
                    f"not {average.dtype} {list(average.shape)}"
                )
        for name, average in self._averages.items():
            average.copy_(tensors[name])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the parameters be the averages; afterwards they are what they were, to the bit.

        Values are copied in place: parameters stay the same objects in the same memory, as
        optimizers and cuDNN need. Takes memory for a third copy of the weights meanwhile.

        Raises:
            RuntimeError: already swapped.
        """
        self._refuse_if_swapped("swap")
        with torch.no_grad():
            kept = {name: weight.clone() for name, weight in self._weights.items()}
        self._is_swapped = True
        try:
            self._fill(self._averages)
            yield
        finally:
            self._fill(kept)
            self._is_swapped = False

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        """Copy values into the parameters."""
        for name, weight in self._weights.items():
            weight.copy_(values[name])

    def _refuse_if_swapped(self, what: str) -> None:
        if self._is_swapped:
            raise RuntimeError(f"can't {what} while the weights are swapped for their averages")

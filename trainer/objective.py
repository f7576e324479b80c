"""What the last stage does with outputs: compute the loss, or keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.recipe import Activations, Loss

Decode = Callable[[Any], Any]
"""From targets as stored, on the device, to targets as the loss reads them."""


class Objective:
    """The loss of the last stage; in prediction it keeps the outputs instead.

    DeepSpeed's own way of returning outputs keeps those of the last micro-batch only.

    Args:
        loss: scalar, from outputs in float32 and decoded targets.
        decode: of the targets.
    """

    def __init__(self, loss: Loss, decode: Decode) -> None:
        self._loss = loss
        self._decode = decode
        self._outputs: list[Tensor] | None = None

    def __call__(self, outputs: Activations, targets: Any) -> Tensor:
        """Return the scalar loss of one micro-batch."""
        if not isinstance(outputs, Tensor):
            raise TypeError("the last layer must return one tensor")
        outputs = outputs.float()
        if self._outputs is not None:
            self._outputs.append(outputs.detach())
            return outputs.new_zeros(())
        return self._loss(outputs, self._decode(targets))

    def collect(self) -> None:
        """Keep the outputs of the coming micro-batches."""
        self._outputs = []

    def collected(self) -> list[Tensor]:
        """Return the outputs kept, and compute losses again from now on."""
        outputs, self._outputs = self._outputs or [], None
        return outputs


def unpack_bits(packed: Tensor, tasks: int) -> Tensor:
    """Unpack labels on their device: (B, ceil(T / 8)) uint8 -> (B, T) float32."""
    shifts = torch.arange(8, device=packed.device, dtype=torch.uint8)
    bits = (packed[:, :, None] >> shifts) & 1
    return bits.flatten(1)[:, :tasks].float()

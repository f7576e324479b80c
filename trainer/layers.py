"""Layers that recipes are made of, each from tensor to tensor, cut anywhere between them.

Shapes are written with B samples, L positions, C channels, T tasks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from data_shards.hashing import key, mix
from data_shards.sequence import ALPHABET, UNKNOWN

BASES = 4


class OneHot(nn.Module):
    """Codes (B, L) uint8 -> one-hot (B, 4, L) float32; unknown bases are all zero."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        table = torch.zeros(len(ALPHABET), BASES)
        table[:UNKNOWN] = torch.eye(BASES)
        self.register_buffer("table", table, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Encode on the device of the codes."""
        return self.table[codes.int()].transpose(1, 2).contiguous()


class BiLSTM(nn.Module):
    """Bidirectional LSTM over positions: (B, C, L) -> (B, L, 2 * hidden).

    One bias vector a gate, as in Keras; PyTorch's second one is held at zero.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, batch_first=True, bidirectional=True)
        for name, weight in self.lstm.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.zeros_(weight)
                weight.requires_grad_(False)
            elif name.startswith("bias_ih"):
                nn.init.zeros_(weight)
                with torch.no_grad():
                    weight[hidden : 2 * hidden] = 1.0  # forget gate open at the start
            elif name.startswith("weight_hh"):
                for gate in weight.data.split(hidden):
                    nn.init.orthogonal_(gate)
            else:
                for gate in weight.data.split(hidden):
                    nn.init.xavier_uniform_(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the hidden states of all positions, both directions side by side."""
        states: Tensor = self.lstm(x.transpose(1, 2))[0]
        return states.contiguous()


class ConvPool(nn.Module):
    """Convolution without padding, ReLU, max-pooling: (B, C, L) -> (B, filters, steps).

    ``steps = (L - width + 1) // pool``. One layer, because nobody should cut a pipeline where the
    activations are ``pool`` times larger than one step later.
    """

    def __init__(self, channels: int, filters: int, width: int, pool: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, filters, width)
        self.pool = pool
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Scan the sequence with the filters and keep the best match of each stretch."""
        return max_pool1d(torch.relu(self.conv(x)), self.pool)


class Dense(nn.Module):
    """All inputs of a sample to ``units`` outputs: (B, ...) -> (B, units)."""

    def __init__(self, inputs: int, units: int, *, relu: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units)
        self.relu = relu
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Flatten, multiply, and rectify if asked to."""
        x = self.linear(x.flatten(1))
        return torch.relu(x) if self.relu else x


class KeyedDropout(nn.Module):
    """Dropout whose mask is a pure function of (seed, layer, sample position, element).

    The mask of a sample does not depend on the cut, the micro-batch, the replica or the device it
    is computed on, so a pipeline drops exactly what one process drops. Whoever drives the layer
    sets :attr:`position` before a forward pass in training.

    Attributes:
        position: place in the sample order (over all epochs) of the first sample of the input.
        outside_graphs: methods that torch.compile must leave alone (numbers of numpy's).
    """

    outside_graphs = ("_keep",)

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate {rate} is not in [0, 1)")
        self.rate = rate
        self.position = 0
        self._seed = 0
        self._elements = torch.empty(0, dtype=torch.int32)

    def bind(self, seed: int, layer: int, part: int) -> None:
        """Give it its key: the run's seed, the layer's index, and its number within the layer."""
        self._seed = key(seed, layer, part, 0xD201)
        self._elements = torch.empty(0, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training, scale the others by 1 / (1 - rate)."""
        if not self.training or self.rate == 0:
            return x
        kept: Tensor = self._keep(x)
        return x * (kept / (1 - self.rate))

    def _keep(self, x: Tensor) -> Tensor:
        """Return ones where an element stays, zeros elsewhere, in the shape and dtype of x."""
        samples, size = x.shape[0], x[0].numel()
        if self._elements.numel() != size or self._elements.device != x.device:
            self._elements = _draws(key(self._seed, 1), 0, size).to(x.device)
        rows = _draws(key(self._seed, 2), self.position, samples).to(x.device)
        bits = _scramble(rows[:, None] + self._elements[None, :])
        # Signed 32-bit draws are uniform: drop the lowest share of them.
        threshold = int(self.rate * 2**32) - 2**31
        return (bits >= threshold).to(x.dtype).view_as(x)


def compile_in_place(module: nn.Module) -> None:
    """Let a layer go through ``torch.compile`` at its next use.

    What has to stay out of its graphs is marked here and not by decorators: those import the
    compiler, which takes 2 s of each worker's start.
    """
    for part in module.modules():
        for name in getattr(part, "outside_graphs", ()):
            setattr(part, name, torch.compiler.disable(getattr(part, name)))
    module.compile()


def _draws(seed: int, first: int, count: int) -> Tensor:
    """Return ``count`` random int32 for the numbers from ``first`` on."""
    numbers = np.arange(first, first + count, dtype=np.uint64) ^ np.uint64(seed)
    return torch.from_numpy((mix(numbers) >> np.uint64(32)).astype(np.uint32).view(np.int32))


def _scramble(x: Tensor) -> Tensor:
    """Scramble int32 in place with the finaliser "lowbias32" (C. Wellons); wraps around."""
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= 0x846CA68B - 2**32
    x ^= (x >> 16) & 0xFFFF
    return x

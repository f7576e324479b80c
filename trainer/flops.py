"""How many floating-point operations a network needs, by a stated formula."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

FORMULA = (
    "FLOP of a training step = 3 x 2 x (multiply-adds of a forward pass): the backward pass "
    "computes the gradients of inputs and of weights, each as dear as the forward pass. "
    "Multiply-adds of a sample: convolution (outputs x input channels x width), dense layer "
    "(inputs x outputs), LSTM (positions x directions x 4 hidden x (inputs + hidden); GRU: 3), "
    "attention by torch.nn.MultiheadAttention (4 positions x width^2 + 2 positions^2 x width). "
    "Everything else is left out. The first layer counts in full, though inputs need no gradient. "
    "MFU = (FLOP a second) / (peak of the GPU)."
)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_COUNTED = (*_CONVOLUTIONS, nn.Linear, nn.RNNBase, nn.MultiheadAttention)
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}

FLOP_PER_MULTIPLY_ADD = 3 * 2  # of a forward pass, with the backward pass that it leads to

PEAKS: dict[str, dict[str, float]] = {
    # TFLOP/s from the makers' data sheets: float32 without tensor cores; bfloat16, dense.
    "H200": {"fp32": 67.0, "bf16": 989.0},
    "H100 PCIe": {"fp32": 51.0, "bf16": 756.0},
    "H100": {"fp32": 67.0, "bf16": 989.0},
    "A100": {"fp32": 19.5, "bf16": 312.0},
    "L40S": {"fp32": 91.6, "bf16": 362.0},
    "L4": {"fp32": 30.3, "bf16": 121.0},
    "A10": {"fp32": 31.2, "bf16": 125.0},
    "RTX 4090": {"fp32": 82.6, "bf16": 165.2},
}


def peak_of(device: str, precision: str) -> float | None:
    """Return the peak of a GPU by its name, TFLOP/s; None if it is not in the table."""
    for name, peaks in PEAKS.items():
        if name in device:
            return peaks[precision]
    return None


class MultiplyAdds:
    """Counts the multiply-adds of forward passes while its context is open."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.total = 0.0
        self._parts = [
            part for module in modules for part in module.modules() if isinstance(part, _COUNTED)
        ]
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._hooks = [part.register_forward_hook(self._count) for part in self._parts]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, module: nn.Module, received: Any, given: Any) -> None:
        if torch._C._current_graph_task_id() == -1:  # not a backward pass that computes it again
            self.total += _of(module, given)


def multiply_adds(modules: Sequence[nn.Module], inputs: Tensor) -> float:
    """Count the multiply-adds of a forward pass of one sample.

    Args:
        modules: of the network, run one after the other; they stay as they are.
        inputs: of one or more samples.
    """
    training = [module.training for module in modules]
    try:
        with torch.no_grad(), MultiplyAdds(modules) as counted:
            x = inputs
            for module in modules:
                x = module.eval()(x)
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)
    return counted.total / len(inputs)


def _of(module: nn.Module, given: Any) -> float:
    """Count one call of a module, from what it returned."""
    if isinstance(module, _CONVOLUTIONS):
        taps = math.prod(module.kernel_size) * module.in_channels // module.groups
        return float(given.numel() * taps)
    if isinstance(module, nn.Linear):
        return float(given.numel() * module.in_features)
    if isinstance(module, nn.RNNBase):
        outputs: Tensor = getattr(given[0], "data", given[0])  # of a packed sequence, too
        directions, hidden = 1 + module.bidirectional, module.hidden_size
        out = module.proj_size or hidden
        steps = outputs.numel() // (directions * out)
        inputs = [module.input_size] + [directions * out] * (module.num_layers - 1)
        gates = sum(_GATES[module.mode] * hidden * (size + out) for size in inputs)
        projections = module.num_layers * hidden * module.proj_size
        return float(steps * directions * (gates + projections))
    if isinstance(module, nn.MultiheadAttention):
        outputs, width = given[0], module.embed_dim
        steps = outputs.shape[0 if outputs.dim() == 3 and not module.batch_first else -2]
        samples = outputs.numel() // (steps * width)
        return float(samples * (4 * steps * width**2 + 2 * steps**2 * width))
    return 0.0


def training_flop(modules: Sequence[nn.Module], inputs: Tensor) -> float:
    """Return the FLOP of training on one sample."""
    return FLOP_PER_MULTIPLY_ADD * multiply_adds(modules, inputs)

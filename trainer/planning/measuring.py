"""Measuring layers, one at a time, on real data and on the device that will run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig, Precision
from trainer.layers import KeyedDropout
from trainer.optimizers import build_optimizer
from trainer.planning.costs import LayerCost
from trainer.recipe import Activations, Layer, build_layer, trainable

_TIMED_WEIGHTS = 2**10, 2**27  # in the timing of an optimizer: at least, at most


def measure(
    layers: Sequence[Layer],
    inputs: Activations,
    seed: int,
    *,
    precision: Precision = "fp32",
    repeats: int = 3,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[LayerCost]:
    """Measure each layer on the device of ``inputs``, one layer in memory at a time.

    A first pass warms up and counts bytes; of the ``repeats`` passes after it the fastest counts,
    forward and backward each for itself. The loss is not measured.

    Args:
        layers: the network.
        inputs: one micro-batch as the first layer gets it.
        seed: of the run; the layers are built as training will build them.
        precision: "bf16" computes under ``torch.autocast``.
        repeats: at least 1.
        advance: told how many layers are measured, of how many.

    Returns:
        One cost a layer.

    Raises:
        torch.OutOfMemoryError: a layer alone does not fit the device.
    """
    costs: list[LayerCost] = []
    x = _detached(inputs, [False] * len(_tensors(inputs)))
    kept: set[int] = set()
    for index, layer in enumerate(layers):
        module = build_layer(layer, seed, index).to(_tensors(x)[0].device).train()
        cost, x, kept = _measure_layer(layer.name, module, x, precision, repeats, kept)
        costs.append(cost)
        advance(index + 1, len(layers))
    return costs


def _measure_layer(
    name: str,
    module: nn.Module,
    x: Activations,
    precision: Precision,
    repeats: int,
    kept_before: set[int],
) -> tuple[LayerCost, Activations, set[int]]:
    """Measure one layer; return its cost, its output, and where outputs lie that it keeps."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _, _, outputs = _time(module, x, precision)
    learns = [tensor.requires_grad for tensor in _tensors(outputs)]
    # Activations keep their address as long as `outputs` lives.
    own = {weight.untyped_storage().data_ptr() for weight in _weights(module)}
    activations = {address: size for address, size in saved.items() if address not in own}
    kept = {tensor.untyped_storage().data_ptr() for tensor in _tensors(outputs)}
    kept &= kept_before | set(activations)  # a layer may hand on its input, as nn.Flatten does
    forward = backward = float("inf")
    for _ in range(repeats):
        once = _time(module, x, precision)
        forward, backward = min(forward, once[0]), min(backward, once[1])
    cost = LayerCost(
        name=name,
        forward=forward,
        backward=backward,
        parameters=trainable(module),
        parameter_bytes=sum(weight.nbytes for weight in _weights(module)),
        output_bytes=sum(tensor.nbytes for tensor in _tensors(outputs)),
        activation_bytes=sum(
            size for address, size in activations.items() if address not in kept_before
        ),
    )
    return cost, _detached(outputs, learns), kept


def _time(
    module: nn.Module, x: Activations, precision: Precision
) -> tuple[float, float, Activations]:
    """Time one forward and one backward pass; return both, in seconds, and the outputs."""
    for part in module.modules():
        if isinstance(part, KeyedDropout):
            part.position = 0
    x = _detached(x, [tensor.requires_grad for tensor in _tensors(x)])
    device = _tensors(x)[0].device
    _synchronize(device)
    begin = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs: Activations = module(x)
    _synchronize(device)
    middle = time.perf_counter()
    roots = [tensor for tensor in _tensors(outputs) if tensor.requires_grad]
    gradients = [torch.ones_like(root) for root in roots]
    _synchronize(device)
    again = time.perf_counter()
    if roots:
        torch.autograd.backward(roots, gradients)
    _synchronize(device)
    return middle - begin, time.perf_counter() - again, outputs


def update_rate(
    config: OptimizerConfig, costs: Sequence[LayerCost], device: torch.device, repeats: int = 3
) -> float:
    """Time the optimizer on as many weights as the largest layer has.

    Whether its numbers fit a cache makes a difference of a factor of two.

    Returns:
        Seconds of a step for one weight.
    """
    least, most = _TIMED_WEIGHTS
    count = min(max(least, *(cost.parameters for cost in costs)), most)
    weight = nn.Parameter(torch.zeros(-(-count // least), least, device=device))
    weight.grad = torch.ones_like(weight)
    optimizer = build_optimizer(config, [("weight", weight)])
    best = float("inf")
    for _ in range(1 + repeats):  # the first makes the optimizer's state
        _synchronize(device)
        begin = time.perf_counter()
        optimizer.step()
        _synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return best / weight.numel()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on so many threads of the CPU until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensors(x: Activations) -> tuple[Tensor, ...]:
    return (x,) if isinstance(x, Tensor) else x


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _detached(x: Activations, learns: Sequence[bool]) -> Activations:
    """Return the same numbers without their history; ``learns`` says which need a gradient."""
    tensors = tuple(
        tensor.detach().requires_grad_(needed)
        for tensor, needed in zip(_tensors(x), learns, strict=True)
    )
    return tensors[0] if isinstance(x, Tensor) else tensors


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

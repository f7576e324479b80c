"""Measuring the same layers once a node."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.errors import CorruptDataError
from trainer.config import Precision
from trainer.planning.costs import CostCache, LayerCost
from trainer.planning.measuring import measure
from trainer.recipe import Activations, Layer, build_layer


def warn(text: str) -> None:
    """Tell a note as a warning."""
    warnings.warn(text, stacklevel=2)


def measure_cached(
    layers: Sequence[Layer],
    inputs: Activations,
    seed: int,
    *,
    cache: CostCache | None,
    precision: Precision = "fp32",
    repeats: int = 3,
    advance: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = warn,
) -> list[LayerCost]:
    """Measure layers once a node; later calls read what was measured.

    Args:
        layers: the network.
        inputs: one micro-batch as the first layer gets it.
        seed: of the run; costs are kept for all seeds.
        cache: where costs are kept; None measures and keeps nothing.
        precision: of the layers.
        repeats: of each measurement.
        advance: told how many layers are measured, of how many.
        note: told of a damaged file, which is measured again and replaced, and of a folder that
            can't be written.
    """
    if cache is None:
        return measure(layers, inputs, seed, precision=precision, repeats=repeats, advance=advance)
    about = describe(layers, inputs, seed, precision, repeats)
    key = cost_key(about)
    try:
        found = cache.read(key)
    except CorruptDataError as error:
        note(f"{error}; the layers are measured again")
        found = None
    if found is not None:
        return found
    costs = measure(layers, inputs, seed, precision=precision, repeats=repeats, advance=advance)
    try:
        cache.write(key, costs, about)
    except OSError as error:
        note(f"{cache.folder}: the measured costs can't be kept: {error.strerror}")
    return costs


def describe(
    layers: Sequence[Layer], inputs: Activations, seed: int, precision: Precision, repeats: int
) -> dict[str, Any]:
    """Describe all that costs depend on: layers, inputs, device, precision, version of torch."""
    tensors = (inputs,) if isinstance(inputs, Tensor) else inputs
    return {
        "layers": [
            {
                "name": layer.name,
                "constants": list(layer.constants),
                "parts": _parts(build_layer(layer, seed, index)),
            }
            for index, layer in enumerate(layers)
        ],
        "inputs": [[list(tensor.shape), str(tensor.dtype)] for tensor in tensors],
        "device": device_name(tensors[0].device),
        "precision": precision,
        "repeats": repeats,
        "torch": torch.__version__,
    }


def cost_key(about: dict[str, Any]) -> str:
    """Return the sha256 of a description."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def device_name(device: torch.device) -> str:
    """Return the model of a GPU, or of the CPU with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_model()}, {torch.get_num_threads()} thread(s)"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _parts(module: nn.Module) -> list[Any]:
    """Describe a module and all in it: class, code, plain settings, shapes of weights.

    Its ``repr`` alone does not show all settings, and the same class may compute something else
    after an edit.
    """
    return [
        {
            "class": f"{type(part).__module__}.{type(part).__qualname__}",
            "repr": repr(part),
            "code": _code(type(part)),
            "settings": {
                name: repr(value)
                for name, value in sorted(vars(part).items())
                if name != "training" and isinstance(value, (bool, int, float, str, tuple))
            },
            "weights": [
                [name, list(weight.shape), str(weight.dtype), weight.requires_grad]
                for name, weight in part.named_parameters(recurse=False)
            ],
        }
        for part in module.modules()
    ]


def _code(kind: type[nn.Module]) -> str:
    """Return a hash of a class's source; torch's own is known by its version."""
    if kind.__module__.startswith("torch."):
        return ""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return ""  # typed at a prompt
    return hashlib.sha256(source.encode()).hexdigest()[:16]

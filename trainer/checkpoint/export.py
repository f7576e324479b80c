"""A trained network as two files that plain PyTorch loads without us.

``model.safetensors`` has the keys of an ``nn.Sequential`` of the layers, ``<layer>.<name>``;
``model.json`` tells the layers, their tensors, where they come from, and what its caller adds.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from data_shards.errors import InputError
from data_shards.store.manifest import checksums
from trainer.checkpoint.format import flush, write_flushed
from trainer.checkpoint.reader import Checkpoint

MODEL = "model.safetensors"
DESCRIPTION = "model.json"


def export_model(
    checkpoint: Checkpoint, out: Path, *, ema: bool, about: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint's weights, without optimizer state, as one file and its description.

    Args:
        checkpoint: the weights of all layers are verified and read.
        out: folder to make; it appears when it is whole.
        ema: write averaged parameters where there are any.
        about: plain JSON for the description: what a user of the model needs to know.

    Raises:
        InputError: ``out`` exists, or averages are asked for and there are none.
        CorruptDataError: a file is missing, truncated or changed.
    """
    if out.exists():
        raise InputError("exists", path=out, remedy="choose another folder, or remove it")
    if ema:
        checkpoint.check_averages()
    tensors: dict[str, Tensor] = {}
    layers: list[dict[str, Any]] = []
    for index, name in enumerate(checkpoint.layers):
        values, parameters = layer_weights(checkpoint, index, ema=ema)
        tensors |= {f"{index}.{key}": value for key, value in values.items()}
        described = {
            key: {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
            for key, value in values.items()
        }
        layers.append({"name": name, "parameters": parameters, "tensors": described})
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file(tensors, temporary / MODEL)
        flush(temporary / MODEL)
        size, crc, digest = checksums(temporary / MODEL)
        description = {
            "format": "replisome-model",
            "version": 1,
            "step": checkpoint.step,
            "averaged": ema,
            "parameters": sum(layer["parameters"] for layer in layers),
            "layers": layers,
            "file": {"name": MODEL, "bytes": size, "crc32c": crc, "sha256": digest},
            "about": dict(about or {}),
        }
        text = json.dumps(description, indent=1, allow_nan=False) + "\n"
        write_flushed(temporary / DESCRIPTION, text.encode())
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def layer_weights(
    checkpoint: Checkpoint, index: int, *, ema: bool
) -> tuple[dict[str, Tensor], int]:
    """Read the weights of one layer, as its ``state_dict()`` names them.

    Args:
        checkpoint: where from.
        index: number of the layer.
        ema: take a parameter's average where there is one.

    Returns:
        The tensors, copied from the file, and how many numbers the parameters have.

    Raises:
        CorruptDataError: the file is missing, truncated or changed.
    """
    values: dict[str, Tensor] = {}
    parameters = 0
    with checkpoint.weights(index) as file:
        for key in sorted(file.keys):
            kind, _, name = key.partition("/")
            if kind == "ema":
                continue
            averaged = f"ema/{name}"
            values[name] = file.tensor(averaged if ema and averaged in file.keys else key).clone()
            parameters += math.prod(file.shape(key)) if kind == "param" else 0
        for name, first in file.aliases.items():
            values[name] = values[first].clone()  # a file holds no tensor twice
    return values, parameters

"""A trained network and a data set: whether one fits the other, and what its outputs mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from data_shards.store.schema import Schema
from trainer.checkpoint.reader import Checkpoint
from trainer.checkpoint.restore import restore_layer
from trainer.config import RunConfig
from trainer.recipe import build_layer, shape_of
from trainer.recipes import get_recipe


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probability of each task, computed in float64; same shape."""
    numbers: npt.NDArray[np.float32] = torch.from_numpy(logits).double().sigmoid().float().numpy()
    return numbers


def assemble(config: RunConfig, schema: Schema, weights: Path) -> nn.Sequential:
    """Put the recipe's network together from its saved layers, with probabilities at the end.

    Returns:
        In evaluation mode: codes (B, length) uint8 -> probabilities (B, tasks) float32.
    """
    layers = get_recipe(config.recipe).network.layers(config.size, shape_of(schema))
    modules = [build_layer(layer, config.seed, index) for index, layer in enumerate(layers)]
    checkpoint = Checkpoint.open(weights)
    checkpoint.check_layers([layer.name for layer in layers])
    for index, module in enumerate(modules):
        restore_layer(checkpoint, index, module, None, None)
    return nn.Sequential(*modules, nn.Sigmoid()).eval()


def check_weights_fit(config: RunConfig, data: ShardedDataset, network: str, weights: Path) -> None:
    """Refuse a data set on which a trained network can't be run, before anything is started.

    Raises:
        InputError: windows of another length or another number of tasks.
    """
    recipe = get_recipe(config.recipe)
    known = next(n for n in recipe.networks(baselines=True) if n.name == network)
    layers = known.layers(config.size, shape_of(data.schema))
    checkpoint = Checkpoint.open(weights)
    checkpoint.check_layers([layer.name for layer in layers])
    for index, layer in enumerate(layers):
        module = layer.build()
        with checkpoint.weights(index) as file:
            for name, parameter in module.named_parameters():
                saved = file.shape(f"param/{name}")
                if saved != tuple(parameter.shape):
                    raise InputError(
                        f"layer {layer.name!r} was trained with {name} of shape {saved}; for this "
                        f"data set it has {tuple(parameter.shape)}",
                        path=str(data.place),
                        remedy="use a data set with windows as long and as many tasks",
                    )

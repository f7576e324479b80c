"""What a recipe is: plain values and functions that the engine composes.

A recipe answers, in this order: what it is and who published it; what a sample is; how raw files
become samples; how to simulate raw files with a planted truth; the layers; the loss; the metrics;
which baselines; default hyper-parameters. See ``trainer/recipes/danq.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from data_shards.dataset import ShardedDataset
from data_shards.hashing import key
from data_shards.store.schema import Schema
from trainer.config import RunConfig
from trainer.layers import KeyedDropout

Activations = Tensor | tuple[Tensor, ...]
"""What passes from layer to layer: a tensor, or a fixed number of them for branches."""


@dataclass(frozen=True)
class Layer:
    """One step of a network, from :data:`Activations` to the same.

    Attributes:
        name: for people.
        build: makes the module; only the stage that owns the layer calls it.
        constants: places in the tuple it returns that carry no gradient although they are floating
            point (masks, numbers passed through); integers and bools need no mention.
    """

    name: str
    build: Callable[[], nn.Module]
    constants: tuple[int, ...] = ()


@dataclass(frozen=True)
class Shape:
    """What the data set decides about a network.

    Attributes:
        length: positions in a window.
        tasks: number of labels.
    """

    length: int
    tasks: int


def shape_of(schema: Schema) -> Shape:
    """Return the shape of a data set's samples."""
    return Shape(schema.window.length, len(schema.tasks))


@dataclass(frozen=True)
class Network:
    """A network as an ordered list of layers: the list is what gets cut into stages.

    Attributes:
        name: as shown in tables.
        layers: from size name and sample shape to the list of layers.
    """

    name: str
    layers: Callable[[str, Shape], list[Layer]]


class Estimator(Protocol):
    """A scikit-learn-style baseline: fitted on codes, it gives probabilities."""

    def fit(
        self,
        codes: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.uint8],
        advance: Callable[[int, int], None],
    ) -> None:
        """Fit on codes (samples, length) and labels (samples, tasks); tells how far it is."""
        ...

    def predict(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the probability of each task, shape (samples, tasks)."""
        ...


@dataclass(frozen=True)
class EstimatorBaseline:
    """A baseline that is not a network.

    Attributes:
        name: as shown in tables.
        build: makes a fresh estimator from the run's seed.
        max_samples: training samples it can hold in memory; a larger split is subsampled evenly,
            and the table says so.
    """

    name: str
    build: Callable[[int], Estimator]
    max_samples: int


Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs (B, T) and targets (B, T), both float32, to a scalar: the mean over both."""


@dataclass(frozen=True)
class Member:
    """One of several trained networks that are alike but for some settings: seeds, for one.

    Attributes:
        number: of the trial that trained it.
        settings: in which it differs, by dotted name.
        config: its whole configuration.
        weights: folder of its best weights.
    """

    number: int
    settings: Mapping[str, Any]
    config: RunConfig
    weights: Path


Advance = Callable[[int, int], None]
"""Told how much is done, of how much."""

Gather = Callable[[ShardedDataset, Sequence[Member], Path, Advance], Mapping[str, float]]
"""Makes one thing of members: writes files for people into a folder, returns figures."""


@dataclass(frozen=True)
class Recipe:
    """A published system that can be trained.

    Attributes:
        name: as typed on the command line.
        title: one line.
        citation: the paper.
        sample: what a sample is, in words.
        sizes: names of the variants, the published one among them, with a line on each.
        simulate: writes raw files with a planted truth, and the description from which
            ``data build`` makes a data set of them, into a folder; depends on the seed only.
        spec_name: file name of that description.
        network: the model.
        loss: of the model and of its ablations.
        ablations: networks trained beside the model, as baselines.
        estimators: other baselines.
        defaults: from size name to configuration, see ``trainer.config.RunConfig``.
        space: of a sweep that names none: tables of settings, see ``jobs.sweep.space``; they win
            over ranges around the defaults.
        gather: what a list of members comes to, once all are trained.
    """

    name: str
    title: str
    citation: str
    sample: str
    sizes: Mapping[str, str]
    simulate: Callable[[Path, int], None]
    spec_name: str
    network: Network
    loss: Loss
    ablations: Sequence[Network]
    estimators: Sequence[EstimatorBaseline]
    defaults: Callable[[str], Mapping[str, Any]]
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gather: Gather | None = None

    def networks(self, baselines: bool) -> list[Network]:
        """Return the model, followed by its ablations if baselines are asked for."""
        return [self.network, *(self.ablations if baselines else ())]


def build_layer(layer: Layer, seed: int, index: int) -> nn.Module:
    """Build one layer with initial weights that depend on (seed, index) only.

    However a network is cut, each layer starts from the same weights; the caller's generator is
    left as it was.

    Raises:
        TypeError: the layer draws random numbers of its own in training: they would depend on the
            cut, and no checkpoint could bring them back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, index) >> 1)
        module = layer.build()
    for number, part in enumerate(module.modules()):
        if isinstance(part, KeyedDropout):
            part.bind(seed, index, number)
        elif isinstance(part, _DropoutNd) or (
            isinstance(part, (nn.RNNBase, nn.MultiheadAttention)) and part.dropout > 0
        ):
            raise TypeError(
                f"layer {layer.name!r} has a {type(part).__name__} with dropout of its own: use "
                "trainer.layers.KeyedDropout, whose masks depend on seed, layer and sample only"
            )
    return module


def frozen(layer: Layer) -> Layer:
    """Return the layer without anything to train."""
    return replace(layer, build=lambda: layer.build().requires_grad_(False))


def trainable(module: nn.Module) -> int:
    """Count the weights that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)

"""The configuration of a run: one typed tree, checked once, logged whole.

Order of precedence, later wins: defaults here, the recipe, the TOML file, the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_shards.augment import Augmentation
from data_shards.documents import Document, parse
from data_shards.order import Shuffle

Device = Literal["cpu", "gpu"]
OptimizerName = Literal["sgd", "adamw", "rmsprop"]


class OptimizerConfig(Document):
    """The optimizer and everything that changes what it computes."""

    name: OptimizerName = "rmsprop"
    lr: float = Field(1e-3, gt=0, description="learning rate")
    momentum: float | None = Field(
        None, ge=0, lt=1, description="SGD and RMSprop momentum; AdamW's beta1"
    )
    weight_decay: float = Field(
        0.0, ge=0, description="L2 penalty for SGD and RMSprop, decoupled for AdamW"
    )
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW: decay of the second moment")
    alpha: float = Field(0.9, ge=0, lt=1, description="RMSprop: decay of the squared gradient")
    eps: float | None = Field(None, gt=0, description="RMSprop and AdamW: added to the root")
    clip: float = Field(
        0.0, ge=0, description="clip the gradient's global norm to this; 0 does not clip"
    )

    @property
    def effective_momentum(self) -> float:
        """Momentum in use: 0.9 for SGD and AdamW, 0 for RMSprop, unless given."""
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.name == "rmsprop" else 0.9

    @property
    def effective_eps(self) -> float:
        """Epsilon in use: Keras's 1e-7 for RMSprop, 1e-8 for AdamW, unless given."""
        if self.eps is not None:
            return self.eps
        return 1e-7 if self.name == "rmsprop" else 1e-8


class GridConfig(Document):
    """Where a run computes."""

    stages: int = Field(1, ge=1, description="pipeline stages the layers are cut into")
    replicas: int = Field(1, ge=1, description="data-parallel copies of the pipeline")
    micro_batches: int | None = Field(
        None,
        ge=1,
        description="micro-batches a replica and step; default: what divides, <= 4/stage",
    )
    cut: tuple[int, ...] | None = Field(
        None, description="first layer of each stage of the model; default: by measured time"
    )
    device: Device | None = Field(
        None, description='"cpu" or "gpu"; default: gpu where every worker can have one'
    )


class RunConfig(Document):
    """Everything that decides a run, apart from the data."""

    recipe: str
    size: str = "paper"
    seed: int = Field(0, ge=0, lt=2**63)
    batch_size: int = Field(100, ge=1, description="samples an optimizer step, over all replicas")
    epochs: int = Field(60, ge=1, description="passes over the training split, at most")
    patience: int = Field(
        5, ge=1, description="stop after so many epochs without a lower validation loss"
    )
    shuffle: Shuffle = Field(
        "blocks",
        description='"full": one permutation an epoch; "blocks": near rows are read together; '
        '"none": stored order',
    )
    augment: Augmentation = Augmentation()
    baselines: bool = Field(True, description="also train and score the recipe's baselines")
    optimizer: OptimizerConfig = OptimizerConfig()
    grid: GridConfig = GridConfig()

    def cut_of(self, model: bool) -> tuple[int, ...] | None:
        """Return the cut that is given: for the model, not for its ablations, which differ."""
        return self.grid.cut if model else None


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; later ones win, key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            inner = merged.get(key)
            both = isinstance(value, Mapping) and isinstance(inner, Mapping)
            merged[key] = merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def resolve(
    recipe: str,
    defaults: Mapping[str, Any],
    file: Mapping[str, Any],
    flags: Mapping[str, Any],
    source: Path | str,
) -> RunConfig:
    """Resolve the configuration of a run.

    Args:
        recipe: name of the recipe.
        defaults: the recipe's, for the chosen size.
        file: content of the TOML file, if any.
        flags: what the command line says; only keys that were given.
        source: the TOML file, for messages.

    Raises:
        InputError: an unknown key, or a value that is out of range.
    """
    parse(RunConfig, merge({"recipe": recipe}, file), source)
    return parse(RunConfig, merge({"recipe": recipe}, defaults, file, flags), "the command line")


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested keys into dotted ones, as tracking shows them."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

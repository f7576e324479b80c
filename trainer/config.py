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
from data_shards.sampling import SamplingConfig
from trainer.losses import LossConfig

Device = Literal["cpu", "gpu"]
OptimizerName = Literal["sgd", "adamw", "rmsprop"]
Precision = Literal["fp32", "bf16"]
PipelineSchedule = Literal["1f1b", "dualpipev"]
CutMethod = Literal["measured", "parameters", "uniform"]
Recompute = Literal["auto", "on", "off"]


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
    nesterov: bool = Field(False, description="SGD: Nesterov momentum")
    decay_all: bool = Field(
        True, description="weight decay on biases and norms too; false spares vectors and scalars"
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of averaged weights, which validation and export use; 0 keeps none",
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


class ScheduleConfig(Document):
    """How the learning rate changes; each step's rate is a function of the step alone.

    "plateau" also looks at the validation losses so far, which checkpoints keep.
    """

    name: Literal["constant", "cosine", "step", "plateau"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="first steps, over which the rate rises from 0")
    floor: float = Field(0.0, ge=0, le=1, description="lowest rate, as a part of optimizer.lr")
    every_epochs: int = Field(10, ge=1, description="step: epochs between two drops")
    patience: int = Field(
        2, ge=0, description="plateau: epochs without a lower validation loss before a drop"
    )
    factor: float = Field(0.1, gt=0, lt=1, description="step and plateau: a drop multiplies by it")


class CheckpointConfig(Document):
    """When a run's state is saved, and how much of it is kept."""

    seconds: float = Field(60.0, gt=0, description="save at most so many seconds after the last")
    steps: int | None = Field(None, ge=1, description="also save every so many steps")
    keep: int = Field(2, ge=1, description="newest checkpoints kept, beside the best weights")


class InitConfig(Document):
    """Whose weights a training starts from."""

    source: str | None = Field(
        None, description="checkpoint folder of the weights; default: fresh ones"
    )
    fresh: tuple[str, ...] = Field((), description="layers that start fresh, as a new head")
    freeze: tuple[str, ...] = Field((), description="layers that training leaves as they are")


class FailureConfig(Document):
    """What a run does when something goes wrong."""

    restarts: int = Field(3, ge=0, description="times that lost workers are replaced")
    hang_seconds: float = Field(
        120.0, gt=0, description="a worker that is silent for so long counts as lost"
    )
    bad_loss: Literal["stop", "skip"] = Field(
        "stop", description="a loss that is NaN, infinite or a spike: stop, or skip its update"
    )
    spike: float | None = Field(
        None, gt=1, description="a loss so many times the recent median is a spike; default: none"
    )


class GridConfig(Document):
    """Where a run computes."""

    stages: int = Field(1, ge=1, description="pipeline stages the layers are cut into")
    replicas: int = Field(1, ge=1, description="data-parallel copies of the pipeline")
    micro_batches: int | None = Field(
        None,
        ge=1,
        description="micro-batches a replica and step; default: what divides, <= 4/stage",
    )
    cut: CutMethod | tuple[int, ...] = Field(
        "measured",
        description='"measured" time, "parameters", "uniform", or the first layer of each stage',
    )
    schedule: PipelineSchedule = Field(
        "1f1b", description='"dualpipev": each worker has two stages, one from each end'
    )
    zero: Literal[0, 1] = Field(
        0, description="1: replicas share out the optimizer's state instead of copying it (ZeRO-1)"
    )
    recompute: Recompute = Field(
        "auto",
        description="activation checkpointing: keep a stage's inputs only and compute its "
        "activations again; auto: where memory would not do",
    )
    compile: bool = Field(False, description="compile each layer (torch.compile); worth it on GPUs")
    memory_gb: float | None = Field(
        None, gt=0, description="memory a stage may take, 1e9 bytes; default: the device's"
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
    precision: Precision = Field(
        "fp32", description="bf16: matrix products in bfloat16, weights and sums in float32"
    )
    epochs: int = Field(60, ge=1, description="passes over the training split, at most")
    patience: int = Field(
        5, ge=1, description="stop after so many epochs without a better validation"
    )
    monitor: Literal["loss", "auroc", "aupr"] = Field(
        "loss", description="what of the validation says which epoch is best"
    )
    shuffle: Shuffle = Field(
        "blocks",
        description='"full": one permutation an epoch; "blocks": near rows are read together; '
        '"none": stored order',
    )
    sampling: SamplingConfig = SamplingConfig()
    augment: Augmentation = Augmentation()
    baselines: bool = Field(True, description="also train and score the recipe's baselines")
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    grid: GridConfig = GridConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    failure: FailureConfig = FailureConfig()
    init: InitConfig = InitConfig()

    def cut_of(self, model: bool) -> CutMethod | tuple[int, ...]:
        """Return the cut in use: layer numbers are the model's, its ablations have others."""
        cut = self.grid.cut
        return cut if model or isinstance(cut, str) else "measured"


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

"""A network that starts from another's weights: which layers load, which start fresh or stay."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from data_shards.errors import InputError
from trainer.checkpoint.reader import Checkpoint
from trainer.checkpoint.restore import check_weights
from trainer.checkpoint.snapshot import weight_tensors
from trainer.config import InitConfig

if TYPE_CHECKING:
    from trainer.engine import Fill


@dataclass(frozen=True)
class Transfer:
    """What becomes of each layer, for all workers alike and for people to read.

    Attributes:
        sources: for each layer of the network, the number of the layer it loads, None if fresh.
        frozen: for each layer of the network, whether training leaves it as it is.
        unused: names of the checkpoint's layers that nothing loads.
    """

    sources: tuple[int | None, ...]
    frozen: tuple[bool, ...]
    unused: tuple[str, ...]


def plan_transfer(
    saved: Sequence[str], layers: Sequence[str], *, skip: Sequence[str], freeze: Sequence[str]
) -> Transfer:
    """Decide which layer loads which.

    Layers are matched by name, wherever they stand, so a network may have gained or lost some;
    of several with one name, the first matches the first.

    Args:
        saved: names of the checkpoint's layers.
        layers: names of the network's layers.
        skip: names of layers that keep fresh weights, such as a new head.
        freeze: names of layers that training leaves as they are.

    Raises:
        InputError: a name is unknown (tells the nearest), a layer is in the network only and not
            skipped, a fresh layer is frozen, or all are.
    """
    for option, names in (("skip", skip), ("freeze", freeze)):
        for name in names:
            if name not in layers:
                near = difflib.get_close_matches(name, layers, n=1, cutoff=0.5)
                raise InputError(
                    f"{option}: the network has no layer {name!r}",
                    remedy=f"did you mean {near[0]!r}?"
                    if near
                    else f"its layers are {', '.join(layers)}",
                )
    both = [name for name in freeze if name in skip]
    if both:
        raise InputError(
            f"layer {both[0]!r} is skipped and frozen: it would never learn anything",
            remedy="take it out of one of the two",
        )
    if set(layers) <= set(freeze):
        raise InputError("all layers are frozen: nothing is left to train", remedy="freeze fewer")
    places: dict[str, list[int]] = {}
    for number, name in enumerate(saved):
        places.setdefault(name, []).append(number)
    sources: list[int | None] = []
    seen: Counter[str] = Counter()
    for name in layers:
        found, nth = places.get(name, []), seen[name]
        seen[name] += 1
        if name in skip:
            sources.append(None)
        elif nth < len(found):
            sources.append(found[nth])
        else:
            near = difflib.get_close_matches(name, saved, n=1, cutoff=0.5)
            hint = f" (the nearest is {near[0]!r})" if near and near[0] != name else ""
            raise InputError(
                f"the checkpoint has no layer for {name!r} of the network{hint}",
                remedy=f"let it start fresh: add {name!r} to the layers to skip",
            )
    unused = tuple(name for number, name in enumerate(saved) if number not in sources)
    return Transfer(tuple(sources), tuple(name in freeze for name in layers), unused)


def load_for_transfer(
    checkpoint: Checkpoint,
    layers: Sequence[str],
    local: Sequence[tuple[int, nn.Module]],
    *,
    skip: Sequence[str] = (),
    freeze: Sequence[str] = (),
    ema: bool = False,
) -> Transfer:
    """Fill a fresh network's layers from a checkpoint, and freeze some.

    For the time before the optimizer is made, which takes trainable parameters only.
    A frozen layer's parameters get no gradient. A batch norm in it still follows its batches'
    statistics in training mode, as always in PyTorch.

    Args:
        checkpoint: to start from.
        layers: names of all layers of the network.
        local: (index, module) of this worker's layers.
        skip: names of layers that keep fresh weights, such as a new head.
        freeze: names of layers that training leaves as they are.
        ema: load averaged weights where there are any.

    Returns:
        What becomes of all layers, the same for every worker.

    Raises:
        InputError: as :func:`plan_transfer`, or a layer that is to load has another shape, or
            averages are asked for and there are none. Nothing was loaded then.
        CorruptDataError: a file is missing, truncated or changed.
    """
    plan = plan_transfer(checkpoint.layers, layers, skip=skip, freeze=freeze)
    if ema:
        checkpoint.check_averages()
    loads = [
        (source, f"layer {index} ({layers[index]})", module)
        for index, module in local
        if (source := plan.sources[index]) is not None
    ]
    for source, where, module in loads:
        with checkpoint.weights(source) as file:
            remedy = "if it is meant to differ, let it start fresh: add its name to those to skip"
            check_weights(file, where, weight_tensors(module), remedy=remedy)
    for source, _, module in loads:
        with checkpoint.weights(source) as file, torch.no_grad():
            for key, target in weight_tensors(module).items():
                averaged = key.replace("param/", "ema/", 1)
                target.copy_(file.tensor(averaged if ema and averaged in file.keys else key))
    for index, module in local:
        if plan.frozen[index]:
            module.requires_grad_(False)
    return plan


def start_from(init: InitConfig, layers: Sequence[str]) -> Fill | None:
    """Return what loads the weights that a training starts from, if not from fresh ones."""
    if init.source is None:
        return None
    checkpoint = Checkpoint.open(Path(init.source))
    return lambda local: load_for_transfer(
        checkpoint, layers, local, skip=init.fresh, freeze=init.freeze
    )

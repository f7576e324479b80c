"""From a checkpoint back into modules and optimizers, whatever grid wrote it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data_shards.errors import CorruptDataError, InputError
from trainer.checkpoint.reader import Checkpoint, TensorFile
from trainer.checkpoint.snapshot import held_parameters, weight_tensors


def restore_layer(
    checkpoint: Checkpoint,
    index: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    ema: Mapping[str, Tensor] | None,
) -> None:
    """Load one layer in place: weights, averaged weights, optimizer state.

    Tensors keep their place, dtype and device. State of the parameters that this optimizer holds
    is taken from whichever worker's file has it, and is made as PyTorch makes it at a first step
    (dtype, device, memory format); what the optimizer held before is forgotten. Learning rates are
    not touched.

    Args:
        checkpoint: verified as far as this reads it.
        index: number of the layer in the network.
        module: the layer.
        optimizer: None loads weights only.
        ema: averaged parameters to fill, by name in the layer; None leaves those saved alone.

    Raises:
        CorruptDataError: a file is missing, truncated or changed.
        InputError: the layer or the optimizer is another; nothing was loaded then.
    """
    where = f"layer {index} ({checkpoint.layers[index]})"
    with checkpoint.weights(index) as file:
        targets = weight_tensors(module)
        check_weights(file, where, targets)
        averages = {f"ema/{name}": value for name, value in (ema or {}).items()}
        lacking = [key for key in averages if key not in file.keys]
        if lacking:
            raise InputError(
                f"{where} has no averaged {lacking[0].removeprefix('ema/')}",
                path=file.path,
                remedy="resume with the optimizer.ema that it was trained with",
            )
        _check_shapes(file, where, averages)
        states = {} if optimizer is None else _read_states(checkpoint, index, module, optimizer)
        with torch.no_grad():
            for key, target in (targets | averages).items():
                target.copy_(file.tensor(key))
    if optimizer is not None:
        for parameter, state in states.items():
            optimizer.state.pop(parameter, None)
            if state:
                optimizer.state[parameter] = state


def check_weights(
    file: TensorFile, where: str, targets: Mapping[str, Tensor], *, remedy: str | None = None
) -> None:
    """Refuse weights of another layer.

    Args:
        file: the weights saved.
        where: how to call the layer in messages.
        targets: ``param/<name>`` and ``buffer/<name>`` to be filled.
        remedy: what to do about it.

    Raises:
        InputError: a tensor is missing, too many, of another shape or kind.
    """
    remedy = remedy or "resume with the recipe and size that it was trained with"
    saved = {key for key in file.keys if not key.startswith("ema/")}
    for key in sorted(saved ^ targets.keys()):
        name = key.partition("/")[2]
        who = "the checkpoint" if key in saved else "the network"
        raise InputError(f"{where}: only {who} has {name}", path=file.path, remedy=remedy)
    _check_shapes(file, where, targets, remedy=remedy)


def _check_shapes(
    file: TensorFile, where: str, targets: Mapping[str, Tensor], *, remedy: str | None = None
) -> None:
    for key, target in targets.items():
        saved, name = file.shape(key), key.partition("/")[2]
        if saved != tuple(target.shape):
            raise InputError(
                f"{where}: {name} has shape {saved} in the checkpoint, "
                f"{tuple(target.shape)} in the network",
                path=file.path,
                remedy=remedy or "resume with the recipe and size that it was trained with",
            )
        dtype = file.tensor(key).dtype
        if dtype.is_floating_point != target.is_floating_point():
            raise InputError(
                f"{where}: {name} is {dtype} in the checkpoint, {target.dtype} in the network",
                path=file.path,
                remedy=remedy,
            )


def _read_states(
    checkpoint: Checkpoint, index: int, module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[nn.Parameter, dict[str, Tensor]]:
    """Read the state of each parameter of a layer that an optimizer holds; maybe none."""
    where = f"layer {index} ({checkpoint.layers[index]})"
    held = {
        name: (parameter, group) for name, parameter, group in held_parameters(module, optimizer)
    }
    states: dict[nn.Parameter, dict[str, Tensor]] = {
        parameter: {} for parameter, _ in held.values()
    }
    for record in checkpoint.files(index, "optimizer"):
        with checkpoint.read(record) as file:
            wanted = [key for key in file.keys if key.partition("/")[2] in held]
            for name in sorted({key.partition("/")[2] for key in wanted}):
                parameter, group = held[name]
                if states[parameter]:
                    raise CorruptDataError(f"{file.path}: another file has the state of {name} too")
                saved = {
                    key.partition("/")[0]: file.tensor(key)
                    for key in wanted
                    if key.partition("/")[2] == name
                }
                states[parameter] = _adopt(
                    saved, parameter, fresh_state(optimizer, parameter, group), f"{where}: {name}"
                )
    return states


def fresh_state(
    optimizer: torch.optim.Optimizer, parameter: Tensor, group: Mapping[str, object]
) -> dict[str, Tensor]:
    """Return the state that PyTorch makes at a first step, for a stand-in of shape (1,).

    It tells which states there are, and dtype, device and rank of each, with any setting that
    matters (momentum, amsgrad, fused, capturable), and needs no table of optimizers.
    """
    stand_in = nn.Parameter(torch.zeros(1, dtype=parameter.dtype, device=parameter.device))
    stand_in.grad = torch.zeros_like(stand_in)
    settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    trial = type(optimizer)([{**settings, "params": [stand_in]}])  # type: ignore[call-arg]
    trial.step()
    return {key: value for key, value in trial.state[stand_in].items() if value is not None}


def _adopt(
    saved: Mapping[str, Tensor], parameter: Tensor, fresh: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Make a parameter's state as PyTorch would have, with the values saved."""
    remedy = "resume with the optimizer that it was trained with"
    if saved.keys() != fresh.keys():
        kept = ", ".join(sorted(fresh)) or "nothing"
        raise InputError(
            f"{where} was saved with {', '.join(sorted(saved))}; this optimizer keeps {kept}",
            remedy=remedy,
        )
    state = {}
    for key, value in saved.items():
        like = fresh[key]
        shape = parameter.shape if like.dim() else like.shape
        if value.shape != shape:
            raise InputError(
                f"{where}: {key} has shape {tuple(value.shape)}, the parameter's is {tuple(shape)}",
                remedy=remedy,
            )
        empty = (
            torch.empty_like(parameter, dtype=like.dtype, memory_format=torch.preserve_format)
            if like.dim()
            else torch.empty_like(like)
        )
        state[key] = empty.detach().copy_(value)
    return state

"""Optimizers, and how replicas share out their state (ZeRO stage 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_shards.errors import InputError
from trainer.config import OptimizerConfig

Named = Sequence[tuple[str, nn.Parameter]]
"""Parameters with their names, in an order that is the same on all replicas."""

_FOREACH_BELOW = 2**20  # elements


def check_optimizer(config: OptimizerConfig) -> None:
    """Refuse settings that an optimizer would ignore or that contradict each other.

    Raises:
        InputError: Nesterov momentum without momentum, or with another optimizer than SGD.
    """
    if config.nesterov and config.name != "sgd":
        raise InputError(
            f'optimizer.nesterov is on, but optimizer "{config.name}" has no Nesterov momentum',
            remedy='choose optimizer.name = "sgd", or leave nesterov out',
        )
    if config.nesterov and config.effective_momentum == 0:
        raise InputError(
            "optimizer.nesterov is on, but optimizer.momentum is 0",
            remedy="choose a momentum above 0 (0.9 is usual), or leave nesterov out",
        )


def build_optimizer(config: OptimizerConfig, named: Named) -> torch.optim.Optimizer:
    """Make the torch optimizer a configuration asks for, every argument given.

    Parameters that require no gradient are left out. With ``decay_all`` off there are two groups:
    weights (two or more dimensions), which decay, and the rest (biases, scales and shifts of
    norms, scalars), which don't; a group that would be empty is left out.

    Args:
        config: checked by :func:`check_optimizer`.
        named: the parameters it steps, on the device they will stay on; none at all gives an
            optimizer whose step does nothing.
    """
    parameters = [parameter for _, parameter in named if parameter.requires_grad]
    groups = _groups(config, parameters)
    foreach = _uses_foreach(parameters)
    if config.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.effective_momentum,
            dampening=0.0,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            maximize=False,
            foreach=foreach,
            differentiable=False,
            fused=False,
        )
    if config.name == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=config.lr,
            betas=(config.effective_momentum, config.beta2),
            eps=config.effective_eps,
            weight_decay=config.weight_decay,
            amsgrad=False,
            maximize=False,
            foreach=foreach,
            capturable=False,
            differentiable=False,
            fused=False,
        )
    return torch.optim.RMSprop(
        groups,
        lr=config.lr,
        alpha=config.alpha,
        eps=config.effective_eps,
        weight_decay=config.weight_decay,
        momentum=config.effective_momentum,
        centered=False,
        capturable=False,
        foreach=foreach,
        maximize=False,
        differentiable=False,
    )


def _groups(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Return the parameter groups; one without parameters if there are none."""
    if config.decay_all:
        return [{"params": list(parameters)}]
    decaying = [parameter for parameter in parameters if parameter.ndim >= 2]
    spared = [parameter for parameter in parameters if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]] or [{"params": []}]


def _uses_foreach(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether to step all parameters in one call; the results are the same to the bit.

    Fewer calls are faster on a GPU and for small networks, but the temporaries are as large as all
    parameters together: on a CPU, where calls are cheap, large networks do without.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return not on_cpu or sum(parameter.numel() for parameter in parameters) < _FOREACH_BELOW


def owner_of(named: Named, replicas: int) -> dict[str, int]:
    """Share out parameters, each whole, over replicas: who keeps which one's optimizer state.

    The largest go first, each to the replica with the fewest elements so far (the lower number in
    a tie), so no replica has more than the mean and one parameter (Graham, Bounds on
    multiprocessing timing anomalies, 1969). A pure function of the order and sizes.

    Args:
        named: the parameters; those that require no gradient have no state and no owner.
        replicas: how many share them.

    Returns:
        From name to owner, in the order of ``named``.
    """
    sizes = [(name, parameter.numel()) for name, parameter in named if parameter.requires_grad]
    loads = [0] * replicas
    owners: dict[str, int] = {}
    for name, size in sorted(sizes, key=lambda item: -item[1]):
        owner = loads.index(min(loads))
        owners[name] = owner
        loads[owner] += size
    return {name: owners[name] for name, _ in sizes}


def owned(named: Named, replica: int, replicas: int) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that a replica owns, see :func:`owner_of`; may be none."""
    owners = owner_of(named, replicas)
    return [(name, parameter) for name, parameter in named if owners.get(name) == replica]


def share_weights(named: Named, owners: Mapping[str, int], group: dist.ProcessGroup) -> None:
    """Send each parameter from its owner to the other replicas; call after the owners' step.

    All replicas call it with the same arguments, and hold the same bits after it. There is one
    broadcast an owner and dtype, of a flat copy: at most the size of the largest share at a time.

    Args:
        named: the parameters of this stage.
        owners: from name to rank in the group, see :func:`owner_of`.
        group: the workers that hold the same stage; its ranks are the replicas' numbers.
    """
    buckets: dict[tuple[int, torch.dtype], list[Tensor]] = {}
    for name, parameter in named:
        if name in owners:
            bucket = buckets.setdefault((owners[name], parameter.dtype), [])
            bucket.append(parameter.detach())
    rank = dist.get_rank(group)
    for (owner, _), tensors in buckets.items():
        _broadcast(tensors, owner, rank, group)


def _broadcast(tensors: Sequence[Tensor], owner: int, rank: int, group: dist.ProcessGroup) -> None:
    """Broadcast tensors of one dtype as one message."""
    if len(tensors) == 1 and tensors[0].is_contiguous():
        dist.broadcast(tensors[0], group=group, group_src=owner)
        return
    if rank == owner:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    else:
        flat = tensors[0].new_empty(sum(tensor.numel() for tensor in tensors))
    dist.broadcast(flat, group=group, group_src=owner)
    if rank != owner:
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

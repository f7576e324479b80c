"""A layer's state, copied to host memory, so that training can go on while it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_shards.errors import InputError


@dataclass(frozen=True)
class LayerState:
    """What one worker writes of one layer; tensors are in host memory and nobody else's.

    Attributes:
        index: number of the layer in the network.
        name: of the layer.
        tensors: ``param/<name>``, ``buffer/<name>`` and ``ema/<name>``; None where another worker
            writes the weights.
        aliases: from each further name of a tensor to the one it goes by.
        optimizer: ``<state>/<name>`` of the parameters that this worker's optimizer holds.
        part: which replica's part of the layer's optimizer state this is; None if it is whole.
    """

    index: int
    name: str
    tensors: dict[str, Tensor] | None
    aliases: dict[str, str]
    optimizer: dict[str, Tensor]
    part: int | None = None


class HostBuffers:
    """Host memory that snapshots are copied into, kept from one to the next.

    Fresh memory costs a page fault every 4 kB, which takes longer than the copy; pinned memory,
    which copies from a GPU need to be fast, takes longer still to get.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], Tensor] = {}

    def copy(self, layer: int, key: str, source: Tensor) -> Tensor:
        """Copy a tensor; the copy is overwritten by the next with the same layer and key.

        A copy from a GPU is under way only when this returns: synchronize before reading it.
        """
        held = self._held.get((layer, key))
        if held is None or held.shape != source.shape or held.dtype != source.dtype:
            held = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            self._held[layer, key] = held
        return held.copy_(source.detach(), non_blocking=True)


def weight_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that make up a layer, each once, as ``param/<name>``, ``buffer/<name>``.

    Raises:
        InputError: the layer keeps state that is neither.
    """
    # A buffer that is not persistent is computed and no state.
    kept = module.state_dict(keep_vars=True)
    parameters = dict(module.named_parameters())
    buffers = {name: value for name, value in module.named_buffers() if name in kept}
    other = kept.keys() - parameters.keys() - buffers.keys() - aliases(module).keys()
    if other:
        raise InputError(
            f"a {type(module).__name__} keeps {', '.join(sorted(other))} in its state: neither "
            "parameters nor buffers, so a checkpoint can't hold it",
            remedy="keep it as a buffer (register_buffer)",
        )
    return {f"param/{name}": value for name, value in parameters.items()} | {
        f"buffer/{name}": value for name, value in buffers.items()
    }


def aliases(module: nn.Module) -> dict[str, str]:
    """Lead from each further name of a parameter or persistent buffer to its first."""
    first: dict[int, str] = {}
    further: dict[str, str] = {}
    kept = module.state_dict(keep_vars=True)
    for tensors in (
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    ):
        for name, value in tensors:
            if name in kept and first.setdefault(id(value), name) != name:
                further[name] = first[id(value)]
    return further


def held_parameters(
    module: nn.Module, optimizer: torch.optim.Optimizer | None
) -> Iterator[tuple[str, nn.Parameter, dict[str, object]]]:
    """Yield (name, parameter, its group's settings) of a layer's parameters in an optimizer."""
    if optimizer is None:
        return
    groups = {
        id(parameter): group for group in optimizer.param_groups for parameter in group["params"]
    }
    for name, parameter in module.named_parameters():
        if id(parameter) in groups:
            yield name, parameter, groups[id(parameter)]


def layer_state(
    index: int,
    name: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    ema: Mapping[str, Tensor] | None,
    *,
    weights: bool,
    part: int | None = None,
    buffers: HostBuffers | None = None,
) -> LayerState:
    """Copy one layer's state to host memory; training may go on when this returns.

    Args:
        index: number of the layer in the network.
        name: of the layer.
        module: the layer.
        optimizer: only parameters in it count; under ZeRO-1 it has a replica's share of them; None
            for weights alone.
        ema: averaged parameters, by name in the layer.
        weights: whether this worker writes the layer's weights, or only optimizer state.
        part: the replica, where replicas share out the optimizer's state.
        buffers: memory to use again; None takes new memory.

    Raises:
        InputError: the layer keeps state that is neither parameter nor buffer.
        TypeError: the optimizer keeps state that is no tensor.
    """
    buffers = buffers or HostBuffers()
    sources: dict[str, Tensor] = {}
    if weights:
        sources = weight_tensors(module) | {
            f"ema/{key}": value for key, value in (ema or {}).items()
        }
    states: dict[str, Tensor] = {}
    kept = {} if optimizer is None else optimizer.state
    for parameter_name, parameter, _ in held_parameters(module, optimizer):
        for state, value in kept.get(parameter, {}).items():
            if isinstance(value, Tensor):
                states[f"{state}/{parameter_name}"] = value
            elif value is not None:  # SGD's momentum before the first step
                raise TypeError(
                    f"{type(optimizer).__name__} keeps {state!r} of {parameter_name} as "
                    f"{type(value).__name__}; only tensors can be saved"
                )
    copies = {key: buffers.copy(index, key, value) for key, value in sources.items()}
    # Weights and states have names of one kind, so buffers tell them apart by a prefix.
    state_copies = {
        key: buffers.copy(index, f"optimizer/{key}", value) for key, value in states.items()
    }
    for device in {value.device for value in (*sources.values(), *states.values())}:
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
    names = aliases(module) if weights else {}
    return LayerState(index, name, copies if weights else None, names, state_copies, part)

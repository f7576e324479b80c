"""Running statistics of batch norm that do not depend on how a batch is cut.

PyTorch updates them once a micro-batch and once more when activation checkpointing recomputes it,
and each replica has its own. Here they take one update an optimizer step: by the mean over all
micro-batches of the step, of all replicas. Normalisation in training is PyTorch's: by the
statistics of the micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class _Watched:
    """A batch-norm layer (C channels) and its sums over the step's micro-batches, float64."""

    layer: _BatchNorm
    momentum: float | None
    mean: Tensor  # (C,)
    variance: Tensor  # (C,)
    count: Tensor  # (1,)


class StepStatistics:
    """Running statistics of the batch norms in a stage: ``begin``, forward passes, ``end``.

    ``end`` folds the mean over micro-batches of their means and (unbiased) variances into
    ``running_mean`` and ``running_var`` with the layer's own momentum; ``num_batches_tracked``
    counts steps, and a layer with momentum None has the plain mean over steps. Between steps the
    layers are PyTorch's own, and their buffers are the only state.

    Recomputing counts a micro-batch twice, which changes no mean, as a stage recomputes all of its
    micro-batches or none. Sums are float64, so for usual values they are exact, and neither order
    nor doubling nor the number of replicas changes a bit.

    False if there is no batch norm that tracks statistics; all methods then do nothing.

    Args:
        module: on the device it will stay on; nothing else may change its layers' ``momentum``.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = [
            part
            for part in module.modules()
            if isinstance(part, _BatchNorm) and part.running_mean is not None
        ]
        sizes = [size for layer in layers for size in (layer.num_features, layer.num_features, 1)]
        device = layers[0].running_mean.device if layers else None  # type: ignore[union-attr]
        # All sums in one tensor, so that one all-reduce serves all layers.
        self._sums = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        parts = iter(self._sums.split(sizes))
        self._watched = [
            _Watched(layer, layer.momentum, next(parts), next(parts), next(parts))
            for layer in layers
        ]
        for watched in self._watched:
            _add_up(watched, self)
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self.is_open = False

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._watched)

    def begin(self) -> None:
        """Begin a training step, before its first forward pass.

        Raises:
            RuntimeError: the step before was neither ended nor discarded.
        """
        if self.is_open:
            raise RuntimeError("the step before was neither ended nor discarded")
        if not self:
            return
        self.is_open = True
        self._sums.zero_()
        for watched in self._watched:
            mean, variance, steps = _buffers(watched.layer)
            self._kept.append((mean.clone(), variance.clone(), steps.clone()))
            # The running buffers then hold the last micro-batch's statistics, for the hook to add.
            watched.layer.momentum = 1.0

    @torch.no_grad()
    def end(self, group: dist.ProcessGroup | None) -> None:
        """End the step, after its last backward pass: update the running statistics.

        A layer that saw no micro-batch in training mode keeps its statistics.

        Args:
            group: the workers that hold the same stage, which all call this; None if this is the
                only one. They hold the same bits after it.

        Raises:
            RuntimeError: no step has begun.
        """
        if not self:
            return
        kept = self._restore()
        if group is not None and group.size() > 1:
            dist.all_reduce(self._sums, op=dist.ReduceOp.SUM, group=group)
        for watched, (mean, variance, steps) in zip(self._watched, kept, strict=True):
            seen = watched.count > 0
            steps.add_(seen.squeeze(0))
            share = 1 / steps.double() if watched.momentum is None else watched.momentum
            for buffer, total in ((mean, watched.mean), (variance, watched.variance)):
                old = buffer.double()
                folded = old + share * (total / watched.count - old)
                buffer.copy_(torch.where(seen, folded, old))

    def discard(self) -> None:
        """End the step as if it had not been, for a step whose update is skipped or that failed."""
        if self:
            self._restore()

    def _restore(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Put back buffers and momentum as they were before the step; return the buffers."""
        if not self.is_open:
            raise RuntimeError("no step has begun")
        self.is_open = False
        for watched, kept in zip(self._watched, self._kept, strict=True):
            watched.layer.momentum = watched.momentum
            for buffer, value in zip(_buffers(watched.layer), kept, strict=True):
                buffer.copy_(value)
        self._kept.clear()
        return [_buffers(watched.layer) for watched in self._watched]


def _add_up(watched: _Watched, statistics: StepStatistics) -> None:
    """Make a layer add its statistics to the sums after each forward pass of a step."""

    @torch.no_grad()
    def hook(layer: nn.Module, inputs: object, outputs: object) -> None:
        if statistics.is_open and layer.training:
            mean, variance, _ = _buffers(watched.layer)
            watched.mean.add_(mean)
            watched.variance.add_(variance)
            watched.count.add_(1)

    watched.layer.register_forward_hook(hook)


def _buffers(layer: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    """Return running mean (C,), running variance (C,) and number of steps () of a layer."""
    mean, variance, steps = layer.running_mean, layer.running_var, layer.num_batches_tracked
    assert mean is not None and variance is not None and steps is not None
    return mean, variance, steps

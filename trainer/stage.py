"""One worker's part of the pipeline: the layers between two cuts, as a ``PipelineModule``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.config import PipelineSchedule, Precision
from trainer.deepspeed import DualPipeVModule, LayerSpec, PipelineModule, ProcessTopology
from trainer.grid import BatchLayout, Grid
from trainer.layers import KeyedDropout, compile_in_place
from trainer.objective import Objective
from trainer.recipe import Activations, Layer, build_layer

# A floating-point tensor that crosses a cut must get a gradient back, or DeepSpeed 0.19.8 stops.
# One that is declared constant travels as integers of the same bits.
_AS_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
_AS_NUMBERS = {integer: number for number, integer in _AS_INTEGERS.items()}


@dataclass(frozen=True)
class Cut:
    """Where a network is cut, and what each part does with its activations.

    Attributes:
        first: first layer of each part; a part a stage, or two a stage under "dualpipev".
        recompute: for each part, whether it keeps its inputs only and computes its activations
            again in the backward pass.
        schedule: of the pipeline.
        compiled: whether each layer goes through ``torch.compile``.
    """

    first: tuple[int, ...]
    recompute: tuple[bool, ...] = ()
    schedule: PipelineSchedule = "1f1b"
    compiled: bool = False

    def recomputes(self, part: int) -> bool:
        """Whether a part computes its activations again."""
        return bool(self.recompute) and self.recompute[part]


class _SeededSpec(LayerSpec):  # type: ignore[misc]  # deepspeed has no types
    """A layer that is built only by the stage that owns it, from its own seed."""

    def __init__(self, layer: Layer, seed: int, index: int, compiled: bool) -> None:
        self.layer, self.seed, self.index, self.compiled = layer, seed, index, compiled
        self.typename = nn.Module

    def __repr__(self) -> str:
        return self.layer.name

    def build(self, log: bool = False) -> nn.Module:
        """Build the layer; DeepSpeed calls this for the layers of the stage only."""
        module = build_layer(self.layer, self.seed, self.index)
        if self.compiled:
            compile_in_place(module)
        return module


class Stage(PipelineModule):  # type: ignore[misc]  # deepspeed has no types
    """The layers of one worker.

    Differs from its base in what that leaves to chance or to the caller: the cut is given; initial
    weights depend on (seed, layer) and not on the cut; dropout knows which samples it sees, also
    when activations are computed again; tuples with integers, constants and tensors that nobody
    reads pass over a cut; all weights count in the clipping norm.

    Args:
        layers: of the whole network.
        cut: where it is cut.
        grid: the workers.
        layout: how batches are shared out.
        objective: loss of the last stage.
        precision: bf16 runs the layers under ``torch.autocast``; weights stay float32.
        seed: of the run.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        cut: Cut,
        grid: Grid,
        layout: BatchLayout,
        objective: Objective,
        precision: Precision,
        seed: int,
    ) -> None:
        self.parts = [*cut.first, len(layers)]
        super().__init__(
            layers=[
                _SeededSpec(layer, seed, index, cut.compiled) for index, layer in enumerate(layers)
            ],
            topology=ProcessTopology(axes=["data", "pipe"], dims=[grid.replicas, grid.stages]),
            loss_fn=objective,
            seed_layers=False,
            partition_method="given",
            activation_checkpoint_interval=0,
        )
        self._layers, self._cut, self._layout = layers, cut, layout
        self._precision = precision
        self._replica = grid.replica(self.global_rank)
        self._positions = [0, 0]
        self._dropouts: dict[int, list[KeyedDropout]] = {}  # by the first layer of the part
        for weight in self.parameters():
            # DeepSpeed sums the norm to clip by over rank 0 of the stages only, unless a weight is
            # marked so (deepspeed/runtime/utils.py, clip_grad_norm_).
            weight.model_parallel = True

    def begin_step(self, step: int) -> None:
        """Say which optimizer step the next forward passes in training belong to."""
        self._positions = [self._layout.first(step, self._replica)] * 2

    def forward(self, x: Activations) -> Activations:
        """Run the layers of one part on one micro-batch."""
        first = self._local_start
        received = () if first == 0 else self._layers[first - 1].constants
        run = self._runner(self._take_position(), received)
        recompute = self.training and torch.is_grad_enabled()
        if recompute and self._cut.recomputes(self.parts.index(first)):
            outputs: Activations = checkpoint(run, x, use_reentrant=False)
        else:
            outputs = run(x)
        if self._local_stop == len(self._layers):
            return outputs
        return self._packed(outputs, self._layers[self._local_stop - 1])

    def train(self, mode: bool = True) -> Self:
        """Go to training or evaluation mode; DeepSpeed asks for it in each step."""
        return self if self.training == mode else super().train(mode)

    def local_layers(self) -> list[tuple[int, nn.Module]]:
        """Return this worker's layers with their index in the network."""
        return list(
            zip(range(self._local_start, self._local_stop), self.forward_funcs, strict=True)
        )

    def _take_position(self) -> int:
        """Return the position of the micro-batch that is about to run, and go on to the next."""
        phase = getattr(self, "active_phase", 0)
        position = self._positions[phase]
        if self.training:
            self._positions[phase] += self._layout.micro_batch
        return position

    def _runner(
        self, position: int, received: tuple[int, ...]
    ) -> Callable[[Activations], Activations]:
        """Bind what a forward pass needs: it may run again in the backward pass, much later."""
        functions = list(self.forward_funcs)
        dropouts = self._dropouts.setdefault(self._local_start, _dropouts(functions))
        bf16, kind = self._precision == "bf16", self.device_kind

        def run(x: Activations) -> Activations:
            for dropout in dropouts:
                dropout.position = position
            inputs = _unpacked(x, received)
            outputs = inputs
            with torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext():
                for function in functions:
                    outputs = function(outputs)
            return _tied(outputs, inputs) if isinstance(inputs, tuple) else outputs

        return run

    @property
    def device_kind(self) -> str:
        """The device's type, "cpu" or "cuda"."""
        from deepspeed.accelerator import get_accelerator

        return str(get_accelerator().device_name())

    def _packed(self, outputs: Activations, layer: Layer) -> Activations:
        """Make outputs ready to be sent: contiguous, constants as integers.

        Raises:
            TypeError: a tensor has no gradient and is not declared constant, or the other way.
        """
        if isinstance(outputs, Tensor):
            if self.training and torch.is_grad_enabled() and not outputs.requires_grad:
                raise TypeError(f"the output of layer {layer.name!r} depends on no weight: {_CUT}")
            return outputs.contiguous()
        packed: list[Tensor] = []
        for place, tensor in enumerate(outputs):
            constant = place in layer.constants
            if constant and tensor.dtype not in _AS_INTEGERS:
                raise TypeError(
                    f"layer {layer.name!r}: output {place} is declared constant and is "
                    f"{tensor.dtype}; only float32 and float64 need to be, and can be"
                )
            learns = self.training and torch.is_grad_enabled() and tensor.is_floating_point()
            if learns and tensor.requires_grad == constant:
                state = "has a gradient" if constant else "has no gradient"
                raise TypeError(
                    f"layer {layer.name!r}: output {place} {state}, and constants = "
                    f"{layer.constants} says otherwise: {_CUT}"
                )
            sent = tensor.contiguous()
            packed.append(sent.view(_AS_INTEGERS[tensor.dtype]) if constant else sent)
        return tuple(packed)

    def _partition_layers(self, method: str = "given") -> None:
        self._set_bounds(self.parts[self.stage_id], self.parts[self.stage_id + 1])


class FoldedStage(DualPipeVModule, Stage):  # type: ignore[misc]  # deepspeed has no types
    """The two parts of one worker under DualPipeV: one on the way down, one on the way back."""

    def local_layers(self) -> list[tuple[int, nn.Module]]:
        """Return this worker's layers with their index in the network, of both parts."""
        return [
            (index, module)
            for bounds, modules in zip(self.phase_bounds, self.phase_funcs, strict=True)
            for index, module in zip(range(*bounds), modules, strict=True)
        ]


_CUT = "no cut can be made behind it (see Layer.constants)"


def _dropouts(modules: Sequence[nn.Module]) -> list[KeyedDropout]:
    parts = (part for module in modules for part in module.modules())
    return [part for part in parts if isinstance(part, KeyedDropout)]


def _unpacked(x: Activations, constants: tuple[int, ...]) -> Activations:
    """Give received constants their type back."""
    if isinstance(x, Tensor) or not constants:
        return x
    return tuple(
        tensor.view(_AS_NUMBERS[tensor.dtype]) if place in constants else tensor
        for place, tensor in enumerate(x)
    )


def _tied(outputs: Activations, inputs: tuple[Tensor, ...]) -> Activations:
    """Give every received tensor a gradient, zero where nothing read it: its sender waits."""
    received = [tensor for tensor in inputs if tensor.requires_grad]
    if not received or not torch.is_grad_enabled():
        return outputs
    if isinstance(outputs, Tensor):
        tied: Tensor = _Tie.apply(outputs, *received)  # type: ignore[no-untyped-call]
        return tied
    carrier = next(i for i, tensor in enumerate(outputs) if tensor.requires_grad)
    tied = _Tie.apply(outputs[carrier], *received)  # type: ignore[no-untyped-call]
    return (*outputs[:carrier], tied, *outputs[carrier + 1 :])


class _Tie(torch.autograd.Function):
    """The first argument; the gradient of the others is zero."""

    @staticmethod
    def forward(context: Any, output: Tensor, *others: Tensor) -> Tensor:
        context.save_for_backward(*others)
        return output.view_as(output)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        return (gradients[0], *(torch.zeros_like(other) for other in context.saved_tensors))

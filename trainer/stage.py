"""One stage of the pipeline: the layers between two cuts, as DeepSpeed's ``PipelineModule``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from deepspeed.pipe import LayerSpec, PipelineModule
from deepspeed.runtime.pipe.topology import ProcessTopology
from torch import Tensor, nn

from trainer.grid import BatchLayout, Grid
from trainer.layers import KeyedDropout
from trainer.recipe import Layer, Loss, build_layer


class _SeededSpec(LayerSpec):  # type: ignore[misc]  # deepspeed has no types
    """A layer that is built only by the stage that owns it, from its own seed."""

    def __init__(self, layer: Layer, seed: int, index: int) -> None:
        self.layer, self.seed, self.index = layer, seed, index
        self.typename = nn.Module

    def __repr__(self) -> str:
        return self.layer.name

    def build(self, log: bool = False) -> nn.Module:
        """Build the layer; DeepSpeed calls this for the layers of the stage only."""
        return build_layer(self.layer, self.seed, self.index)


class Objective:
    """The loss of the last stage; in prediction it keeps the outputs instead.

    DeepSpeed's own way of returning outputs keeps those of the last micro-batch only.
    """

    def __init__(self, loss: Loss, tasks: int) -> None:
        self._loss = loss
        self._tasks = tasks
        self._outputs: list[Tensor] | None = None

    def __call__(self, outputs: Tensor, packed: Tensor) -> Tensor:
        """Return the scalar loss of one micro-batch, from outputs (B, T) and packed labels."""
        if self._outputs is not None:
            self._outputs.append(outputs.detach().float())
            return outputs.new_zeros(())
        return self._loss(outputs, unpack_bits(packed, self._tasks))

    def collect(self) -> None:
        """Keep the outputs of the coming micro-batches."""
        self._outputs = []

    def collected(self) -> list[Tensor]:
        """Return the outputs kept, and compute losses again from now on."""
        outputs, self._outputs = self._outputs or [], None
        return outputs


def unpack_bits(packed: Tensor, tasks: int) -> Tensor:
    """Unpack labels on their device: (B, ceil(T / 8)) uint8 -> (B, T) float32."""
    shifts = torch.arange(8, device=packed.device, dtype=torch.uint8)
    bits = (packed[:, :, None] >> shifts) & 1
    return bits.flatten(1)[:, :tasks].float()


class Stage(PipelineModule):  # type: ignore[misc]  # deepspeed has no types
    """The layers of one worker.

    Differs from its base in what that leaves to chance or to the caller: the cut is given; initial
    weights depend on (seed, layer) and not on the cut; outputs are contiguous, as sending needs;
    dropout knows which samples it sees; all weights count in the clipping norm.

    Args:
        layers: of the whole network.
        cut: first layer of each stage.
        grid: the workers.
        layout: how batches are shared out.
        objective: loss of the last stage.
        seed: of the run.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        cut: Sequence[int],
        grid: Grid,
        layout: BatchLayout,
        objective: Objective,
        seed: int,
    ) -> None:
        self.parts = [*cut, len(layers)]
        super().__init__(
            layers=[_SeededSpec(layer, seed, index) for index, layer in enumerate(layers)],
            topology=ProcessTopology(axes=["data", "pipe"], dims=[grid.replicas, grid.stages]),
            loss_fn=objective,
            seed_layers=False,
            partition_method="given",
            activation_checkpoint_interval=0,
        )
        self.layer_range = range(self._local_start, self._local_stop)
        self._layout = layout
        self._replica = grid.replica(self.global_rank)
        self._dropouts = [part for part in self.modules() if isinstance(part, KeyedDropout)]
        self._position = 0
        for weight in self.parameters():
            # DeepSpeed sums the norm to clip by over rank 0 of the stages only, unless a weight is
            # marked so (deepspeed/runtime/utils.py, clip_grad_norm_).
            weight.model_parallel = True

    def begin_step(self, step: int) -> None:
        """Say which optimizer step the next forward passes in training belong to."""
        self._position = self._layout.first(step, self._replica)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers of this stage on one micro-batch."""
        if self.training:
            for dropout in self._dropouts:
                dropout.position = self._position
            self._position += self._layout.micro_batch
        output: Tensor = super().forward(x)
        return output.contiguous()

    def local_layers(self) -> list[tuple[int, nn.Module]]:
        """Return this stage's layers with their index in the network."""
        return list(zip(self.layer_range, self.forward_funcs, strict=True))

    def _partition_layers(self, method: str = "given") -> None:
        self._set_bounds(self.parts[self.stage_id], self.parts[self.stage_id + 1])

"""The pipeline engine: DeepSpeed, configured in full and left nothing to its defaults."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trainer.config import Device, OptimizerConfig
from trainer.grid import BatchLayout, Grid
from trainer.recipe import Layer, Loss
from trainer.stage import Objective, Stage


def prepare(device: Device) -> torch.device:
    """Make DeepSpeed adopt the process group that Ray Train started; return this worker's device.

    Call once in a worker, before anything else of DeepSpeed.
    """
    os.environ["DS_ACCELERATOR"] = "cpu" if device == "cpu" else "cuda"
    os.environ.setdefault("LOCAL_SIZE", os.environ["LOCAL_WORLD_SIZE"])
    import deepspeed
    import deepspeed.ops

    # Without this DeepSpeed compiles a shared-memory op for a minute at first use, or fails where
    # there is no compiler. Training never calls it: it serves inference_all_reduce only.
    deepspeed.ops.__compatible_ops__ = {}
    backend = "gloo" if device == "cpu" else "nccl"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)
    if device == "cpu":
        return torch.device("cpu")
    index = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def deepspeed_config(layout: BatchLayout, optimizer: OptimizerConfig) -> dict[str, Any]:
    """Write out every DeepSpeed setting that training passes through.

    DeepSpeed's defaults are not neutral (gradients are clipped at 1.0, for one) and change between
    versions, so none is relied on. fp32 without ZeRO.
    """
    return {
        "train_batch_size": layout.batch_size,
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.micro_batches,
        "managed_gradient_accumulation": True,
        "gradient_clipping": optimizer.clip,
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "gradient_allreduce_op": "mean",
        "communication_data_type": None,
        "disable_allgather": False,
        "zero_optimization": {"stage": 0},
        "zero_allow_untested_optimizer": False,
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": False},
        "data_types": {"grad_accum_dtype": None, "keep_in_fp32_modules": "auto"},
        "pipeline": {
            "seed_layers": False,
            "activation_checkpoint_interval": 0,
            "pipe_partitioned": False,
            "grad_partitioned": False,
            "use_reentrant": False,
        },
        "steps_per_print": None,
        "dump_state": False,
        "disable_python_gc": False,
        "wall_clock_breakdown": False,
        "memory_breakdown": False,
        "flops_profiler": {"enabled": False},
        "comms_logger": {"enabled": False},
        "tensorboard": {"enabled": False},
        "data_efficiency": {"enabled": False},
        "checkpoint": {"tag_validation": "Fail"},
    }


def build_optimizer(
    config: OptimizerConfig, weights: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make the torch optimizer a configuration asks for, every argument given."""
    chosen = [weight for weight in weights if weight.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(
            chosen,
            lr=config.lr,
            momentum=config.effective_momentum,
            dampening=0.0,
            weight_decay=config.weight_decay,
            nesterov=False,
        )
    if config.name == "adamw":
        return torch.optim.AdamW(
            chosen,
            lr=config.lr,
            betas=(config.effective_momentum, config.beta2),
            eps=config.effective_eps,
            weight_decay=config.weight_decay,
            amsgrad=False,
        )
    return torch.optim.RMSprop(
        chosen,
        lr=config.lr,
        alpha=config.alpha,
        eps=config.effective_eps,
        weight_decay=config.weight_decay,
        momentum=config.effective_momentum,
        centered=False,
    )


class Engine:
    """A network on the workers of a grid: takes optimizer steps and predicts, all stages together.

    Every worker of the grid makes one, with the same arguments, and calls the same methods.

    Args:
        layers: of the network.
        cut: first layer of each stage.
        grid: the workers.
        layout: how batches are shared out.
        loss: of the last stage.
        tasks: number of labels.
        optimizer: its configuration.
        seed: of the run.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        cut: Sequence[int],
        grid: Grid,
        layout: BatchLayout,
        loss: Loss,
        tasks: int,
        optimizer: OptimizerConfig,
        seed: int,
    ) -> None:
        import deepspeed

        self.grid = grid
        self.layout = layout
        self.objective = Objective(loss, tasks)
        self.stage = Stage(layers, cut, grid, layout, self.objective, seed)
        self.config = deepspeed_config(layout, optimizer)
        self._pipeline, *_ = deepspeed.initialize(
            model=self.stage,
            optimizer=build_optimizer(optimizer, self.stage.parameters()),
            config=self.config,
        )
        # One replica has nothing to average; DeepSpeed would still flatten and copy all gradients.
        self._pipeline.pipeline_enable_backward_allreduce = grid.replicas > 1

    @property
    def is_first(self) -> bool:
        """Whether this worker reads inputs."""
        return bool(self._pipeline.is_first_stage())

    @property
    def is_last(self) -> bool:
        """Whether this worker reads targets and has outputs."""
        return bool(self._pipeline.is_last_stage())

    @property
    def is_reporter(self) -> bool:
        """Whether this worker has the scores first hand."""
        return bool(self.stage.global_rank == self.grid.reporter)

    @property
    def replica(self) -> int:
        """The replica this worker belongs to."""
        return self.grid.replica(self.stage.global_rank)

    @property
    def replica_group(self) -> dist.ProcessGroup:
        """The workers that hold the same stage."""
        group: dist.ProcessGroup = self._pipeline.grid.get_data_parallel_group()
        return group

    def train_step(self, step: int, micro_batches: Iterable[tuple[Any, Any]]) -> torch.Tensor:
        """Take one optimizer step; return the mean loss of the global batch, on every worker.

        Args:
            step: number of the step, from 0.
            micro_batches: this replica's (inputs, targets); only the first stage looks at inputs,
                only the last at targets.
        """
        self.stage.begin_step(step)
        loss: torch.Tensor = self._pipeline.train_batch(data_iter=iter(micro_batches))
        return loss

    def predict(self, micro_batches: Sequence[tuple[Any, Any]]) -> list[torch.Tensor]:
        """Run micro-batches forward only; the last stage gets one output tensor for each."""
        self.objective.collect()
        self._pipeline.eval_batch(
            iter(micro_batches),
            compute_loss=True,
            reduce_output=None,
            bcast_loss=False,
            num_micro_batches=len(micro_batches),
        )
        return self.objective.collected()

    def close(self) -> None:
        """Give back what DeepSpeed holds, so that another engine can follow in this process.

        Its process groups own threads and file descriptors; nothing else destroys them.
        """
        self._pipeline.destroy()
        del self._pipeline, self.stage
        gc.collect()
        world = dist.group.WORLD
        for group in list(dist.distributed_c10d._world.pg_map):
            if group is not world:
                dist.destroy_process_group(group)

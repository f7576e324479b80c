"""The pipeline engine: DeepSpeed, configured in full and left nothing to its defaults."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trainer.batch_norm import StepStatistics
from trainer.config import Device, RunConfig
from trainer.ema import ExponentialAverage
from trainer.grid import BatchLayout, Grid
from trainer.guard import LossGuard
from trainer.host_memory import keep_freed_memory
from trainer.objective import Decode, Objective
from trainer.optimizers import build_optimizer, owned, owner_of, share_weights
from trainer.recipe import Layer, Loss
from trainer.stage import Cut, FoldedStage, Stage

Fill = Callable[[Sequence[tuple[int, nn.Module]]], object]
"""Changes the weights of layers, given with their index in the network."""


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
        keep_freed_memory()
        return torch.device("cpu")
    index = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def deepspeed_config(layout: BatchLayout, clip: float) -> dict[str, Any]:
    """Write out every DeepSpeed setting that training passes through.

    DeepSpeed's defaults are not neutral (gradients are clipped at 1.0, for one) and change between
    versions, so none is relied on. Weights and sums are float32; bf16 is autocast around the
    layers (``trainer.stage``), and ZeRO-1 is ours (``trainer.optimizers``): DeepSpeed's keeps the
    optimizer's state in flat slices that have no layer's name.
    """
    return {
        "train_batch_size": layout.batch_size,
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.micro_batches,
        "managed_gradient_accumulation": True,
        "gradient_clipping": clip,
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


class Engine:
    """A network on the workers of a grid: takes optimizer steps and predicts, all stages together.

    Every worker of the grid makes one, with the same arguments, and calls the same methods.

    Args:
        layers: of the network.
        cut: where it is cut.
        grid: the workers.
        layout: how batches are shared out.
        loss: of the last stage.
        decode: from targets as stored to targets as the loss reads them.
        config: of the run.
        fill: puts other weights than fresh ones into the worker's layers, before anything that
            depends on them is made.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        cut: Cut,
        grid: Grid,
        layout: BatchLayout,
        loss: Loss,
        decode: Decode,
        config: RunConfig,
        fill: Fill | None = None,
    ) -> None:
        import deepspeed

        self.grid, self.layout, self.compiled = grid, layout, cut.compiled
        self.objective = Objective(loss, decode)
        kind = FoldedStage if cut.schedule == "dualpipev" else Stage
        self.stage = kind(layers, cut, grid, layout, self.objective, config.precision, config.seed)
        if fill is not None:
            fill(self.stage.local_layers())
        named = [
            (f"{index}.{name}", weight)
            for index, module in self.stage.local_layers()
            for name, weight in module.named_parameters()
            if weight.requires_grad
        ]
        sharing = config.grid.zero == 1 and grid.replicas > 1
        self._owners = owner_of(named, grid.replicas) if sharing else None
        self._named = named
        mine = owned(named, grid.replica(dist.get_rank()), grid.replicas) if sharing else named
        self.optimizer = build_optimizer(config.optimizer, mine)
        self.config = deepspeed_config(layout, config.optimizer.clip)
        self._pipeline, *_ = deepspeed.initialize(
            model=self.stage, optimizer=self.optimizer, config=self.config
        )
        # One replica has nothing to average; DeepSpeed would still flatten and copy all gradients.
        self._pipeline.pipeline_enable_backward_allreduce = grid.replicas > 1
        self._statistics = StepStatistics(self.stage)
        decay = config.optimizer.ema
        self.average = ExponentialAverage(named, decay) if decay else None
        self.guard = LossGuard(config.failure)
        self._step = 0
        self._skipped = False
        if self.guard.active:
            self._take_step = self._pipeline._take_model_step
            self._pipeline._take_model_step = self._take_guarded_step

    @property
    def pipeline(self) -> Any:
        """DeepSpeed's engine, for those who trace it."""
        return self._pipeline

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

    def train_step(
        self, step: int, micro_batches: Iterable[tuple[Any, Any]], rate: float
    ) -> torch.Tensor:
        """Take one optimizer step; return the mean loss of the global batch, on every worker.

        Args:
            step: number of the step, from 0.
            micro_batches: this replica's (inputs, targets); only the first stage looks at inputs,
                only the last at targets.
            rate: learning rate.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._step, self._skipped = step, False
        self.stage.begin_step(step)
        self._statistics.begin()
        loss: torch.Tensor = self._pipeline.train_batch(data_iter=iter(micro_batches))
        if self._skipped:
            self._statistics.discard()
            return loss
        self._statistics.end(self.replica_group)
        if self._owners is not None:
            share_weights(self._named, self._owners, self.replica_group)
        if self.average is not None:
            self.average.update()
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

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Compute with the averaged weights, where there are any, until the block ends."""
        if self.average is None:
            yield
        else:
            with self.average.swapped():
                yield

    def averages(self, layer: int) -> dict[str, torch.Tensor] | None:
        """Return the averaged weights of a layer by their name in it, if there are any."""
        if self.average is None:
            return None
        start = f"{layer}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.average.tensors.items()
            if name.startswith(start)
        }

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

    def _take_guarded_step(self, lr_kwargs: Any) -> None:
        """Take the step, unless the loss of its batch says that it would do harm.

        DeepSpeed calls this when all gradients are there and nothing has changed yet.
        """
        loss = torch.zeros(1, dtype=torch.float64)
        if self.is_last:
            mean = self._pipeline.total_loss.detach().double() / self.layout.micro_batches
            loss = mean.reshape(1).cpu() / self.grid.replicas
        loss = loss.to(self._pipeline.device)
        dist.all_reduce(loss)
        if self.guard.accepts(self._step, float(loss)):
            self._take_step(lr_kwargs)
        else:
            self._skipped = True
            self._pipeline.zero_grad()
            self._pipeline.global_steps += 1

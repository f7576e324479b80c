"""The engine and a bare PyTorch loop, over the same layers, tensors, loss and optimizer."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.training.networks import Batch, Workload
from trainer.config import GridConfig, Precision, RunConfig
from trainer.engine import Engine
from trainer.grid import BatchLayout, grid_of
from trainer.layers import KeyedDropout, compile_in_place
from trainer.optimizers import build_optimizer
from trainer.recipe import Activations, build_layer
from trainer.stage import Cut

Step = Callable[[], object]
"""Takes one optimizer step."""


def config_of(
    workload: Workload, batch: int, *, stages: int = 1, precision: Precision = "fp32"
) -> RunConfig:
    """Return the configuration of a run of this network."""
    return RunConfig(
        recipe="benchmark",
        batch_size=batch,
        precision=precision,
        optimizer=workload.optimizer,
        grid=GridConfig(stages=stages),
    )


def build_engine(
    workload: Workload,
    batch: int,
    micro_batches: int = 1,
    cut: tuple[int, ...] = (0,),
    *,
    precision: Precision = "fp32",
    compiled: bool = False,
) -> Engine:
    """Build the engine, on the workers that are there; a stage a part of the cut."""
    config = config_of(workload, batch, stages=len(cut), precision=precision)
    return Engine(
        workload.layers,
        Cut(cut, compiled=compiled),
        grid_of(config.grid),
        BatchLayout(batch, 1, micro_batches),
        workload.loss,
        workload.decode,
        config,
    )


def engine_step(engine: Engine, workload: Workload, batches: Sequence[Sequence[Batch]]) -> Step:
    """Return a step of the engine over batches in memory, each cut into micro-batches."""
    turn = itertools.cycle(batches)
    number = itertools.count()
    rate = workload.optimizer.lr
    return lambda: engine.train_step(next(number), next(turn), rate)


class BareLoop:
    """What one would write without an engine: zero the gradients, forward, backward, step.

    Args:
        workload: the network and how it is trained.
        micro_batch: samples of a micro-batch.
        device: to compute on.
        precision: "bf16" computes under ``torch.autocast``.
        compiled: each layer goes through ``torch.compile``.
        torch_dropout: PyTorch's dropout, whose masks nobody can reproduce, instead of ours.
    """

    def __init__(
        self,
        workload: Workload,
        micro_batch: int,
        device: torch.device,
        *,
        precision: Precision = "fp32",
        compiled: bool = False,
        torch_dropout: bool = False,
    ) -> None:
        modules = [build_layer(layer, 0, index) for index, layer in enumerate(workload.layers)]
        if torch_dropout:
            modules = [
                nn.Dropout(module.rate) if isinstance(module, KeyedDropout) else module
                for module in modules
            ]
        self.network = nn.Sequential(*modules).to(device).train()
        if compiled:
            for module in self.network:
                compile_in_place(module)
        named = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        self.optimizer = build_optimizer(workload.optimizer, named)
        self._dropouts = [m for m in self.network.modules() if isinstance(m, KeyedDropout)]
        self._workload, self._device, self._micro_batch = workload, device, micro_batch
        self._bf16 = precision == "bf16"
        self._position = 0

    def step(self, micro_batches: Sequence[Batch]) -> Tensor:
        """Take one optimizer step; return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._device)
        for inputs, targets in micro_batches:
            loss = self._loss(moved(inputs, self._device), targets.to(self._device))
            if len(micro_batches) > 1:
                loss = loss / len(micro_batches)
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        return total

    def _loss(self, inputs: Activations, targets: Tensor) -> Tensor:
        for dropout in self._dropouts:
            dropout.position = self._position
        self._position += self._micro_batch
        if self._bf16:
            with torch.autocast(self._device.type, torch.bfloat16):
                outputs = self.network(inputs)
        else:
            outputs = self.network(inputs)
        return self._workload.loss(outputs.float(), self._workload.decode(targets))


def bare_step(loop: BareLoop, batches: Sequence[Sequence[Batch]]) -> Step:
    """Return a step of a bare loop over batches in memory."""
    turn = itertools.cycle(batches)
    return lambda: loop.step(next(turn))


def moved(x: Activations, device: torch.device) -> Activations:
    """Move an input to a device."""
    if isinstance(x, Tensor):
        return x.to(device)
    return tuple(tensor.to(device) for tensor in x)


def micro_batches(batches: Sequence[Batch], parts: int) -> list[list[Batch]]:
    """Cut batches into equal micro-batches."""
    cut = []
    for inputs, targets in batches:
        assert isinstance(inputs, Tensor)
        size = len(inputs) // parts
        cut.append(list(zip(inputs.split(size), targets.split(size), strict=True)))
    return cut


def alternate(
    contenders: Mapping[str, Step],
    rounds: int,
    seconds: float,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Let contenders take steps in turns; every other round runs backwards.

    All take as many steps a round as the slowest takes in ``seconds`` (two at least, where rounds
    are longer than a step). In a group of workers, all of them must call this alike.

    Args:
        contenders: by name.
        rounds: how many are counted.
        seconds: of each contender in a round, about.
        synchronize: waits for the device.

    Returns:
        Seconds a step of each contender in each round.
    """
    slowest = 0.0
    for step in contenders.values():
        step()  # makes optimizer state, compiles
        slowest = max(slowest, _time(step, 1, synchronize))
    steps = _agreed(max(1, round(seconds / max(slowest, 1e-9))))
    for step in contenders.values():
        _time(step, steps if steps > 5 else 0, synchronize)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders.items())
        for name, step in order if number % 2 == 0 else order[::-1]:
            times[name].append(_time(step, steps, synchronize) / steps)
    return times


def _time(step: Step, count: int, synchronize: Callable[[], None]) -> float:
    synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        step()
    synchronize()
    return time.perf_counter() - begin


def _agreed(steps: int) -> int:
    """Return the same number on all workers: rank 0's."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return steps
    number = torch.tensor(steps)
    dist.broadcast(number, 0)
    return int(number)


def median(times: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(times)

"""Reading ahead: our prefetch thread and torch's workers, alone and under a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.contenders.ours import gatherer
from benchmarks.reading.groups import GROUPS
from benchmarks.reading.task import LABELS, Answer, Block, Contender, Reader, Task

Read = Callable[[int], Answer]
_FOREVER = 1 << 40


def numbered(task: Task) -> Read:
    """Return a function from a number to a batch; numbers go through blocks for ever."""
    gather = gatherer(task, "rows.zarr")
    blocks = [b for b in GROUPS[task.group].queries(task, 0) if isinstance(b, Block)]
    rows = np.concatenate([block.start + block.order for block in blocks])

    def read(number: int) -> Answer:
        chosen: npt.NDArray[np.int64] = rows[number % len(rows)]
        return gather("codes", chosen), gather("labels", chosen)

    return read


def in_process(read: Read) -> Iterator[Answer]:
    """Read a batch when it is asked for."""
    yield from map(read, range(_FOREVER))


def by_thread(read: Read) -> Iterator[Answer]:
    """Read ahead in our one thread."""
    from data_shards.prefetch import Prefetch

    yield from Prefetch(read, 0, _FOREVER)


def by_workers(read: Read) -> Iterator[Answer]:
    """Read ahead in two worker processes of torch's DataLoader, whole batches."""
    from torch.utils.data import DataLoader, Dataset

    class Batches(Dataset[Any]):
        def __len__(self) -> int:
            return 1 << 20

        def __getitem__(self, number: int) -> Answer:
            return read(number)

    loader = DataLoader(
        Batches(), batch_size=None, num_workers=2, prefetch_factor=2, persistent_workers=True
    )
    while True:
        yield from loader


def in_memory(read: Read) -> Iterator[Answer]:
    """Give the same batch again and again."""
    answer = read(0)
    while True:
        yield answer


def stream(task: Task, *, ahead: Callable[[Read], Iterator[Answer]]) -> Reader:
    answers = ahead(numbered(task))

    def reader(block: Block) -> Iterator[Answer]:
        for _ in block.order:
            yield next(answers)

    return reader


def trained(task: Task, *, ahead: Callable[[Read], Iterator[Answer]]) -> Reader:
    step = make_step()
    answers = ahead(numbered(task))

    def reader(block: Block) -> Iterator[Answer]:
        for _ in block.order:
            answer = next(answers)
            step(answer)
            yield answer

    return reader


def make_step() -> Callable[[Answer], None]:
    """Build a training step of one thread: one-hot, convolution, pooling, a linear layer."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(4, 32, 16, stride=8), nn.ReLU(), nn.MaxPool1d(4), nn.Flatten(), nn.LazyLinear(919)
    )
    network(torch.zeros(1, 4, 1000))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)])
    bits = torch.arange(8)

    def step(answer: Answer) -> None:
        codes, packed = (torch.as_tensor(array) for array in answer)
        inputs = table[codes.long()].transpose(1, 2)
        targets = ((packed[:, :, None] >> bits) & 1).flatten(1)[:, :LABELS].float()
        loss = nn.functional.binary_cross_entropy_with_logits(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _one(name: str, groups: str, open_: Any, how: str, *, ours: bool = False) -> Contender:
    packages = ("replisome", "torch")
    return Contender(
        name,
        tuple(groups.split()),
        open_,
        ("rows.zarr",),
        packages=packages,
        how=how,
        threads="many",
        ours=ours,
    )


_RATE = "prefetch prefetch-2k"

CONTENDERS = (
    _one("in process", _RATE, partial(stream, ahead=in_process), "`gather` when asked"),
    _one(
        "Prefetch",
        _RATE,
        partial(stream, ahead=by_thread),
        "one thread, as far ahead as it goes by default; nothing is done with a batch",
        ours=True,
    ),
    _one(
        "DataLoader, 2 workers",
        _RATE,
        partial(stream, ahead=by_workers),
        "whole batches from worker processes",
    ),
    _one(
        "step alone, batch in memory",
        "step",
        partial(trained, ahead=in_memory),
        "the same batch every time, nothing is read",
    ),
    _one("in process", "step", partial(trained, ahead=in_process), "`gather`, then the step"),
    _one(
        "Prefetch",
        "step",
        partial(trained, ahead=by_thread),
        "read ahead in one thread beside the step",
        ours=True,
    ),
    _one(
        "DataLoader, 2 workers",
        "step",
        partial(trained, ahead=by_workers),
        "read ahead in worker processes",
    ),
)

"""How fast workers reach each other: measured by the exchanges that training is made of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MB = 16  # of the measured exchange
_ROUNDS = 5


def meet(device: str) -> dict[str, Any]:
    """Measure an all-reduce, and sends from each worker to the next; runs on every worker."""
    import torch
    import torch.distributed as dist

    world = dist.get_world_size()
    where = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device == "gpu" else "cpu"
    large = torch.ones(_MB * 250_000, device=where)
    small = torch.ones(1, device=where)
    dist.all_reduce(large)
    whole = _median(lambda: dist.all_reduce(large), device)
    pairs = {}
    for sender in range(world):
        receiver = (sender + 1) % world
        times = []
        for tensor in (large, small):
            dist.barrier()
            times.append(_median(partial(_exchange, tensor, sender, receiver), device))
        told = torch.tensor(times, dtype=torch.float64, device=where)
        dist.broadcast(told, receiver)
        slow, quick = told.tolist()
        pairs[sender, receiver] = (_MB / slow, quick)
    return {"all_reduce": _MB / whole, "pairs": pairs}


def _exchange(tensor: torch.Tensor, sender: int, receiver: int) -> None:
    import torch.distributed as dist

    if dist.get_rank() == sender:
        dist.send(tensor, receiver)
    elif dist.get_rank() == receiver:
        dist.recv(tensor, sender)


def _median(work: Callable[[], object], device: str) -> float:
    import statistics

    import torch

    times = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        work()
        if device == "gpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)

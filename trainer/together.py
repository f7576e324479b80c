"""Waiting for each other without anybody being silent.

A worker that is silent for ``failure.hang_seconds`` counts as lost, so whatever may take longer
than that, on one worker or all (verifying shards, measuring layers, scoring a split), happens in a
thread, while the workers keep telling each other that they are alive.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

_LONGEST = 1.0  # seconds between two signs of life


class OtherWorkerError(RuntimeError):
    """Another worker failed; its own error says why."""


def together(work: Callable[[], T], device: torch.device) -> T:
    """Run ``work`` on each worker, and go on when all are done.

    Args:
        work: must not talk to other workers.
        device: of this worker, for the exchange.

    Raises:
        BaseException: what ``work`` raised here.
        OtherWorkerError: ``work`` failed on another worker.
    """
    with ThreadPoolExecutor(1, "together") as pool:
        future = pool.submit(work)
        pause = 0.001
        while True:
            wait([future], timeout=pause)
            pause = min(2 * pause, _LONGEST)
            done = future.done()
            failed = done and future.exception() is not None
            signs = torch.tensor([int(done), int(not failed)], device=device)
            dist.all_reduce(signs, op=dist.ReduceOp.MIN)
            all_done, all_well = signs.tolist()
            if failed:
                return future.result()  # raises
            if not all_well:
                # Our own work can't be stopped; it ends before the process does.
                raise OtherWorkerError("another worker failed")
            if all_done:
                return future.result()


def told(value: T, source: int) -> T:
    """Send a plain value from one worker to all."""
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]

"""Running a function on several ranks of one process group, without Ray: a second a case.

The ranks are forked from a server that has imported torch and DeepSpeed once, and no threads.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "deepspeed", "trainer.engine", "trainer.evaluation"])
TIMEOUT = 120.0


def on_ranks(workers: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """Run ``work(*args)`` on each rank; return what they return, by rank.

    Args:
        workers: how many.
        work: a function of a module; on each rank the process group is up.
        args: plain values.

    Raises:
        RuntimeError: a rank failed; the message has its traceback.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"
    with tempfile.TemporaryDirectory(prefix="rpl-ranks-") as folder:
        queue = _CONTEXT.Queue()
        ranks = [
            _CONTEXT.Process(target=_rank, args=(rank, workers, folder, queue, work, args))
            for rank in range(workers)
        ]
        for process in ranks:
            process.start()
        try:
            answers = dict(queue.get(timeout=TIMEOUT) for _ in ranks)
        finally:
            for process in ranks:
                process.join(timeout=10)
                if process.is_alive():
                    process.kill()
                    process.join()
    failed = {rank: text for rank, (well, text) in answers.items() if not well}
    if failed:
        own = [text for text in failed.values() if "onnection" not in text]
        raise RuntimeError((own or list(failed.values()))[0])
    return [answers[rank][1] for rank in range(workers)]


def _rank(
    rank: int, workers: int, folder: str, queue: Any, work: Callable[..., Any], args: Any
) -> None:
    import torch
    import torch.distributed as dist

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "LOCAL_WORLD_SIZE": str(workers),
        "DS_ACCELERATOR": "cpu",
    }
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{Path(folder) / 'meet'}",
            rank=rank,
            world_size=workers,
            timeout=timedelta(seconds=60),
        )
        result = work(*args)
        queue.put((rank, (True, result)))
    except BaseException:
        queue.put((rank, (False, traceback.format_exc())))
    finally:
        queue.close()
        queue.join_thread()
        os._exit(0)

"""What gloo takes between two processes of this machine: messages, and averages.

``python -m benchmarks.links`` measures and writes ``results/links.md``. ``CPU_LINK`` of
``trainer.planning.hardware`` comes from such tables. Both processes compute for some milliseconds
before each message, as stages do: a thread that waits has to be woken.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "links.md"
SIZES = (16, 4_000, 400_000, 4_000_000, 40_000_000, 160_000_000)  # bytes
_COMPUTE = 5e-3  # seconds


def times(sizes: list[int]) -> list[dict[str, Any]]:
    """Time messages and averages of two processes; runs in each of them.

    Returns:
        For each size, seconds of each message from rank 0 to rank 1, and of each average. A message
        is over when its receiver has it; both read the same clock.
    """
    import torch
    import torch.distributed as dist

    rank, matrix, found = dist.get_rank(), torch.ones(256, 256), []
    for size in sizes:
        payload = torch.ones(size // 4)
        taken: dict[str, list[float]] = {"message": [], "average": []}
        for _ in range(100 if size < 10**7 else 10):
            for kind, seconds in taken.items():
                dist.barrier()
                until = time.perf_counter() + _COMPUTE
                while time.perf_counter() < until:
                    matrix @ matrix
                begin = time.perf_counter()
                if kind == "average":
                    dist.all_reduce(payload)
                elif rank == 0:
                    dist.send(payload, 1)
                else:
                    dist.recv(payload, 0)
                seconds.append(time.perf_counter() - begin)
                payload.fill_(1.0)
        found.append({"bytes": size, **taken})
    return found


def report(found: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    from importlib.metadata import version

    rows = []
    for row in found:
        cells = []
        for kind in ("message", "average"):
            tenths = statistics.quantiles(row[kind], n=10)
            values = (tenths[0], statistics.median(row[kind]), tenths[-1])
            cells.append(" / ".join(f"{1e3 * value:.2f}" for value in values))
            cells.append(f"{1e3 * statistics.mean(row[kind]):.2f}")
        rows.append(f"| {row['bytes']:,} | {' | '.join(cells)} |")
    return "\n".join(
        [
            "# Messages and averages between two processes",
            "",
            "`python -m benchmarks.links`",
            "",
            f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores; Linux {platform.release()}; "
            f"torch {version('torch')}, gloo; one thread each. Milliseconds at the receiver: tenth "
            "percentile / median / ninetieth, and mean.",
            "",
            "| bytes | message | mean | average over two | mean |",
            "|---:|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure."""
    # By its name: the processes import the function.
    from benchmarks import links
    from benchmarks.training.ranks import on_ranks

    text = report(on_ranks(2, links.times, {"sizes": list(SIZES)}, threads=1)[1])
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

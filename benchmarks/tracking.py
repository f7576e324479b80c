"""What tracking costs a training: the same training with MLflow following it, and without.

``python -m benchmarks.tracking`` measures and writes ``results/tracking.md``. With: the driver's
thread brings every log to MLflow (sqlite) while a worker trains, on the same machine. Without: the
worker writes its event log, and nobody reads it. Both take turns; each pair has its own ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.recovery import simulated

RESULT = Path(__file__).parent / "results" / "tracking.md"
TARGET = 1.0  # percent


def train_once(data: Path, runs: Path, epochs: int, *, tracked: bool) -> float:
    """Train in a run of its own; return the seconds of the training loop."""
    import jobs.train
    from jobs.configure import configure
    from jobs.console import Console
    from jobs.train import TrainRequest, train

    settings = {
        "size": "small",
        "epochs": epochs,
        "baselines": False,
        "grid": {"stages": 1, "replicas": 1, "cut": "parameters", "device": "cpu"},
    }
    follow = jobs.train._delivering
    if not tracked:
        jobs.train._delivering = _nobody  # type: ignore[assignment]
    try:
        request = TrainRequest(configure("danq", None, settings), str(data), runs)
        result = train(request, Console(json=True))
    finally:
        jobs.train._delivering = follow
    return float(result["seconds"]["train danq"])


@contextlib.contextmanager
def _nobody(*_: Any) -> Iterator[Any]:
    """Stand where the delivery would, and deliver nothing."""

    class Nothing:
        run_id = model = None

    yield Nothing()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--data", type=Path, help="a DanQ data set; default: simulated")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="rpl-", dir="/tmp") as scratch:
        os.environ.setdefault("RAY_TMPDIR", scratch)
        data = options.data or simulated(Path(scratch))
        pairs = []
        for number in range(options.rounds):
            order = (True, False) if number % 2 else (False, True)  # neither is always first
            found = {
                tracked: train_once(data, Path(scratch) / "runs", options.epochs, tracked=tracked)
                for tracked in order
            }
            pairs.append((found[True], found[False]))
    RESULT.write_text(report(pairs, options.epochs))


def report(pairs: list[tuple[float, float]], epochs: int) -> str:
    """Return the table as Markdown."""
    import platform
    from importlib.metadata import version

    slower = [100 * (tracked / alone - 1) for tracked, alone in pairs]
    versions = ", ".join(f"{name} {version(name)}" for name in ("mlflow", "ray", "torch"))
    rows = [
        f"| {number} | {tracked:.2f} | {alone:.2f} | {percent:+.1f} % |"
        for number, ((tracked, alone), percent) in enumerate(
            zip(pairs, slower, strict=True), start=1
        )
    ]
    return "\n".join(
        [
            "# Tracking",
            "",
            f"`python -m benchmarks.tracking --rounds {len(pairs)} --epochs {epochs}`",
            "",
            f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores; Linux {platform.release()}; "
            f"{versions}; small DanQ, {epochs} epochs, one worker of one thread, 20 logs an "
            "epoch and system metrics every 5 s.",
            "",
            "| round | tracked, s | alone, s | slower by |",
            "|---:|---:|---:|---:|",
            *rows,
            "",
            f"Median: {statistics.median(slower):+.1f} % (target: less than {TARGET:g} %).",
            "",
        ]
    )


if __name__ == "__main__":
    main()

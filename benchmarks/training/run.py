"""The driver: runs benchmarks and writes a Markdown table of each.

    python -m benchmarks.training.run one_stage
    python -m benchmarks.training.run all

``README.md`` beside this file explains the flags and how to read the result.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from benchmarks.training.effort import Effort
from benchmarks.training.ranks import ROOT
from benchmarks.training.report import Report, render

CACHE = Path.home() / ".cache" / "replisome-bench"
BENCHMARKS = ("one_stage", "loading", "two_stages", "memory", "checkpoint", "gpu", "peers")


def command(options: argparse.Namespace, name: str) -> str:
    """Write the command that makes one table, without the folders of this machine."""
    words = ["python -m benchmarks.training.run", name]
    if options.networks:
        words += ["--networks", *options.networks]
    if options.quick:
        words.append("--quick")
    else:
        words.append(f"--rounds {options.rounds} --seconds {options.seconds:g}")
    if options.threads:
        words.append(f"--threads {options.threads}")
    if name == "gpu":
        words.append(f"--device {options.device}")
        if options.peak is not None:
            words.append(f"--peak {options.peak:g}")
    return " ".join(words)


def arguments() -> argparse.ArgumentParser:
    """Describe the flags."""
    parser = argparse.ArgumentParser(description="Measure training.")
    parser.add_argument("benchmark", nargs="+", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--networks", nargs="+", default=[], help="only these networks")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a contender in a round")
    parser.add_argument("--quick", action="store_true", help="small networks, few steps")
    parser.add_argument("--threads", type=int, help="cores to use; default: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of gpu")
    parser.add_argument("--peak", type=float, help="of the GPU, TFLOP/s in the precision measured")
    parser.add_argument("--cache", type=Path, default=CACHE / "training", help="data sets")
    parser.add_argument("--envs", type=Path, default=CACHE / "envs", help="environments of peers")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results"
    )
    return parser


def main() -> None:
    options = arguments().parse_args()
    effort = Effort(
        rounds=min(options.rounds, 2) if options.quick else options.rounds,
        seconds=0.05 if options.quick else options.seconds,
        quick=options.quick,
        networks=tuple(options.networks),
        cache=options.cache,
        envs=options.envs,
        threads=options.threads,
        device=options.device,
        peak=options.peak,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    names = BENCHMARKS if "all" in options.benchmark else options.benchmark
    for name in names:
        load, begin = os.getloadavg()[0], time.perf_counter()
        report: Report = importlib.import_module(f"benchmarks.training.{name}").report(effort)
        text = render(report, command(options, name), load)
        (options.out / f"training-{name}.md").write_text(text)
        print(text)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

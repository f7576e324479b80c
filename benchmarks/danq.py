"""DanQ against its baselines: on simulated genomes over several seeds, or on a real data set.

    python benchmarks/danq.py planted --seeds 3 --out benchmarks/results/danq-planted.md
    python benchmarks/danq.py real --data yeast.zarr --out benchmarks/results/danq-yeast.md

Every number in the table comes from the runs that the script makes, through the same command that
users type. Cells are AUROC / AUPR on the held-out test split; over seeds, mean +/- standard
deviation (n - 1). A seed changes the genome (planted), the order, the initial weights and the
dropout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("replisome", "torch", "deepspeed", "ray", "scikit-learn")


def replisome(*arguments: str) -> dict[str, Any]:
    """Run the command with --json; return its object."""
    command = Path(sys.executable).with_name("replisome")
    done = subprocess.run(
        [command, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def planted(seeds: int, work: Path) -> list[dict[str, Any]]:
    """Run the demo for each seed."""
    place = ("--out", str(work / "demo"), "--runs", str(work / "runs"))
    return [replisome("demo", "--seed", str(seed), *place) for seed in range(seeds)]


def real(data: Path, seeds: int, work: Path) -> list[dict[str, Any]]:
    """Train small DanQ on a data set, with each seed."""
    common = ("train", "danq", "--data", str(data), "--size", "small", "--stages", "2")
    place = ("--runs", str(work / "runs"))
    return [replisome(*common, "--seed", str(seed), *place) for seed in range(seeds)]


def cell(runs: list[dict[str, Any]], model: str, task: str | None) -> str:
    """AUROC / AUPR of a model on a task (None: the mean over tasks), over all runs."""
    parts = []
    for metric in ("auroc", "aupr"):
        scores = [run["metrics"][model] for run in runs]
        values = [
            score[f"{metric}_mean"] if task is None else score["tasks"][task][metric]
            for score in scores
        ]
        text = f"{statistics.mean(values):.3f}"
        if len(values) > 1:
            text += f" ± {statistics.stdev(values):.3f}"
        parts.append(text)
    return " / ".join(parts)


def report(runs: list[dict[str, Any]], command: str) -> str:
    """Write the table with all that is needed to read it."""
    models = list(runs[0]["metrics"])
    tasks = list(runs[0]["metrics"][models[0]]["tasks"])
    lines = [
        f"# {command}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {len(runs)} run(s); {os.cpu_count()} cores "
        f"({platform.machine()}); Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "",
        "AUROC / AUPR on the held-out test split"
        + (", mean ± standard deviation (n - 1)." if len(runs) > 1 else "."),
        "",
        f"| task | positives / scored | {' | '.join(models)} |",
        "|---|---:|" + "---:|" * len(models),
    ]
    for task in tasks:
        score = runs[0]["metrics"][models[0]]["tasks"][task]
        share = f"{score['positives']:,} / {score['scored']:,}"
        cells = [cell(runs, model, task) for model in models]
        lines.append(f"| {task} | {share} | {' | '.join(cells)} |")
    lines.append(f"| mean | | {' | '.join(cell(runs, model, None) for model in models)} |")
    lines += ["", "Per run:", "", "| data fingerprint | cut | seconds to train |", "|---|---|---:|"]
    for run in runs:
        cuts = ", ".join(f"{name} {cut}" for name, cut in run["cut"].items())
        seconds = sum(s for step, s in run["seconds"].items() if step.startswith("train "))
        lines.append(f"| {run['data_fingerprint'][:16]} | {cuts} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("planted", "real"))
    parser.add_argument("--data", type=Path, help="the data set (real)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "planted":
            runs = planted(options.seeds, Path(folder))
            command = f"python benchmarks/danq.py planted --seeds {options.seeds}"
        else:
            if options.data is None:
                parser.error("real needs --data")
            runs = real(options.data, options.seeds, Path(folder))
            command = (
                f"python benchmarks/danq.py real --data {options.data.name} --seeds {options.seeds}"
            )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report(runs, command))
    print(options.out.read_text())


if __name__ == "__main__":
    main()

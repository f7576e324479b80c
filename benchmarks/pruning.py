"""What pruning is worth: the best value after the same amount of training, with it and without.

``python -m benchmarks.pruning`` measures and writes ``results/pruning.md``: a sweep of small DanQ
over learning rate, batch size, momentum and weight decay for each seed and pruner. The budget is
counted in epochs trained, over all trials, so a busy machine changes nothing. A trial that the
budget's end cuts counts with what it had reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recovery import simulated

RESULT = Path(__file__).parent / "results" / "pruning.md"
EPOCHS = 6
PRUNERS = ("none", "median", "halving")
_LOOK = 1.0  # seconds between two looks at a sweep


@dataclass(frozen=True)
class Searched:
    """What one sweep had found when its budget was used.

    Attributes:
        best: least validation loss of any epoch of any trial.
        trials: that were begun within the budget.
        pruned: of them.
    """

    best: float
    trials: int
    pruned: int


def search(data: Path, runs: Path, pruner: str, seed: int, budget: int) -> Searched:
    """Run a sweep until the budget is used."""
    name = f"{pruner}-{seed}"
    program = Path(sys.executable).with_name("replisome")
    command = [
        program, "sweep", "danq", "--data", data, "--name", name, "--runs", runs,
        "--size", "small", "--epochs", str(EPOCHS), "--set", "grid.cut=parameters",
        "--set", "patience=1000", "--seed", str(seed), "--pruner", pruner,
        "--trials", str(budget), "--json",
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as sweep:
        while sweep.poll() is None and used(trials := trials_of(runs / "danq" / name)) < budget:
            time.sleep(_LOOK)
        subprocess.run(
            [program, "sweep", "pause", name, "--runs", runs], check=True, capture_output=True
        )
    return within(trials, budget)


def trials_of(sweep: Path) -> list[Any]:
    """Return the trials of a sweep so far; none before its study is there."""
    from jobs.sweep.results import load_study

    try:
        identity = json.loads((sweep / "sweep.json").read_text())
    except FileNotFoundError:
        return []
    return list(load_study(identity["storage"], identity["study"]).trials)


def used(trials: list[Any]) -> int:
    """Return how many epochs were trained."""
    return sum(len(trial.intermediate_values) for trial in trials)


def within(trials: list[Any], budget: int) -> Searched:
    """Go through trials in their order until so many epochs are used."""
    best, spent, count, pruned = float("inf"), 0, 0, 0
    for trial in trials:
        curve = [value for _, value in sorted(trial.intermediate_values.items())]
        curve = curve[: budget - spent]
        best, spent, count = min([best, *curve]), spent + len(curve), count + 1
        pruned += trial.state.name == "PRUNED"
        if spent == budget:
            break
    return Searched(best, count, pruned)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=48, help="epochs, over all trials")
    parser.add_argument("--pruners", nargs="+", default=list(PRUNERS), help="none must be one")
    parser.add_argument("--data", type=Path, help="a DanQ data set; default: simulated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rpl-", dir="/tmp") as scratch:
        data = options.data or simulated(Path(scratch))
        found: dict[tuple[str, int], Searched] = {}
        for seed in range(options.seeds):
            for pruner in options.pruners:
                runs = Path(scratch) / "runs"
                found[pruner, seed] = search(data, runs, pruner, seed, options.budget)
                print(f"seed {seed}, {pruner}: {found[pruner, seed]}", file=sys.stderr, flush=True)
            RESULT.write_text(report(found, options.budget))


def report(found: dict[tuple[str, int], Searched], budget: int) -> str:
    """Return the table as Markdown."""
    import platform
    from importlib.metadata import version

    seeds = sorted({seed for _, seed in found})
    pruners = list(dict.fromkeys(pruner for pruner, _ in found))
    rows = []
    for pruner in pruners:
        sweeps = [found[pruner, seed] for seed in seeds]
        better = sum(found[pruner, seed].best < found["none", seed].best for seed in seeds)
        rows.append(
            f"| {pruner} | {statistics.median(one.best for one in sweeps):.4f} | "
            + " ".join(f"{one.best:.4f}" for one in sweeps)
            + f" | {'' if pruner == 'none' else f'{better} of {len(seeds)}'} | "
            + " ".join(f"{one.trials} ({one.pruned})" for one in sweeps)
            + " |"
        )
    versions = ", ".join(f"{name} {version(name)}" for name in ("optuna", "torch"))
    return "\n".join(
        [
            "# Pruning",
            "",
            f"`python -m benchmarks.pruning --seeds {len(seeds)} --budget {budget} "
            f"--pruners {' '.join(pruners)}`",
            "",
            f"{time.strftime('%Y-%m-%d')}; Linux {platform.release()}; {versions}; small DanQ, "
            f"simulated data, TPE, one slot, {EPOCHS} epochs a trial, {budget} epochs in all.",
            "",
            "Best: least validation loss of any epoch within the budget.",
            "",
            "| pruner | best, median | by seed | better than none | trials (pruned), by seed |",
            "|---|---:|---|---:|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()

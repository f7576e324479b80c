"""The driver: makes input and environments, runs the groups, writes Markdown and JSON.

    python -m benchmarks.reading.run

``README.md`` beside this file explains the flags and how to read the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.reading.contenders.registry import CONTENDERS
from benchmarks.reading.data import FULL, QUICK, SEED, Sizes, made
from benchmarks.reading.envs import UnavailableError, interpreter
from benchmarks.reading.formats import FORMATS
from benchmarks.reading.groups import GROUPS, Group
from benchmarks.reading.rounds import ROOT, Plan, run
from benchmarks.reading.table import render
from benchmarks.reading.task import Contender, Task

CACHE = Path.home() / ".cache" / "replisome-bench"


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


class Kitchen:
    """Makes environments and input files at first need.

    Args:
        envs: folder of the environments.
        folder: of the input files.
        sizes: of the input.
    """

    def __init__(self, envs: Path, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        self._envs = envs
        self._pythons: dict[str, Path | str] = {}

    def python(self, environment: str) -> Path | str:
        """Return an environment's interpreter, or why there is none."""
        if environment not in self._pythons:
            try:
                self._pythons[environment] = interpreter(environment, self._envs, say)
            except UnavailableError as reason:
                self._pythons[environment] = f"can't be installed: {reason}"
        return self._pythons[environment]

    def entrant(self, contender: Contender, task: Task) -> tuple[Contender, Path | str]:
        """Make what a contender needs; return it with its interpreter or the reason for none."""
        python = self.python(contender.environment)
        if isinstance(python, str):
            return contender, python
        for name in contender.formats:
            if fault := self.make(name.format(length=task.length)):
                return contender, fault
        return contender, python

    def make(self, name: str) -> str | None:
        """Make an input file in the environment that can; return why not, or None."""
        if made(self.folder, name):
            return None
        format_ = FORMATS.get(name)
        if format_ and (fault := self.make(format_.raw)):
            return fault
        python = self.python(format_.environment if format_ else "main")
        if isinstance(python, str):
            return python
        say(f"making {name} in {self.folder}")
        command = [str(python), "-m", "benchmarks.reading.data", name, "--to", str(self.folder)]
        quick = ["--quick"] if self.sizes is QUICK else []
        done = subprocess.run(
            [*command, *quick], check=False, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line.strip()]
            return f"its input can't be written: {words[-1].strip() if words else 'no message'}"
        return None

    def warm(self, names: set[str]) -> None:
        """Read files once, so that they are in the page cache."""
        for name in sorted(names):
            place = self.folder / name
            inside = place.rglob("*") if place.is_dir() else self.folder.glob(f"{name}*.raw")
            for path in [place, *inside]:
                if path.is_file():
                    with path.open("rb") as stream:
                        while stream.read(1 << 24):
                            pass


def machine() -> dict[str, Any]:
    """Describe the hardware."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def chosen(options: argparse.Namespace, group: Group) -> list[Contender]:
    """Contenders of a group that the flags leave; the limit is always among them."""
    everyone = [one for (name, _), one in CONTENDERS.items() if name == group.name]
    return [
        one
        for one in everyone
        if one.name == group.limit
        or (
            (not options.contenders or any(word in one.name for word in options.contenders))
            and (not options.only_main or one.environment == "main")
        )
    ]


def measure(group: Group, options: argparse.Namespace, kitchen: Kitchen, plan: Plan) -> Any:
    """Run one group."""
    task = group.task(kitchen.folder, kitchen.sizes)
    fault = kitchen.make(group.raw)
    if fault:
        raise SystemExit(f"{group.name}: {fault}")
    contenders = chosen(options, group)
    entrants = [kitchen.entrant(one, task) for one in contenders]
    formats = {name.format(length=task.length) for one in contenders for name in one.formats}
    kitchen.warm(formats | {group.raw})
    outcomes = run(task, entrants, plan, say)
    return {
        "name": group.name,
        "title": group.title,
        "unit": group.unit,
        "batch": group.batch,
        "clock": group.clock,
        "limit": group.limit,
        "outcomes": [outcome.content() for outcome in outcomes],
    }


def command(options: argparse.Namespace, group: str) -> str:
    """Write the command that makes one table, without the folders of this machine."""
    words = ["python -m benchmarks.reading.run --groups", group]
    if options.contenders:
        words += ["--contenders", *options.contenders]
    switches = {"--only-main": options.only_main, "--quick": options.quick}
    words += [flag for flag, on in switches.items() if on]
    if not options.quick:
        words += [f"--rounds {options.rounds} --seconds {options.seconds:g}"]
    return " ".join(words)


def arguments() -> argparse.ArgumentParser:
    """Describe the flags."""
    parser = argparse.ArgumentParser(description="Measure reading.")
    parser.add_argument(
        "--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS), metavar="GROUP",
        help=f"which tables (default: all): {', '.join(GROUPS)}",
    )  # fmt: skip
    parser.add_argument("--contenders", nargs="+", help="only those with one of these in the name")
    parser.add_argument("--only-main", action="store_true", help="install nothing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="a slice")
    parser.add_argument("--quick", action="store_true", help="small input, short slices")
    parser.add_argument("--cache", type=Path, default=CACHE / "data", help="input files")
    parser.add_argument("--envs", type=Path, default=CACHE / "envs", help="environments")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results"
    )
    return parser


def main() -> None:
    options = arguments().parse_args()
    sizes = QUICK if options.quick else FULL
    plan = (
        Plan(rounds=min(options.rounds, 2), seconds=0.05, warm_up=0.05, timeout=60)
        if options.quick
        else Plan(options.rounds, options.seconds, warm_up=1.0, timeout=300)
    )
    kitchen = Kitchen(options.envs, options.cache / f"{sizes.name}-{SEED}", sizes)
    about: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "input": f"{sizes.name}, seed {SEED}",
        "rounds": plan.rounds,
        "seconds": plan.seconds,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.groups:
        load = os.getloadavg()[0]
        group = measure(GROUPS[name], options, kitchen, plan)
        result = {"command": command(options, name), **about, "load": load, "group": group}
        file = options.out / f"reading-{name}.json"
        file.write_text(json.dumps(result, indent=1) + "\n")
        file.with_suffix(".md").write_text(render(result))
        print(render(result))


if __name__ == "__main__":
    main()

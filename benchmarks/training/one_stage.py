"""One stage on one worker against a bare loop, and what the engine adds to each step."""

from __future__ import annotations

import cProfile
import pstats
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.contenders import (
    BareLoop,
    alternate,
    bare_step,
    build_engine,
    engine_step,
    median,
    micro_batches,
)
from benchmarks.training.effort import Effort
from benchmarks.training.networks import workload
from benchmarks.training.ranks import on_ranks
from benchmarks.training.report import Report, Table, milliseconds, ratios, spread
from trainer.engine import prepare
from trainer.layers import KeyedDropout

NETWORKS = ("danq", "danq-small", "dgex", "tiny")
_POOL = 4  # batches in memory, read in turn


def compare(network: str, quick: bool, rounds: int, seconds: float) -> dict[str, Any]:
    """Time engine and bare loop in turns; runs in a process of its own."""
    prepare("cpu")
    work = workload(network, quick=quick)
    batches = micro_batches(work.batches(_POOL, work.batch), 1)
    engine = build_engine(work, work.batch)
    loop = BareLoop(work, work.batch, torch.device("cpu"))
    contenders = {
        "engine": engine_step(engine, work, batches),
        "bare": bare_step(loop, batches),
    }
    if any(isinstance(module, KeyedDropout) for module in loop.network.modules()):
        other = BareLoop(work, work.batch, torch.device("cpu"), torch_dropout=True)
        contenders["torch dropout"] = bare_step(other, batches)
    return {
        "name": work.name,
        "about": work.about,
        "batch": work.batch,
        "weights": sum(p.numel() for p in loop.network.parameters() if p.requires_grad),
        "times": alternate(contenders, rounds, seconds),
    }


def profile(network: str, steps: int) -> dict[str, Any]:
    """Say in whose code the engine's step goes, under ``cProfile``; in a process of its own."""
    prepare("cpu")
    work = workload(network)
    batches = micro_batches(work.batches(_POOL, work.batch), 1)
    engine = build_engine(work, work.batch)
    contenders = {
        "engine": engine_step(engine, work, batches),
        "bare": bare_step(BareLoop(work, work.batch, torch.device("cpu")), batches),
    }
    times = alternate(contenders, 5, 0.5)
    profiles = {name: _profiled(step, steps) for name, step in contenders.items()}
    return profiles | {"times": times}


def _profiled(step: Any, steps: int) -> dict[str, Any]:
    """Profile a contender; own microseconds a step by owner, and the dearest functions."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(steps):
        step()
    profiler.disable()
    owners: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    functions: list[tuple[float, float, str]] = []
    stats: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    for (file, _, name), (_, calls, own, _, _) in stats.items():
        owner = _owner(file, name)
        owners[owner][0] += own / steps * 1e6
        owners[owner][1] += calls / steps
        functions.append((own / steps * 1e6, calls / steps, f"{_short(file)} {name}".strip()))
    functions.sort(reverse=True)
    return {"owners": dict(owners), "functions": functions[:15]}


def _owner(file: str, name: str) -> str:
    if "/trainer/" in file or "/data_shards/" in file:
        return "trainer"
    if "/benchmarks/" in file:
        return "benchmark"
    if "/deepspeed/" in file:
        return "DeepSpeed"
    if "/torch/" in file:
        return "PyTorch, Python part"
    return "PyTorch, compiled part" if "torch" in name or "run_backward" in name else "Python"


def _short(file: str) -> str:
    for package in ("deepspeed", "torch", "trainer", "benchmarks"):
        if f"/{package}/" in file:
            return package + "/" + file.rpartition(f"/{package}/")[2]
    return "" if file == "~" else Path(file).name


FORMULA = (
    "Ratio = (bare loop's seconds a step) / (engine's seconds a step) of the same round; median "
    "[first to third quartile] over rounds. Both are in one process with the same threads and "
    "compute the same: same layers with the same initial weights and dropout masks, same loss, "
    "same optimizer (built by the same function), the same batches in memory, one micro-batch a "
    "step. In a round each takes as many steps as fit the seconds, in turn; every other round "
    "runs backwards."
)


def report(effort: Effort) -> Report:
    """Measure and write up."""
    found = [
        on_ranks(
            1,
            compare,
            {
                "network": network,
                "quick": effort.quick,
                "rounds": effort.rounds,
                "seconds": effort.seconds,
            },
            threads=effort.cores,
        )[0]
        for network in effort.chosen(NETWORKS)
    ]
    page = Report(
        "One stage on one worker, against a bare PyTorch loop",
        [
            FORMULA,
            f"{effort.describe()}, {effort.cores} threads. The last column is the bare loop with "
            "`torch.nn.Dropout` in place of ours, whose masks depend on seed, layer and sample "
            "only: seconds of the bare loop with ours over those with PyTorch's.",
        ],
    )
    page.tables.append(_comparison(found))
    if "tiny" in effort.chosen(NETWORKS):
        steps = 100 if effort.quick else 2000
        costs = on_ranks(1, profile, {"network": "tiny", "steps": steps}, threads=effort.cores)[0]
        page.tables += _fixed(costs)
    return page


def _comparison(found: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for one in found:
        times = one["times"]
        engine, bare = median(times["engine"]), median(times["bare"])
        dropout = times.get("torch dropout")
        rows.append(
            (
                f"{one['name']} ({one['about']}, {one['weights'] / 1e6:,.2f} M weights)",
                str(one["batch"]),
                spread(ratios(times["bare"], times["engine"])),
                milliseconds(engine),
                milliseconds(bare),
                f"{(engine - bare) * 1e3:+.2f}",
                f"{one['batch'] / engine:,.0f}",
                spread([a / b for a, b in zip(times["bare"], dropout, strict=True)], 2)
                if dropout
                else "no dropout",
            )
        )
    return Table(
        (
            "network",
            "batch",
            "ratio",
            "engine, ms a step",
            "bare loop, ms",
            "difference, ms",
            "samples/s",
            "our dropout / PyTorch's",
        ),
        rows,
    )


def _fixed(costs: dict[str, Any]) -> list[Table]:
    """Write where the fixed time of a step goes."""
    engine, bare = costs["engine"], costs["bare"]
    times = {name: median(values) * 1e6 for name, values in costs["times"].items()}
    rows = []
    for owner in sorted(engine["owners"], key=lambda name: -engine["owners"][name][0]):
        ours, theirs = engine["owners"][owner], bare["owners"].get(owner, (0, 0))
        numbers = (f"{value:,.0f}" for value in (*ours, *theirs))
        rows.append((owner, *numbers, f"{ours[0] - theirs[0]:+,.0f}"))
    owners = Table(
        ("code of", "engine, us a step", "calls", "bare loop, us", "calls", "difference, us"),
        rows,
        "Where the fixed time of a step goes: the tiny MLP",
        [
            f"Without a profiler the engine's step takes {times['engine']:,.0f} us and the bare "
            f"loop's {times['bare']:,.0f} us: the engine adds "
            f"{times['engine'] - times['bare']:,.0f} us. Above are a function's own microseconds, "
            "without those of the functions it calls, summed over functions of one owner, under "
            "`cProfile`, which makes each Python call dearer: the shares say more than the sums."
        ],
    )
    functions = Table(
        ("function", "own us a step", "calls a step"),
        [(name, f"{own:,.1f}", f"{calls:,.1f}") for own, calls, name in engine["functions"]],
        "The dearest functions of the engine's step",
    )
    return [owners, functions]

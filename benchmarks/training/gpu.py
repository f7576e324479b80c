"""DanQ at full size on one GPU: the engine, the bare loop, the loader. Needs no Ray.

    torchrun --nproc-per-node 1 -m benchmarks.training.gpu --result found.json

is what :func:`report` runs and writes up; by hand it prints what it found, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
import torch._dynamo
import torch.distributed as dist

from benchmarks.training.contenders import (
    BareLoop,
    alternate,
    bare_step,
    build_engine,
    engine_step,
    median,
    moved,
)
from benchmarks.training.effort import Effort
from benchmarks.training.networks import Batch, Workload, danq
from benchmarks.training.ranks import ROOT
from benchmarks.training.report import Report, Table, milliseconds, processor, ratios, spread
from trainer.config import Precision
from trainer.engine import Engine, prepare
from trainer.feed import Feed
from trainer.flops import FORMULA, peak_of, training_flop
from trainer.grid import BatchLayout

LENGTH, TASKS = 1000, 919
BATCHES = (100, 1000)  # the paper's, and one that keeps a large GPU busy
_AHEAD_STEPS, _AHEAD_BYTES = 8, 512 << 20  # as trainer.loop reads ahead


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, in the one process of a group."""
    device = prepare("gpu" if options.device == "cuda" else "cpu")
    synchronize = torch.cuda.synchronize if device.type == "cuda" else _nothing
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "network": "",
        "speeds": [],
        "loader": None,
    }
    batches = (8,) if options.quick else BATCHES
    network = ("small", 300, 4) if options.quick else ("paper", LENGTH, TASKS)
    for batch in batches:
        work = danq(*network, batch, (batch, 1))
        for precision in get_args(Precision):
            for compiled in (False, True):
                found["speeds"].append(
                    _speed(work, device, precision, compiled, options, synchronize)
                )
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    work = danq(*network, 1, (1, 1))
    found["network"] = f"{work.name}, {work.about}"
    loop = BareLoop(work, 1, torch.device("cpu"))
    inputs = work.batches(1, 1)[0][0]
    assert isinstance(inputs, torch.Tensor)
    found["flop"] = training_flop(list(loop.network), inputs)
    if options.data is not None:
        found["loader"] = _loader(options, max(batches), device, synchronize)
    return found


def _nothing() -> None:
    pass


def _speed(
    work: Workload,
    device: torch.device,
    precision: Precision,
    compiled: bool,
    options: argparse.Namespace,
    synchronize: Callable[[], None],
) -> dict[str, Any]:
    """Time the engine and the bare loop in turns, with the data on the device."""
    batches: list[list[Batch]] = [
        [(moved(inputs, device), targets.to(device))]
        for inputs, targets in work.batches(2, work.batch)
    ]
    engine = build_engine(work, work.batch, precision=precision, compiled=compiled)
    loop = BareLoop(work, work.batch, device, precision=precision, compiled=compiled)
    steps = {
        "engine": engine_step(engine, work, batches),
        "bare": bare_step(loop, batches),
    }
    times, fault = {}, None
    try:
        times = alternate(steps, options.rounds, options.seconds, synchronize)
    except torch._dynamo.exc.TorchDynamoException as error:
        fault = str(error).partition("\n")[0]
    engine.close()
    return {
        "batch": work.batch,
        "precision": precision,
        "compiled": compiled,
        "times": times,
        "fault": fault,
        "memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def _loader(
    options: argparse.Namespace, batch: int, device: torch.device, synchronize: Callable[[], None]
) -> dict[str, Any]:
    """Time the loader alone, and training that it feeds."""
    from data_shards.dataset import ShardedDataset
    from data_shards.order import sample_order

    data = ShardedDataset(options.data)
    tasks = len(data.schema.tasks)
    work = danq("paper", LENGTH, tasks, batch, (batch, 1))
    layout = BatchLayout(batch, 1, 1)
    order = sample_order(data.schema.split("train").samples, 0, "blocks")
    feed = Feed(data, "train", order, inputs=True, targets=True)
    feed.warm()
    engine = build_engine(work, batch, precision="bf16")
    steps = 2 if options.quick else 50
    alone = _timed(feed, layout, steps, lambda step, batches: None, synchronize)
    _timed(feed, layout, 2, _trains(engine, work), synchronize)
    fed = _timed(feed, layout, steps, _trains(engine, work), synchronize)
    engine.close()
    return {
        "batch": batch,
        "tasks": tasks,
        "rate": steps * batch / alone[0],
        "trained": steps * batch / fed[0],
        "wait": fed[1] / fed[0],
    }


def _trains(engine: Engine, work: Workload) -> Callable[[int, list[Any]], object]:
    return lambda step, batches: engine.train_step(step, batches, work.optimizer.lr)


def _timed(
    feed: Feed,
    layout: BatchLayout,
    steps: int,
    use: Callable[[int, list[Any]], object],
    synchronize: Callable[[], None],
) -> tuple[float, float]:
    """Read steps ahead in a thread and use them; return seconds, and those of waiting."""
    from data_shards.prefetch import Prefetch

    begin = time.perf_counter()
    with Prefetch(
        lambda step: feed.step(step, layout, 0), 0, steps, _AHEAD_STEPS, _AHEAD_BYTES
    ) as ahead:
        for step, batches in enumerate(ahead):
            use(step, batches)
        waited = ahead.waited
    synchronize()
    return time.perf_counter() - begin, waited


def report(effort: Effort) -> Report:
    """Start it under torchrun and write up; without a GPU it refuses, unless told ``cpu``."""
    from benchmarks.training import data

    if effort.device == "cuda" and not torch.cuda.is_available():
        return _absent()
    with tempfile.TemporaryDirectory(prefix="rpl-bench-") as folder:
        result = Path(folder) / "found.json"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "1", "-m", "benchmarks.training.gpu"),
            *("--device", effort.device, "--result", str(result)),
            *("--rounds", str(effort.rounds), "--seconds", str(effort.seconds)),
            *("--data", str(data.danq_long(effort.cache))),
            *(("--quick",) if effort.quick else ()),
        ]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
        return write_up(json.loads(result.read_text()), effort.device, effort.peak)


def _absent() -> Report:
    return Report(
        "DanQ at full size on a GPU",
        [
            "There was no GPU on this machine, so there is no number. On one that has, run: "
            "`python -m benchmarks.training.run gpu` (it starts plain `torchrun`, and no Ray). "
            "That the script works is shown on a CPU by `--device cpu --quick`, which the tests "
            "run."
        ],
    )


def write_up(found: dict[str, Any], device: str, peak: float | None) -> Report:
    """Make tables of what was found."""
    rows: list[tuple[str, ...]] = []
    for one in found["speeds"]:
        how = f"{one['precision']}{', compiled' if one['compiled'] else ''}"
        if one["fault"] is not None:
            rows.append((how, f"{one['batch']:,}", f"no number: {one['fault']}", *[""] * 5))
            continue
        engine = median(one["times"]["engine"])
        rate = one["batch"] / engine
        most = peak or peak_of(found["device"], one["precision"])
        flops = rate * found["flop"] / 1e12
        rows.append(
            (
                how,
                f"{one['batch']:,}",
                f"{rate:,.0f}",
                spread(ratios(one["times"]["bare"], one["times"]["engine"])),
                milliseconds(engine),
                f"{flops:.2f}",
                "no peak known" if most is None else f"{flops / most:.1%}",
                "" if one["memory"] is None else f"{one['memory'] / 1e9:.1f}",
            )
        )
    lacking = "" if device == "cuda" else "**There was no GPU: this only shows that it works.** "
    page = Report(
        "DanQ at full size on a GPU",
        [
            f"{lacking}{found['device']}, CUDA {found['cuda']}, torch {found['torch']}, "
            f"Python {found['python']}; TF32 in matrix products: {found['tf32'][0]}, in cuDNN: "
            f"{found['tf32'][1]} (as PyTorch has it).",
            f"{found['network']}, RMSprop, one stage, plain torchrun. Fraction = "
            "(bare loop's seconds a step) / (engine's) of the same round; median [quartiles]; both "
            "with the data on the device, both compiled or not. bf16 is autocast.",
            f"{FORMULA} Here {found['flop'] / 1e9:.3f} GFLOP a sample.",
        ],
        [
            Table(
                (
                    "precision",
                    "batch",
                    "samples/s",
                    "fraction of the bare loop",
                    "ms a step",
                    "TFLOP/s",
                    "MFU",
                    "most GB, both",
                ),
                rows,
            )
        ],
    )
    loader = found["loader"]
    if loader is not None:
        page.tables.append(
            Table(
                ("loader", "batch", "tasks", "samples/s"),
                [
                    (
                        "alone",
                        f"{loader['batch']:,}",
                        str(loader["tasks"]),
                        f"{loader['rate']:,.0f}",
                    ),
                    (
                        f"feeding training in bf16, which waits {loader['wait']:.1%} of the time",
                        f"{loader['batch']:,}",
                        str(loader["tasks"]),
                        f"{loader['trained']:,.0f}",
                    ),
                ],
                "The loader",
            )
        )
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure DanQ on one GPU, under torchrun.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a contender in a round")
    parser.add_argument("--data", help="data set of 1,000-bp windows; without it, no loader")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peak", type=float, help="of the GPU, TFLOP/s in the precision measured")
    parser.add_argument("--result", type=Path, help="JSON file for what was found")
    options = parser.parse_args()
    found = measure(options)
    if options.result is not None:
        options.result.write_text(json.dumps(found))
    else:
        from benchmarks.training.report import render

        print(render(write_up(found, options.device, options.peak), "torchrun", 0.0))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

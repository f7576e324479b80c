"""The same steps with data that the real loader reads, against data in memory."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training import data
from benchmarks.training.contenders import build_engine, median
from benchmarks.training.effort import Effort
from benchmarks.training.networks import WORKLOADS, Workload, danq
from benchmarks.training.ranks import on_ranks
from benchmarks.training.report import Report, Table, milliseconds, ratios, spread
from data_shards.dataset import ShardedDataset
from data_shards.order import sample_order
from data_shards.prefetch import Prefetch
from trainer.engine import Engine, prepare
from trainer.feed import Feed, Fields
from trainer.grid import BatchLayout

_AHEAD_STEPS, _AHEAD_BYTES = 8, 512 << 20  # as trainer.loop reads ahead
_LEAST, _MOST = 12, 6.0  # steps a round (more than are read ahead), unless they take longer


@dataclass(frozen=True)
class Source:
    """A network and the data set that it reads."""

    network: Callable[[bool], Workload]
    dataset: Callable[[Path], Path]
    fields: Fields


def _danq(quick: bool) -> Workload:
    return danq("paper", 1000, 4, 20 if quick else 100, (100, 1))


SOURCES = {
    "danq": Source(_danq, data.danq_long, Fields()),
    "danq-small": Source(WORKLOADS["danq-small"], data.danq_short, Fields()),
    "dgex": Source(WORKLOADS["dgex"], data.expression, Fields(("landmarks",), ("targets",))),
}


def compare(network: str, place: str, quick: bool, rounds: int, seconds: float) -> dict[str, Any]:
    """Take steps with batches in memory and batches that are read, in turns."""
    prepare("cpu")
    source = SOURCES[network]
    work = source.network(quick)
    layout = BatchLayout(work.batch, 1, 1)
    dataset = ShardedDataset(place)
    order = sample_order(dataset.schema.split("train").samples, 0, "blocks")
    feed = Feed(dataset, "train", order, inputs=True, targets=True, fields=source.fields)
    feed.warm()
    engine = build_engine(work, work.batch)
    held = [feed.step(step, layout, 0) for step in range(4)]
    number = itertools.count()
    rate = work.optimizer.lr

    def in_memory(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            step = next(number)
            engine.train_step(step, held[step % len(held)], rate)
        return time.perf_counter() - begin

    in_memory(1)
    once = in_memory(1)
    least = 1 if quick else min(_LEAST, round(_MOST / once))
    steps = max(1, least, round(seconds / once))
    found: dict[str, Any] = {"name": work.name, "about": work.about, "batch": work.batch}
    memory: list[float] = []
    read: list[float] = []
    waits: list[float] = []
    for turn in range(rounds):
        for reading in (False, True) if turn % 2 == 0 else (True, False):
            if not reading:
                memory.append(in_memory(steps) / steps)
                continue
            taken, waited = _read(engine, feed, layout, number, steps, rate)
            read.append(taken / steps)
            waits.append(waited / taken)
    begin = time.perf_counter()
    for step in range(steps):
        feed.step(step, layout, 0)
    alone = (time.perf_counter() - begin) / steps
    return found | {
        "times": {"memory": memory, "read": read},
        "waits": waits,
        "steps": steps,
        "alone": alone,
    }


def _read(
    engine: Engine,
    feed: Feed,
    layout: BatchLayout,
    number: itertools.count[int],
    steps: int,
    rate: float,
) -> tuple[float, float]:
    """Take steps as the training loop does; return seconds in all and of waiting for data."""
    start = next(number)
    begin = time.perf_counter()
    with Prefetch(
        lambda step: feed.step(step, layout, 0), start, start + steps, _AHEAD_STEPS, _AHEAD_BYTES
    ) as batches:
        for step, micro_batches in enumerate(batches, start=start):
            engine.train_step(step, micro_batches, rate)
            next(number)
        waited = batches.waited
    return time.perf_counter() - begin, waited


def report(effort: Effort) -> Report:
    """Measure and write up."""
    found = []
    for network in effort.chosen(tuple(SOURCES)):
        arguments = {
            "network": network,
            "place": str(SOURCES[network].dataset(effort.cache)),
            "quick": effort.quick,
            "rounds": effort.rounds,
            "seconds": effort.seconds,
        }
        found += on_ranks(1, compare, arguments, threads=effort.cores)
    rows = [
        (
            f"{one['name']} ({one['about']})",
            str(one["batch"]),
            f"{median(one['waits']):.2%}",
            spread(ratios(one["times"]["memory"], one["times"]["read"])),
            milliseconds(median(one["times"]["read"])),
            milliseconds(one["alone"]),
            str(one["steps"]),
        )
        for one in found
    ]
    return Report(
        "Training steps with the real loader",
        [
            "Wait = (seconds that the loop waited for `Prefetch`) / (seconds of the loop). Ratio "
            "= (seconds a step with batches in memory) / (seconds a step with the loader) of the "
            "same round; medians over rounds. The engine is the same, so are the batches' sizes. "
            "The loader is that of training: a data set of `replisome data build`, mapped from "
            "the page cache, shuffled in blocks, read by `Feed` in one `Prefetch` thread, 8 "
            "steps ahead at most. Each round starts with nothing read, so it has the wait for "
            "the first batch.",
            f"{effort.describe()}, or of {_LEAST} steps if they take less than {_MOST:g} s; "
            f"{effort.cores} threads.",
        ],
        [
            Table(
                (
                    "network",
                    "batch",
                    "wait",
                    "ratio",
                    "ms a step",
                    "reading a step alone, ms",
                    "steps a round",
                ),
                rows,
            )
        ],
    )
